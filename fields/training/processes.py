"""One training in several processes, on torch.distributed: whose part of a batch is whose, and what they tell each other.

Every process draws the random numbers of the whole batch and looks at every n-th row of it. So they all have the same
generators, take the mean of their gradients and make the same steps, and decide the same about occupancy, pruning and
finer grids: what a training is does not depend on how many processes train it, and a checkpoint of some goes on with
others. Without torch.distributed there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from fields.core.box_adam import BoxAdam
from fields.errors import ConfigError, DeviceError, FieldsError, ProcessError
from fields.io import lock
from fields.io.atomic import digest
from fields.methods import Learner

_PATIENCE = timedelta(hours=12)  # as the first process may measure for, while the others wait
_LAUNCHER = os.getppid()


def count() -> int:
    """How many processes train."""
    return dist.get_world_size() if _several() else 1


def writer() -> bool:
    """Whether this is the one that writes, measures and speaks."""
    return not _several() or dist.get_rank() == 0


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def abandoned() -> bool:
    """Whether this is one of several and what started them is gone: nobody could stop them any more."""
    return _several() and os.getppid() != _LAUNCHER


def require_sharing(learner: Learner) -> None:
    """Raises ConfigError where its training does not take `share` and `mean_of_gradients`; see `fields.training.loop.Steps`."""
    if not getattr(learner.load_training(), "shares", False):
        raise ConfigError(f"{learner.name} trains in one process only. Leave out --devices.")


@contextmanager
def joined(learner: Learner, device: torch.device) -> Iterator[None]:
    """Meets the processes that torchrun started beside this one, if it did: over NCCL on GPUs, over gloo on CPUs.

    Raises:
        ConfigError: the training cannot be shared.
        DeviceError: there are more processes than GPUs.
    """
    if not launched():
        yield
        return
    require_sharing(learner)
    # The first optimiser imports it, and it keeps for ever what processes have met by then: gloo's threads would outlive Python, and now and then abort it.
    import torch._dynamo

    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= (there := torch.cuda.device_count()):
            raise DeviceError(f"This machine has {there} GPUs for more processes than that. Use --devices {there}.")
        torch.cuda.set_device(local)
    # What the loop agrees on each time are numbers on the host, so that it never waits for a GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


# ---------------------------------------------------------------------------------------- batches and gradients


def share(batch: Tensor) -> Tensor:
    """The rows of a batch (N, …) that are this process's: every n-th. What is drawn must be the same in all of them.

    Parts of a batch may be shared before they are put together, or after.

    Raises:
        ConfigError: not as many rows for each.
    """
    require_alike(len(batch))
    return batch[dist.get_rank() :: count()] if _several() else batch


def require_alike(size: int) -> None:
    """Raises ConfigError where not every process gets as many of a batch of this size."""
    if size % count():
        raise ConfigError(
            f"{count()} processes cannot share a batch of {size} alike. Make it (--rays, --batch, --encoder-batch) a "
            f"multiple of {count()}."
        )


def mean_of_gradients(*optimisers: torch.optim.Optimizer) -> None:
    """Makes each gradient its mean over the processes, between the backward pass and the step; of batches shared alike,
    that is the gradient of the whole. What no process has a gradient of keeps none.

    Of parameters that a `BoxAdam` moves, only boxes that some process has a gradient of are sent.
    """
    if not _several():
        return
    every = [(p, isinstance(o, BoxAdam)) for o in optimisers for group in o.param_groups for p in group["params"]]
    there = _anywhere(torch.tensor([p.grad is not None for p, _ in every], dtype=torch.uint8))
    moving = [entry for entry, some in zip(every, there.tolist(), strict=True) if some]
    for p, _ in moving:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    busy = _busy([p for p, by_box in moving if by_box])
    sent = torch.cat([(p.grad[busy[p]] if p in busy else p.grad).reshape(-1) for p, _ in moving])  # type: ignore[index]
    means = _summed(sent).div_(count())
    for p, _ in moving:
        if p in busy:
            size = int(busy[p].sum()) * p[0].numel()
            p.grad[busy[p]] = means[:size].view(-1, *p.shape[1:])  # type: ignore[index]
        else:
            size = p.numel()
            p.grad = means[:size].view_as(p)
        means = means[size:]


def mean(*values: Tensor) -> list[Tensor]:
    """Each tensor in its mean over the processes."""
    if not values or not _several():
        return list(values)
    sent = _summed(torch.cat([v.detach().float().reshape(-1) for v in values])).div_(count())
    return [m.view_as(v) for m, v in zip(sent.split([v.numel() for v in values]), values, strict=True)]


def weights(*counts: Tensor) -> list[Tensor]:
    """What means over so many things () of this process count in the mean over all: their number over the mean number."""
    if not _several():
        return [torch.ones_like(c, dtype=torch.float32) for c in counts]
    return [c / m.clamp(min=1e-6) for c, m in zip(counts, mean(*counts), strict=True)]


def greatest(values: Tensor) -> Tensor:
    """Elementwise over the processes."""
    return _reduced(values, dist.ReduceOp.MAX) if _several() else values


def take_over(module: torch.nn.Module) -> None:
    """What the first process has in it, all have."""
    if _several():
        for tensor in module.state_dict().values():
            _call(dist.broadcast, tensor, 0)


# ---------------------------------------------------------------------------------------- staying together


def agreed(*wishes: bool) -> list[bool]:
    """What some process wishes, all do."""
    if not _several():
        return list(wishes)
    return [bool(w) for w in _anywhere(torch.tensor(wishes, dtype=torch.uint8)).tolist()]


def wait() -> None:
    """For all of them."""
    agreed(False)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The first process has the folder for them all. What keeps it from that, each of them raises: the first to end is
    the one that is listened to.

    Raises:
        ConfigError: another training has it, or it cannot be written.
    """
    trouble = ""
    with ExitStack() as held:
        if writer():
            try:
                held.enter_context(lock.alone(folder))
            except FieldsError as error:
                trouble = str(error)
        if trouble := _heard(trouble):
            raise ConfigError(trouble)
        yield


