"""Motion made by hand: the scenes that are asked for, and the flows that the nodes' functions make of them."""

import dataclasses

import pytest
import torch
from papernodes.kernels.polygons import polygon_coverage

from demo.eval import video_by_hand as by_hand
from demo.eval import video_measures as measures
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import truth
from demo.eval.video_by_hand import CAMERA, DRAG, HAND_KINDS, hand_flows, hand_scenes, is_deep, outline
from demo.eval.video_scenes import KINDS, flow_scenes, flows_of, still_camera, still_captions, travel
from demo.world.render import render

FRAMES = 9


@pytest.fixture(scope="module")
def asked():
    """Kind -> scenes."""
    return {kind: hand_scenes(kind, 40, 3, frames=FRAMES) for kind in HAND_KINDS}


def few(scenes):
    """Two of one character and two of two; where there is depth, two of each with and without."""
    groups = [(scenes.count == number) & (is_deep(scenes) == deep) for number in (1, 2) for deep in (False, True)]
    return scenes.select(torch.cat([group.nonzero()[:2, 0] for group in groups]))


def backwards(scenes):
    """The same first frame, and everything the other way: what goes right goes left, what grows shrinks."""
    first = {name: getattr(scenes, name)[:, :1] for name in ("position", "angle", "radius", "camera")}
    changed = {name: 2 * value - getattr(scenes, name) for name, value in first.items()}
    changed["radius"] = first["radius"].square() / scenes.radius
    changed["camera"][..., 2] = 1 / scenes.camera[..., 2]
    return dataclasses.replace(scenes, **changed)


def front(scenes, name):
    """The front characters' [B, T, ...]."""
    return getattr(scenes, name)[torch.arange(scenes.size), :, scenes.count - 1]


def test_one_character_is_dragged_along_a_bent_path_and_stays_in_sight(asked):
    scenes = asked[DRAG]
    place, radius, angle = (front(scenes, name) for name in ("position", "radius", "angle"))
    way = (place[:, -1] - place[:, 0]).norm(dim=-1)
    assert way.min() >= 0.4 and way.max() <= 0.8 + 1e-6
    steps = (place[:, 1:] - place[:, :-1]).norm(dim=-1)
    assert (steps.sum(1) > way * 1.001).float().mean() > 0.8  # not the straight line
    assert (steps[:, 0] < steps[:, 3]).all() and (steps[:, -1] < steps[:, 4]).all()
    assert (place.abs() + 0.9 * radius[..., None] <= 1 + 1e-6).all()
    for values in (radius, angle):
        share = ((values[:, -1] - values[:, 0]).abs() > 1e-6).float().mean()
        assert 0.3 < share < 0.7
    two = scenes.select(scenes.count == 2)
    rest = two.position[:, :, 0]
    assert torch.equal(rest, rest[:, :1].expand_as(rest)) and (travel(scenes) == 0).all()
    gap = (two.position[:, :, 0] - two.position[:, :, 1]).norm(dim=-1) / two.radius[:, :, :2].sum(-1)
    assert gap.min() >= 0.9  # the dragged one covers nobody


def test_cameras_move_with_and_without_depth(asked):
    scenes = asked[CAMERA]
    deep = is_deep(scenes)
    assert 0.3 < deep.float().mean() < 0.7 and (travel(scenes) > 0.05).all() and (travel(scenes)[~deep] >= 0.15).all()
    seen = truth(scenes, FRAMES - 1)
    assert (seen.present == scenes.present).all()
    # With depth, what is twice as far goes half as far: where there is hardly any zoom, by the picture's own places.
    first, pan = truth(scenes), deep & ((scenes.camera[:, -1, 2] - 1).abs() < 0.02)
    assert pan.any()
    for row in pan.nonzero()[:, 0].tolist():
        near, far = (seen.position - first.position)[row, 0], -scenes.camera[row, -1, :2]
        torch.testing.assert_close(near, 2 * far, rtol=0.1, atol=0.04)


def test_a_seed_gives_the_same_scenes_and_their_own_captions(asked):
    for kind, scenes in asked.items():
        again = hand_scenes(kind, 40, 3, frames=FRAMES)
        other = hand_scenes(kind, 40, 4, frames=FRAMES)
        for name in ("position", "radius", "angle", "camera", "shape"):
            assert torch.equal(getattr(scenes, name), getattr(again, name))
        assert not torch.equal(scenes.position, other.position)
        assert len(still_captions(scenes, 3)) == scenes.size and set(scenes.count.tolist()) == {1, 2}
    own = flow_scenes(KINDS[0], 3, 5)
    assert torch.equal(hand_scenes(KINDS[0], 3, 5).position, own.position)
    assert torch.equal(hand_flows(KINDS[0], own), flows_of(own)[0])
    with pytest.raises(ValueError, match="'orbit'"):
        hand_scenes("orbit", 3, 5)


