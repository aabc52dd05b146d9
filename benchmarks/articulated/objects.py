"""The articulated objects: parts, and the joints between them.

Lengths are metres, angles degrees; +Z is up. Parts are modelled where all joints are at zero. Eight objects to develop on, and two that are
held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fields.benchmarks.articulated.shapes import Box, Cylinder, Ring, Solid, Union, Vector


@dataclass(frozen=True)
class Joint:
    """Of a part with its parent; the first part has none."""

    kind: Literal["revolute", "prismatic"]
    axis: Vector
    """Unit; a part turns about it counter-clockwise, or slides along it."""
    pivot: Vector
    """A point of the axis."""
    low: float
    """Degrees or metres."""
    high: float
    cycles: float = 1.5
    """How often it goes there and back in the video."""
    phase: float = 0.0
    """Where of a cycle it begins."""
    parent: int = 0


@dataclass(frozen=True)
class Articulated:
    """parts[0] stands still; parts[k] hangs on joints[k − 1]."""

    name: str
    parts: Sequence[Solid]
    joints: Sequence[Joint]


def laptop() -> Articulated:
    base = Box((0, 0, 0.008), (0.32, 0.22, 0.016), 0.003)
    lid = Box((0, 0, 0.0205), (0.32, 0.22, 0.008), 0.003)
    return Articulated("laptop", [base, lid], [Joint("revolute", (-1, 0, 0), (0, 0.11, 0.0165), 15, 120)])


def stapler() -> Articulated:
    base = Union([Box((0, 0, 0.006), (0.04, 0.26, 0.012), 0.003), Box((0, 0.11, 0.018), (0.03, 0.04, 0.024), 0.002)])
    arm = Box((0, -0.015, 0.048), (0.036, 0.23, 0.032), 0.003)
    return Articulated("stapler", [base, arm], [Joint("revolute", (-1, 0, 0), (0, 0.11, 0.03), 3, 60)])


def scissors() -> Articulated:
    def half(side: int) -> Solid:
        return Union([Box((0, 0.02, 0.005 * side), (0.02, 0.24, 0.009), 0.002),
                      Ring((0.022 * side, -0.13, 0.005 * side), 0.018, 0.009, 0.02)])  # fmt: skip

    return Articulated("scissors", [half(1), half(-1)], [Joint("revolute", (0, 0, 1), (0, 0, 0), 5, 70)])


def pliers() -> Articulated:
    def half(side: int) -> Solid:
        return Union([Box((0, 0.02, 0.008 * side), (0.022, 0.06, 0.015), 0.003),
                      Box((0.006 * side, -0.07, 0.008 * side), (0.014, 0.13, 0.015), 0.004)])  # fmt: skip

    return Articulated("pliers", [half(1), half(-1)], [Joint("revolute", (0, 0, 1), (0, 0, 0), 5, 50)])


def usb() -> Articulated:
    stick = Union(
        [Box((0, -0.005, 0), (0.016, 0.04, 0.008), 0.001), Box((0, 0.022, 0), (0.012, 0.014, 0.0045), 0.0005)]
    )
    cap = Union([Box((0, 0.008, 0.0057), (0.02, 0.05, 0.0022), 0.0005), Box((0, 0.008, -0.0057), (0.02, 0.05, 0.0022), 0.0005),
                 Box((0, 0.032, 0), (0.02, 0.0022, 0.0136), 0.0005)])  # fmt: skip
    return Articulated("usb", [stick, cap], [Joint("revolute", (0, 0, 1), (0, -0.012, 0), 0, 180)])


def clipper() -> Articulated:
    lower = Box((0, 0, 0.0015), (0.014, 0.08, 0.003), 0.0008)
    upper = Box((0, 0, 0.0051), (0.014, 0.08, 0.003), 0.0008)
    lever = Union([Box((0, -0.006, 0.0092), (0.011, 0.06, 0.0035), 0.001), Cylinder((0, 0.026, 0.0092), 0.004, 0.0045)])
    return Articulated("clipper", [lower, upper, lever], [
        Joint("revolute", (1, 0, 0), (0, -0.04, 0.0033), 0, 25),
        Joint("revolute", (1, 0, 0), (0, 0.026, 0.0092), 0, 160, cycles=1.0, phase=0.25, parent=1),
    ])  # fmt: skip


def glasses() -> Articulated:
    lenses = [Ring((side * 0.036, 0, 0), 0.022, 0.006) for side in (-1, 1)]
    front = Union([*lenses, Box((0, 0.012, 0), (0.03, 0.006, 0.005), 0.001),
                   *[Box((side * 0.065, 0.012, 0), (0.016, 0.008, 0.006), 0.001) for side in (-1, 1)]])  # fmt: skip

    def temple(side: int) -> Solid:
        return Union([Box((side * 0.072, 0.012, -0.062), (0.004, 0.008, 0.12), 0.001),
                      Box((side * 0.072, 0.004, -0.118), (0.004, 0.02, 0.01), 0.001)])  # fmt: skip

    return Articulated("glasses", [front, temple(-1), temple(1)], [
        Joint("revolute", (0, -1, 0), (-0.072, 0.012, -0.001), 0, 95),
        Joint("revolute", (0, 1, 0), (0.072, 0.012, -0.001), 0, 95, cycles=1.0, phase=0.25),
    ])  # fmt: skip


def cabinet() -> Articulated:
    w, d, h, wall = 0.4, 0.3, 0.6, 0.015
    carcass = Union([Box((side * (w - wall) / 2, 0, h / 2), (wall, d, h), 0.002) for side in (-1, 1)]
                    + [Box((0, 0, z), (w, d, wall), 0.002) for z in (wall / 2, 0.3, h - wall / 2)]
                    + [Box((0, (d - wall) / 2, h / 2), (w, wall, h), 0.002)])  # fmt: skip

    def drawer(z: float) -> Solid:
        return Union([Box((0, -0.155, z), (0.36, 0.012, 0.12), 0.002), Box((0, -0.02, z - 0.05), (0.34, 0.25, 0.01), 0.002),
                      *[Box((s * 0.165, -0.02, z - 0.02), (0.01, 0.25, 0.07), 0.002) for s in (-1, 1)],
                      Box((0, 0.1, z - 0.02), (0.34, 0.01, 0.07), 0.002), Box((0, -0.168, z), (0.1, 0.016, 0.014), 0.002)])  # fmt: skip

    door = Union(
        [Box((0, -0.157, 0.15), (0.38, 0.012, 0.27), 0.002), Box((0.15, -0.17, 0.15), (0.014, 0.016, 0.08), 0.002)]
    )
    return Articulated("cabinet", [carcass, drawer(0.517), drawer(0.377), door], [
        Joint("prismatic", (0, -1, 0), (0, 0, 0), 0, 0.25),
        Joint("prismatic", (0, -1, 0), (0, 0, 0), 0, 0.20, cycles=1.0, phase=0.25),
        Joint("revolute", (0, 0, -1), (-0.19, -0.157, 0), 0, 100, cycles=1.0),
    ])  # fmt: skip


def cutter() -> Articulated:
    handle = Union([Box((0, 0, side * 0.006), (0.026, 0.14, 0.004), 0.001) for side in (-1, 1)]
                   + [Box((side * 0.011, 0, 0), (0.004, 0.14, 0.016), 0.001) for side in (-1, 1)])  # fmt: skip
    blade = Union([Box((0, 0.01, 0), (0.016, 0.13, 0.003), 0.0005), Box((0, -0.03, 0.01), (0.012, 0.02, 0.012), 0.002)])
    return Articulated("cutter", [handle, blade], [Joint("prismatic", (0, 1, 0), (0, 0, 0), 0, 0.06)])


def faucet() -> Articulated:
    body = Union([Cylinder((0, 0, 0.06), 0.022, 0.12), Box((0, -0.07, 0.1), (0.022, 0.14, 0.018), 0.004)])
    lever = Union([Cylinder((0, 0, 0.135), 0.02, 0.026), Box((0.045, 0.02, 0.152), (0.1, 0.02, 0.008), 0.003, turn=24)])
    return Articulated("faucet", [body, lever], [Joint("revolute", (0, 0, 1), (0, 0, 0.12), -50, 60)])


DEVELOPMENT = {make().name: make for make in (laptop, stapler, scissors, pliers, usb, clipper, glasses, cabinet)}
HELD_OUT = {make().name: make for make in (cutter, faucet)}
OBJECTS = DEVELOPMENT | HELD_OUT
