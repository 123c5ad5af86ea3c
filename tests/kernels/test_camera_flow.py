"""The camera before a still picture: exact laws without depth, geometry with it, and that flow and preview agree."""

import math

import pytest
import torch
from papernodes.kernels.camera_flow import CONVENTIONS, CameraClip, relative_depth
from papernodes.kernels.sampling import pixel_grid, remap

HEIGHT, WIDTH = 48, 64
AMPLITUDE, FREQUENCY = 0.2, 2 * math.pi / 24
CENTRE = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).view(2, 1, 1)


def waves():
    """A smooth picture whose second derivatives are at most AMPLITUDE * FREQUENCY^2 along each axis."""
    x, y = pixel_grid(HEIGHT, WIDTH)
    parts = [torch.sin(FREQUENCY * x + k) + torch.sin(FREQUENCY * y - 2 * k) for k in range(3)]
    return 0.5 + AMPLITUDE * torch.stack(parts, dim=-1)


def clip(image=None, depth=None, hole="fill", **moves):
    moves = {name: torch.tensor(values, dtype=torch.float32) for name, values in moves.items()}
    return CameraClip(waves() if image is None else image, moves, depth=depth, hole=hole)


def run(camera):
    """Previews [T, H, W, 3], revealed [T, H, W], vectors [T-1, 2, H, W], occlusion [T-1, H, W]."""
    frames = [camera.frame(index) for index in range(camera.frames)]
    flows = [camera.flow(index, frames[index], frames[index + 1]) for index in range(camera.frames - 1)]
    return (
        torch.stack([frame.preview for frame in frames]),
        torch.stack([frame.revealed for frame in frames]),
        torch.stack([vectors for vectors, _ in flows]),
        torch.stack([occlusion for _, occlusion in flows]),
    )


def hills():
    """A smooth depth with the centre at 1: from about 0.8 to 1.3."""
    x, y = pixel_grid(HEIGHT, WIDTH) - CENTRE
    return 1.0 + 0.2 * torch.sin(x / 14) + 0.1 * torch.sin(y / 11)


def box_before_wall():
    """A box at depth 1 in the middle of a wall at depth 2; a pan moves the box twice as far as the wall."""
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    depth[14:34, 22:42] = 1.0
    return depth


@pytest.mark.parametrize("depth", [None, hills(), box_before_wall()], ids=["flat", "hills", "box"])
def test_constant_schedules_are_the_identity(depth):
    image = torch.rand(HEIGHT, WIDTH, 3)
    values = {"pan_x": 0.3, "pan_y": -0.2, "zoom": 1.7, "roll": 33.0, "orbit": 12.0, "dolly": 0.4}
    previews, revealed, vectors, occlusion = run(clip(image, depth, **{k: [v] * 3 for k, v in values.items()}))
    assert torch.equal(previews, image.expand_as(previews))
    for other in (revealed, vectors, occlusion):
        assert torch.equal(other, torch.zeros_like(other))


def test_a_pan_gives_constant_flow_against_it():
    _, _, vectors, occlusion = run(clip(pan_x=[0.0, 0.125, 0.1875], pan_y=[0.0, -0.0625, 0.0]))
    expected = torch.tensor([[-8.0, 3.0], [-4.0, -3.0]])
    assert torch.equal(vectors, expected.view(2, 2, 1, 1).expand_as(vectors))
    x, y = pixel_grid(HEIGHT, WIDTH)
    assert torch.equal(occlusion[0].bool(), (x < 8) | (y > HEIGHT - 4))


def test_a_pan_by_whole_pixels_shifts_the_picture_exactly():
    image = torch.rand(HEIGHT, WIDTH, 3)
    previews, revealed, _, _ = run(clip(image, pan_x=[0.0, 5 / WIDTH], pan_y=[0.0, -3 / HEIGHT]))
    assert torch.equal(previews[1, 3:, :-5], image[:-3, 5:])
    expected = torch.ones(HEIGHT, WIDTH)
    expected[3:, :-5] = 0
    assert torch.equal(revealed[1], expected)


