"""A field as a file: what comes back, at every level, and through every command."""

import contextlib
import random
from dataclasses import replace

import pytest
import torch
from fields.apps.cli import main
from fields.apps.common import demo_scene

import fields
from fields.data import load_scene
from fields.errors import CheckpointError, ConfigError
from fields.io.atomic import read_json
from fields.io.run import load, load_config, save_field
from fields.methods import method
from fields.paths import from_json, to_json
from fields.slimmerf import container
from fields.slimmerf.field import cut
from fields.slimmerf.order import Views, random_rays
from fields.slimmerf.slim import DEFAULT_STEPS, LAYERS, Steps, from_slim, to_slim
from fields.slimmerf.training import SlimmerfTraining
from fields.strivec.field import Strivec
from fields.tensorf.field import TensoRF
from fields.training.evaluation import evaluate

FINE = Steps(1e-4, 1e-5)
RUN = {"schema": 1, "method": "slimmerf", "settings": {}, "scene": {}}


def demo():
    """Small pictures: every level is measured on them."""
    return load_scene(demo_scene(), downscale=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of a short training on the demo: enough to see something."""
    config = replace(method("slimmerf").configure("fast").scaled(80), rays=512, density_rank=4, appearance_rank=8,
                     voxels=(32**3, 48**3), density_shift=-4.0)  # fmt: skip
    scene = load_scene(demo_scene())
    training = SlimmerfTraining(config, scene, 0)
    for i in range(config.iterations):
        training.step(i)
    folder = tmp_path_factory.mktemp("run")
    where = {"path": str(scene.path), "format": scene.format, "downscale": 4,
             "world_from_input": scene.world_from_input.tolist(), "cameras": to_json(scene.train.cameras)}  # fmt: skip
    save_field(folder, training.field, "slimmerf", {}, where)
    return folder


def points(n=500):
    x = torch.rand(n, 3) * 2 - 1
    return x, torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)


def test_with_fine_steps_the_field_comes_back(trained):
    field = load(trained)
    again = from_slim(container.read(to_slim(field, FINE, RUN)))
    x, d = points()
    assert type(again) is type(field) and torch.equal(again.occupied, field.occupied)
    torch.testing.assert_close(again.density_feature(x), field.density_feature(x), rtol=1e-2, atol=2e-2)
    # Columns of the basis have 7 bits, the network about 6.
    torch.testing.assert_close(again.colour(x, d), field.colour(x, d), rtol=0, atol=0.05)


@pytest.mark.parametrize("ranks", [1, 3])
def test_fewer_ranks_are_the_file_of_the_cut_field(trained, ranks):
    field = load(trained)
    assert to_slim(field, FINE, RUN, ranks) == to_slim(cut(field, ranks, 2 * ranks), FINE, RUN)


def test_every_level_is_a_field_and_bytes_only_grow(trained):
    slim = container.read(to_slim(load(trained), DEFAULT_STEPS, RUN))
    assert len(slim.table) == 2 * 4 * LAYERS
    assert all(row["bytes"] > 0 for row in slim.table)
    x, _ = points()
    whole = from_slim(slim).density(x)
    errors = [float((from_slim(slim, level).density(x) - whole).abs().mean()) for level in (2, 8, 20, 32, 38)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0


def test_coarse_layers_come_first_where_no_camera_says_better(trained):
    slim = container.read(to_slim(load(trained), DEFAULT_STEPS, RUN, 2, layers=3))
    rows = [(row["kind"], row["rank"], row["layers"]) for row in slim.table]
    assert rows == [(kind, rank, 1) for rank in (0, 1) for kind in ("density", "appearance")] * 3


def test_levels_are_in_the_order_of_their_worth(trained):
    """What cameras see gets nearer to the whole with every level, and is what a reader of those levels renders."""
    field, run = load(trained), load_config(trained)
    slim = container.read(to_slim(field, DEFAULT_STEPS, run))
    rounded = []
    for layers in range(1, LAYERS + 1):
        coarse = container.read(to_slim(field, DEFAULT_STEPS.times(2 ** (LAYERS - layers)), RUN, layers=layers))
        rounded.append(from_slim(coarse))
    views = Views(field, rounded, from_json(run["scene"]["cameras"]), None)
    there, errors = {}, []
    rays = random_rays(from_json(run["scene"]["cameras"]), len(views.directions))
    truth = field.render_rays(*rays).rgb
    for level, row in enumerate(slim.table, 1):
        unit = row["kind"], row["rank"]
        assert there.get((unit[0], unit[1] - 1), unit[1] == 0)  # ranks in order
        there[unit] = there.get(unit, 0) + row["layers"]
        errors.append(views.error(there))
        if level > 1 and level % 4 == 0:
            seen = float((from_slim(slim, level).render_rays(*rays).rgb - truth).square().mean())
            assert errors[-1] == pytest.approx(seen, rel=0.1, abs=1e-6)  # lines of a coarser file are coarser
    assert set(there.values()) == {LAYERS} and len(there) == 8
    assert sum(a < b for a, b in zip(errors, errors[1:], strict=False)) <= 2  # where nothing gets nearer, the least bad
    fixed = container.read(to_slim(field, DEFAULT_STEPS, RUN))
    half = (fixed.table[0]["end"] + fixed.table[-1]["end"]) // 2
    nearest = [
        float((from_slim(s, container.levels_within(s, half)).render_rays(*rays).rgb - truth).square().mean())
        for s in (slim, fixed)
    ]
    assert nearest[0] < nearest[1]


def test_a_plain_tensorf_can_be_slimmed_too():
    torch.manual_seed(0)
    field = TensoRF(
        aabb=[-1.0, -1, -1, 1, 1, 1], resolution=[9, 10, 11], near=1.0, far=6.0, density_rank=2, appearance_rank=6
    )
    again = from_slim(container.read(to_slim(field, FINE, RUN | {"method": "tensorf-vm"})))
    x, _ = points()
    assert type(again) is TensoRF
    torch.testing.assert_close(again.density_feature(x), field.density_feature(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_number_of_ranks_has_a_basis_of_its_own_where_one_is_given(ranks):
    torch.manual_seed(0)
    field = TensoRF(
        aabb=[-1.0, -1, -1, 1, 1, 1], resolution=[9, 10, 11], near=1.0, far=6.0, density_rank=3, appearance_rank=6
    )
    bases = [torch.randn(27, 6 * k) / 5 for k in (1, 2)] + [field.decoder.basis.weight.detach()]
    slim = container.read(to_slim(field, FINE, RUN | {"method": "tensorf-vm"}, layers=1, bases=bases))
    want = cut(field, ranks, 2 * ranks)
    want.decoder.basis.weight.data.copy_(bases[ranks - 1])
    x, d = points()
    # Columns of the basis have 7 bits, the network about 6.
    torch.testing.assert_close(from_slim(slim, 2 * ranks).colour(x, d), want.colour(x, d), rtol=0, atol=0.05)
    features = [f.appearance_grid(x) @ f.decoder.basis.weight.T for f in (from_slim(slim, 2 * ranks), want)]
    torch.testing.assert_close(*features, rtol=0, atol=float(features[1].abs().max()) / 50)


def test_what_cannot_be_a_file_says_so():
    field = TensoRF(aabb=[-1.0, -1, -1, 1, 1, 1], resolution=[9, 10, 11], near=1.0, far=6.0, layout="cp")
    with pytest.raises(ConfigError, match="planes × lines"):
        to_slim(field, FINE, RUN)
    field = TensoRF(
        aabb=[-1.0, -1, -1, 1, 1, 1], resolution=[9, 9, 9], near=1.0, far=6.0, density_rank=4, appearance_rank=6
    )
    with pytest.raises(ConfigError, match="dealt out"):
        to_slim(field, FINE, RUN)


def test_hostile_contents_under_good_checksums(trained):
    """Whatever the header and the levels say: a field or one clear error, and no more memory than a small file may ask."""
    slim = container.read(to_slim(load(trained), DEFAULT_STEPS, RUN))
    rng = random.Random(0)
    absurd = [0, -1, 1, 3, 2**31, 1e300, float("nan"), None, "x", [], {}, True]
    for _ in range(300):
        model = {**slim.model, "field": dict(slim.model["field"])}
        rows = [({k: v for k, v in row.items() if k in ("kind", "rank", "layers")}) for row in slim.table]
        chunks = list(slim.chunks)
        kind = rng.randrange(4)
        if kind == 0:
            model["field"][rng.choice(list(model["field"]))] = rng.choice(absurd)
        elif kind == 1:
            model[rng.choice(list(model))] = rng.choice(absurd)
        elif kind == 2:
            rng.choice(rows)[rng.choice(["kind", "rank", "layers"])] = rng.choice(absurd)
        else:
            at = rng.randrange(len(chunks))
            part = bytearray(chunks[at])
            for _ in range(rng.randrange(1, 4)):
                part[rng.randrange(len(part))] = rng.randrange(256)
            chunks[at] = bytes(part)
        with contextlib.suppress(CheckpointError):
            from_slim(container.read(container.pack(model, list(zip(chunks, rows, strict=True)))))


# ------------------------------------------------------------------------------------ commands


def test_a_file_opens_where_a_run_does(trained, tmp_path, capsys):
    out = tmp_path / "small.slim"
    assert main(["slim", str(trained), "--budget", "60KB", "--out", str(out)]) == 0
    assert out.stat().st_size <= 60_000
    assert load_config(out)["method"] == "slimmerf"
    scene = demo()
    want = evaluate(fields.load(out), scene, scene.test).results["psnr"]
    assert main(["eval", str(out)]) == 0
    assert read_json(tmp_path / "small" / "metrics.json")["results"]["psnr"] == pytest.approx(want)
    assert main(["render", str(out), "--frames", "2", "--size", "32", "32", "--path", "orbit"]) == 0
    assert (tmp_path / "small" / "renders" / "orbit" / "rgb.mp4").exists()
    assert main(["export", str(out), "--resolution", "24"]) == 0
    assert (tmp_path / "small" / "exports" / "mesh.glb").exists()


def test_what_is_missing_of_a_file_is_said(trained, tmp_path, capsys):
    whole, part = tmp_path / "whole.slim", tmp_path / "part.slim"
    assert main(["slim", str(trained), "--out", str(whole)]) == 0
    data = bytearray(whole.read_bytes())
    part.write_bytes(data[:-5])
    assert main(["eval", str(part)]) == 0
    count = len(container.read(whole).table)
    assert f"part.slim: level {count} of {count} is not there whole" in capsys.readouterr().err
    data[-5] ^= 1
    part.write_bytes(data)
    assert main(["slim", str(part), "--out", str(tmp_path / "out.slim")]) == 0
    assert f"part.slim: level {count} of {count} is damaged" in capsys.readouterr().err
    assert len(container.read(tmp_path / "out.slim").chunks) == count - 1
    part.write_bytes(b"something else")
    for command in ("eval", "slim"):
        assert main([command, str(part)]) == 2
        assert "part.slim: not a .slim file" in capsys.readouterr().err


def test_cutting_and_upgrading(trained, tmp_path):
    whole, small, rest = tmp_path / "whole.slim", tmp_path / "small.slim", tmp_path / "rest.part"
    assert main(["slim", str(trained), "--out", str(whole)]) == 0
    assert main(["slim", str(whole), "--budget", "25kB", "--out", str(small)]) == 0
    data = whole.read_bytes()
    assert data.startswith(small.read_bytes()) and len(data) > small.stat().st_size
    rest.write_bytes(data[small.stat().st_size :])
    assert main(["slim", "upgrade", str(small), str(rest)]) == 0
    assert small.read_bytes() == data


def test_every_level_is_as_good_as_its_header_says(trained, tmp_path, monkeypatch):
    """To 0.01 dB. The figures are those of the file, so that nothing is measured for them again."""
    small, out, again = (tmp_path / f"{name}.slim" for name in ("small", "out", "again"))
    assert main(["slim", str(trained), "--rank", "2", "--out", str(small)]) == 0
    assert main(["slim", str(small), "--curve", "--out", str(out)]) == 0
    data, slim, scene = out.read_bytes(), container.read(out), demo()
    for level, row in enumerate(slim.table, 1):
        for cut_at in (row["end"], row["end"] + 1):  # at the level's end, and within the next one
            found = evaluate(from_slim(container.read(data[:cut_at])), scene, scene.test).results
            assert found["psnr"] == pytest.approx(row["psnr"], abs=0.01)
            assert found["ssim"] == pytest.approx(row["ssim"], abs=0.001)
        assert len(container.read(data[: row["end"]]).chunks) == level
    monkeypatch.setattr("fields.training.evaluation.evaluate", None)
    wanted = slim.table[4]["psnr"]
    assert main(["slim", str(out), "--psnr", str(wanted), "--out", str(again)]) == 0
    assert container.read(again).table[len(container.read(again).chunks) - 1]["psnr"] >= wanted


def test_training_ends_with_a_file_within_its_budget(tmp_path, capsys):
    short = [
        "--iterations",
        "40",
        "--rays",
        "128",
        "--voxels",
        "10000",
        "20000",
        "--density-shift",
        "-4",
        "--downscale",
        "4",
    ]
    run = tmp_path / "run"
    assert main(["train", "slimmerf", *short, "--budget", "50KB", "--views", "20", "--out", str(run)]) == 0
    out = run / "exports" / "demo.slim"
    assert 25_000 < out.stat().st_size <= 50_000 and str(out) in capsys.readouterr().err.replace("\n", "")
    assert type(fields.load(out)) is type(fields.load(run))
    assert len(load_config(run)["scene"]["images"]) == 20
    # Of the images that were left out, some say which level is best.
    best = tmp_path / "best.slim"
    assert main(["slim", str(run), "--rank", "1", "--best", "--out", str(best)]) == 0
    said = capsys.readouterr().out
    assert "levels together" in said and "as the paper counts" in said
    assert len(container.read(best).chunks) >= 1
    field = fields.train(
        "slimmerf", demo(), tmp_path / "none", iterations=4, rays=64, voxels=(4096, 4096), budget="1KB"
    )
    assert field.ranks == 2 and not (tmp_path / "none" / "exports" / "demo.slim").exists()


def test_the_curve(trained, tmp_path, capsys):
    out = tmp_path / "a.slim"
    small = tmp_path / "small.slim"
    assert main(["slim", str(trained), "--rank", "1", "--out", str(small)]) == 0
    assert main(["slim", str(small), "--curve", "--psnr", "8", "--out", str(out)]) == 0
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == "level,bytes,psnr,ssim" and len(lines) == 1 + len(container.read(small).table)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    levels = len(container.read(out).chunks)
    psnr = [float(line.split(",")[2]) for line in lines[1:]]
    assert psnr[levels - 1] >= 8 and all(p < 8 for p in psnr[: levels - 1])
    scene = demo()
    assert evaluate(load(out), scene, scene.test).results["psnr"] == pytest.approx(psnr[levels - 1], abs=0.01)
    assert main(["slim", str(out), "--psnr", "90", "--out", str(small)]) == 2
    assert "no level reaches it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "10B"], "the first level takes"),
        (["--budget", "much"], "write bytes, 500KB"),
        (["--rank", "9"], "ranks 1 to 4"),
        (["--psnr", "20", "--budget", "1MB"], "one of them"),
        (["--coarser", "0"], "0.01 to 100"),
        (["--best"], "was trained on all images"),
    ],
)
def test_what_makes_no_sense_says_so(trained, tmp_path, capsys, arguments, says):
    assert main(["slim", str(trained), *arguments, "--out", str(tmp_path / "a.slim")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "a.slim").exists()


def test_runs_of_other_methods_say_so(tmp_path, capsys):
    field = Strivec(aabb=[-1.0, -1, -1, 1, 1, 1], near=1.0, far=6.0, low=[-1.0, -1, -1], spacing=[1.0], half_edge=[0.75],
                    boxes=[1], knots=[3], density_rank=[2], appearance_rank=[2], occupancy_resolution=[4, 4, 4])  # fmt: skip
    save_field(tmp_path / "run", field, "strivec", {}, {})
    assert main(["slim", str(tmp_path / "run")]) == 2
    assert "a run of strivec" in capsys.readouterr().err
