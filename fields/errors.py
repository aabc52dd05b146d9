"""Every error the project raises on purpose, so that callers can tell a bad input from a bug."""


class FieldsError(Exception):
    """What happened, what was given, what to do. Commands print it on one line and exit with code 2."""


class ShapeError(FieldsError, ValueError):
    """A tensor has the wrong shape, dtype or range."""


class DeviceError(FieldsError, ValueError):
    """Tensors on different devices, or a device this machine does not have."""


class BackendError(FieldsError, RuntimeError):
    """Compiled kernels are missing, do not build, or were asked for what they cannot do."""


class DataError(FieldsError, ValueError):
    """A scene, image or camera that cannot be used as it is."""


class ConfigError(FieldsError, ValueError):
    """An unknown or impossible setting."""


class CheckpointError(FieldsError, ValueError):
    """A run folder or model file that is damaged, foreign or of another version."""