def test_a_pan_of_a_tenth_is_whole_though_schedules_are_float32():
    image = torch.rand(8, 1920, 3)
    previews, revealed, _, _ = run(clip(image, pan_x=[0.0, 0.1]))
    assert torch.equal(previews[1, :, :-192], image[:, 192:])
    assert revealed[1].sum() == 8 * 192


@pytest.mark.parametrize(
    ("zoom", "roll"), [((1, 1.25), (0, 0)), ((2, 1), (5, 5)), ((1, 1), (0, 30)), ((1.5, 1.2), (10, -35))]
)
def test_zoom_and_roll_give_the_analytic_field(zoom, roll):
    """At every q: (zoom ratio) * R(-(roll difference)) (q - c) - (q - c)."""
    _, _, vectors, _ = run(clip(zoom=list(zoom), roll=list(roll)))
    x, y = (pixel_grid(HEIGHT, WIDTH) - CENTRE).double()
    factor, angle = zoom[1] / zoom[0], math.radians(roll[0] - roll[1])
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    field = torch.stack([cos * x - sin * y - x, sin * x + cos * y - y])
    torch.testing.assert_close(vectors[0].double(), field, rtol=0, atol=2e-5)


def test_a_roll_clockwise_turns_the_picture_counter_clockwise():
    _, _, vectors, _ = run(clip(roll=[0.0, 20.0]))
    assert vectors[0, 0, 0, WIDTH // 2] < -5  # the upper edge goes left
    _, _, vectors, _ = run(clip(zoom=[1.0, 2.0]))
    assert vectors[0, 0, HEIGHT // 2, -1] > 5  # what is right of the centre goes right


def test_a_roll_by_ninety_degrees_turns_the_pixels():
    image = torch.rand(31, 31, 3)
    previews, revealed, _, _ = run(clip(image, roll=[0.0, 90.0]))
    torch.testing.assert_close(previews[1], image.rot90(1, (0, 1)), rtol=0, atol=1e-4)
    assert not revealed.any()


def test_the_step_is_that_of_the_composed_maps():
    """flow[t](q) = X_{t+1}(X_t^-1(q)) - q with pan, zoom and roll together."""
    camera = clip(pan_x=[0, 0.1, 0.3], pan_y=[0, 0.2, -0.1], zoom=[1, 1.5, 0.7], roll=[0, 20, 75])
    _, _, vectors, _ = run(camera)
    before, after = camera._map(camera.views[1]), camera._map(camera.views[2])
    for q in ((0, 0), (40, 7), (63, 47)):
        x, y = after.apply(*before.inverse().apply(*q))
        expected = torch.tensor([x - q[0], y - q[1]])
        torch.testing.assert_close(vectors[1, :, q[1], q[0]], expected, rtol=0, atol=1e-4)


def test_zooming_out_reveals_the_rim():
    _, revealed, _, _ = run(clip(zoom=[1.0, 0.5]))
    assert revealed[1].mean() == pytest.approx(0.75, abs=0.01)
    assert not revealed[1, 13:-13, 17:-17].any()


FLAT_MOVES = {
    "pan": {"pan_x": [0, 0.045, 0.11, 0.2], "pan_y": [0, 0.03, 0.02, -0.04]},
    "zoom": {"zoom": [1, 1.1, 1.3, 1.45]},
    "roll": {"roll": [0, 7, 16, 30]},
    "all": {"pan_x": [0, 0.05, 0.1, 0.11], "zoom": [1, 1.1, 1.2, 1.3], "roll": [0, -5, -9, -20]},
}
DEEP_MOVES = {
    "pan": {"pan_x": [0, 0.03, 0.08, 0.12], "pan_y": [0, 0.02, 0.02, -0.04]},
    "orbit": {"orbit": [0, 3, 6, 10]},
    "dolly": {"dolly": [0, 0.1, 0.17, 0.25]},
    "all": {"pan_x": [0, 0.03, 0.06, 0.09], "orbit": [0, 2, 4, 6], "dolly": [0, 0.1, 0.2, 0.3], "roll": [0, 5, 9, 2]},
}
CASES = [(None, moves) for moves in FLAT_MOVES.values()] + [(hills(), moves) for moves in DEEP_MOVES.values()]


@pytest.mark.parametrize(("depth", "moves"), CASES, ids=[*FLAT_MOVES, *(f"deep {name}" for name in DEEP_MOVES)])
def test_the_preview_follows_the_flow(depth, moves):
    """Where visible, frame t + 1 read at q + flow(q) shows what frame t shows at q.

    Three bilinear readings, each off by at most 2 K / 8 (second derivatives up to K along each axis; nothing here makes
    the waves shorter by more than a quarter). With depth, the depth drawn at a pixel is that of a point up to half a
    pixel away: together some hundredths of a pixel more in both frames, at a slope of at most 2 A w a pixel.
    """
    previews, revealed, vectors, occlusion = run(clip(depth=depth, **moves))
    # The outer half of the picture's outermost pixels repeats their colour: next to the revealed, nothing is compared.
    revealed = torch.nn.functional.max_pool2d(revealed[:, None], 3, 1, 1)[:, 0]
    tolerance = 3 * 2 * AMPLITUDE * FREQUENCY**2 / 8 * (1.0 if depth is None else 1.25**2)
    tolerance += 0.0 if depth is None else 2 * 0.05 * 2 * AMPLITUDE * FREQUENCY
    grid = pixel_grid(HEIGHT, WIDTH)
    followed, ignored = [], []
    for index in range(3):
        here, there = (previews[k].permute(2, 0, 1)[None] for k in (index, index + 1))
        target = vectors[index] + grid
        hidden_there = remap(revealed[index + 1][None, None], target[None], border="border")[0, 0] > 0
        # At the frame's own border a repeated colour has no revealed neighbour that would give it away.
        inside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
        for x, y in (grid, target):
            inside &= (x >= 1) & (y >= 1) & (x <= WIDTH - 2) & (y <= HEIGHT - 2)
        visible = (occlusion[index] == 0) & (revealed[index] == 0) & ~hidden_there & inside
        assert visible.float().mean() > 0.5
        followed.append((remap(there, target[None]) - here).abs().amax(dim=1)[0][visible])
        ignored.append((there - here).abs().amax(dim=1)[0][visible])
    assert torch.cat(followed).max() < tolerance
    assert torch.cat(ignored).max() > 4 * tolerance  # without the flow the same comparison fails


def test_with_one_depth_everywhere_a_pan_is_the_flat_one():
    plane = torch.ones(HEIGHT, WIDTH)
    moves = {"pan_x": [0, 0.03, 0.2], "pan_y": [0, -0.05, 0.1], "zoom": [1, 1.2, 0.9], "roll": [0, 10, 5]}
    flat, deep = run(clip(**moves)), run(clip(depth=plane, **moves))
    torch.testing.assert_close(deep[2], flat[2], rtol=0, atol=1e-3)
    inside = (flat[1] == 0) & (deep[1] == 0)
    assert (flat[1] != deep[1]).float().mean() < 0.02
    torch.testing.assert_close(deep[0][inside], flat[0][inside], rtol=0, atol=2e-3)


@pytest.mark.parametrize("dolly", [0.5, -1.0])
def test_a_dolly_to_a_plane_is_a_zoom(dolly):
    """From depth 1 to 1 - d everything is 1 / (1 - d) times as large."""
    _, revealed, vectors, _ = run(clip(depth=torch.ones(HEIGHT, WIDTH), dolly=[0.0, dolly]))
    expected = (pixel_grid(HEIGHT, WIDTH) - CENTRE) * (1 / (1 - dolly) - 1)
    torch.testing.assert_close(vectors[0], expected, rtol=0, atol=1e-3)
    assert revealed[1].any() == (dolly < 0)


def test_an_orbit_keeps_the_centre_and_moves_near_things_left():
    depth = torch.ones(HEIGHT, WIDTH)
    depth[:16], depth[32:] = 0.5, 2.0  # near above, far below
    _, _, vectors, _ = run(clip(depth=depth, orbit=[0.0, 10.0]))
    column = WIDTH // 2
    assert vectors[0, 0, 5, column] < -4 < 4 < vectors[0, 0, 43, column]
    assert vectors[0, :, HEIGHT // 2, column].abs().max() < 0.1
    # The plane of the centre turns: x' = f X cos / (1 - X sin), for X = x / f.
    focal = WIDTH / 2 / math.tan(math.radians(25))
    x = 20.5 / focal
    expected = focal * x * math.cos(math.radians(10)) / (1 - x * math.sin(math.radians(10))) - 20.5
    assert vectors[0, 0, HEIGHT // 2, int(20.5 + CENTRE[0, 0, 0])].item() == pytest.approx(expected, abs=1e-3)


def test_parallax_reveals_what_was_behind():
    """The camera goes 8 pixels right: the box goes 8 left, the wall 4; 4 columns right of the box were behind it."""
    image = torch.zeros(HEIGHT, WIDTH, 3)
    image[..., 2] = 1
    image[14:34, 22:42] = torch.tensor([1.0, 0.0, 0.0])
    previews, revealed, vectors, occlusion = run(clip(image, box_before_wall(), pan_x=[0.0, 8 / WIDTH]))
    expected = torch.zeros(HEIGHT, WIDTH)
    expected[14:34, 34:38] = 1
    expected[:, -4:] = 1
    assert torch.equal(revealed[1], expected)
    box, wall = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool), torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    box[14:34, 22:42] = True
    wall[14:34, 22:42] = False
    torch.testing.assert_close(vectors[0][0, box], torch.full((400,), -8.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(vectors[0][0, wall], torch.full((int(wall.sum()),), -4.0), rtol=0, atol=1e-3)
    # The box is in front: 4 columns left of where it was go behind it.
    hidden = torch.zeros(HEIGHT, WIDTH)
    hidden[14:34, 18:22] = 1
    hidden[:, :4] = 1
    assert torch.equal(occlusion[0], hidden)
    torch.testing.assert_close(previews[1, 20, 15:33], image[20, 23:41], rtol=0, atol=1e-3)


def test_grey_and_filled_holes():
    image = torch.full((HEIGHT, WIDTH, 3), 0.25)
    grey, revealed, _, _ = run(clip(image, pan_x=[0.0, 0.25], hole="grey"))
    assert bool((grey[1][revealed[1] == 1] == 0.5).all())
    filled, *_ = run(clip(image, pan_x=[0.0, 0.25]))
    torch.testing.assert_close(filled[1], image, rtol=0, atol=1e-6)
    nothing_left, revealed, _, _ = run(clip(image, pan_x=[0.0, 5.0]))
    assert bool((revealed[1] == 1).all())
    assert bool((nothing_left[1] == 0.5).all())


@pytest.mark.parametrize("zoom", [0.3, 1.0, 3.0])
def test_smooth_surfaces_get_no_cracks(zoom):
    _, revealed, _, _ = run(clip(depth=hills(), zoom=[1.0, zoom], roll=[0.0, 40.0], orbit=[0.0, 5.0], dolly=[0, 0.2]))
    middle = revealed[1, HEIGHT // 2 - 4 : HEIGHT // 2 + 4, WIDTH // 2 - 4 : WIDTH // 2 + 4]
    assert not middle.any()
    assert (revealed[1] == 1).float().mean() < (0.95 if zoom < 1 else 0.5)


def test_passing_through_things_stays_finite():
    previews, _, vectors, _ = run(clip(depth=box_before_wall(), dolly=[0.0, 0.95, 5.0], orbit=[0.0, 80.0, -80.0]))
    assert previews.isfinite().all()
    assert vectors.isfinite().all()


def test_two_runs_agree():
    moves = {"pan_x": [0, 0.1], "orbit": [0, 9], "dolly": [0, 0.3]}
    first, second = (run(clip(depth=box_before_wall(), **moves)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (33, 31)])
def test_tiny_and_odd_pictures(size):
    moves = {"pan_x": [0, 0.1], "zoom": [1, 1.5], "orbit": [0, 9], "dolly": [0, 0.3]}
    previews, _, vectors, _ = run(clip(torch.rand(*size, 3), torch.ones(size), **moves))
    assert previews.shape == (2, *size, 3)
    assert previews.isfinite().all()
    assert vectors.isfinite().all()


def test_depth_pictures():
    ramp = torch.linspace(0, 1, 41).expand(41, 41)
    near = relative_depth(ramp, "near is white", 4.0, (41, 41))
    far = relative_depth(ramp, "far is white", 4.0, (41, 41))
    for result, first, last in ((near, 4, 1), (far, 1, 4)):
        assert result[20, 20] == pytest.approx(1, abs=0.05)
        assert (result[0, 0] / result[0, 40]).item() == pytest.approx(first / last, rel=1e-5)
    # Inverse depth: half-way between near (1) and far (4) is 1.6, depth: 2.5.
    assert (near[0, 20] / near[0, 40]).item() == pytest.approx(1.6)
    assert (far[0, 20] / far[0, 0]).item() == pytest.approx(2.5)
    assert relative_depth(ramp * 3 - 1, "far is white", 4.0, (20, 30)).shape == (20, 30)
    assert torch.equal(relative_depth(ramp, CONVENTIONS[0], 1.0, (41, 41)), torch.ones(41, 41))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip(orbit=[0.0, 1.0]), r"^orbit: it changes over the clip, which needs a depth\.$"),
        (lambda: clip(dolly=[0.0, 1.0]), r"^dolly: it changes over the clip, which needs a depth\.$"),
        (lambda: clip(hole="paint"), r"^hole: got 'paint'; expected one of fill, grey\.$"),
        (lambda: clip(pan_x=[0.0, 1.0], zoom=[1.0]), r"^moves: got \['pan_x', 'zoom'\] of lengths \[1, 2\]"),
        (lambda: clip(tilt=[0.0, 1.0]), r"^moves: got \['tilt'\]"),
        (lambda: clip(torch.rand(4, 4)), r"^image: got \[4, 4\]; expected \[height, width, 3\]\.$"),
        (lambda: clip(depth=torch.ones(4, 4), zoom=[1.0]), r"^depth: got \[4, 4\]; expected \[48, 64\], as the image"),
        (lambda: relative_depth(torch.ones(4, 4), "white", 2.0, (4, 4)), r"^convention: got 'white'; expected one of"),
        (lambda: relative_depth(torch.ones(4), CONVENTIONS[0], 2.0, (4, 4)), r"^depth: got \[4\]; expected"),
        (lambda: relative_depth(torch.ones(4, 4), CONVENTIONS[0], 0.5, (4, 4)), r"^ratio: got 0.5; expected 1 or"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rendered_clip_is_its_frames():
    camera = clip(depth=box_before_wall(), pan_x=[0.0, 0.1, 0.2], orbit=[0, 5, 9])
    seen = []
    made = camera.render(on_frame=lambda index, frames: seen.append((index, frames)))
    assert seen == [(0, 3), (1, 3), (2, 3)]
    fields = (made.previews, made.revealed, made.vectors, made.occlusion)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(fields, run(camera), strict=True))
    with pytest.raises(ValueError, match=r"^frames: got 1; flow needs at least 2\.$"):
        clip(pan_x=[0.0]).render()


def test_depth_pictures_are_grey():
    ramp = torch.linspace(0, 1, 41).expand(41, 41)
    grey = ramp[..., None].expand(-1, -1, 4) + torch.tensor([0.01, 0, -0.01, 5])  # a JPEG file's grey, with an alpha
    expected = relative_depth(ramp, CONVENTIONS[0], 4.0, (41, 41))
    torch.testing.assert_close(relative_depth(grey, CONVENTIONS[0], 4.0, (41, 41)), expected, rtol=0.01, atol=0)
    with pytest.raises(ValueError, match=r"^depth: the picture is in colours, which do not say what is near"):
        relative_depth(torch.stack([ramp, 1 - ramp, ramp], dim=-1), CONVENTIONS[0], 4.0, (41, 41))
