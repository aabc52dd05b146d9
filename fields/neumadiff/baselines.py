"""What new materials are drawn by that is simpler than diffusion: what a diffusion model has to be better than.

All of them learn from rows of numbers, (R, D): weights of networks, or logarithms of reflectances. They draw as many new rows as asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import mse_loss

COMPONENTS = 60
"""Principal components that are kept."""


def log_table(values: Tensor) -> Tensor:
    """Rows (R, 3 N) of reflectances (R, N, 3): log(1 + f)."""
    return values.log1p().flatten(1)


def from_log_table(rows: Tensor) -> Tensor:
    """The reverse; nothing is below zero."""
    return rows.expm1().clamp(min=0).unflatten(1, (-1, 3))


# ------------------------------------------------------------------------------------ training rows


def training_rows(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of those learned from, as they are: nothing new, and a yardstick of how near other rows can come. None twice before all were."""
    orders = [torch.randperm(len(rows), generator=generator) for _ in range(-(-count // len(rows)))]
    return rows[torch.cat(orders)[:count]]


def jittered(rows: Tensor, count: int, generator: torch.Generator, amount: float = 0.05) -> Tensor:
    """The same, and noise: so many times the standard deviation of each number."""
    drawn = training_rows(rows, count, generator)
    return drawn + amount * rows.std(0) * torch.randn(drawn.shape, generator=generator)


# ------------------------------------------------------------------------------------ principal components


@dataclass(frozen=True)
class Components:
    """Rows as a few numbers, uncorrelated and of variance 1."""

    mean: Tensor
    """(D,)."""
    directions: Tensor
    """(K, D), each as long as the standard deviation along it."""
    coordinates: Tensor
    """(R, K) of the rows."""

    @classmethod
    def of(cls, rows: Tensor, count: int = COMPONENTS) -> Components:
        count = min(count, len(rows) - 1)
        mean = rows.mean(0)
        offset = (rows - mean).double()
        # There may be many more columns than rows: products of rows have the same spectrum.
        variance, vectors = torch.linalg.eigh(offset @ offset.T / (len(rows) - 1))
        kept = variance[-count:] > 1e-12 * variance[-1]
        coordinates = vectors[:, -count:][:, kept] * (len(rows) - 1) ** 0.5
        return cls(mean, (coordinates.T @ offset / (len(rows) - 1)).to(rows), coordinates.to(rows))

    def rows(self, coordinates: Tensor) -> Tensor:
        return self.mean + coordinates @ self.directions


def gaussian(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """One normal distribution of principal components."""
    components = Components.of(rows)
    return components.rows(torch.randn(count, len(components.directions), generator=generator))


def mixture(rows: Tensor, count: int, generator: torch.Generator, clusters: int = 8) -> Tensor:
    """A mixture of normal distributions of principal components."""
    components = Components.of(rows)
    shares, means, covariances = fit_mixture(components.coordinates, clusters, generator)
    which = torch.multinomial(shares, count, replacement=True, generator=generator)
    noise = torch.randn(count, means.shape[1], generator=generator)
    lower = torch.linalg.cholesky(covariances)
    return components.rows(means[which] + (lower[which] @ noise[..., None])[..., 0])


def fit_mixture(
    points: Tensor, clusters: int, generator: torch.Generator, rounds: int = 40, floor: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares (C,), means (C, K) and covariances (C, K, K) of normal distributions of points (R, K), by expectation maximisation.

    Args:
        floor: added to every variance: a cluster of few points must not collapse.
    """
    count, dimensions = points.shape
    clusters = min(clusters, count)
    means = points[torch.randperm(count, generator=generator)[:clusters]]
    covariances = torch.eye(dimensions).to(points).expand(clusters, -1, -1)
    shares = points.new_full((clusters,), 1 / clusters)
    for _ in range(rounds):
        likely = MultivariateNormal(means, covariances).log_prob(points[:, None]) + shares.log()
        part = likely.softmax(1)
        of_cluster = part.sum(0).clamp(min=1e-6)
        shares = of_cluster / of_cluster.sum()
        means = part.T @ points / of_cluster[:, None]
        offset = points[:, None] - means
        covariances = torch.einsum("rc,rci,rcj->cij", part, offset, offset) / of_cluster[:, None, None]
        covariances = covariances + floor * torch.eye(dimensions).to(points)
    return shares, means, covariances


# ------------------------------------------------------------------------------------ autoencoder


class Autoencoder(nn.Module):
    """A variational one (Kingma and Welling, ICLR 2014), of rows scaled to unit variance.

    Args:
        columns: D.
        latent: how many numbers a row is squeezed into.
    """

    def __init__(self, columns: int, latent: int = 32, width: int = 256) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(columns, width), nn.SiLU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.SiLU(), nn.Linear(width, columns))

    def loss(self, rows: Tensor, noise: Tensor) -> Tensor:
        """Negative evidence bound, nats for each row; what is decoded is off by a standard deviation of 0.3. `noise` is (R, latent)."""
        mean, log_variance = self.encoder(rows).chunk(2, 1)
        decoded = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return mse_loss(decoded, rows) * rows.shape[1] / (2 * 0.3**2) + divergence.mean()


def autoencoder(
    rows: Tensor, count: int, generator: torch.Generator, steps: int = 3000, batch: int = 64, latent: int = 32
) -> Tensor:
    """What an `Autoencoder` of the rows decodes from noise."""
    mean, deviation = rows.mean(0), rows.std(0).clamp(min=1e-6)
    scaled = (rows - mean) / deviation
    with torch.random.fork_rng(devices=[]):  # layers are initialised by the global generator
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        model = Autoencoder(rows.shape[1], latent).to(rows)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        some = training_rows(scaled, batch, generator)
        optimizer.zero_grad()
        model.loss(some, torch.randn(batch, latent, generator=generator)).backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        return mean + deviation * model.decoder(torch.randn(count, latent, generator=generator))


BASELINES: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "training rows": training_rows, "jittered rows": jittered, "PCA + Gaussian": gaussian, "PCA + mixture": mixture, "VAE": autoencoder,
}  # fmt: skip
"""Of rows (R, D) and a count, new rows (count, D)."""
