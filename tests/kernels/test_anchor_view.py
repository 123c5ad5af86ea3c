"""The largest rectangle within a mask against brute force, what is told of it, the pictures that are cut."""

import itertools

import pytest
import torch
from papernodes.kernels.anchor_view import anchor_pictures, largest_rectangles, relative_positions


def largest_area(mask):
    """By trying all rectangles."""
    sums = torch.nn.functional.pad(mask.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = mask.shape
    best = 0
    for top, bottom in itertools.combinations(range(height + 1), 2):
        for left, right in itertools.combinations(range(width + 1), 2):
            inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
            area = (bottom - top) * (right - left)
            if inside == area:
                best = max(best, area)
    return best


@pytest.mark.parametrize(
    ("height", "width", "share"), ((1, 7, 0.5), (6, 1, 0.5), (7, 8, 0.7), (8, 6, 0.9), (5, 9, 0.3))
)
def test_against_brute_force(height, width, share):
    masks = torch.rand(6, height, width, generator=torch.Generator().manual_seed(height)) < share
    masks[:, 0, 0] = True
    for mask, (top, left, tall, wide) in zip(masks, largest_rectangles(masks).tolist(), strict=True):
        assert mask[top : top + tall, left : left + wide].all() and min(top, left) >= 0
        assert top + tall <= height and left + wide <= width and tall * wide == largest_area(mask)


def test_ties_whole_and_floats():
    masks = torch.zeros(2, 4, 6)
    masks[0, 3, 0:2], masks[0, 0, 4:6], masks[0, 0, 0:2] = 1, 1, 0.51
    masks[1] = 1
    assert largest_rectangles(masks).tolist() == [[0, 0, 1, 2], [0, 0, 4, 6]]


def test_what_is_told():
    """The example of Imagine360's own comment, and middles below and to the right, rounded towards zero."""
    rectangles = torch.tensor([[127, 383, 255, 255], [300, 700, 101, 99]])
    expected = [[1, 1, 255, 255, 512, 1024], [-94, -237, 101, 99, 512, 1024]]
    assert relative_positions(rectangles, 512, 1024).tolist() == expected


def test_pictures_of_rectangles():
    panoramas = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    cut = anchor_pictures(panoramas, torch.tensor([[1, 2, 4, 4], [0, 0, 8, 16]]), 4, 4)
    assert torch.equal(cut[0], panoramas[0, :, 1:5, 2:6]) and cut.shape == (2, 3, 4, 4)
    # Where a side shrinks to a half, two pixels are averaged; to a quarter, those in the middle of four.
    rows = panoramas[1].unflatten(1, (4, 2)).mean(2)
    assert torch.allclose(cut[1], rows.unflatten(2, (4, 4))[..., 1:3].mean(3), atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match=r"masks: got shape \[4, 4\]"):
        largest_rectangles(torch.ones(4, 4))
    with pytest.raises(ValueError, match="nothing is inside mask 1"):
        largest_rectangles(torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]))
    with pytest.raises(ValueError, match="rectangles: got 1; expected 2"):
        anchor_pictures(torch.ones(2, 3, 4, 4), torch.ones(1, 4, dtype=torch.int64), 4, 4)
