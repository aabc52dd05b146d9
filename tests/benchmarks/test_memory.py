from fields.benchmarks.memory import _RADIUS, write_scene

from fields.data import load_scene


def test_the_ball_is_where_its_cameras_see_it(tmp_path):
    write_scene(tmp_path, 5, (96, 54))
    scene = load_scene(tmp_path)
    assert scene.format == "blender" and scene.alpha and (len(scene.train), len(scene.test)) == (5, 2)
    for i in range(5):
        origins, directions = scene.train.cameras.image_rays(i)
        nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
        inside, image = nearest.norm(dim=-1) < _RADIUS, scene.train.images.image(i)
        # Poses are stored in float32: a pixel at the edge may go either way.
        assert ((image[..., 3] == 255) != inside).sum() <= 2 and inside.sum() > 1000
        assert image[inside][:, :3].float().std() > 20 and not image[~inside].any(-1).sum() > 2
