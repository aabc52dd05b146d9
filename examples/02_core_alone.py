"""The core without any method: fit a dense radiance grid to a ball, in the words of nerfacc.

python examples/02_core_alone.py
"""

import torch
from torch.nn.functional import normalize

from fields.core import OccGridEstimator, dense_sample, ray_aabb_intersect, rendering

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
grid = torch.zeros(48, 48, 48, 4, requires_grad=True)  # density and colour at every knot
optimizer = torch.optim.Adam([grid], 0.1)
estimator = OccGridEstimator(BOX, resolution=48)


def density(x):
    return torch.nn.functional.softplus(10 * dense_sample(x, grid)[:, 0])


def ball(origins, directions):
    """What a camera would see: a ball of radius 0.6, coloured by its normals, on white."""
    b = (origins * directions).sum(-1)
    root = b * b - (origins * origins).sum(-1) + 0.36
    normals = (origins + (-b - root.clamp(min=0).sqrt())[:, None] * directions) / 0.6
    return torch.where(root[:, None] > 0, 0.5 + 0.5 * normals, torch.ones(3))


for step in range(301):
    origins = 3 * normalize(torch.randn(2048, 3), dim=-1)
    directions = normalize(torch.rand(2048, 3) * 1.6 - 0.8 - origins, dim=-1)
    estimator.update_every_n_steps(step, lambda x: density(x) * 0.05, occ_thre=1e-2)

    def sigma(t_starts, t_ends, rays, origins=origins, directions=directions):
        return density(origins[rays] + directions[rays] * ((t_starts + t_ends) / 2)[:, None])

    def rgb_sigma(t_starts, t_ends, rays, origins=origins, directions=directions):
        x = origins[rays] + directions[rays] * ((t_starts + t_ends) / 2)[:, None]
        return dense_sample(x, grid)[:, 1:].sigmoid(), density(x)

    rays, t_starts, t_ends = estimator.sampling(origins, directions, sigma, render_step_size=0.05, stratified=True)
    rgb, opacity, depth, _ = rendering(t_starts, t_ends, rays, len(origins), rgb_sigma, render_bkgd=torch.ones(3))
    loss = (rgb - ball(origins, directions)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        reached = ray_aabb_intersect(origins, directions, BOX[None])[2].float().mean()
        print(f"step {step}: PSNR {-10 * loss.log10():.1f} dB, {len(rays) / 2048 / reached:.0f} samples a ray")
