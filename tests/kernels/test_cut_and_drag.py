"""Cut-and-drag: its exact laws, the order of objects, and that flow and composite tell the same story."""

import json
import math

import pytest
import torch
from papernodes.kernels import cut_and_drag_eager
from papernodes.kernels.affine import Box
from papernodes.kernels.cut_and_drag import CutAndDrag
from papernodes.kernels.drag_motion import parse_motion
from papernodes.kernels.sampling import pixel_grid, remap

HEIGHT, WIDTH = 60, 80
SQUARE = [[0.25, 0.25], [0.5, 0.25], [0.5, 0.55], [0.25, 0.55]]
OTHER = [[0.45, 0.3], [0.75, 0.35], [0.6, 0.7]]


def clip(*objects, frames=3, hole="keep", image=None):
    """objects: (polygon, keys) back to front."""
    entries = [{"id": f"o{k}", "polygon": polygon, "keys": keys} for k, (polygon, keys) in enumerate(objects)]
    motion = parse_motion(json.dumps({"version": 1, "objects": entries}), frames)
    return CutAndDrag(waves() if image is None else image, motion, frames, hole=hole)


def run(drag):
    """Composites [T, H, W, 3], labels [T, H, W], vectors [T-1, 2, H, W], occlusion [T-1, H, W]."""
    frames = [drag.frame(index) for index in range(drag.frames)]
    flows = [drag.flow(index, frames[index], frames[index + 1]) for index in range(drag.frames - 1)]
    return (
        torch.stack([frame.composite for frame in frames]),
        torch.stack([frame.labels for frame in frames]),
        torch.stack([vectors for vectors, _ in flows]),
        torch.stack([occlusion for _, occlusion in flows]),
    )


AMPLITUDE, FREQUENCY = 0.2, 2 * math.pi / 24


def waves():
    """A smooth picture whose second derivatives are known: at most AMPLITUDE * FREQUENCY^2 along each axis."""
    x, y = pixel_grid(HEIGHT, WIDTH)
    parts = [torch.sin(FREQUENCY * x + k) + torch.sin(FREQUENCY * y - 2 * k) for k in range(3)]
    return 0.5 + AMPLITUDE * torch.stack(parts, dim=-1)


def to(frame, **values):
    return [{"frame": 0}, {"frame": frame, **values}]


@pytest.mark.parametrize("keys", [[], [{"frame": 1}], to(2), [{"frame": 0, "scale": 1.0}, {"frame": 2, "way": "ease"}]])
@pytest.mark.parametrize("hole", ["keep", "fill"])
def test_no_motion_is_the_identity(keys, hole):
    image = torch.rand(HEIGHT, WIDTH, 3)
    drag = clip((SQUARE, keys), (OTHER, keys), hole=hole, image=image)
    composites, _, vectors, occlusion = run(drag)
    assert torch.equal(vectors, torch.zeros_like(vectors))
    assert torch.equal(occlusion, torch.zeros_like(occlusion))
    same = composites == image
    if hole == "keep":
        assert bool(same.all())
        return
    alphas = [coverage.full(HEIGHT, WIDTH) for coverage in drag.scene.coverages]
    outside = (alphas[0] == 0) & (alphas[1] == 0)
    inside = (alphas[0] == 1) | (alphas[1] == 1)
    assert bool(same[:, outside].all())
    assert bool(same[:, inside & ((alphas[1] == 0) | (alphas[1] == 1))].all())
    assert not bool(same.all())  # the rims mix with the filled hole


def test_no_objects():
    image = torch.rand(HEIGHT, WIDTH, 4)
    composites, labels, vectors, _ = run(clip(hole="fill", image=image))
    assert torch.equal(composites, image[..., :3].expand_as(composites))
    assert not labels.any()
    assert not vectors.any()


@pytest.mark.parametrize("hole", ["keep", "fill"])
def test_a_pure_move_gives_constant_flow_inside_and_none_outside(hole):
    drag = clip((SQUARE, to(2, x=0.2, y=-0.1)), hole=hole)
    _, labels, vectors, _ = run(drag)
    for index in range(2):
        inside = labels[index] == 1
        assert inside.sum() > 300
        expected = torch.tensor([0.2 * WIDTH / 2, -0.1 * HEIGHT / 2])
        assert torch.equal(vectors[index][:, inside], expected[:, None].expand(2, int(inside.sum())))
        assert not vectors[index][:, ~inside].any()


