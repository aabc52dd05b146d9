"""``fields VERB …``: finds the verb's module, runs it, and turns deliberate errors into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from importlib import import_module

VERBS = {
    "train": "train a field on a scene: fields train METHOD [--data DIR]",
    "sweep": "train many scenes with many methods, here or on a Ray cluster, and compare: fields sweep demo",
    "eval": "measure a trained run on its test images",
    "view": "look at a run, or at reassembled fragments, in a browser",
    "render": "render images and videos of a run along a camera path",
    "relight": "show a relighting run under any light: environment maps, lights, rotations",
    "articulate": "write the parts and joints of a reacto run as URDF, and show its motion",
    "fracture": "break a mesh into realistic fragments",
    "reassemble": "put the fragments of a broken object together",
    "brdf": "materials: draw new ones from words, fit networks to measured ones, show and compare them",
    "export": "write the surface of a run as a mesh and a point cloud",
    "slim": "write a run as a file of any size, whose every prefix is a smaller model",
    "data": "look at a scene before training, or make one of pictures: fields data check DIR",
    "bench": "time the core against plain PyTorch on this machine",
    "doctor": "what this machine has, which backend is used, what to do about what is missing",
}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] != ["bench"]:
        # torch's idle threads spin while they wait. Beside any other busy program that starves both, so let them sleep;
        # only a benchmark has the machine to itself.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"fields {version('fields')}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        return _complain(f"There is no command {verb!r}. The commands are {', '.join(VERBS)}.")
    from fields.errors import FieldsError

    try:
        return import_module(f"fields.apps.{verb}").main(rest) or 0
    except FieldsError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("Interrupted.")
    except BrokenPipeError:  # the reader of our output has gone, as in `fields doctor | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        ["usage: fields COMMAND …", "", "Neural fields you can look at, on a laptop or a GPU.", "", *lines, "",
         "fields COMMAND --help says what a command takes. Start with: fields train strivec"]
    )  # fmt: skip


def _complain(text: str) -> int:
    print("error: " + " ".join(text.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
