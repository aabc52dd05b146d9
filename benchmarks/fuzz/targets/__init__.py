"""What is fuzzed: each reader, with a small valid sample of what it reads.

Nothing of `fields` that reads is imported before it is used, so that a fuzzer can watch it being imported.
"""

from fields.benchmarks.fuzz.targets import captures, fragments, materials, pictures, runs, scenes
from fields.benchmarks.fuzz.targets.sample import INFLATED, SMALL, Target

TARGETS: dict[str, Target] = {
    **scenes.TARGETS, **pictures.TARGETS, **materials.TARGETS, **fragments.TARGETS, **runs.TARGETS, **captures.TARGETS
}  # fmt: skip

__all__ = ["INFLATED", "SMALL", "TARGETS", "Target"]
