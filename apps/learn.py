"""``fields train MODEL``, of a model that learns from many objects rather than one scene."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fields.apps.common import parse, watching

from fields.methods import Learner


@dataclass
class Options:
    out: Path | None = None
    """Run folder. Default: runs/MODEL."""
    cache: Path | None = None
    """Where what is learned from is kept. Default: objects in the run folder."""
    devices: int = 1
    """Train in so many processes, each with a part of the CPU. The result is that of one."""
    seed: int = 0
    """Of all random numbers."""
    checkpoint_seconds: float = 120.0
    """Save this often, to go on from with --resume."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder."""


def main(chosen: Learner, arguments: list[str]) -> int:
    import tyro

    flat = Annotated[chosen.config, tyro.conf.arg(name="")]  # type: ignore[name-defined]
    every = make_dataclass(
        "LearnOptions", [("settings", flat, dataclasses.field(default_factory=chosen.config))], bases=(Options,)
    )
    options = parse(arguments, every, f"fields train {chosen.name}", chosen.summary)

    import torch

    from fields.training import processes

    if options.devices != 1 and not processes.launched():
        from fields.apps.launching import launch

        return launch(chosen, options.devices, [chosen.name, *arguments])
    with processes.joined(chosen, torch.device("cpu")):
        return train(chosen, options, arguments)


def train(chosen: Learner, options: Any, arguments: list[str]) -> int:
    from fields.training import processes

    out = options.out or Path("runs") / chosen.name
    with processes.alone(out):
        return _train(chosen, options, arguments, out)


def _train(chosen: Learner, options: Any, arguments: list[str], out: Path) -> int:
    from fields.io.run import save_field
    from fields.training import processes
    from fields.training.events import event_log
    from fields.training.loop import Interrupted, Loop

    settings = options.settings
    begin: Any = chosen.load_training()
    with watching("Gathering") as progress, processes.first_the_writer():
        objects = begin.gather(settings, options.cache or out / "objects", progress.step)
    plain = dataclasses.asdict(settings)
    loop = Loop(chosen.name, plain, options.seed, "", out)
    training, start, spent = loop.begin(
        partial(begin, settings, objects, options.seed),
        partial(begin.resume, settings, objects, options.seed),
        options.resume,
    )
    with (
        event_log(out, start) if processes.writer() else nullcontext() as events,
        watching(chosen.name) as progress,
    ):
        try:
            seconds = loop.run(
                training, settings.iterations, start, spent, progress, options.checkpoint_seconds, events
            )
        except Interrupted as stop:
            progress.say(str(stop))
            if processes.writer():
                print(
                    f"fields train {chosen.name} {shlex.join(a for a in arguments if a != '--resume')} --resume",
                    file=sys.stderr,
                )
            return 130
    if not processes.writer():  # the first process does the rest
        return 0
    with watching("Finishing") as progress:
        training.finish(progress.step)
    save_field(out, training.model, chosen.name, plain, {})
    print(f"{out}: trained in {seconds / 60:.0f} min")
    print("Next: " + chosen.then.replace("RUN", shlex.quote(str(out))))
    return 0
