"""A camera before a still picture: laws of its flow and of what it sees."""

import math

import pytest
import torch
from papernodes.kernels.camera_flow import CameraClip, relative_depth
from papernodes.kernels.sampling import pixel_grid, remap

HEIGHT, WIDTH = 48, 80


def picture(seed=0):
    """Smooth, so that reading it between pixels says where it was read."""
    noise = torch.rand(1, 3, 7, 11, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, (HEIGHT, WIDTH), mode="bicubic", align_corners=True)
    return large[0].permute(1, 2, 0).clamp(0, 1)


def moves(**values):
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def clip(depth=None, **values):
    made = CameraClip(picture(), moves(**values), depth=depth)
    frames = [made.frame(index) for index in range(made.frames)]
    flows = [made.flow(index, frames[index], frames[index + 1]) for index in range(made.frames - 1)]
    return frames, flows


def ramp_depth():
    """Near on the left, far on the right."""
    return torch.linspace(0.6, 1.4, WIDTH).expand(HEIGHT, WIDTH).contiguous()


@pytest.mark.parametrize("depth", [None, ramp_depth()])
def test_a_camera_at_rest_sees_the_picture(depth):
    frames, flows = clip(depth, pan_x=[0.0, 0.0, 0.0], zoom=[1.0, 1.0, 1.0])
    for frame in frames:
        assert (frame.preview - picture()).abs().max() < 1e-5 and frame.revealed.sum() == 0
    for vectors, occluded in flows:
        assert vectors.abs().max() < 1e-4 and occluded.sum() == 0


def test_a_pan_by_whole_pixels_moves_the_picture_exactly():
    frames, flows = clip(pan_x=[0.0, 5 / WIDTH], pan_y=[0.0, -3 / HEIGHT])
    vectors, occluded = flows[0]
    assert torch.allclose(vectors[0], torch.full_like(vectors[0], -5.0), atol=1e-4), "the camera goes right"
    assert torch.allclose(vectors[1], torch.full_like(vectors[1], 3.0), atol=1e-4)
    assert torch.equal(frames[1].preview[3:, :-5], picture()[:-3, 5:])
    assert frames[1].revealed[3:, :-5].sum() == 0
    assert frames[1].revealed[:, -5:].min() == 1 and frames[1].revealed[:3].min() == 1
    assert occluded[:, :5].min() == 1 and occluded[-3:].min() == 1 and occluded[:-3, 5:].sum() == 0


@pytest.mark.parametrize(("zoom", "roll"), [(1.3, 0.0), (0.8, 0.0), (1.0, 10.0), (1.2, -7.0)])
def test_zoom_and_roll_give_the_analytic_field(zoom, roll):
    _, flows = clip(zoom=[1.0, zoom], roll=[0.0, roll])
    x, y = pixel_grid(HEIGHT, WIDTH)
    dx, dy = x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2
    cos, sin = math.cos(math.radians(-roll)), math.sin(math.radians(-roll))  # the picture turns the other way
    expected = torch.stack((zoom * (cos * dx - sin * dy) - dx, zoom * (sin * dx + cos * dy) - dy))
    assert torch.allclose(flows[0][0], expected, atol=1e-3)


def test_flow_leads_to_the_same_content():
    frames, flows = clip(pan_x=[0.0, 0.05, 0.12], zoom=[1.0, 1.1, 1.25], roll=[0.0, 4.0, 9.0])
    for index, (vectors, occluded) in enumerate(flows):
        after = frames[index + 1].preview.permute(2, 0, 1)[None]
        fetched = remap(after, (pixel_grid(HEIGHT, WIDTH) + vectors)[None])[0].permute(1, 2, 0)
        seen = (occluded == 0) & (frames[index].revealed == 0)
        assert seen.float().mean() > 0.5
        with_flow = (fetched - frames[index].preview).abs().mean(-1)[seen].mean()
        without = (frames[index + 1].preview - frames[index].preview).abs().mean(-1)[seen].mean()
        assert with_flow < 0.01 and without > 5 * with_flow


def test_what_is_nearer_moves_farther():
    _, flows = clip(ramp_depth(), pan_x=[0.0, 0.05])
    vectors, occluded = flows[0]
    seen = occluded == 0
    left, right = vectors[0][:, 10:20][seen[:, 10:20]].mean(), vectors[0][:, 60:70][seen[:, 60:70]].mean()
    assert left < right < 0, "the near left side runs ahead of the far right side"
    middle = vectors[0][:, WIDTH // 2 - 1 : WIDTH // 2 + 1].mean()
    assert abs(middle + 0.05 * WIDTH) < 0.2, "at the centre's depth the pan is what was asked for"


def test_dolly_enlarges_and_orbit_turns_round_the_centre():
    depth = torch.ones(HEIGHT, WIDTH)
    _, flows = clip(depth, dolly=[0.0, 0.2])
    x, y = pixel_grid(HEIGHT, WIDTH)
    grown = 1 / 0.8 - 1  # a plane at distance 1 seen from 0.8
    expected = torch.stack((x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2)) * grown
    seen = flows[0][1] == 0
    assert (flows[0][0] - expected).abs().amax(0)[seen].max() < 0.05
    _, flows = clip(depth, orbit=[0.0, 10.0])
    middle = flows[0][0][:, HEIGHT // 2 - 1 : HEIGHT // 2 + 1, WIDTH // 2 - 1 : WIDTH // 2 + 1]
    assert middle.abs().max() < 0.5 and flows[0][0].abs().max() > 0.5


def test_depth_uncovers_what_lay_behind():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    depth[12:36, 30:50] = 1.0
    frames, flows = clip(depth / depth[HEIGHT // 2, WIDTH // 2], pan_x=[0.0, 0.08])
    box = frames[1].revealed[14:34, 10:70]
    assert box.any() and not box.all(), "a strip beside the near thing"
    assert (flows[0][1][14:34, 10:70] > 0).any(), "and on its other side the ground is hidden"


@pytest.mark.parametrize("name", ["orbit", "dolly"])
def test_without_depth_the_camera_stays_in_its_plane(name):
    with pytest.raises(ValueError, match=name):
        clip(**{name: [0.0, 0.1]})
    clip(**{name: [0.0, 0.0]})


def test_depth_pictures_are_read_by_their_convention():
    white = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    white[HEIGHT // 2 - 3 : HEIGHT // 2 + 3, WIDTH // 2 - 4 : WIDTH // 2 + 4] = 0.5
    near, far = (relative_depth(white, f"{end} is white", 4.0, (HEIGHT, WIDTH)) for end in ("near", "far"))
    centre = (HEIGHT // 2, WIDTH // 2)
    assert near[centre] == 1 and far[centre] == 1
    brightest, darkest = white.flatten().argmax(), white.flatten().argmin()
    assert near.flatten()[brightest] < 1 < near.flatten()[darkest]
    assert far.flatten()[brightest] > 1 > far.flatten()[darkest]
    assert near.max() / near.min() <= 4.0 + 1e-4 and far.max() / far.min() <= 4.0 + 1e-4
    assert relative_depth(white, "far is white", 4.0, (24, 40)).shape == (24, 40)
    with pytest.raises(ValueError, match="convention"):
        relative_depth(white, "white", 4.0, (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="ratio"):
        relative_depth(white, "far is white", 0.5, (HEIGHT, WIDTH))