@pytest.mark.parametrize("kind", HAND_KINDS)
def test_the_nodes_flow_is_the_scenes_exact_one(asked, kind):
    """Direction, scale, pace, and where what moves ends: against the renderer's own flow, pixel by pixel."""
    scenes = few(asked[kind])
    found, (wanted, hidden) = hand_flows(kind, scenes), flows_of(scenes)
    seen = hidden < 0.5
    error, length = (found - wanted).norm(dim=2), wanted.norm(dim=2)
    moving = seen & (length >= 0.5)
    assert found.shape == wanted.shape and moving.float().mean() > 0.05
    assert error[moving].quantile(0.97) < 0.05
    assert error[seen].mean() < 0.02 * length[moving].mean()
    for wrong in (hand_flows(kind, backwards(scenes)), found / 2, found.flip(2), found.roll(1, 1)):
        assert (wrong - wanted).norm(dim=2)[moving].mean() > 5 * error[moving].mean()
    clips = by_hand.drag_clips if kind == DRAG else by_hand.camera_clips
    assert torch.equal(clips(scenes.select(slice(0, 2)), hole="fill")[1].vectors, found[1])


def test_a_still_background_has_no_flow(asked):
    scenes = few(asked[DRAG])
    labels = render(scenes, layers=("labels",)).labels[:, :-1]
    away = torch.nn.functional.max_pool2d((labels == (scenes.count - 1)[:, None, None, None]).float(), 5, 1, 2) == 0
    assert (hand_flows(DRAG, scenes).abs().amax(2)[away] == 0).all()


def clips_of(kind, scenes):
    """What the nodes show of their own: pictures [B, T, 3, H, W]."""
    if kind == DRAG:
        frames = [clip.composites for clip in by_hand.drag_clips(scenes, hole="fill")]
    else:
        frames = [clip.previews for clip in by_hand.camera_clips(scenes, hole="fill")]
    return torch.stack(frames).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("kind", HAND_KINDS)
def test_the_reader_sees_clips_that_follow_and_those_that_do_the_opposite(asked, kind):
    """Rendered clips and the nodes' own, read by the reader that measures generated ones."""
    scenes, reader = few(asked[kind]).select(slice(0, 4)), NetworkReader()
    for frames in (render(scenes).frames, clips_of(kind, scenes)):
        ends = measures.end_points(scenes, measures.movements(measures.read_frames(reader, frames)))
        assert ends.error.mean() < 0.15 * ends.asked.mean() and (ends.missing == 0).all()
    other = measures.movements([truth(backwards(scenes), frame) for frame in range(FRAMES)])
    assert measures.end_points(scenes, other).error.mean() > 1.4 * ends.asked.mean()
    right = measures.movements([truth(scenes, frame) for frame in range(FRAMES)])
    assert measures.end_points(scenes, right).error.max() < 0.01
    still = measures.movements([truth(scenes)] * FRAMES)
    torch.testing.assert_close(measures.end_points(scenes, still).error, ends.asked)


def test_camera_moves_without_depth_are_those_of_the_own_kind(asked):
    """On scenes of kind "camera", whose zoom only takes another pace, by equal ratios instead of equal steps."""
    scenes = flow_scenes("camera", 2, 5, frames=FRAMES)
    assert not is_deep(scenes).any()
    torch.testing.assert_close(hand_flows(CAMERA, scenes), flows_of(scenes)[0], rtol=0, atol=0.15)
    words = by_hand.camera_words(still_camera(scenes), 0, 1.0)
    assert words["zoom"] == f"0:1, {FRAMES - 1}:1.00000000 ease"


def test_an_outline_goes_round_the_largest_part():
    mask = torch.zeros(12, 16, dtype=torch.bool)
    mask[2:9, 3:10] = True
    mask[4:6, 5:7] = False  # a hole
    mask[9, 10] = True  # touches by its corner only
    mask[0, 15] = mask[11, 0] = True
    whole = torch.zeros_like(mask)
    whole[2:9, 3:10] = True
    assert set(outline(mask)) == {(3, 2), (10, 2), (10, 9), (3, 9)} and len(outline(mask)) == 4
    points = torch.tensor(outline(mask)) - 0.5
    assert torch.equal(polygon_coverage(points, 12, 16).full(12, 16), whole.float())
    everything = torch.ones(4, 5, dtype=torch.bool)
    assert sorted(outline(everything)) == [(0, 0), (0, 4), (5, 0), (5, 4)]


def test_the_outline_holds_the_character(asked):
    scenes = few(asked[DRAG])
    labels = render(scenes.at(slice(0, 1)), layers=("labels",)).labels[:, 0]
    for row in range(scenes.size):
        own = labels[row] == scenes.count[row] - 1
        points = torch.tensor(outline(own)) - 0.5
        cut = polygon_coverage(points, 128, 128).full(128, 128)
        assert set(cut.unique().tolist()) <= {0.0, 1.0}
        assert (cut.bool() != own).sum() < 0.02 * own.sum()
