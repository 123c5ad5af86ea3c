"""Rings of views: how many, where, and whether anything is left out, against brute force with the warp itself."""

import pytest
import torch
from papernodes.kernels.panorama import perspective_to_equirect
from papernodes.kernels.view_coverage import MOST_VIEWS, check_coverage, rings, uncovered


@pytest.mark.parametrize("fov", (40.0, 65.0, 90.0, 120.0, 150.0))
@pytest.mark.parametrize("overlap", (0.25, 0.5))
def test_what_is_left_to_the_overlap_sees_everything(fov, overlap):
    yaw, pitch = rings(0, fov, overlap)
    assert uncovered(yaw, pitch, fov) == []
    views = torch.ones(len(yaw), 1, 8, 8)
    angles = (yaw, pitch, torch.zeros_like(yaw), torch.full_like(yaw, fov))
    assert bool((perspective_to_equirect(views, *angles, 90, 180)[1].sum(0) > 0).all())
    assert len(yaw) == len(pitch) and float(yaw.min()) >= -180 and float(yaw.max()) < 180


def test_rings_by_hand():
    yaw, pitch = rings(4, 100, 0.0, (45, 0, -45))
    assert pitch.tolist() == [45] * 4 + [0] * 4 + [-45] * 4
    assert sorted(yaw[:4].tolist()) == [-180, -90, 0, 90]
    assert sorted(yaw[4:8].tolist()) == [-135, -45, 45, 135]
    assert rings(0, 90, 0, (90, 0, -90))[1].tolist() == [90, *[0] * 4, -90] or len(rings(0, 90, 0, (90, -90))[0]) == 2
    assert len(rings(0, 90, 0.25)[0]) == 16


def test_what_is_left_out_is_named():
    yaw, pitch = rings(8, 90, 0.0, (0,))
    bands = uncovered(yaw, pitch, 90)
    assert bands == [(-90, -bands[1][0]), (bands[1][0], 90)] and 40 < bands[1][0] < 45  # atan(cos 22.5) = 42.7
    with pytest.raises(ValueError, match=r"8 views of 90 degrees do not see the whole sphere: .* -90 to -4"):
        check_coverage(yaw, pitch, 90)
    six = torch.tensor([0.0, 90, 180, -90, 0, 0]), torch.tensor([0.0, 0, 0, 0, 90, -90])
    assert uncovered(*six, 90) == [] and uncovered(*six, 89) != []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 10, 0.2), "fov: got 10"),
        ((0, 90, 0.95), "overlap"),
        ((-1, 90, 0.2), "count"),
        ((0, 90, 0.2, (91,)), "pitches: got 91"),
        ((0, 20, 0.9), f"at most {MOST_VIEWS}"),
    ],
)
def test_bad_values(given, message):
    with pytest.raises(ValueError, match=message):
        rings(*given)
