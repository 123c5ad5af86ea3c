"""The colours of a flow picture and its legend."""

import math

import pytest
import torch
from papernodes.kernels import flow_picture
from papernodes.kernels.flow_picture import color_wheel, flow_to_image, typical_maximum


def constant(dx, dy, size=(8, 8)):
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, *size).contiguous()


def color(dx, dy, scale=10.0):
    return flow_to_image(constant(dx, dy), max_magnitude=scale, legend=False)[0, 0, 0]


def test_the_wheel_has_the_published_steps():
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    for place, expected in ((0, (1, 0, 0)), (15, (1, 1, 0)), (21, (0, 1, 0)), (25, (0, 1, 1)), (36, (0, 0, 1))):
        assert wheel[place].tolist() == list(expected)
    assert wheel[49].tolist() == [1, 0, 1]


def test_rest_is_white_and_right_is_red():
    assert color(0.0, 0.0).tolist() == [1, 1, 1]
    assert torch.allclose(color(10.0, 0.0), torch.tensor([1.0, 0.0, 0.0]), atol=1e-5)
    assert torch.allclose(color(5.0, 0.0), torch.tensor([1.0, 0.5, 0.5]), atol=1e-5)


def test_down_is_yellowish_left_is_cyan_blue_up_is_magenta_blue():
    red, green, blue = color(0.0, 10.0).tolist()
    assert red > 0.9 and green > 0.5 and blue < 0.1
    red, green, blue = color(-10.0, 0.0).tolist()
    assert red < 0.1 and blue > 0.9
    red, green, blue = color(0.0, -10.0).tolist()
    assert blue > 0.9 and green < 0.1


def test_hue_turns_with_the_angle_without_a_seam():
    angles = torch.linspace(-math.pi, math.pi, 2001)
    flow = torch.stack([angles.cos(), angles.sin()]).view(1, 2, 1, -1)
    picture = flow_to_image(flow, max_magnitude=1.0, legend=False)[0, 0]
    assert (picture[1:] - picture[:-1]).abs().max() < 0.01
    assert (picture[0] - picture[-1]).abs().max() < 0.01


def test_saturation_grows_with_speed_and_beyond_the_scale_it_darkens():
    speeds = torch.linspace(0, 10, 50)
    flow = torch.stack([speeds, torch.zeros(50)]).view(1, 2, 1, -1)
    picture = flow_to_image(flow, max_magnitude=10.0, legend=False)[0, 0]
    assert bool((picture[1:, 1] < picture[:-1, 1]).all())
    assert color(20.0, 0.0)[0] < color(11.0, 0.0)[0] < 1
    assert color(20.0, 0.0).tolist() == color(1e6, 0.0).tolist()


def test_one_scale_for_all_frames():
    slow, fast = constant(1.0, 0.0), constant(8.0, 0.0)
    together = flow_to_image(torch.cat([slow, fast]), legend=False)
    assert torch.equal(together[:1], flow_to_image(slow, max_magnitude=typical_maximum(fast), legend=False))
    assert typical_maximum(torch.cat([slow, fast])) == pytest.approx(8.0)


def test_the_scale_ignores_single_outliers_and_has_a_floor():
    flow = torch.zeros(1, 2, 50, 50)
    flow[:, 0] = 3.0
    flow[0, 0, 0, :10] = 900.0
    assert typical_maximum(flow) == pytest.approx(3.0)
    assert typical_maximum(torch.zeros(1, 2, 4, 4)) == pytest.approx(0.1)
    assert bool((flow_to_image(torch.zeros(1, 2, 4, 4)) == 1).all())


@pytest.mark.parametrize("size", [(96, 96), (97, 400), (900, 100), (480, 854)])
def test_the_legend_sits_in_the_corner_of_every_frame(size):
    flow = torch.zeros(2, 2, *size)
    picture = flow_to_image(flow, max_magnitude=12.0)
    plain = flow_to_image(flow, max_magnitude=12.0, legend=False)
    changed = (picture != plain).any(dim=-1)
    assert bool(torch.isfinite(picture).all()) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(picture[0], picture[1])
    assert changed.any() and not changed[:, : size[0] // 2].any() and not changed[:, :, : size[1] // 2].any()
    # All six corner colours of the wheel are there.
    for corner in color_wheel()[[0, 15, 21, 25, 36, 49]]:
        assert (picture[0] - corner).abs().amax(dim=-1).min() < 0.35


def test_the_legend_shows_the_scale(monkeypatch):
    written = []
    text = flow_picture._text
    monkeypatch.setattr(flow_picture, "_text", lambda words, size: written.append(words) or text(words, size))
    flow_to_image(torch.zeros(1, 2, 99, 99), max_magnitude=12.345)
    assert written == ["12.3 px"]
    monkeypatch.setattr(flow_picture, "_text", lambda words, size: None)
    assert bool(torch.isfinite(flow_to_image(torch.zeros(1, 2, 99, 99))).all())


def test_small_pictures_have_no_legend():
    flow = torch.ones(1, 2, 95, 200)
    assert torch.equal(flow_to_image(flow), flow_to_image(flow, legend=False))
    assert flow_to_image(torch.ones(3, 2, 1, 1)).shape == (3, 1, 1, 3)


def test_the_flow_is_left_alone():
    flow = torch.randn(1, 2, 100, 100)
    before = flow.clone()
    assert flow_to_image(flow).dtype == torch.float32
    assert torch.equal(flow, before)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match=r"max_magnitude: got .*; expected a positive number of pixels"):
        flow_to_image(torch.zeros(1, 2, 4, 4), max_magnitude=scale)


def test_not_a_flow():
    with pytest.raises(ValueError, match="flow: got float32"):
        flow_to_image(torch.zeros(1, 3, 4, 4))
