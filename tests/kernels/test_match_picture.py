"""The preview of matched points: both pictures at one height, each point's marker where the point is."""

import colorsys
import itertools

import pytest
import torch
from papernodes.kernels.match_picture import GAP, HEIGHTS, MOST_ACROSS, match_picture, pair_colour
from papernodes.kernels.matched_points import Pairs

NOTHING = Pairs(torch.zeros(0, 2), torch.zeros(0, 2))


def grey(height, width, level=0.5):
    return torch.full((height, width, 3), level)


def pairs(*places):
    return Pairs(*(torch.tensor(side, dtype=torch.float32) for side in zip(*places, strict=True)))


def test_side_by_side_at_one_height():
    drawn = match_picture(grey(500, 250, 0.25), grey(400, 800, 0.75), NOTHING)
    assert drawn.shape == (1, 500, 250 + GAP + 1000, 3)
    torch.testing.assert_close(drawn[0, :, :250], grey(500, 250, 0.25))
    torch.testing.assert_close(drawn[0, :, 250 + GAP :], grey(500, 1000, 0.75))


@pytest.mark.parametrize(
    ("size", "height"),
    [((2, 3), HEIGHTS[0]), ((3000, 3000), HEIGHTS[1]), ((10, 200), 4096 // 40)],
)
def test_small_large_and_wide_pictures(size, height):
    drawn = match_picture(grey(*size), grey(*size), NOTHING)
    assert drawn.shape[1] == height and drawn.shape[2] <= MOST_ACROSS + GAP + 1


def test_every_point_has_its_colour_at_its_place():
    places = [((0.25, 0.5), (0.75, 0.25)), ((0.6, 0.8), (0.1, 0.9))]
    drawn = match_picture(grey(400, 400), grey(400, 400), pairs(*places))[0]
    changed = (drawn - 0.5).abs().amax(dim=-1) > 0.02
    for number, ends in enumerate(places, start=1):
        wanted = torch.tensor(pair_colour(number)) / 255
        for left, (x, y) in zip((0, 400 + GAP), ends, strict=True):
            row, column = round(y * 400), round(left + x * 400)
            middle = drawn[row - 1 : row + 1, column - 1 : column + 1].mean(dim=(0, 1))
            torch.testing.assert_close(middle, wanted, atol=0.08, rtol=0)
    assert not changed[:40, :300].any(), "nothing is drawn where no point, number or line is"


def test_a_line_joins_a_pair_and_numbers_differ():
    one = match_picture(grey(400, 400), grey(400, 400), pairs(((0.5, 0.5), (0.5, 0.5))))[0]
    across = one[199:201, 220:590]
    coloured = (across.amax(dim=-1) - across.amin(dim=-1)).amax(dim=0)
    coloured[180 : 180 + GAP] = 1  # the gap
    assert float(coloured.min()) > 0.2
    places = [((0.1, 0.1), (0.1, 0.1)), ((0.5, 0.5), (0.5, 0.5))]
    swapped = match_picture(grey(400, 400), grey(400, 400), pairs(*places[::-1]))
    assert not torch.equal(match_picture(grey(400, 400), grey(400, 400), pairs(*places)), swapped)


def test_numbers_stay_on_the_sheet():
    corners = [((0.0, 0.0), (0.0, 0.0)), ((1.0, 0.0), (1.0, 0.0)), ((1.0, 1.0), (1.0, 1.0)), ((0.0, 1.0), (0.0, 1.0))]
    drawn = match_picture(grey(400, 400), grey(400, 400), pairs(*corners))[0]
    for row, column in ((12, 12), (12, -13), (-13, -13), (-13, 12)):
        number = drawn[row - 12 : row + 13 or None, column - 12 if column > 0 else -25 :][:25, :25]
        inked = (number - 0.5).abs().amax(dim=-1) > 0.1
        assert float(inked.float().mean()) > 0.2


def test_colours_of_neighbours_differ():
    hues = [colorsys.rgb_to_hls(*(part / 255 for part in pair_colour(number)))[0] for number in range(1, 30)]
    for first, second in itertools.pairwise(hues):
        assert min(abs(first - second), 1 - abs(first - second)) > 0.3


def test_what_is_no_picture():
    with pytest.raises(ValueError, match=r"a picture must have shape \[height, width, 3\]; got \[1, 4, 4, 3\]"):
        match_picture(grey(4, 4)[None], grey(4, 4), NOTHING)