def test_a_move_by_whole_pixels_moves_the_pixels_bit_for_bit():
    image = torch.rand(HEIGHT, WIDTH, 3)
    square = [[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.25, 0.5]]  # on pixel borders
    drag = clip((square, to(2, x=10 / WIDTH, y=-6 / HEIGHT)), image=image)
    composites, *_ = run(drag)
    expected = image.clone()
    expected[15 - 3 : 30 - 3, 20 + 5 : 40 + 5] = image[15:30, 20:40]
    assert torch.equal(composites[1], expected)


@pytest.mark.parametrize(
    ("values", "turn", "factor"),
    [({"angle": 40}, 20, 1), ({"scale": 1.44}, 0, 1.2), ({"angle": -30, "scale": 0.64}, -15, 0.8)],
)
def test_turning_and_scaling_give_the_analytic_field(values, turn, factor):
    """At every frame the field is factor * R(turn) (q - centre) - (q - centre) about the pivot."""
    _, labels, vectors, _ = run(clip((SQUARE, to(2, **values))))
    x, y = pixel_grid(HEIGHT, WIDTH).double()
    x, y = x - (0.375 * WIDTH - 0.5), y - (0.4 * HEIGHT - 0.5)
    cos, sin = factor * math.cos(math.radians(turn)), factor * math.sin(math.radians(turn))
    field = torch.stack([cos * x - sin * y - x, sin * x + cos * y - y])
    for index in range(2):
        inside = labels[index] == 1
        assert inside.sum() > 200
        torch.testing.assert_close(vectors[index].double()[:, inside], field[:, inside], rtol=0, atol=1e-5)


def test_positive_angles_turn_clockwise_on_the_screen():
    _, labels, vectors, _ = run(clip((SQUARE, to(2, angle=20))))
    top = (16, int(0.375 * WIDTH))
    assert labels[0][top] == 1
    assert vectors[0][0][top] > 1  # the upper edge goes right
    assert abs(vectors[0][1][top]) < 0.5


def test_a_turn_by_ninety_degrees_about_a_pixel_is_exact():
    image = torch.rand(41, 41, 3)
    square = [[10 / 41, 10 / 41], [31 / 41, 10 / 41], [31 / 41, 31 / 41], [10 / 41, 31 / 41]]
    composites, *_ = run(clip((square, to(2, angle=180)), image=image))
    expected = image.clone()
    expected[10:31, 10:31] = image[10:31, 10:31].rot90(-1, (0, 1))
    torch.testing.assert_close(composites[1], expected, rtol=0, atol=1e-4)


PLAIN_MOVE = (SQUARE, to(4, x=0.13, y=0.07))
MOVES = {
    "move": [PLAIN_MOVE],
    "turn": [(SQUARE, to(4, angle=50))],
    "grow": [(SQUARE, to(4, scale=1.5, way="ease"))],
    "two": [(SQUARE, to(4, x=0.2, angle=-20, scale=1.2)), (OTHER, to(4, x=-0.15, y=0.06, angle=35))],
}


def solid(labels):
    """Pixels with nothing else within two pixels of them: no rim in which alpha mixes two of them."""
    padded = torch.nn.functional.pad(labels[:, None].float(), (2, 2, 2, 2), mode="replicate")
    high = torch.nn.functional.max_pool2d(padded, 5, 1)
    low = -torch.nn.functional.max_pool2d(-padded, 5, 1)
    return (high == low)[:, 0]


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("hole", ["keep", "fill"])
def test_the_composite_follows_the_flow(name, hole):
    """Where visible, frame t + 1 read at q + flow(q) shows what frame t shows at q.

    Bilinear reading of a function with second derivatives up to K along each axis is off by at most 2 K / 8; three
    readings take part: the object in both frames, and the comparison. The objects only grow, which flattens the waves.
    """
    drag = clip(*MOVES[name], frames=5, hole=hole)
    composites, labels, vectors, occlusion = run(drag)
    calm = solid(labels)
    grid = pixel_grid(HEIGHT, WIDTH)
    tolerance = 3 * 2 * AMPLITUDE * FREQUENCY**2 / 8
    followed, ignored = [], []
    for index in range(4):
        here = composites[index].permute(2, 0, 1)[None]
        there = composites[index + 1].permute(2, 0, 1)[None]
        target = vectors[index] + grid
        still_calm = remap(calm[index + 1][None, None].float(), target[None])[0, 0] > 0.999
        visible = (occlusion[index] == 0) & calm[index] & still_calm & (labels[index] > 0)
        assert visible.sum() > 100
        followed.append((remap(there, target[None]) - here).abs().amax(dim=1)[0][visible])
        ignored.append((there - here).abs().amax(dim=1)[0][visible])
    assert torch.cat(followed).max() < tolerance
    assert torch.cat(ignored).max() > 5 * tolerance  # without the flow the same comparison fails
    # The hidden part is small: visible pixels are not left out to make the numbers look well.
    moving = (labels[:-1] > 0).sum()
    assert occlusion[labels[:-1] > 0].sum() < 0.35 * moving


