"""Tiles that go round: a local function in tiles equals the whole, the seam is as any other place."""

import pytest
import torch
from papernodes.kernels.round_tiles import in_round_tiles, tile_starts
from torch.nn import functional


def blur(x):
    """Sees one pixel beyond each side; what is beyond the picture is its edge."""
    return functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def around(x):
    return functional.avg_pool2d(
        functional.pad(functional.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate"), 3, 1
    )


@pytest.mark.parametrize(("height", "width", "tile"), [(8, 16, 6), (5, 9, 4), (8, 16, 8), (12, 24, 7)])
def test_inside_the_overlaps_tiles_are_the_whole(height, width, tile):
    x = torch.randn(2, 3, height, width)
    made = in_round_tiles(lambda some: some * 2 + 1, x, tile, 2, 1, axes=(-2, -1), result_axes=(-2, -1))
    assert torch.allclose(made, x * 2 + 1, atol=1e-5)
    flat = in_round_tiles(blur, torch.ones_like(x), tile, 2, 1, axes=(-2, -1), result_axes=(-2, -1))
    assert torch.allclose(flat, torch.ones_like(x))


def test_one_piece_is_continued():
    x = torch.randn(2, 3, 8, 16)
    made = in_round_tiles(blur, x, 16, 0, 1, axes=(-2, -1), result_axes=(-2, -1), columns=1)
    assert torch.allclose(made, around(x), atol=1e-6)
    assert torch.allclose(in_round_tiles(blur, x, 16, 0, 1, axes=(-2, -1), result_axes=(-2, -1), columns=40), around(x))
    assert torch.equal(in_round_tiles(blur, x, 16, 0, 1, axes=(-2, -1), result_axes=(-2, -1)), blur(x))


def test_sizes_change_and_a_turned_picture_gives_a_turned_result():
    def larger(some):
        return functional.interpolate(some, scale_factor=4, mode="nearest")

    def smaller(some):
        return functional.avg_pool2d(some.movedim(-1, 1), 4)

    x = torch.randn(1, 2, 6, 12)
    made = in_round_tiles(larger, x, 4, 2, 4, axes=(-2, -1), result_axes=(-2, -1))
    assert torch.allclose(made, larger(x), atol=1e-5)
    back = in_round_tiles(smaller, made.movedim(1, -1), 4, 2, 1 / 4, axes=(1, 2), result_axes=(-2, -1), step=4)
    assert torch.allclose(back, x, atol=1e-5)
    turn = 12 // len(tile_starts(12, 4, 2, around=True))
    given = {"axes": (-2, -1), "result_axes": (-2, -1)}
    one = in_round_tiles(blur, x.roll(turn, -1), 4, 2, 1, **given)
    assert torch.allclose(one, in_round_tiles(blur, x, 4, 2, 1, **given).roll(turn, -1), atol=1e-5)


def test_where_tiles_begin():
    assert tile_starts(16, 16, 4, around=True) == [0] == tile_starts(3, 16, 4, around=False)
    assert tile_starts(16, 8, 4, around=True) == [0, 4, 8, 12]
    assert tile_starts(16, 8, 4, around=False) == [0, 4, 8]
    assert tile_starts(17, 8, 4, around=False)[-1] == 9
    with pytest.raises(ValueError, match="larger than its overlap"):
        tile_starts(16, 4, 4, around=True)
