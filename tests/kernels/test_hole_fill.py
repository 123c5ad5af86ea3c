"""Filling holes: what is known stays, what is not follows its surroundings."""

import pytest
import torch
from papernodes.kernels.hole_fill import fill_holes
from papernodes.kernels.sampling import pixel_grid

SIZES = [(1, 1), (1, 9), (7, 1), (16, 16), (33, 47)]


def hole(height, width):
    known = torch.ones(height, width)
    known[height // 4 : height // 4 + height // 2 + 1, width // 4 : width // 4 + width // 2 + 1] = 0
    return known


@pytest.mark.parametrize("size", SIZES)
def test_what_is_known_stays_bit_for_bit(size):
    image = torch.rand(3, *size)
    known = hole(*size)
    filled = fill_holes(image, known)
    assert torch.equal(filled[:, known == 1], image[:, known == 1])
    assert torch.equal(fill_holes(image, torch.ones(size)), image)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (2, 5)])
def test_a_constant_stays_constant(size):
    image = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1).expand(3, *size).clone()
    known = torch.ones(size)
    known[1:, 1:] = 0
    garbage = torch.where(known == 1, image, torch.nan)
    torch.testing.assert_close(fill_holes(garbage, known), image, rtol=0, atol=1e-6)


def test_a_ramp_is_roughly_kept():
    ramp = pixel_grid(48, 64)[:1] / 63
    known = hole(48, 64)
    inside = (known == 0).expand_as(ramp)
    error = (fill_holes(torch.where(inside, 9.0, ramp), known) - ramp)[inside].abs()
    # A hole half as wide as the picture spans 0.5; its mean colour alone would be off by 0.125 on average.
    assert error.mean() < 0.06
    assert error.max() < 0.2


def test_filled_values_stay_between_the_known_ones():
    image = torch.rand(3, 41, 29) * 0.5 + 0.25
    known = (torch.rand(41, 29, generator=torch.Generator().manual_seed(1)) > 0.9).float()
    filled = fill_holes(image, known)
    assert filled.min() >= image[:, known == 1].min() - 1e-6
    assert filled.max() <= image[:, known == 1].max() + 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_nothing_known_gives_grey(size):
    filled = fill_holes(torch.full((3, *size), float("nan")), torch.zeros(size))
    assert torch.equal(filled, torch.full((3, *size), 0.5))


def test_one_known_pixel_fills_all():
    known = torch.zeros(19, 30)
    known[3, 4] = 1
    image = torch.rand(3, 19, 30)
    torch.testing.assert_close(fill_holes(image, known), image[:, 3:4, 4:5].expand(3, 19, 30), rtol=0, atol=1e-6)


def test_half_known_pixels_are_mixed():
    image = torch.ones(1, 2, 2)
    image[0, 0, 0] = 0
    weight = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    # One level up: (0 * 0.5 + 1 + 1 + 1) / 3.5; then half of the pixel's own 0.
    assert fill_holes(image, weight)[0, 0, 0].item() == pytest.approx(0.5 * 3 / 3.5)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"^weight: got \[4, 5\] for an image \[3, 4, 4\]; expected \[C, H, W\]"):
        fill_holes(torch.rand(3, 4, 4), torch.rand(4, 5))
