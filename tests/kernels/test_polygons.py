"""Filled polygons: areas, the winding rule, and that neighbours tile."""

import math

import pytest
import torch
from papernodes.kernels.polygons import SAMPLES, polygon_coverage


def cover(points, height=32, width=48):
    return polygon_coverage(torch.tensor(points, dtype=torch.float64), height, width).full(height, width)


def regular(corners, radius, x, y, step=1):
    angles = [2 * math.pi * step * k / corners for k in range(corners)]
    return [[x + radius * math.cos(a), y + radius * math.sin(a)] for a in angles]


def test_a_rectangle_on_pixel_borders_covers_whole_pixels():
    mask = cover([[3.5, 4.5], [9.5, 4.5], [9.5, 7.5], [3.5, 7.5]])
    expected = torch.zeros(32, 48)
    expected[5:8, 4:10] = 1
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_quarter_pixels_are_exact(reverse):
    points = [[3.5, 4.5], [3.75, 4.5], [3.75, 5.0], [3.5, 5.0]]
    mask = cover(points[::-1] if reverse else points)
    assert mask.sum() == mask[5, 4] == 2 / SAMPLES**2


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([[2.3, 1.7], [40.1, 3.3], [11.9, 29.2]], 0.5 * abs((40.1 - 2.3) * (29.2 - 1.7) - (11.9 - 2.3) * (3.3 - 1.7))),
        (regular(64, 12.3, 24.2, 15.6), 0.5 * 64 * 12.3**2 * math.sin(2 * math.pi / 64)),
        (regular(4, 10.0, 20.0, 15.0), 200.0),
    ],
)
def test_areas(points, area):
    # Each of the boundary's sub-samples is off by at most half of 1/16 pixel; over the outline they cancel.
    assert cover(points).sum().item() == pytest.approx(area, rel=0.004)


def test_a_star_is_filled_by_the_winding_rule():
    star = regular(5, 14.0, 24.0, 16.0, step=2)
    mask = cover(star)
    assert mask[16, 24] == 1  # the outline goes round the middle twice; an even-odd rule would leave it out
    assert mask[3, 3] == 0
    assert torch.equal(mask, cover(star[::-1]))


def test_turns_in_both_senses_cancel():
    outer = [[2.5, 2.5], [20.5, 2.5], [20.5, 20.5], [2.5, 20.5], [2.5, 2.5]]
    inner = [[8.5, 8.5], [8.5, 14.5], [14.5, 14.5], [14.5, 8.5], [8.5, 8.5]]
    ring = cover([*outer, *inner])
    assert ring[11, 11] == 0
    assert ring[5, 5] == 1
    same_sense = cover([*outer, *inner[::-1]])
    assert same_sense[11, 11] == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_fan_of_triangles_tiles_without_gap_or_overlap(seed):
    """Triangles about one point, each sharing its edges with its neighbours: every sub-sample is covered once."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 21, 33
    rim = [[-5.0, -5.0], [width / 2, -9.0], [width + 5.0, -5.0], [width + 5.0, height + 5.0], [-5.0, height + 5.0]]
    middle = (torch.rand(2, generator=generator, dtype=torch.float64) * torch.tensor([width, height])).tolist()
    total = torch.zeros(height, width)
    for k in range(5):
        corners = [middle, rim[k], rim[(k + 1) % 5]]
        total += cover(corners if k % 2 else corners[::-1], height, width)
    assert torch.equal(total, torch.ones(height, width))


def test_a_grid_of_points_on_sub_samples_tiles():
    """Edges that run exactly through sub-sample centres, where ties decide."""
    total = torch.zeros(8, 8)
    for x in range(8):
        for y in range(8):
            left, top = x + 0.125, y + 0.375  # sub-sample centres
            for corners in (((0, 0), (1, 0), (0, 1)), ((1, 0), (1, 1), (0, 1))):
                total += cover([[left + a - 1, top + b - 1] for a, b in corners], 8, 8)
    assert torch.equal(total[1:-1, 1:-1], torch.ones(6, 6))


@pytest.mark.parametrize(
    "points",
    [
        [[-9.0, -9.0], [-4.0, -9.0], [-4.0, -4.0]],
        [[60.0, 3.0], [70.0, 3.0], [65.0, 9.0]],
        [[5.0, 50.0], [9.0, 50.0], [7.0, 60.0]],
        [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]],
        [[5.0, 5.3], [9.0, 5.3], [20.0, 5.3]],
    ],
)
def test_outside_or_without_area_covers_nothing(points):
    coverage = polygon_coverage(torch.tensor(points), 32, 48)
    assert coverage.full(32, 48).sum() == 0


def test_a_polygon_over_the_border_is_cut_there():
    mask = cover([[-20.0, -20.0], [80.0, -20.0], [80.0, 80.0], [-20.0, 80.0]])
    assert torch.equal(mask, torch.ones(32, 48))


def test_large_polygons_in_bands_are_the_same(monkeypatch):
    points = regular(7, 15.2, 24.0, 16.0, step=3)
    whole = cover(points)
    monkeypatch.setattr("papernodes.kernels.polygons._POINTS_AT_ONCE", 16 * 48 * 3)
    assert torch.equal(cover(points), whole)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.rand(2, 2), r"^points: got \[2, 2\]; expected \[3 or more, 2\]"),
        (torch.rand(4, 3), r"^points: got \[4, 3\]"),
        (torch.tensor([[0.0, 0.0], [1.0, math.nan], [1.0, 0.0]]), r"^points: they hold NaN or infinite numbers"),
    ],
)
def test_bad_points(points, message):
    with pytest.raises(ValueError, match=message):
        polygon_coverage(points, 8, 8)
