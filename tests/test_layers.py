"""Imports point downwards only: apps → systems → training/data/io → tensors → core."""

import ast
from pathlib import Path

import fields

ROOT = Path(fields.__file__).parent

# A module may import from its own layer and those below it. Keys are prefixes of module names; the longest counts.
LAYERS = {
    "fields.errors": 0,
    "fields.core": 1,
    "fields.tensors": 2,
    "fields.methods": 2,
    "fields.data": 3,
    "fields.geometry": 3,
    "fields.io": 3,
    "fields.metrics": 3,
    "fields.rendering": 3,
    "fields.radiance": 3,
    "fields.outputs": 3,
    "fields.paths": 3,
    "fields.conventions": 3,
    "fields.training": 4,
    "fields": 5,  # the systems, and whatever is not listed
    "fields.apps": 6,
    "fields.benchmarks": 6,
}


def layer(module: str) -> int:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


def modules():
    for file in sorted(ROOT.rglob("*.py")):
        name = ".".join(["fields", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        yield name, file


def imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ([node.module] if node.module != "fields" else [f"fields.{a.name}" for a in node.names])


def test_imports_point_downwards():
    upward = [
        f"{name} imports {imported}"
        for name, file in modules()
        if name != "fields"  # the lazy front door names everything and imports nothing
        for imported in imports(file)
        if imported.startswith("fields.") and layer(imported) > layer(name)
    ]
    assert not upward, "\n".join(upward)


def test_optional_packages_are_never_imported_at_the_top():
    optional = {"tinycudann", "nerfacc", "open3d", "pytorch3d", "trimesh", "mitsuba", "cuda", "matplotlib", "kornia",
                "skimage", "scipy", "OpenEXR", "cv2", "pycolmap"}  # fmt: skip
    found = []
    for name, file in modules():
        for node in ast.parse(file.read_text()).body:
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
            )
            found += [f"{name}: {n}" for n in names if n.split(".")[0] in optional]
    assert not found, found
