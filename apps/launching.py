"""``--devices N``: the same command in several processes, by torch's own launcher, and how it ended in one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid

from fields.errors import ConfigError, FieldsError, ProcessError
from fields.methods import Learner

_LEFT_ALONE = 3
"""Exit code of a process that had to end because another one had."""


def launch(learner: Learner, count: int, arguments: list[str]) -> int:
    """Runs ``fields train`` with these arguments in so many processes of this machine; returns its exit code.

    Raises:
        ConfigError: the training cannot be shared, or not by so many.
        ProcessError: a process died.
        FieldsError: what a process complained about.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from fields.training.processes import require_sharing

    if count < 1:
        raise ConfigError(f"devices is {count}; it must be at least 1.")
    require_sharing(learner)
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it tells at length what is said below in a line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    config = LaunchConfig(1, 1, count, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          local_addr="localhost", max_restarts=0)  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", __name__, *arguments)
    except SignalException:  # the processes have had it, too, and saved
        return 130
    except ChildFailedError as error:
        return _ended(error.failures)
    return 0


def _ended(failures: dict) -> int:
    """The exit code for what processes ended with, or an exception that says it. The launcher ends those that are left
    by SIGTERM, and they may say that they were left alone: what came before that counts."""

    def telling(failure) -> tuple[bool, bool]:
        killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return not killed, failure.exitcode in (_LEFT_ALONE, -signal.SIGTERM)

    rank = min(failures, key=lambda rank: telling(failures[rank]))
    failure = failures[rank]
    if failure.exitcode == 130:
        return 130
    if failure.exitcode == 2 and isinstance(failure.message, dict):
        raise FieldsError(failure.message["message"].partition(": ")[2])
    why = (
        f"was killed ({failure.signal_name()})" if failure.exitcode < 0 else f"ended with exit code {failure.exitcode}"
    )
    raise ProcessError(f"Process {rank} {why}, so all ended. With --resume, training goes on from its last checkpoint.")


def _main() -> int:
    """One of the processes."""
    from fields.apps import train
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        return record(train.main)(sys.argv[1:]) or 0
    except FieldsError as error:  # which has been recorded, for the launcher to say
        return _LEFT_ALONE if isinstance(error, ProcessError) else 2


if __name__ == "__main__":
    sys.exit(_main())
