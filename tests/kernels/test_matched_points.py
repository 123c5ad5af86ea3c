"""Matched points: the editor's text and what is wrong with it, MangaNinja's maps, points that go with a clip."""

import json

import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.matched_points import (
    MOST_PAIRS,
    MatchedPoints,
    Pairs,
    carried_along,
    parse_points,
    point_map,
    point_maps,
)

HALF = [0.5, 0.5]
GOOD = {"reference": HALF, "target": HALF}


def text(*pairs, **more):
    return json.dumps({"version": 1, "points": list(pairs), **more})


def some(*targets, confidence=None):
    """Pairs with these target points, and others in the reference."""
    target = torch.tensor(targets, dtype=torch.float32).view(-1, 2)
    return Pairs(1 - target, target, confidence)


def test_reading():
    points = parse_points(text({"reference": [0, 0.25], "target": [1, 0.5], "note": 1}, GOOD, author="somebody"))
    (pairs,) = points.frames
    assert pairs.reference.tolist() == [[0, 0.25], HALF] and pairs.target.tolist() == [[1, 0.5], HALF]
    assert pairs.reference.dtype == torch.float32 and pairs.confidence is None
    assert points.count == len(pairs) == 2


@pytest.mark.parametrize("nothing", ["", "  ", '{"version": 1}', '{"version": 1, "points": []}'])
def test_no_points(nothing):
    points = parse_points(nothing)
    assert points.count == 0
    assert points.frames[0].reference.shape == points.frames[0].target.shape == (0, 2)
    assert torch.equal(point_map(points.frames[0], "target", 3, 4), torch.zeros(1, 1, 3, 4))


@pytest.mark.parametrize(
    ("came", "message"),
    [
        ("click", r"points: this is not JSON \(Expecting value.*\); expected the text of the Match Points editor\."),
        ("[]", r"points: got a list; expected \{\"version\": 1, \"points\": \[\.\.\.\]\}\."),
        ('{"points": []}', r'points: "version" is missing; expected 1\.'),
        ('{"version": 2, "points": []}', r"points: it was written by a newer version of this pack \(format 2"),
        ('{"version": 1, "points": 3}', r'points: "points" is a number; expected a list\.'),
        (text(GOOD, 7), r"points: pair 2 is a number; expected an object with reference and target\."),
        (
            text(GOOD, GOOD, {"reference": HALF, "target": [0.5, 1.25]}),
            r"points: pair 3: its point in the target: y is 1\.25; expected a number from 0 to 1\.",
        ),
        (
            text({"reference": [-0.01, 0], "target": HALF}),
            r"points: pair 1: its point in the reference: x is -0\.01; expected a number from 0 to 1\.",
        ),
        (
            text({"reference": [0.5, "left"], "target": HALF}),
            r'points: pair 1: its point in the reference: y is "left"; expected a number from 0 to 1\.',
        ),
        (
            text(GOOD, {"reference": HALF}),
            r"points: pair 2 has a point in the reference and none in the target\. Put it there in the editor, or "
            r"delete the pair\.",
        ),
        (
            text({"target": HALF, "reference": None}),
            r"points: pair 1 has a point in the target and none in the reference\.",
        ),
        (text({}), r"points: pair 1 has no points; expected one in the reference and one in the target\."),
        (
            text({"reference": [0.5], "target": HALF}),
            r"points: pair 1: its point in the reference is a list of 1; expected \[x, y\]\.",
        ),
        (
            text({"reference": HALF, "target": "here"}),
            r'points: pair 1: its point in the target is "here"; expected \[x, y\]\.',
        ),
        (text(*[GOOD] * 200), r"points: there are 200 pairs of points; at most 100 can be used\."),
    ],
)
def test_what_cannot_be_read(came, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_points(came)


def test_as_many_as_can_be_and_another_name():
    assert parse_points(text(*[GOOD] * MOST_PAIRS)).count == MOST_PAIRS
    with pytest.raises(ValueError, match=r"^marks: there are 101 pairs"):
        parse_points(text(*[GOOD] * (MOST_PAIRS + 1)), "marks")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(torch.zeros(2, 2), torch.zeros(3, 2)), r"target is torch.float32 \[3, 2\]; expected .*\[2, 2\]"),
        (lambda: Pairs(torch.zeros(2, 2).double(), torch.zeros(2, 2)), r"reference is torch.float64"),
        (lambda: Pairs([], torch.zeros(2, 2)), r"reference is list; expected"),
        (lambda: some((0.0, 2.0)), r"reference holds numbers that are not from 0 to 1"),
        (lambda: some((0.0, float("nan"))), r"not from 0 to 1"),
        (lambda: some((0.0, 1.0), confidence=torch.ones(2)), r"confidence is torch.float32 \[2\]; expected .*\[1\]"),
        (lambda: some(*[(0.0, 1.0)] * 101), r"there are 101 pairs of points; at most 100"),
        (lambda: MatchedPoints(()), r"expected a tuple of at least one Pairs"),
        (lambda: MatchedPoints([some()]), r"expected a tuple of at least one Pairs"),
        (lambda: point_map(some(), "left", 2, 2), r"side: got 'left'; expected one of reference, target"),
        (lambda: point_map(some(), "target", 0, 2), r"point map: got 2x0 pixels"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (512, 512), (33, 10)])
