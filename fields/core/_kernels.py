"""Reading the kernels' arguments from the C++ text of ``csrc/``, and packing them.

The arguments of a kernel are the members of its C++ struct, and the C++ text is the only place that lists them: this
module reads them there, so a launch names them and nothing is declared twice.
"""

from __future__ import annotations

import functools
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fields.errors import BackendError

SOURCES = Path(__file__).parent / "csrc"
HEADERS = (
    "grid.h",
    "rays.h",
    "march.h",
    "visible.h",
    "volrend.h",
    "encoding.h",
    "decoder.h",
    "networks.h",
    "neighbours.h",
    "moments.h",
    "alignment.h",
    "pdf.h",
    "cloud.h",
    "box_adam.h",
)
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
"""Of the names of a kernel's two compiled forms."""


@dataclass(frozen=True)
class Kernel:
    """What the C++ text says of a kernel."""

    header: str
    """File that holds it."""
    struct: str
    """Its type for a scalar type T, as C++ text."""
    arguments: str
    """The struct whose members are its arguments."""


@functools.cache
def _text(header: str) -> str:
    return re.sub(r"//[^\n]*", "", (SOURCES / header).read_text())


@functools.cache
def kernels() -> dict[str, Kernel]:
    """Every kernel by its name."""
    found = {}
    for header in HEADERS:
        text = _text(header)
        lines = re.findall(r"^FIELDS_KERNEL\((.*)\)", text, re.M)
        for macro, parameters, body in re.findall(r"#define (FIELDS_\w+_KERNELS)\((.*?)\)((?:.*\\\n)*.*\n)", text):
            for values in re.findall(rf"^{macro}\((.*?)\)", text, re.M):
                one = body
                for parameter, value in zip(parameters.split(", "), values.split(", "), strict=True):
                    one = re.sub(rf"\b{parameter}(##|\b)", value, one)
                lines += re.findall(r"FIELDS_KERNEL\((.*)\)", one)
        for line in lines:
            name, struct, arguments, *rest = line.split(", ")
            found[name] = Kernel(header, f"{struct}<{', '.join(['T', *rest])}>", arguments)
    return found


@dataclass(frozen=True)
class Member:
    name: str
    kind: str
    pointer: bool
    length: int  # of an array, else 0


@functools.cache
def members(header: str, struct: str) -> tuple[Member, ...]:
    """The members of a C++ struct in order, those of its base and of member structs (as ``member.name``) among them."""
    found = re.search(rf"struct {struct}(?: : (\w+)<[^{{]*)? \{{\n(.*?)^\}};", _text(header), re.S | re.M)
    if found is None:
        included = (members(name, struct) for name in re.findall(r'#include "(\w+\.h)"', _text(header)))
        return next(filter(None, included), ())
    result = list(members(header, found[1])) if found[1] else []
    body = re.split(r"FIELDS_FN|template|struct", found[2])[0]
    for kind, nested, star, name, length in re.findall(
        r"^\s*(?:const )?(\w+)(<[^;]*>)?(\*?) (\w+)(?:\[(\d+)\])?;", body, re.M
    ):
        if nested:
            result += [replace(m, name=f"{name}.{m.name}") for m in members(header, kind)]
        else:
            result.append(Member(name, kind, bool(star), int(length or 0)))
    return tuple(result)


class Packer:
    """Lays the arguments of a kernel out as its C++ struct."""

    _CODES: ClassVar = {"int64_t": "q", "int32_t": "i", "uint8_t": "B", "float": "f", "double": "d"}
    _DTYPES: ClassVar = {"int64_t": torch.int64, "int32_t": torch.int32, "uint8_t": torch.uint8,
                         "float": torch.float32, "double": torch.float64}  # fmt: skip

    def __init__(self, kernel: str, dtype: torch.dtype, types: dict[str, torch.dtype] | None = None) -> None:
        which = kernels()[kernel]
        self.kernel, self.members = kernel, members(which.header, which.arguments)
        self._dtypes = self._DTYPES | {"T": dtype} | dict.fromkeys(("Stored", "Sum", "Out"), dtype) | (types or {})
        scalar = {torch.float32: "f", torch.float64: "d"}[dtype]
        codes = ["P" if m.pointer else self._CODES.get(m.kind, scalar) for m in self.members]
        lengths = [str(m.length) if m.length else "" for m in self.members]
        # A member struct begins at a multiple of its widest member, eight bytes throughout; so does what follows it.
        starts = [m.name.rpartition(".")[0] for m in self.members]
        joints = ["0q" if a != b else "" for a, b in zip(starts, ["", *starts], strict=False)]
        parts = (j + n + c for j, n, c in zip(joints, lengths, codes, strict=True))
        self._struct = struct.Struct("@" + "".join(parts) + "0q")

    def __call__(self, device: torch.device, arguments: dict[str, Any]) -> bytes:
        values: list[Any] = []
        try:
            for m in self.members:
                value = arguments[m.name]
                if not m.pointer:
                    values.extend(value) if m.length else values.append(value)
                elif not m.length:
                    values.append(self._address(m, value, device))
                else:
                    values.extend(self._address(m, v, device) for v in value)
                if m.length:
                    values.extend([0] * (m.length - len(value)))
        except KeyError as error:
            raise BackendError(f"{self.kernel}: the argument {error} is missing.") from None
        if len(arguments) != len(self.members):
            unknown = arguments.keys() - {m.name for m in self.members}
            raise BackendError(f"{self.kernel}: unknown arguments {sorted(unknown)}.")
        return self._struct.pack(*values)

    def _address(self, member: Member, value: Tensor | None, device: torch.device) -> int:
        if value is None:
            return 0
        expected = self._dtypes[member.kind]
        stored = value.dtype
        if stored is torch.bool:
            stored = torch.uint8
        if stored is not expected or value.device != device or not value.is_contiguous():
            raise BackendError(
                f"{self.kernel}: {member.name} must be contiguous {expected} on {device}, "
                f"not {value.dtype} on {value.device} with strides {value.stride()}."
            )
        return value.data_ptr()


_packers: dict[tuple, Packer] = {}


def packer(kernel: str, dtype: torch.dtype, types: dict[str, torch.dtype] | None = None) -> Packer:
    key = kernel, dtype, tuple(types.items()) if types else None
    if (known := _packers.get(key)) is None:
        known = _packers[key] = Packer(kernel, dtype, types)
    return known
