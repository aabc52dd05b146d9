"""TensorBoard's log of a training."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fields.errors import FieldsError


@contextmanager
def event_log(out: Path, start: int) -> Iterator[Any]:
    """A SummaryWriter of a training that goes on after `start` iterations: of what is in the folder already, TensorBoard
    shows no more than those.

    Raises:
        FieldsError: it cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    def hook(arguments: Any) -> None:
        if not isinstance(arguments.exc_value, OSError):  # which the writer raises again, where we are
            said(arguments)

    said, threading.excepthook = threading.excepthook, hook
    try:
        events = SummaryWriter(str(out), purge_step=start + 1)
        yield events
        events.close()
    except OSError as error:
        raise FieldsError(
            f"{error.filename or out}: could not be written ({error.strerror or error}). Free some space; with --resume, "
            "training goes on from its last checkpoint."
        ) from error
    finally:
        threading.excepthook = said
