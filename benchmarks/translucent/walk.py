"""Light's way backwards, from a camera through a refracting boundary and a medium, for every direction that it may have come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from fields.benchmarks.translucent.bins import AZIMUTHS, BANDS, BINS
from fields.benchmarks.translucent.cameras import sensor
from fields.benchmarks.translucent.scene import Medium

if TYPE_CHECKING:
    import mitsuba as mi

REFRACTION = 1.4  # of the medium, against that of air
_PASS = 256  # samples per pixel walked at once: a million paths at 64 × 64
_SURELY = 16  # events before paths may be ended
_LEAST = 0.05  # the chance to be ended from then on: none walks forever


def transfer(
    shape: mi.Shape, medium: Medium, eye: np.ndarray, pixels: int, samples: int, seed: tuple[int, ...]
) -> np.ndarray:
    """What light from each bin adds to a picture, as far as it was scattered inside: from one walk per sample, for all of them.

    A walk starts at the camera and goes on until it leaves the object for good; what it still carries then belongs to the bin of its
    direction. No light is ever aimed at, so boundaries may refract as sharply as they like.

    Args:
        shape: with face normals: interpolated ones would let light slip through.
        samples: per pixel; a multiple of two.

    Returns:
        (2, pixels, pixels, BINS, 3): the radiance at the camera where that of the bin is 1; twice, from half the samples each.
    """
    import drjit as dr
    import mitsuba as mi

    scene = mi.load_dict({"type": "scene", "shape": shape})
    camera = sensor(eye, pixels, "independent", 1)
    half = samples // 2
    parts = [min(_PASS, half - done) for done in range(0, half, _PASS)]
    seeds = np.random.SeedSequence(seed).generate_state(2 * len(parts)).reshape(2, -1)
    found = np.zeros((2, pixels * pixels * BINS * 3))
    for k, part in ((k, p) for k in range(2) for p in range(len(parts))):
        count = pixels * pixels * parts[part]
        sampler = mi.load_dict({"type": "independent"})
        sampler.seed(int(seeds[k, part]), count)
        pixel = dr.arange(mi.UInt32, count) // parts[part]
        corner = mi.Point2f(mi.Float(pixel % pixels), mi.Float(pixel // pixels))
        ray, _ = camera.sample_ray(0.0, 0.0, (corner + sampler.next_2d()) / pixels, mi.Point2f(0.5))
        towards, carried, scattered = _walk(scene, medium, sampler, ray)
        band = dr.clip(mi.Int32((1 - towards.y) * (BANDS / 2)), 0, BANDS - 1)
        turn = dr.atan2(towards.x, -towards.z) * (0.5 / dr.pi)
        azimuth = mi.Int32((turn - dr.floor(turn)) * AZIMUTHS) % AZIMUTHS
        place = ((pixel * BINS) + mi.UInt32(band * AZIMUTHS + azimuth)) * 3
        sums = dr.zeros(mi.Float, found.shape[1])
        for channel in range(3):
            dr.scatter_add(sums, carried[channel], place + channel, scattered)
        found[k] += np.array(sums) / half
    return found.reshape(2, pixels, pixels, BINS, 3)


def _walk(
    scene: mi.Scene, medium: Medium, sampler: mi.Sampler, ray: mi.Ray3f
) -> tuple[mi.Vector3f, mi.Color3f, mi.Bool]:
    """Where each path goes in the end, what it carries, and whether it was scattered inside."""
    import drjit as dr
    import mitsuba as mi

    albedo = mi.Color3f(*medium.albedo)

    def step(walking, ray, carried, inside, scattered, event, sampler):
        hit = scene.ray_intersect(ray, walking)
        flight = dr.select(inside, -medium.mean_free_path * dr.log(1 - sampler.next_1d(walking)), dr.inf)
        scatters = walking & (flight < hit.t)
        meets = walking & ~scatters & hit.is_valid()

        out = mi.Frame3f(ray.d).to_world(_scattering(medium.g, sampler.next_2d(scatters)))
        carried = dr.select(scatters, carried * albedo, carried)

        reflectance, cos_out, _, bend = mi.fresnel(mi.Frame3f.cos_theta(hit.wi), REFRACTION)
        reflects = sampler.next_1d(meets) < reflectance
        leaving = hit.to_world(dr.select(reflects, mi.reflect(hit.wi), mi.refract(hit.wi, cos_out, bend)))
        inside = dr.select(meets, (mi.Frame3f.cos_theta(hit.wi) < 0) == reflects, inside)

        ray = dr.select(scatters, mi.Ray3f(ray(flight), out), dr.select(meets, hit.spawn_ray(leaving), ray))
        walking = scatters | meets
        event += 1
        ending = walking & (event > _SURELY)
        keep = dr.minimum(dr.max(carried), 1 - _LEAST)
        walking &= ~ending | (sampler.next_1d(ending) < keep)
        carried = dr.select(ending, dr.select(walking, carried / keep, 0), carried)
        return walking, ray, carried, inside, scattered | scatters, event, sampler

    start = (mi.Bool(True), mi.Ray3f(ray), mi.Color3f(1), mi.Bool(False), mi.Bool(False), mi.UInt32(0), sampler)
    _, ray, carried, _, scattered, _, _ = dr.while_loop(start, lambda walking, *_: walking, step)
    return ray.d, carried, scattered


def _scattering(g: float, sample: mi.Point2f) -> mi.Vector3f:
    """Directions after scattering, of Henyey and Greenstein, around +Z."""
    import drjit as dr
    import mitsuba as mi

    uniform = 1 - 2 * sample.x
    cosine = (1 + g * g - ((1 - g * g) / (1 + g * uniform)) ** 2) / (2 * g) if g else uniform
    sine, (sin_phi, cos_phi) = dr.safe_sqrt(1 - cosine * cosine), dr.sincos(2 * dr.pi * sample.y)
    return mi.Vector3f(sine * cos_phi, sine * sin_phi, cosine)
