"""What can go wrong, in one small tree, so that a command can tell a user's mistake from a bug of ours.

A message is one or two lines: what happened · what was given (with the file's name) · what to do.
Commands catch `FieldsError`, print the message and exit with code 2.
"""

from __future__ import annotations


class FieldsError(Exception):
    """Anything the caller can put right."""


class ShapeError(FieldsError, ValueError):
    """A tensor has the wrong shape or type."""


class DeviceError(FieldsError):
    """Tensors sit on different devices, or on one that this machine lacks."""


class BackendError(FieldsError):
    """No backend can run an operation here, or the one asked for cannot."""


class DataError(FieldsError):
    """A scene, an image or another input file is missing, damaged or contradicts itself."""


class ConfigError(FieldsError):
    """A configuration has an unknown key or a value that makes no sense."""


class ProcessError(FieldsError):
    """One of several processes that train together has ended, or does something else than the others."""


class CheckpointError(FieldsError):
    """A run folder or checkpoint is damaged, foreign or from an incompatible version."""
