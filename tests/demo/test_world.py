"""The toy world: its scenes, renderer and ground truth, by laws that any right renderer obeys."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from demo.world import attributes, shapes
from demo.world.dress import OUTLINE
from demo.world.geometry import character_to_picture
from demo.world.panorama import cylinder_points, render_panorama
from demo.world.render import LAYERS, render
from demo.world.scene import concatenate, draw_scenes, repose, still_camera, still_characters
from demo.world.truth import ellipses, forward_flow, matched_points


def looks(scenes):
    """int64 [N, 3]: shape, colour and pattern of every character there is."""
    return torch.stack((scenes.shape, scenes.colour, scenes.pattern), -1)[scenes.present]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_the_held_out_list_is_the_one_committed_before_training():
    text = (Path(attributes.__file__).parent / "held_out.json").read_bytes()
    digest = hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()
    assert digest == "f71e7b4f6ddb60ca52e27d67a40d44123a5db4ae153a5eb3578ba95d5aaef6c5"
    assert attributes.HELD_OUT.sum() == 75, "15 % of 500"
    for dimension in range(3):  # no shape, colour or pattern is held out much more than another
        others = [d for d in range(3) if d != dimension]
        share = attributes.HELD_OUT.float().mean(dim=others)
        assert share.min() >= 0.11 and share.max() <= 0.17


@pytest.mark.parametrize(("combinations", "expected"), [("train", 0.0), ("held_out", 1.0), ("all", 0.15)])
def test_scenes_keep_to_their_combinations(combinations, expected):
    shape, colour, pattern = looks(draw_scenes(3000, 5, combinations=combinations)).unbind(-1)
    share = attributes.HELD_OUT[shape, colour, pattern].float().mean()
    assert share == expected if combinations != "all" else abs(share - expected) < 0.03


def test_a_seed_means_the_same_scenes_and_another_seed_others():
    assert same(draw_scenes(40, 7, frames=5), draw_scenes(40, 7, frames=5))
    assert not same(draw_scenes(40, 7), draw_scenes(40, 8))


def test_every_attribute_occurs_and_every_count():
    scenes = draw_scenes(4000, 1)
    assert scenes.count.unique().tolist() == [1, 2, 3, 4]
    for name, values in (
        ("shape", attributes.SHAPES), ("colour", attributes.COLOURS), ("pattern", attributes.PATTERNS),
        ("face", attributes.FACES), ("accessory", attributes.ACCESSORIES),
    ):  # fmt: skip
        found = getattr(scenes, name)[scenes.present]
        assert found.bincount(minlength=len(values)).min() > found.numel() / len(values) / 2, name
    assert scenes.background.unique().numel() == 8 and scenes.light.unique().numel() == 4
    assert torch.allclose(scenes.light_direction.norm(dim=1), torch.ones(4000), atol=1e-5)


def test_no_two_characters_of_a_scene_share_shape_and_colour_and_all_stay_inside():
    scenes = draw_scenes(3000, 2)
    look = torch.where(scenes.present, scenes.shape * 10 + scenes.colour, -1 - torch.arange(4))
    assert all(row.unique().numel() == 4 for row in look)
    edge = scenes.position[:, 0].abs() + scenes.radius[:, 0, :, None] * 0.9
    assert edge[scenes.present].max() <= 1.0


@pytest.mark.parametrize(
    "arguments",
    [{"count": 0}, {"frames": 0}, {"frames": 34}, {"characters": 5}, {"characters": (3, 4)}, {"combinations": "x"}],
)
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        draw_scenes(**{"count": 2, "seed": 0, **arguments})


def test_sizes_and_layers_are_checked():
    scenes = draw_scenes(1, 0)
    with pytest.raises(ValueError, match="8x128"):
        render(scenes, 128, 8)
    with pytest.raises(ValueError, match="shadow"):
        render(scenes, layers=("shadow",))
    with pytest.raises(ValueError, match="height is 8"):
        render_panorama(scenes, 8)


@pytest.mark.parametrize("name", attributes.SHAPES)
def test_body_distances_are_true_distances(name):
    """Slope at most 1 everywhere (so outlines are never too thin), about 1 outside, and the body within its square."""
    axis = torch.linspace(-1.5, 1.5, 301)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    distance = shapes.signed_distance(torch.tensor([attributes.SHAPES.index(name)]), u[None], v[None])[0]
    step = axis[1] - axis[0]
    slope = torch.hypot(distance[1:, :-1] - distance[:-1, :-1], distance[:-1, 1:] - distance[:-1, :-1]) / step
    assert slope.max() < 1.4143 + 1e-3, "two one-sided differences at a crease reach sqrt 2, never more"
    near = (distance[:-1, :-1] > 0.02) & (distance[:-1, :-1] < 0.10)
    assert 0.95 < slope[near].mean() < 1.01
    inside = distance < 0
    assert max(u[inside].abs().max(), v[inside].abs().max()) < 1.10
    assert 1.6 < inside.sum() * step * step < 2.8, "area"
    face_u, face_v = shapes.ANCHORS[name].face
    at_face = shapes.signed_distance(
        torch.tensor([attributes.SHAPES.index(name)]), torch.tensor([[[face_u]]]), torch.tensor([[[face_v]]])
    )
    assert at_face < -0.20


def test_layers_have_their_shapes_and_ranges():
    scenes = draw_scenes(6, 3, frames=2)
    layers = render(scenes, 48, 80, LAYERS)
    expected = {
        "frames": (3, 48, 80), "flat": (3, 48, 80), "lines": (1, 48, 80), "masks": (4, 48, 80), "labels": (48, 80),
        "depth": (1, 48, 80), "normals": (3, 48, 80), "local": (2, 48, 80),
    }  # fmt: skip
    for name, shape in expected.items():
        value = getattr(layers, name)
        assert value.shape == (6, 2, *shape), name
        assert value.dtype == (torch.int64 if name == "labels" else torch.float32) and torch.isfinite(value).all(), name
        if name not in ("labels", "local", "normals"):
            assert value.min() >= 0 and value.max() <= 1, name
    assert torch.allclose(layers.normals.norm(dim=2), torch.ones(6, 2, 48, 80), atol=1e-4)
    assert render(scenes, 48, 80).masks is None


def test_a_picture_does_not_depend_on_its_batch():
    scenes = draw_scenes(8, 4, frames=3)
    whole = render(scenes, 64, 64).frames
    assert torch.equal(render(scenes.select(slice(5, 6)), 64, 64).frames[0], whole[5])
    assert torch.equal(render(scenes.at(slice(1, 2)), 64, 64).frames[:, 0], whole[:, 1])
    assert same(concatenate([scenes.select(slice(0, 3)), scenes.select(slice(3, 8))]), scenes)


def test_larger_pictures_show_the_same_in_more_detail():
    scenes = draw_scenes(4, 6)
    small, large = render(scenes).frames[:, 0], render(scenes, 512, 512).frames[:, 0]
    error = (F.avg_pool2d(large, 4) - small).abs().mean()
    assert error < 0.012, "the edges' own anti-aliasing is close to true area sampling"
    wide = render(scenes, 128, 192).frames[:, 0, :, :, 32:160]
    assert torch.allclose(wide, small, atol=1e-4)


def test_masks_labels_depth_and_local_coordinates_tell_one_story():
    scenes = draw_scenes(16, 9, characters=3)
    layers = render(scenes, layers=("masks", "labels", "depth", "local", "frames"))
    masks, labels = layers.masks[:, 0], layers.labels[:, 0]
    assert masks.sum(1).max() <= 1 + 1e-5
    strong = masks.max(dim=1).values > 0.75
    assert torch.equal(labels[strong], masks.argmax(1)[strong])
    assert (labels[masks.sum(1) < 0.25] == -1).all()
    assert masks[~scenes.present].sum() == 0
    depth = layers.depth[:, 0, 0]
    assert depth[labels >= 0].max() < depth[labels < 0].min()
    for k in range(2):
        assert depth[labels == k].min() > depth[labels == k + 1].max() - 0.08, "later characters are nearer"
    v, u = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    for b in range(4):  # local coordinates lead back to the pixel they belong to
        for k in range(3):
            here = labels[b] == k
            points = torch.zeros(1, 1, 4, int(here.sum()), 2)
            points[0, 0, k] = layers.local[b, 0].permute(1, 2, 0)[here]
            back = character_to_picture(scenes.select(slice(b, b + 1)), 128, 128, points)[0, 0, k]
            assert torch.allclose(back, torch.stack((u[here], v[here]), -1), atol=1e-3)


@pytest.mark.parametrize("light", range(4))
def test_light_falls_from_where_the_scene_says(light):
    scenes = draw_scenes(60, 11, characters=1)
    scenes = scenes.select((scenes.light == light) & (scenes.accessory[:, 0] == 0))
    layers = render(scenes, layers=("frames", "flat", "masks", "normals"))
    brighter = (layers.frames - layers.flat).mean(2)[:, 0]
    weight = layers.masks[:, 0, 0] * (layers.flat[:, 0].amax(1) > 0.3)
    axis, sign = ((2, -1), (2, 1), (1, -1), (1, 1))[light]
    towards = layers.normals[:, 0, axis - 2 if axis == 2 else 1] * sign
    lit = ((brighter * weight * (towards > 0.3)).sum((1, 2))) / (weight * (towards > 0.3)).sum((1, 2))
    dark = ((brighter * weight * (towards < -0.3)).sum((1, 2))) / (weight * (towards < -0.3)).sum((1, 2))
    assert (lit > dark + 0.03).all()


def test_flat_colours_are_the_palette_and_lines_lie_on_outlines():
    scenes = draw_scenes(400, 12, characters=1)
    scenes = scenes.select((scenes.pattern[:, 0] == 0) & (scenes.accessory[:, 0] == 0))
    layers = render(scenes, layers=("flat", "local", "lines", "labels"))
    u, v = layers.local[:, 0].unbind(1)
    distance = shapes.signed_distance(scenes.shape[:, 0], u, v)
    low = (layers.labels[:, 0] == 0) & (distance < -OUTLINE - 0.05) & (v > 0.74)  # below the face
    assert low.any()
    colours = attributes.PALETTE[scenes.colour[:, 0]][:, None, None].expand(-1, 128, 128, -1)
    assert torch.allclose(layers.flat[:, 0].permute(0, 2, 3, 1)[low], colours[low], atol=1e-4)
    lines = layers.lines[:, 0, 0]
    on_outline = (layers.labels[:, 0] == 0) & ((distance + OUTLINE / 2).abs() < 0.01)
    assert lines[on_outline].mean() > 0.8
    assert lines[low & (distance < -0.15)].max() < 0.05


def test_flow_carries_every_visible_pixel_to_its_place():
    scenes = draw_scenes(6, 13, frames=6)
    frames = render(scenes).frames
    vectors, hidden = forward_flow(scenes)
    assert vectors.shape == (6, 5, 2, 128, 128) and hidden.shape == (6, 5, 128, 128)
    v, u = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    grid = torch.stack((u + vectors[:, :, 0], v + vectors[:, :, 1]), -1) / 127 * 2 - 1
    fetched = F.grid_sample(frames[:, 1:].flatten(0, 1), grid.flatten(0, 1), align_corners=True).view(6, 5, 3, 128, 128)
    error = (fetched - frames[:, :-1]).abs().mean(2)
    seen = hidden == 0
    assert error[seen].mean() < 0.02
    assert error[~seen].mean() > 5 * error[seen].mean(), "what is called hidden differs indeed"
    assert (frames[:, 1:] - frames[:, :-1]).abs().mean(2)[seen].mean() > 3 * error[seen].mean()
    with pytest.raises(ValueError, match="one frame"):
        forward_flow(draw_scenes(1, 0))


def test_still_scenes_have_no_flow():
    scenes = draw_scenes(3, 1, frames=2)
    still = concatenate([scenes]).at(torch.tensor([0, 0]))
    vectors, hidden = forward_flow(still)
    assert vectors.abs().max() < 1e-3 and hidden.sum() == 0


def test_ellipses_of_ellipses_are_exact():
    y, x = torch.meshgrid(torch.arange(200) + 0.5, torch.arange(320) + 0.5, indexing="ij")
    for cx, cy, a, b, angle in ((0.4, 0.5, 0.31, 0.12, 0.5), (0.6, 0.45, 0.25, 0.1, -1.2), (0.5, 0.5, 0.2, 0.19, 0.0)):
        dx, dy = (x - cx * 320) / 200, (y - cy * 200) / 200
        cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
        mask = (((dx * cos + dy * sin) / a) ** 2 + ((dy * cos - dx * sin) / b) ** 2 <= 1).float()
        found = ellipses(mask)
        assert torch.allclose(found[:4], torch.tensor([cx, cy, a, b]), atol=2e-3)
        assert abs(found[4] - angle) < (0.01 if a - b > 0.05 else 0.3)
    assert ellipses(torch.zeros(2, 8, 8)).abs().sum() == 0


def test_matched_points_show_the_same_place_of_the_same_character():
    first = draw_scenes(20, 14)
    second = repose(first, 15)
    assert torch.equal(first.shape, second.shape) and torch.equal(first.accessory, second.accessory)
    assert not torch.equal(first.position, second.position)
    found = matched_points(first, second, points=12, seed=3)
    assert found.visible[~first.present].sum() == 0
    assert found.visible.sum() > 0.6 * 12 * first.present.sum()
    local = [render(s, layers=("local",)).local[:, 0] for s in (first, second)]
    for layer, points in zip(local, (found.first, found.second), strict=True):
        x, y = points.round().long().clamp(0, 127).unbind(-1)
        batch = torch.arange(20)[:, None, None].expand_as(x)
        layer_at = layer.permute(0, 2, 3, 1)[batch, y, x]
        if points is found.first:
            expected = layer_at
    difference = (layer_at - expected).abs().amax(-1)[found.visible]
    assert difference.quantile(0.99) < 0.08, "within the pixel that rounding chose"


def test_panoramas_close_and_agree_with_the_flat_picture():
    scenes = draw_scenes(8, 16)
    panorama = render_panorama(scenes, 128, ("frames", "labels")).frames[:, 0]
    assert panorama.shape == (8, 3, 128, 256)
    steps = (panorama - panorama.roll(1, dims=3)).abs().mean((0, 1, 2))
    assert steps[0] < 3 * steps.median() + 0.01, "no seam between the last column and the first"
    flat = render(scenes, layers=("labels",)).labels[:, 0]
    # Straight ahead both show one stage unit as many pixels: the panorama at 64 / PERIOD * 4 columns a unit.
    whole = render_panorama(scenes, 256, ("labels",)).labels[:, 0]
    middle = whole[:, 127, 192:320]
    agree = (flat[:, 63] == middle).float().mean()
    assert agree > 0.97


def test_a_viewer_who_walks():
    scenes = still_characters(still_camera(draw_scenes(4, 18, frames=2)))
    on_the_axis = render_panorama(scenes, 64).frames
    assert torch.equal(render_panorama(scenes, 64, viewer=torch.zeros(4, 2, 2)).frames, on_the_axis)
    # Ahead by half the radius: ahead everything is half as far away, behind half as far again.
    longitude = torch.tensor([0.0, math.pi / 2, math.pi])
    around, distance = cylinder_points(longitude, torch.tensor([[[0.0, 0.5]]]))
    assert torch.allclose(distance[0, 0], torch.tensor([0.5, math.sqrt(0.75), 1.5]))
    assert torch.allclose(around[0, 0, :2], torch.tensor([0.0, math.pi / 3]), atol=1e-6)
    # To the right: what is seen straight ahead lay to the right, what is seen straight behind as well.
    around, _ = cylinder_points(longitude, torch.tensor([[[0.5, 0.0]]]))
    assert torch.allclose(around[0, 0, 0::2], torch.tensor([math.pi / 6, math.pi * 5 / 6]), atol=1e-6)
    walked = render_panorama(scenes, 64, viewer=torch.tensor([[0.0, 0.0], [0.4, 0.0]]).expand(4, 2, 2)).frames
    assert torch.equal(walked[:, 0], on_the_axis[:, 0]) and (walked[:, 1] - on_the_axis[:, 1]).abs().mean() > 0.01
    with pytest.raises(ValueError, match="viewer"):
        render_panorama(scenes, 64, viewer=torch.full((4, 2, 2), 0.6))


def test_turning_all_the_way_round_changes_nothing():
    scenes = draw_scenes(3, 17)
    turned = scenes.map(lambda tensor: tensor.clone())
    turned.camera[..., 0] += 8.0
    assert torch.allclose(render_panorama(scenes, 64).frames, render_panorama(turned, 64).frames, atol=0.02)
    quarter = scenes.map(lambda tensor: tensor.clone())
    quarter.camera[..., 0] += 2.0
    moved = render_panorama(quarter, 64).frames.roll(32, dims=-1)
    assert (moved - render_panorama(scenes, 64).frames).abs().mean() < 2e-3
