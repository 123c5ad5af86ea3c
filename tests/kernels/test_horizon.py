"""A camera's tilt from pictures whose tilt is known, and the line through the frames of a clip."""

import pytest
import torch
from papernodes.kernels.elevation import CONSTANT, EACH, FITS, LINEAR, ROBUST, angle_schedule, fit_angles
from papernodes.kernels.horizon import HORIZON, LINES, NOTHING, find_tilt, up_of
from papernodes.kernels.panorama import camera_rotations
from places import plain, room, street, views_of

TURNS = torch.tensor(
    [[-8.0, -5.8, 20], [13.6, -9.5, 75], [7.0, 14.9, 140], [-16.0, -8.0, 200], [18.0, -12.9, 260], [2.0, 0.0, 320]]
)
"""Pitch, roll and yaw of six cameras, degrees."""


def found_in(place, **sizes):
    pitch, roll, yaw = TURNS.T
    return [find_tilt(view, 90.0) for view in views_of(place, yaw, pitch, roll, **sizes)]


def errors(tilts):
    return (torch.tensor([[tilt.pitch, tilt.roll] for tilt in tilts]) - TURNS[:, :2]).abs()


def test_up_is_that_of_the_cameras():
    pitch, roll = torch.tensor([10.0, -50.0]), torch.tensor([-20.0, 30.0])
    up = camera_rotations(torch.tensor([40.0, 170.0]), pitch, roll).transpose(1, 2) @ torch.tensor([0.0, 1, 0]).double()
    torch.testing.assert_close(up_of(pitch.double(), roll.double()), up, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("place", "by"), [(room, LINES), (street, LINES), (plain, HORIZON)])
def test_a_known_tilt_is_found(place, by):
    """Over 30 cameras each, up to 30 degrees of pitch and 20 of roll: median errors 0.04, 0.1 and 0.06 degrees."""
    tilts = found_in(place)
    found = [tilt.found_by for tilt in tilts]
    assert found.count(by) >= 5 and set(found) <= {by, NOTHING}
    right = torch.tensor([name == by for name in found])
    assert float(errors(tilts)[right].max()) < 0.6
    assert float(errors(tilts)[right].median()) < 0.25


def test_hills_lift_the_horizon():
    """What parts the picture is what one sees: hills of up to 6 degrees, 3 on average, lower pitch by about 3.5."""
    tilts = found_in(lambda directions: plain(directions, 6.0))
    assert [tilt.found_by for tilt in tilts].count(HORIZON) >= 5
    low = torch.tensor([tilt.pitch for tilt in tilts]) - TURNS[:, 0]
    assert -6 < float(low.median()) < -2


def test_pictures_without_lines_or_horizon_say_so():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 16, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, size=(180, 320), mode="bicubic")[0].movedim(0, -1)
    gradual = torch.linspace(0, 1, 180)[:, None, None].expand(180, 320, 3)
    grain = torch.rand(180, 320, 3, generator=generator)
    for picture in (soft, gradual, grain, torch.full((40, 40, 3), 0.5), grain[:8, :8]):
        assert find_tilt(picture, 70.0).found_by == NOTHING


def test_the_field_of_view_matters():
    """A clip seen with a field of view other than was told has another pitch."""
    view = views_of(room, 75.0, 12.0, 0.0, fov=70.0)[0]
    right, wrong = find_tilt(view, 70.0), find_tilt(view, 90.0)
    assert right.found_by == wrong.found_by == LINES
    assert abs(right.pitch - 12) < 0.3 and abs(wrong.pitch - 12) > 2


def test_what_the_picture_must_be():
    for picture, fov, words in (
        (torch.rand(7, 100, 3), 90.0, "at least 8x8"),
        (torch.rand(20, 20), 90.0, r"\[20, 20\]"),
        (torch.rand(20, 20, 3), 180.0, "180"),
    ):
        with pytest.raises(ValueError, match=words):
            find_tilt(picture, fov)


def test_fits():
    frames = torch.arange(9.0)
    line, all_known = 3 + 0.5 * frames, torch.ones(9, dtype=torch.bool)
    for fit in (LINEAR, ROBUST, EACH):
        torch.testing.assert_close(fit_angles(line, all_known, fit).float(), line)
    noisy = line + torch.tensor([0.3, -0.1, 0.2, -0.4, 0.0, 0.1, -0.2, 0.3, -0.2])
    numpy_line = torch.linalg.lstsq(torch.stack((frames, torch.ones(9)), 1).double(), noisy.double()[:, None]).solution
    expected = numpy_line[0] * frames + numpy_line[1]
    torch.testing.assert_close(fit_angles(noisy, all_known, LINEAR), expected.double())
    wrong = noisy.clone()
    wrong[[2, 6]] = torch.tensor([40.0, -35.0])
    assert float((fit_angles(wrong, all_known, ROBUST) - line).abs().max()) < 0.5
    assert float((fit_angles(wrong, all_known, LINEAR) - line).abs().max()) > 3
    some = torch.tensor([False, True, False, False, True, False, False, False, False])
    each = fit_angles(torch.where(some, line, 99.0), some, EACH)
    assert each.tolist() == [3.5, 3.5, 4.0, 4.5, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert fit_angles(noisy, all_known, CONSTANT).tolist() == [float(noisy.double().median())] * 9
    one = torch.zeros(9, dtype=torch.bool)
    one[4] = True
    for fit in FITS:
        assert fit_angles(line, one, fit).tolist() == [5.0] * 9
    for known, fit, words in (
        (~all_known, LINEAR, "no frame"),
        (all_known, "cubic", "fit"),
        (all_known[:3], LINEAR, "known"),
    ):
        with pytest.raises(ValueError, match=words):
            fit_angles(line, known, fit)
    with pytest.raises(ValueError, match="NaN"):
        fit_angles(line * torch.nan, all_known, LINEAR)


def test_the_text_of_a_fit_is_read_back():
    angles = torch.tensor([1.0, 1.5, 2.0, 2.5]).double()
    assert angle_schedule(angles, LINEAR, "pitch").format() == "0:1, 3:2.5"
    assert angle_schedule(torch.tensor([-1e-5]), LINEAR, "pitch").format() == "0"
    assert angle_schedule(torch.tensor([2.25, 2.25]), ROBUST, "pitch").format() == "2.25"
    bent = torch.tensor([1.0, 4.0, 2.0])
    schedule = angle_schedule(bent, EACH, "pitch")
    assert schedule.format() == "0:1, 1:4, 2:2" and torch.equal(schedule.at(3), bent)