def test_later_objects_lie_in_front():
    red = torch.zeros(HEIGHT, WIDTH, 3)
    red[:, :40, 0] = 1  # left half red, right half green
    red[:, 40:, 1] = 1
    left = [[0.1, 0.2], [0.4, 0.2], [0.4, 0.6], [0.1, 0.6]]
    right = [[0.6, 0.2], [0.9, 0.2], [0.9, 0.6], [0.6, 0.6]]
    there = [{"frame": 0, "x": 0.5}]
    composites, labels, _, _ = run(clip((left, there), (right, []), image=red))
    assert composites[0, 24, 60].tolist() == [0, 1, 0]
    assert labels[0, 24, 60] == 2
    composites, labels, _, _ = run(clip((right, []), (left, there), image=red))
    assert composites[0, 24, 60].tolist() == [1, 0, 0]
    assert labels[0, 24, 60] == 2


def test_occlusion_is_where_something_else_comes_to_lie():
    """A square of 20 x 18 pixels moves 5 right: it hides a strip of 5 x 18 of the background, and nothing of itself."""
    _, labels, _, occlusion = run(clip((SQUARE, to(2, x=10 / WIDTH))))
    expected = (labels[0] == 0) & (labels[1] == 1)
    assert expected.sum() == 5 * 18
    assert torch.equal(occlusion[0].bool(), expected)
    # Moving out of the picture: what leaves is marked.
    _, labels, _, occlusion = run(clip((SQUARE, to(2, x=1.3))))
    leaving = (labels[0] == 1) & (pixel_grid(HEIGHT, WIDTH)[0] + 0.65 * WIDTH > WIDTH - 0.5)
    assert leaving.sum() == 12 * 18
    assert torch.equal(occlusion[0].bool() & (labels[0] == 1), leaving)


def test_behind_another_object_is_occluded():
    behind = (SQUARE, to(2, x=0.5))
    _, labels, _, occlusion = run(clip(behind, ([[0.5, 0.0], [0.9, 0.0], [0.9, 1.0], [0.5, 1.0]], [])))
    back = labels[0] == 1
    assert back.sum() > 0
    assert bool((occlusion[0][back] == 1).all())  # all of it is behind the wall at the next frame


def test_everything_dragged_outside():
    image = torch.rand(HEIGHT, WIDTH, 3)
    for values in ({"x": -3}, {"x": 100, "y": -100}, {"y": 2, "angle": 33, "scale": 3}):
        drag = clip((SQUARE, [{"frame": 0, **values}]), (OTHER, [{"frame": 1, **values}]), hole="fill", image=image)
        composites, labels, vectors, occlusion = run(drag)
        assert torch.equal(composites, drag.background.expand_as(composites))
        assert not labels.any()
        assert not vectors.any()
        assert not occlusion.any()
        assert composites.isfinite().all()


def test_cut_outside_the_picture_is_nothing():
    image = torch.rand(HEIGHT, WIDTH, 3)
    outside = [[1.2, 1.2], [1.9, 1.2], [1.5, 1.9]]
    composites, labels, *_ = run(clip((outside, to(2, x=-1, y=-1, angle=7)), hole="fill", image=image))
    assert torch.equal(composites, image.expand_as(composites))
    assert not labels.any()


