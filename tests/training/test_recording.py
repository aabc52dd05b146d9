"""Iterations in tensors of given sizes, which CUDA graphs can record, are the same iterations; and on a GPU, recorded, too."""

from dataclasses import replace

import pytest
import torch
from fields.apps.common import demo_scene
from torch.utils._python_dispatch import TorchDispatchMode

from fields.data import load_scene
from fields.methods import method
from fields.radiance import Room, first_of
from fields.training import recording


@pytest.fixture(scope="module")
def scene():
    return load_scene(demo_scene(), downscale=4)


STATES = {}  # of trainings that have just begun: to find geometry takes longer than the tests


def begun(name, scene, iterations=400):
    config = replace(method(name).configure("fast").scaled(iterations), rays=256)
    config = replace(config, **({"geometry_iterations": 60} if name == "strivec" else {"voxels": (24**3, 32**3)}))
    training, key = method(name).load_training(), (name, iterations, str(scene.aabb.device))
    if key not in STATES:
        tensors, plain = training(config, scene, 0).state()
        STATES[key] = {k: v.clone() for k, v in tensors.items()}, plain
    tensors, plain = STATES[key]
    return training.resume(config, scene, {k: v.clone() for k, v in tensors.items()}, plain)


@pytest.mark.parametrize("room", [0, 1, 7, 100, 1000])
def test_places_of_a_mask(room):
    mask = torch.rand(300) < 0.3
    places, count = first_of(mask, room)
    wanted = mask.nonzero()[:room, 0]
    assert int(count) == len(wanted) and torch.equal(places[: len(wanted)], wanted)
    assert len(places) == room and ((places >= 0) & (places < 300)).all()


@pytest.mark.parametrize("name", ["tensorf-vm", "strivec"])
def test_an_iteration_in_ample_room_is_the_same(name, scene):
    training = begun(name, scene)
    for i in range(30):
        training.step(i)
    field, white = training.field, torch.ones(3)
    origins, directions, target = training.pixels.draw(256, white)
    jitter = torch.rand(256)
    results = []
    for room in (None, Room(40_000, 30_000)):
        rays = origins, directions, white, jitter
        rendering = field.render_rays(*rays) if room is None else field.render_rays_in(room, *rays)
        field.zero_grad(set_to_none=True)
        (rendering.rgb.clamp(0, 1) - target).square().mean().backward()
        results.append((rendering, [p.grad for p in field.parameters()]))
    (want, want_grads), (got, got_grads) = results
    assert torch.equal(got.samples, want.samples) and 500 < got.samples[1] < got.samples[0] < 30_000
    # The sums of the one run over more samples than those of the other: rounding of float32.
    for a, b in ((got.rgb, want.rgb), (got.opacity, want.opacity), (got.depth, want.depth)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(got_grads, want_grads, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm()


class Questions(TorchDispatchMode):
    """Refuses to tell the host what is in a tensor: on a GPU that is to wait for it, and cannot be recorded."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.name().partition(".")[0]
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"), name
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["tensorf-vm", "strivec", "slimmerf"])
def test_an_iteration_in_given_room_never_asks_what_is_in_a_tensor(name, scene):
    training = begun(name, scene)
    for optimiser in training.optimisers.values():
        for group in optimiser.param_groups:
            group |= {"lr": torch.tensor(group["lr"]), "capturable": True}  # as on a GPU
    if name == "slimmerf":
        training.field.shown = training.field.ranks
        while training.choose_shape()[1] == training.field.ranks:
            pass
    training.iterate(Room(40_000, 30_000))
    with Questions():
        training.iterate(Room(40_000, 30_000))


@pytest.mark.parametrize("name", ["tensorf-vm", "strivec"])
def test_where_room_is_short_the_first_samples_are_rendered(name, scene):
    training = begun(name, scene)
    white = torch.ones(3)
    origins, directions, _ = training.pixels.draw(256, white)
    whole = training.field.render_rays_in(Room(40_000, 40_000), origins, directions, white)
    short = training.field.render_rays_in(Room(2000, 1500), origins, directions, white)
    assert short.samples[0] == 2000 and short.samples[1] <= 1500
    assert torch.isfinite(short.rgb).all()
    assert torch.equal(short.rgb[:10], whole.rgb[:10]) and not torch.equal(short.opacity, whole.opacity)


@pytest.mark.parametrize("name", ["tensorf-vm", "strivec", "slimmerf"])
def test_recorded_on_a_gpu_training_is_the_same(name, scene, _backend):
    """Through growth of the grid, and with room that is found too small on the way."""
    if _backend != "cuda":
        pytest.skip("CUDA graphs need a GPU: pytest --backend cuda")
    scores, replays = [], 0
    for recorded in (False, True):
        training = begun(name, scene.to("cuda"), 300)
        training.recording.possible = recorded
        psnr = [training.step(i)["psnr"].item() for i in range(250)]
        if recorded:
            assert training.recording.possible
            shape = max(training.recording.shapes.values(), key=lambda recorded: recorded.done)
            assert shape.graph is not None
            shape.room = Room(1, 1)  # found too small at the next look
            for k in range(recording._LOOK_EVERY * len(training.recording.shapes)):
                training.step(250 + k)
            assert shape.room.samples > 1
            replays = shape.done
        scores.append(sum(psnr[230:250]) / 20)
    assert replays > recording._LOOK_EVERY
    # Not the same bits: atomic additions come in any order, and Adam divides by their roots.
    assert scores[0] == pytest.approx(scores[1], abs=0.5) and scores[1] > 20
