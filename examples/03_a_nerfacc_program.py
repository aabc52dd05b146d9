"""A program written for nerfacc, on fields.core: one import is all that changed, and it runs on a CPU.

    python examples/03_a_nerfacc_program.py

A small instant-ngp: feature grids of three resolutions, two little networks, nested occupancy grids.
"""

import torch
import torch.nn.functional as F
from torch import nn

import fields
import fields.core as nerfacc  # was: import nerfacc
from fields.methods import shipped
from fields.training.pixels import PixelSampler, composite


class RadianceField(nn.Module):
    def __init__(self):
        super().__init__()
        self.grids = nn.ParameterList(nn.Parameter(0.01 * torch.randn(1, 4, n, n, n)) for n in (16, 32, 64))
        self.trunk = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16))
        self.head = nn.Sequential(nn.Linear(18, 32), nn.ReLU(), nn.Linear(32, 3), nn.Sigmoid())

    def density(self, x, more=False):
        at = (x / 1.5).view(1, -1, 1, 1, 3)
        features = self.trunk(torch.cat([F.grid_sample(g, at, align_corners=True).view(4, -1) for g in self.grids]).T)
        density = torch.exp(features[:, 0]) * (x.abs() < 1.5).all(-1)
        return (density, features[:, 1:]) if more else density

    def forward(self, x, directions):
        density, features = self.density(x, more=True)
        return self.head(torch.cat([features, directions], -1)), density


def render(origins, directions, stratified=False):
    at = lambda a, b, r: origins[r] + directions[r] * ((a + b) / 2)[:, None]  # noqa: E731
    sigma_fn = lambda a, b, r: field.density(at(a, b, r))  # noqa: E731
    options = {"render_step_size": step, "alpha_thre": 1e-3, "stratified": stratified}
    rays, t_starts, t_ends = estimator.sampling(origins, directions, sigma_fn, **options)
    shade = lambda a, b, r: field(at(a, b, r), directions[r])  # noqa: E731
    return nerfacc.rendering(t_starts, t_ends, rays, len(origins), shade, render_bkgd=white)[0]


scene, white, step = fields.load_scene(shipped("assets") / "demo"), torch.ones(3), 0.02
pixels = PixelSampler(scene.train, torch.Generator().manual_seed(0))
estimator = nerfacc.OccGridEstimator(roi_aabb=[-0.75] * 3 + [0.75] * 3, resolution=64, levels=2)
field = RadianceField()
optimizer = torch.optim.Adam(field.parameters(), lr=0.01, eps=1e-15)
for i in range(401):
    estimator.update_every_n_steps(i, lambda x: field.density(x) * step, occ_thre=1e-2)
    origins, directions, target = pixels.draw(1024, white)
    loss = F.smooth_l1_loss(render(origins, directions, stratified=True), target, beta=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    origins, directions = (r.reshape(-1, 3) for r in scene.test.cameras.image_rays(0))
    error = render(origins, directions) - composite(scene.test.images.image(0), white).reshape(-1, 3)
print(f"PSNR {-10 * error.square().mean().log10():.1f} dB on a view it has not seen")