@contextmanager
def first_the_writer() -> Iterator[None]:
    """The others do what the first one did, and find what it left."""
    if not writer():
        wait()
    yield
    if writer():
        wait()


def require_same(tensors: Mapping[str, Tensor]) -> None:
    """Raises ProcessError where processes have not the same bits in them: then some did what others did not."""
    if not _several():
        return
    own = torch.tensor(list(digest(tensors)), dtype=torch.uint8)
    if not torch.equal(greatest(own.clone()), 255 - greatest(255 - own)):
        raise ProcessError(
            "The processes of this training have come to differ. Go on from the last checkpoint with --resume; if that "
            "happens again, train with --devices 1."
        )


# ---------------------------------------------------------------------------------------- messages


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _busy(parameters: list[Tensor]) -> dict[Tensor, Tensor]:
    """Of each parameter (boxes, …), (boxes,) bool: those that a process has a gradient of."""
    if not parameters:
        return {}
    own = [p.grad.flatten(1).any(1) for p in parameters]  # type: ignore[union-attr]
    anywhere = _anywhere(torch.cat(own).to(torch.uint8)).bool()
    return dict(zip(parameters, anywhere.split([len(b) for b in own]), strict=True))


def _heard(text: str) -> str:
    """What one of them says, up to 1000 bytes."""
    if not _several():
        return text
    sent = text.encode()[:1000].ljust(1000, b"\0")
    heard = _reduced(torch.tensor(list(sent), dtype=torch.uint8), dist.ReduceOp.MAX)
    return bytes(heard.tolist()).rstrip(b"\0").decode(errors="ignore")


def _anywhere(flags: Tensor) -> Tensor:
    return _reduced(flags, dist.ReduceOp.MAX)


def _summed(values: Tensor) -> Tensor:
    return _reduced(values, dist.ReduceOp.SUM)


def _reduced(values: Tensor, how: Any) -> Tensor:
    _call(dist.all_reduce, values, how)
    return values


def _call(collective: Any, *arguments: Any) -> None:
    try:
        collective(*arguments)
    except RuntimeError as error:  # of gloo's and NCCL's, the only word for it
        raise ProcessError(f"Another process of this training has ended ({str(error).splitlines()[0]}).") from error
