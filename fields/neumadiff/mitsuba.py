"""Neural reflectances in Mitsuba 3: a BSDF `nbrdf` that evaluates their weights, and is drawn from as `fields.neumadiff.importance` says.

After `register()`, in XML or a dictionary:

    <bsdf type="nbrdf"> <string name="filename" value="gold.nbrdf.npz"/> </bsdf>

| parameter | |
|---|---|
| filename | of a .nbrdf.npz |
| weights, dialect | instead of a file: an mi.TensorXf (675,), and the name of its dialect |
| index | which of the file's materials; the first, if none is given |
| conserving | whether it is held to the law of energy, see `fields.neumadiff.energy`; it is, unless told otherwise |

It has one side, as a surface has that was measured. Variants of Mitsuba with colours (…_rgb) have it; on a GPU or with LLVM it runs with the rest of the kernel, in
scalar_rgb it works and is slow.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fields.errors import DataError
from fields.neumadiff.energy import SHARPNESS, Conserving
from fields.neumadiff.importance import BINS, ROWS, Sampler, edge
from fields.neumadiff.nbrdf import read_networks
from fields.neumadiff.network import PARTS, WEIGHTS, WIDTHS, Networks, dialect


def register() -> None:
    """Makes `nbrdf` known to Mitsuba, for the variant that is set.

    Raises:
        DataError: a variant that has no colours, or polarisation.
    """
    import mitsuba as mi

    variant = mi.variant()
    if not (variant or "").endswith("_rgb"):
        raise DataError(
            f"nbrdf has red, green and blue, and Mitsuba's variant is {variant}. Set one that ends in _rgb."
        )
    mi.register_bsdf("nbrdf", _plugin())


def _plugin() -> Any:
    """The class, for the variant that is set."""
    import drjit as dr
    import mitsuba as mi

    jit = dr.is_jit_v(mi.Float)

    class Table:
        """Numbers that are looked up at places only known when rays arrive there."""

        def __init__(self, values: torch.Tensor) -> None:
            flat = values.flatten().cpu()
            self.values = mi.Float(flat.numpy()) if jit else flat.tolist()

        def __getitem__(self, at: Any) -> Any:
            return dr.gather(mi.Float, self.values, at) if jit else self.values[at]

    class NeuralReflectance(mi.BSDF):
        def __init__(self, properties: Any) -> None:
            super().__init__(properties)
            network = _chosen(properties)
            self.conserving = properties.get("conserving", True)
            bound = Conserving.of(network).bound if self.conserving else torch.ones(1, 2, 3)
            sampler = Sampler.of(Conserving(network, bound))
            self.dialect = network.dialect
            parts = [network.weights[0, first:last].tolist() for first, last in PARTS]
            self.layers = [
                (np.reshape(matrix, (wide, below)).tolist(), bias)
                for matrix, bias, below, wide in zip(parts[::2], parts[1::2], WIDTHS[:-1], WIDTHS[1:], strict=True)
            ]
            self.bound, self.bound_rows = Table(bound), bound.shape[1]
            self.diffuse, self.cumulative = Table(sampler.diffuse), Table(sampler.cumulative)
            self.edges = Table(edge(torch.arange(BINS + 1)))
            self.m_components = [mi.BSDFFlags.GlossyReflection | mi.BSDFFlags.FrontSide]
            self.m_flags = self.m_components[0]

        # ------------------------------------------------------------------------------------ Mitsuba's interface

        def eval(self, ctx, si, wo, active=True):
            active = self._seen(ctx, si, wo, active)
            # Along rays of importance it is light that arrives where rays come from.
            light, eye = (wo, si.wi) if ctx.mode == mi.TransportMode.Radiance else (si.wi, wo)
            return dr.select(active, self._reflectance(light, eye) * wo.z, 0)

        def pdf(self, ctx, si, wo, active=True):
            active = self._seen(ctx, si, wo, active)
            return dr.select(active, self._density(wo, si.wi), 0)

        def eval_pdf(self, ctx, si, wo, active=True):
            return self.eval(ctx, si, wo, active), self.pdf(ctx, si, wo, active)

        def sample(self, ctx, si, sample1, sample2, active=True):
            result = dr.zeros(mi.BSDFSample3f)
            result.wo = self._drawn(si.wi, sample1, sample2)
            result.eta = 1
            result.sampled_type = mi.UInt32(self.m_flags)
            result.sampled_component = mi.UInt32(0)
            value, result.pdf = self.eval_pdf(ctx, si, result.wo, active)
            return result, dr.select(result.pdf > 0, value / dr.maximum(result.pdf, 1e-30), 0)

        def to_string(self):
            return f"NeuralReflectance[dialect = {self.dialect.name}, conserving = {self.conserving}]"

        def _seen(self, ctx, si, wo, active):
            if not ctx.is_enabled(mi.BSDFFlags.GlossyReflection, 0):
                return mi.Bool(False)
            return active & (si.wi.z > 0) & (wo.z > 0)

        # ------------------------------------------------------------------------------------ the network

        def _reflectance(self, light, eye):
            values = self._inputs(light, eye)
            for number, (matrix, bias) in enumerate(self.layers):
                if number:
                    values = [dr.maximum(z, self.dialect.slope * z) for z in values]
                values = [
                    sum((w * x for w, x in zip(row, values, strict=True)), b)
                    for row, b in zip(matrix, bias, strict=True)
                ]
            values = [dr.clip(z, 0, 80) for z in values]
            # exp(z) − 1, with its digits where z is small.
            colour = mi.Color3f([2 * dr.sinh(z / 2) * dr.exp(z / 2) for z in values]) * mi.Color3f(self.dialect.units)
            return colour / dr.maximum(self._bound(light.z), self._bound(eye.z))

        def _inputs(self, light, eye):
            """What `Dialect.inputs` makes of angles, without the angles."""
            half = dr.normalize(light + eye)
            sine = dr.sqrt(half.x * half.x + half.y * half.y)
            inverse = 1 / dr.maximum(sine, 1e-20)
            x, y = dr.select(sine > 0, half.x * inverse, 1), dr.select(sine > 0, half.y * inverse, 0)
            ahead, dy = light.x * x + light.y * y, light.y * x - light.x * y
            dx, dz = ahead * half.z - light.z * sine, ahead * sine + light.z * half.z
            if self.dialect.reciprocal:
                near = dr.sqrt(dr.atan2(sine, half.z) * (2 / math.pi))
                return [sine, near, half.z, dx * dx - dy * dy, dx * dx + dy * dy, dz]
            return [sine, 0.0, half.z, dx, dy, dz]

        def _bound(self, cosine):
            at = dr.acos(dr.clip(cosine, 0, 1)) * ((self.bound_rows - 1) * 2 / math.pi)
            row = mi.UInt32(dr.minimum(at, self.bound_rows - 2))
            return mi.Color3f(
                [dr.lerp(self.bound[3 * row + c], self.bound[3 * row + 3 + c], at - row) for c in range(3)]
            )

        # ------------------------------------------------------------------------------------ the sampler

        def _rows(self, cosine):
            at = (1 - dr.clip(cosine, 0, 1)) * (ROWS - 1)
            row = mi.UInt32(dr.minimum(at, ROWS - 2))
            return row, at - row, dr.lerp(self.diffuse[row], self.diffuse[row + 1], at - row)

        def _density(self, light, eye):
            row, part, diffuse = self._rows(eye.z)
            half = dr.normalize(light + eye)
            theta = dr.atan2(dr.sqrt(half.x * half.x + half.y * half.y), half.z)
            last = _last(eye.z)
            at = dr.log(1 + math.expm1(SHARPNESS) * (theta / last)) * (BINS / SHARPNESS)
            bin = mi.UInt32(dr.clip(at, 0, BINS - 1))
            chances = []
            for r in (row, row + 1):
                inside = self.cumulative[r * (BINS + 1) + bin + 1] - self.cumulative[r * (BINS + 1) + bin]
                chances.append((1 - self.diffuse[r]) * inside)
            ring = (_versine(last * self.edges[bin + 1]) - _versine(last * self.edges[bin])) * 2 * _widest(theta, eye.z)
            lobe = dr.lerp(*chances, part) / dr.maximum(4 * dr.dot(half, eye) * ring, 1e-20)
            return diffuse * light.z / math.pi + lobe

        def _drawn(self, eye, choice, u):
            row, part, diffuse = self._rows(eye.z)
            rest = dr.maximum(1 - diffuse, 1e-20)
            left = (choice - diffuse) / rest
            row += dr.select(left * rest < part * (1 - self.diffuse[row + 1]), mi.UInt32(1), mi.UInt32(0))
            start = row * (BINS + 1)
            bin = mi.UInt32(0)
            for step in (BINS >> k for k in range(1, BINS.bit_length())):
                bin = dr.select(self.cumulative[start + bin + step] <= u.x, bin + step, bin)
            low, high = self.cumulative[start + bin], self.cumulative[start + bin + 1]
            within = dr.clip((u.x - low) / dr.maximum(high - low, 1e-20), 0, 1)
            last = _last(eye.z)
            versine = dr.lerp(_versine(last * self.edges[bin]), _versine(last * self.edges[bin + 1]), within)
            sine, cosine = dr.sqrt(versine * (2 - versine)), 1 - versine
            turn = (2 * u.y - 1) * _widest(dr.atan2(sine, cosine), eye.z)
            along = dr.sqrt(eye.x * eye.x + eye.y * eye.y)
            inverse = 1 / dr.maximum(along, 1e-20)
            x, y = dr.select(along > 0, eye.x * inverse, 1), dr.select(along > 0, eye.y * inverse, 0)
            ahead, aside = sine * dr.cos(turn), sine * dr.sin(turn)
            half = mi.Vector3f(ahead * x - aside * y, ahead * y + aside * x, cosine)
            return dr.select(left < 0, mi.warp.square_to_cosine_hemisphere(u), mi.reflect(eye, mi.Normal3f(half)))

    def _last(cosine):
        return math.pi / 4 + dr.acos(dr.clip(cosine, -1, 1)) / 2

    def _widest(theta, cosine):
        sine = dr.safe_sqrt(1 - cosine * cosine)
        across = dr.maximum(sine * dr.sin(2 * theta), 1e-12)
        return dr.safe_acos(-cosine * dr.cos(2 * theta) / across)

    def _versine(theta):
        return 2 * dr.square(dr.sin(theta / 2))

    return NeuralReflectance


def _chosen(properties: Any) -> Networks:
    """The one network that a scene means."""
    import mitsuba

    if "weights" in properties:
        weights = torch.from_numpy(np.array(properties["weights"], np.float32))
        if weights.shape != (WEIGHTS,):
            raise DataError(f"nbrdf: weights have shape {tuple(weights.shape)}. Give ({WEIGHTS},), of one material.")
        return Networks(weights[None], dialect(properties.get("dialect", "reciprocal")))
    if "filename" not in properties:
        raise DataError("nbrdf: no material is named. Give the filename of a .nbrdf.npz.")
    resolver: Any = mitsuba.file_resolver  # its stub does not say that it is a function
    path = Path(str(resolver().resolve(properties["filename"])))
    networks, index = read_networks(path)[0], properties.get("index", 0)
    if not 0 <= index < len(networks):
        raise DataError(f"{path}: has no material {index}. Give an index below {len(networks)}.")
    return networks[index]
