"""Self-affine noise: how fracture surfaces are rough."""

from __future__ import annotations

import numpy as np

HURST = 0.8
"""Of nearly all brittle fractures, whatever the material (Bouchaud 1997)."""


def self_affine(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Gaussian noise on a periodic grid whose power falls with frequency k as k^−(2 HURST + D), D being its dimension.

    Args:
        low, high: band of frequencies in cycles per grid; nothing lies outside it.
    Returns:
        float64 of mean 0 and standard deviation 1.
    """
    axes = [np.fft.fftfreq(n, 1 / n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1], 1 / shape[-1])]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    inside = (k >= low) & (k <= high)
    amplitude = np.where(inside, np.maximum(k, 1e-9), 1.0) ** -(HURST + len(shape) / 2) * inside
    noise = np.fft.irfftn(amplitude * np.fft.rfftn(rng.standard_normal(shape)), shape, range(len(shape)))
    return (noise - noise.mean()) / noise.std()