def test_every_pixels_centre_is_that_pixel(height, width):
    generator = torch.Generator().manual_seed(height)
    pixels = torch.randperm(height * width, generator=generator)[:MOST_PAIRS]
    rows, columns = pixels // width, pixels % width
    places = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=1)
    drawn = point_map(Pairs(torch.zeros_like(places), places), "target", height, width)
    assert drawn.shape == (1, 1, height, width) and drawn.dtype == torch.float32
    wanted = torch.zeros(height, width)
    wanted[rows, columns] = torch.arange(1.0, len(pixels) + 1)
    assert torch.equal(drawn[0, 0], wanted)


def test_rims_belong_to_the_picture_and_the_last_point_at_a_pixel_stays():
    pairs = some((0.0, 0.0), (1.0, 1.0), (0.3, 0.3), (0.99, 0.0), (0.34, 0.26))
    target = point_map(pairs, "target", 4, 5)[0, 0]
    assert target.tolist() == [[1, 0, 0, 0, 4], [0, 5, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 2]]
    reference = point_map(pairs, "reference", 4, 5)[0, 0]
    assert float(reference[0, 0]) == 2 and float(reference[3, 4]) == 1, "each side has its own places"


def test_maps_of_all_frames():
    points = MatchedPoints((some((0.1, 0.1), (0.9, 0.9)), some(), some((0.9, 0.1))))
    maps = point_maps(points, "target", 6, 8)
    assert maps.shape == (3, 1, 6, 8)
    assert maps.flatten(1).sum(1).tolist() == [3, 0, 1]
    assert all(torch.equal(maps[n : n + 1], point_map(points.frames[n], "target", 6, 8)) for n in range(3))


def test_points_go_with_the_motion():
    """A picture of 20x10 that moves by 2 right and 1 down; its own points move by 0.1."""
    confidence = torch.tensor([0.25, 0.5, 0.75])
    points = MatchedPoints((some((0.2, 0.3), (0.85, 0.1), (0.5, 0.5), confidence=confidence),))
    vectors = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(3, 2, 10, 20).contiguous()
    moved = carried_along(points, Flow(vectors))
    assert len(moved.frames) == 4
    for number, pairs in enumerate(moved.frames):
        wanted = torch.tensor([[0.2, 0.3], [0.85, 0.1], [0.5, 0.5]]) + 0.1 * number
        kept = (wanted <= 1).all(dim=1)
        torch.testing.assert_close(pairs.target, wanted[kept], atol=1e-6, rtol=0)
        assert torch.equal(pairs.reference, points.frames[0].reference[kept])
        assert torch.equal(pairs.confidence, confidence[kept])
    assert [len(pairs) for pairs in moved.frames] == [3, 3, 2, 2]


def test_the_flow_is_read_between_pixels():
    """A flow that grows by a pixel from column to column, dx = column, doubles x."""
    columns = torch.arange(16.0).expand(1, 8, 16)
    flow = Flow(torch.stack([columns, torch.zeros_like(columns)], dim=1))
    moved = carried_along(MatchedPoints((some((3.75 / 16, 0.5)),)), flow)
    torch.testing.assert_close(moved.frames[1].target, torch.tensor([[(3.25 * 2 + 0.5) / 16, 0.5]]))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_hidden_points_are_dropped_for_good(direction):
    """A still clip in which the right half is covered between frames 1 and 2 alone."""
    occlusion = torch.zeros(3, 8, 8)
    occlusion[1, :, 4:] = 1
    points = MatchedPoints((some((0.8, 0.5), (0.2, 0.5), (0.9, 0.9), (0.3, 0.9)),))
    moved = carried_along(points, Flow(torch.zeros(3, 2, 8, 8), direction, occlusion))
    assert [len(pairs) for pairs in moved.frames] == [4, 4, 2, 2]
    assert torch.equal(moved.frames[3].target, points.frames[0].target[[1, 3]])
    assert torch.equal(moved.frames[3].reference, points.frames[0].reference[[1, 3]])


@pytest.mark.parametrize(("direction", "column"), [("forward", 2), ("backward", 5)])
def test_where_a_point_is_hidden(direction, column):
    """A point goes from column 2 to column 5: a forward mask is read where it leaves, a backward one where it ends."""
    across = torch.tensor([3.0 if direction == "forward" else -3.0, 0.0])
    vectors = across.view(1, 2, 1, 1).expand(1, 2, 8, 8).contiguous()
    points = MatchedPoints((some((2.5 / 8, 0.5)),))
    for hidden in range(8):
        occlusion = torch.zeros(1, 8, 8)
        occlusion[..., hidden] = 1
        moved = carried_along(points, Flow(vectors, direction, occlusion))
        assert len(moved.frames[1]) == (hidden != column)


def test_a_backward_flow_is_followed_the_other_way():
    vectors = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(2, 2, 12, 16).contiguous()
    points = MatchedPoints((some((0.5, 0.5)),))
    forward, backward = (carried_along(points, Flow(*how)) for how in ((vectors,), (-vectors, "backward")))
    torch.testing.assert_close(forward.frames[2].target, torch.tensor([[0.75, 0.5 - 2 / 12]]))
    torch.testing.assert_close(backward.frames[2].target, forward.frames[2].target)


def test_no_points_to_carry():
    moved = carried_along(parse_points(""), Flow(torch.ones(2, 2, 4, 4), occlusion=torch.zeros(2, 4, 4)))
    assert [len(pairs) for pairs in moved.frames] == [0, 0, 0]
