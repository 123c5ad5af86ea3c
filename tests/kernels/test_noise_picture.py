"""Noise shown as a picture."""

import pytest
import torch
from papernodes.kernels.noise_picture import noise_to_picture


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_first_three_channels_evenly_spread(channels):
    noise = torch.randn(2, channels, 40, 60, generator=torch.Generator().manual_seed(0))
    picture = noise_to_picture(noise, shortest_side=1)
    assert picture.shape == (2, 40, 60, 3)
    assert picture.dtype == torch.float32
    for colour in range(3):
        values = picture[..., colour]
        assert (values.flatten()[noise[:, colour % channels].flatten().argsort()].diff() >= 0).all()
        # the distribution function makes normal numbers uniform: quartiles lie at even steps
        quartiles = torch.quantile(values, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
        torch.testing.assert_close(quartiles, torch.tensor([1, 2, 3, 4, 5]) / 6, atol=0.02, rtol=0)


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 32), ((60, 90), 5), ((300, 200), 2), ((300, 400), 1)])
def test_enlarged_by_a_whole_factor_with_hard_edges(size, factor):
    noise = torch.randn(1, 3, *size)
    picture = noise_to_picture(noise)
    assert picture.shape == (1, size[0] * factor, size[1] * factor, 3)
    small = noise_to_picture(noise, shortest_side=1)
    for y, x in ((0, 0), (factor - 1, factor - 1)):
        assert torch.equal(picture[:, y::factor, x::factor], small)


def test_half_precision_and_nan():
    picture = noise_to_picture(torch.tensor([float("nan"), float("inf"), 0.0]).half().view(1, 3, 1, 1))
    assert picture.isfinite().all()
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 3, 8, 8), (1, 0, 8, 8)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match="noise must have shape"):
        noise_to_picture(torch.zeros(shape))