def test_the_whole_picture_cut_leaves_grey():
    image = torch.rand(HEIGHT, WIDTH, 3)
    whole = [[-0.5, -0.5], [1.5, -0.5], [1.5, 1.5], [-0.5, 1.5]]
    composites, *_ = run(clip((whole, to(2, x=2)), hole="fill", image=image))
    assert torch.equal(composites[0], image)
    assert torch.equal(composites[2], torch.full((HEIGHT, WIDTH, 3), 0.5))


def test_a_filled_hole_shows_nothing_of_the_object():
    image = torch.full((HEIGHT, WIDTH, 3), 0.25)
    image[15:33, 20:40] = torch.tensor([1.0, 0.0, 0.5])
    composites, *_ = run(clip((SQUARE, to(2, x=0.4)), hole="fill", image=image))
    torch.testing.assert_close(composites[2][15:33, 20:40], torch.full((18, 20, 3), 0.25), rtol=0, atol=1e-6)


def test_extreme_scales_stay_finite():
    for scale in (0.001, 1000):
        composites, _, vectors, _ = run(clip((SQUARE, to(2, scale=scale, angle=720)), hole="fill"))
        assert composites.isfinite().all()
        assert vectors.isfinite().all()


def test_two_runs_agree():
    objects = MOVES["two"]
    first, second = run(clip(*objects, frames=5)), run(clip(*objects, frames=5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (33, 31)])
def test_tiny_and_odd_pictures(size):
    drag = clip((SQUARE, to(2, x=0.3, angle=20)), image=torch.rand(*size, 3), hole="fill")
    composites, _, vectors, _ = run(drag)
    assert composites.shape == (3, *size, 3)
    assert composites.isfinite().all()
    assert vectors.isfinite().all()


@pytest.mark.parametrize(
    ("image", "hole", "message"),
    [
        (torch.rand(8, 8, 3), "paint", r"^hole: got 'paint'; expected one of fill, keep\.$"),
        (torch.rand(8, 8), "fill", r"^image: got \[8, 8\]; expected \[height, width, 3\]\.$"),
        (torch.rand(8, 8, 1), "fill", r"^image: got \[8, 8, 1\]"),
    ],
)
def test_bad_arguments(image, hole, message):
    with pytest.raises(ValueError, match=message):
        clip(image=image, hole=hole)


@pytest.mark.parametrize("names", [[], ["two"]])
def test_a_rendered_clip_is_its_frames(names):
    objects = [part for name in names for part in MOVES[name]]
    drag = clip(*objects, frames=5)
    seen = []
    made = drag.render(on_frame=lambda index, frames: seen.append((index, frames)))
    assert seen == [(index, 5) for index in range(5)]
    composites, _, vectors, occlusion = run(drag)
    assert torch.equal(made.composites, composites)
    assert torch.equal(made.vectors, vectors)
    assert torch.equal(made.occlusion, occlusion)
    assert made.masks.shape == (max(len(objects), 1) * 5, HEIGHT, WIDTH)
    for index in range(5):
        frame = drag.frame(index)
        for number, (box, alpha) in enumerate(zip(frame.boxes, frame.alphas, strict=True)):
            expected = torch.zeros(HEIGHT, WIDTH)
            expected[box.slices] = alpha
            assert torch.equal(made.masks[number * 5 + index], expected)
    assert made.masks.any() == bool(objects)
    with pytest.raises(ValueError, match=r"^frames: got 1; flow needs at least 2\.$"):
        clip(frames=1).render()


@pytest.mark.parametrize("name", MOVES)
def test_bands_leave_nothing_of_an_object_out(name, monkeypatch):
    """What is read only along the outline is what is read in the whole picture."""
    drag = clip(*MOVES[name], frames=5)
    narrow = run(drag)
    monkeypatch.setattr(drag.scene, "bands", lambda number, index, rows=None: [Box(0, 0, WIDTH, HEIGHT)])
    assert all(torch.equal(a, b) for a, b in zip(narrow, run(drag), strict=True))
    monkeypatch.undo()
    monkeypatch.setattr(cut_and_drag_eager, "_ROWS", 7)
    assert all(torch.equal(a, b) for a, b in zip(narrow, run(drag), strict=True))
    pixels = sum((box.right - box.left) * (box.bottom - box.top) for box in drag.scene.bands(0, 2, 7))
    assert pixels < 0.75 * HEIGHT * WIDTH
