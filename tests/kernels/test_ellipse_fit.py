"""Ellipses of masks: drawn ones come back, refining never loses, and masks of any kind give numbers."""

import math

import pytest
import torch
from papernodes.kernels.ellipse_fit import fit_ellipses, steadied
from papernodes.kernels.ellipses import distances

SIZES = [(128, 128), (150, 260)]


def drawn(ellipses, height, width):
    return (distances(ellipses, height, width) <= 1).float()


def some_ellipses(count, seed, left=0.35):
    r = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    a = 0.14 + 0.2 * r[:, 2]
    return torch.stack(
        (left + 0.3 * r[:, 0], 0.4 + 0.2 * r[:, 1], a, a * (0.3 + 0.4 * r[:, 3]), (r[:, 4] - 0.5) * math.pi), -1
    )


def errors(found, wanted, height, width):
    """Pixels of the middle, pixels of the axes, degrees."""
    off = found - wanted
    turned = torch.rad2deg((off[..., 4] + math.pi / 2) % math.pi - math.pi / 2).abs()
    middle = torch.hypot(off[..., 0] * width, off[..., 1] * height)
    return float(middle.max()), float(off[..., 2:4].abs().max() * height), float(turned.max())


def iou(ellipses, masks):
    there = drawn(ellipses, *masks.shape[-2:]) > 0.5
    masks = masks > 0.5
    return (there & masks).sum((-2, -1)) / (there | masks).sum((-2, -1))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("refine", [False, True])
def test_a_drawn_ellipse_is_found(height, width, refine):
    wanted = some_ellipses(6, 1)
    fit = fit_ellipses(drawn(wanted, height, width), refine)
    middle, axes, degrees = errors(fit.ellipses, wanted, height, width)
    assert max(middle, axes) < 0.5
    assert degrees < 1.0
    assert bool(fit.present.all())
    assert float(fit.iou.min()) > 0.97
    torch.testing.assert_close(fit.iou, iou(fit.ellipses, drawn(wanted, height, width)), atol=5e-3, rtol=0)


def test_one_that_the_border_cuts_is_found_by_what_is_seen_of_it():
    height, width = 150, 260
    wanted = some_ellipses(5, 2, left=0.0)
    masks = drawn(wanted, height, width)
    rough, fine = fit_ellipses(masks, refine=False), fit_ellipses(masks)
    assert float(rough.iou.min()) < 0.95
    assert float(fine.iou.min()) > 0.985
    middle, axes, degrees = errors(fine.ellipses, wanted, height, width)
    assert max(middle, axes) < 2.5  # of half axes of 21 to 51
    assert degrees < 3.0
    assert max(errors(rough.ellipses, wanted, height, width)[:2]) > 8


def test_refining_never_overlaps_less_and_is_the_same_every_time():
    masks = torch.zeros(6, 64, 96)
    masks[0, 10:40, 20:70] = 1  # a box
    masks[1, 10:14, 5:90] = 1  # a bar
    masks[2, 5:30, 5:20], masks[2, 40:60, 60:90] = 1, 1  # two pieces
    masks[3] = 1  # everything
    masks[4] = (torch.rand(64, 96, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    masks[5, 50:, 80:] = 1  # a corner
    rough, fine = fit_ellipses(masks, refine=False), fit_ellipses(masks)
    assert bool((fine.iou >= rough.iou).all())
    assert float((fine.iou - rough.iou).max()) > 0.05
    assert float(fine.iou[3]) > 0.98
    assert float(fine.iou[5]) > 0.9
    again = fit_ellipses(masks)
    assert torch.equal(again.ellipses, fine.ellipses)
    one = fit_ellipses(masks[0])
    torch.testing.assert_close(one.ellipses, fine.ellipses[0], atol=5e-3, rtol=0)  # sums are rounded otherwise
    assert abs(float(one.iou - fine.iou[0])) < 5e-3
    assert one.ellipses.shape == (5,)
    assert one.present.shape == ()
    a, b, angle = fine.ellipses[:, 2:].unbind(-1)
    assert bool((a >= b).all())
    assert bool(((angle > -math.pi / 2) & (angle <= math.pi / 2 + 1e-6)).all())


def test_nothing_a_pixel_and_a_line():
    masks = torch.zeros(2, 3, 9, 17)
    masks[0, 1, 3, 5] = 1
    masks[1, 0, 2, 3:15] = 1
    masks[1, 2] = 0.4  # nowhere more than a half
    fit = fit_ellipses(masks)
    assert fit.present.tolist() == [[False, True, False], [True, False, False]]
    assert fit.ellipses.shape == (2, 3, 5)
    pixel = fit.ellipses[0, 1]
    torch.testing.assert_close(pixel[:2], torch.tensor([5.5 / 17, 3.5 / 9]))
    assert float(fit.iou[0, 1]) == 1.0
    assert float(pixel[3] * 9) == pytest.approx(math.pi**-0.5, abs=1e-3)
    assert float(fit.iou[1, 0]) > 0.9
    assert abs(float(fit.ellipses[1, 0, 4])) < 0.05
    assert float(fit.iou[1, 2]) == 0.0
    assert bool(fit.ellipses.isfinite().all())
    assert float(fit.ellipses[..., 2:4].min()) > 0
    assert fit_ellipses(torch.zeros(0, 4, 4)).ellipses.shape == (0, 5)
    assert float(fit_ellipses(torch.ones(1, 1, 1, dtype=torch.bool)).iou[0]) == 1.0


@pytest.mark.parametrize(("masks", "words"), [
    (torch.zeros(3, 0, 4), r"got shape \[3, 0, 4\]; expected \[..., height, width\]"),
    (torch.zeros(3), r"got shape \[3\]"),
    (torch.full((1, 2, 2), torch.nan), "NaN"),
])  # fmt: skip
def test_what_is_refused(masks, words):
    with pytest.raises(ValueError, match=words):
        fit_ellipses(masks)


def test_steadied_ellipses_are_the_same_and_turn_little():
    r = torch.rand(12, 3, 5, generator=torch.Generator().manual_seed(3)).double()
    calm = steadied(r * torch.tensor([1, 1, 0.3, 0.3, 6.0]).double() + 0.05)
    assert float(calm[..., 4].diff(dim=0).abs().max()) <= math.pi / 4 + 1e-9
    for one, other in zip(calm, r * torch.tensor([1, 1, 0.3, 0.3, 6.0]).double() + 0.05, strict=True):
        torch.testing.assert_close(distances(one, 20, 30), distances(other, 20, 30), atol=2e-3, rtol=1e-3)
