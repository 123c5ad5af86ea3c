"""How a camera is tilted, seen in one picture: from lines that stand upright or lie level, or from a horizon.

No weights. The world's up, as a camera sees it, is v = (-sin(roll) cos(pitch), cos(roll) cos(pitch), -sin(pitch)), with
pitch and roll as in ``panorama``. There are two ways to find it:

- lines: a segment and the camera span a plane with the normal n. Upright things have n . v = 0; level things of a few
  directions, such as the walls of a room, pile up at azimuths of n x v. Segments: Grompone von Gioi et al., LSD: a Line
  Segment Detector, IPOL 2012. Vanishing points on the sphere: Barnard, Interpreting Perspective Images, 1983; upright
  and two level directions as one hypothesis: Coughlan and Yuille, Manhattan World, ICCV 1999.
- horizon: the straight line that best parts a picture into two regions of different colours. Ettinger, Nechyba, Ifju,
  Waszak: Vision-Guided Flight Stability and Control for Micro Air Vehicles, IROS 2002.

Both try tilts on a grid and refine the best. Small tilts are preferred where several fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .panorama import camera_directions

LINES, HORIZON, NOTHING = "lines", "horizon", "nothing"

STEEPEST, MOST_ROLL = 50.0, 40.0
"""Degrees up or down, and to either side, up to which lines are believed; a horizon must be in the picture."""

LONGEST_SIDE = 640
"""Pixels of the longer side that lines are looked for at."""

_SEARCHED = (60.0, 45.0)  # pitch and roll that the search goes to, degrees
_SHORTEST = 0.025  # a segment, in parts of the longer side
_MOST_SEGMENTS = 300
_USUAL = (40.0, 30.0)  # standard deviations of pitch and roll that small tilts are preferred with, degrees
_LEVEL = 0.5  # what level lines count beside upright ones
_FAR = 10.0  # degrees between tilts that are not the same

# When a tilt counts as found; set on pictures whose tilt is known, photographs among them.
_LEAST_UPRIGHT, _LEAST_SEGMENTS, _MOST_SECOND = 0.2, 5, 0.85
_LEAST_PARTED, _LEAST_SHARP = 0.75, 0.75
_LEAST_CONTRAST = 0.02


class Tilt(NamedTuple):
    """Degrees, what they were found by (``LINES``, ``HORIZON`` or ``NOTHING``), and how sure that is, 0..1."""

    pitch: float
    roll: float
    found_by: str
    sure: float


def find_tilt(picture: Tensor, fov: float) -> Tilt:
    """The tilt of the camera that took a picture.

    Lines are trusted first, since a horizon may be hills or a roof. A picture without either has ``NOTHING``, and then
    the numbers mean nothing.

    Args:
        picture: float [H, W, 3], 0..1, at least 8 x 8 pixels.
        fov: the camera's horizontal field of view, degrees, between 0 and 180.

    Returns:
        The tilt. Of lines pitch is -50..50 and roll -40..40.

    Raises:
        ValueError: other shapes, or an angle out of range.
        ImportError: OpenCV, which finds the segments, is missing.
    """
    if picture.ndim != 3 or picture.shape[-1] != 3 or min(picture.shape[:2]) < 8:
        raise ValueError(f"picture: got {list(picture.shape)}; expected [height, width, 3], at least 8x8 pixels.")
    if not 0 < fov < 180:
        raise ValueError(f"fov: got {fov:g} degrees; expected more than 0 and less than 180.")
    picture = picture.detach().float().cpu()
    by_lines = _tilt_of_lines(*_segments(picture, fov))
    return by_lines if by_lines.found_by != NOTHING else _tilt_of_horizon(picture, fov)


def up_of(pitch: Tensor, roll: Tensor) -> Tensor:
    """[..., 3]: the world's up as a camera sees it whose pitch and roll, in degrees, have the shape [...]."""
    pitch, roll = pitch.deg2rad(), roll.deg2rad()
    return torch.stack((-roll.sin() * pitch.cos(), roll.cos() * pitch.cos(), -pitch.sin()), -1)


def _segments(picture: Tensor, fov: float) -> tuple[Tensor, Tensor]:
    """Normals [N, 3] of the planes through the camera and the picture's straight segments, and their lengths [N]."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Finding lines needs OpenCV, which is not installed. Run: pip install opencv-python-headless"
        ) from error
    if not hasattr(cv2, "createLineSegmentDetector"):
        raise ImportError(
            f"This OpenCV ({getattr(cv2, '__version__', 'unknown version')}) finds no line segments. Run: pip install"
            " --upgrade opencv-python-headless"
        )
    small = _scaled(picture, LONGEST_SIDE)
    height, width = small.shape[:2]
    grey = (small.clamp(0, 1) @ torch.tensor([0.299, 0.587, 0.114]) * 255).round().byte()
    found = cv2.createLineSegmentDetector().detect(grey.numpy())[0]
    if found is None:
        return torch.zeros(0, 3), torch.zeros(0)
    ends = torch.from_numpy(found).reshape(-1, 2, 2).float()
    lengths = (ends[:, 1] - ends[:, 0]).norm(dim=-1) / max(height, width)
    chosen = lengths.argsort(descending=True, stable=True)[:_MOST_SEGMENTS]
    chosen = chosen[lengths[chosen] > _SHORTEST]
    x, y = ends[chosen, :, 0] - (width - 1) / 2, (height - 1) / 2 - ends[chosen, :, 1]
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    rays = torch.stack((x, y, torch.full_like(x, -focal)), -1)
    return F.normalize(torch.linalg.cross(rays[:, 0], rays[:, 1]), dim=-1), lengths[chosen]


def _tilt_of_lines(normals: Tensor, lengths: Tensor) -> Tilt:
    if len(normals) < _LEAST_SEGMENTS:
        return Tilt(0.0, 0.0, NOTHING, 0.0)
    pitch, roll = _tilts(0.0, 0.0, *_SEARCHED, 1.5)
    upright, level = _support(normals, lengths, up_of(pitch, roll), 1.5)
    score = (upright + _LEVEL * level) * _preference(pitch, roll)
    best = int(score.argmax())
    at = float(pitch[best]), float(roll[best])
    elsewhere = torch.hypot(pitch - at[0], roll - at[1]) > _FAR
    second = float(score[elsewhere].max() / score[best].clamp_min(1e-9))
    share = float(upright[best] / lengths.sum())
    for step, width in ((0.3, 1.0), (0.06, 0.5)):
        pitch, roll = _tilts(*at, 5 * step, 5 * step, step)
        upright, level = _support(normals, lengths, up_of(pitch, roll), width)
        best = int((upright + _LEVEL * level).argmax())
        at = float(pitch[best]), float(roll[best])
    close = normals @ up_of(torch.tensor(at[0]), torch.tensor(at[1]))
    standing = int((close.abs() < math.sin(math.radians(1.5))).sum())
    inside = abs(at[0]) <= STEEPEST and abs(at[1]) <= MOST_ROLL
    found = share >= _LEAST_UPRIGHT and standing >= _LEAST_SEGMENTS and second <= _MOST_SECOND and inside
    return Tilt(*at, LINES if found else NOTHING, max(0.0, 1 - second))


def _support(normals: Tensor, lengths: Tensor, ups: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """What length of segments [N] agrees with each world's up [G, 3], to about ``width`` degrees.

    Returns:
        The length of upright ones and that of level ones in the two directions, at right angles, that have most: [G].
    """
    apart = torch.rad2deg(torch.asin((normals @ ups.T).abs().clamp(max=1.0)))
    standing = torch.exp(-((apart / width) ** 2) / 2)
    right = F.normalize(torch.stack((ups[:, 1], -ups[:, 0], torch.zeros_like(ups[:, 0])), -1), dim=-1)
    ahead = torch.linalg.cross(ups, right)
    # n x v lies in the level plane; seen from straight above or on the horizon itself it has no azimuth.
    x, y = -(normals @ ahead.T), normals @ right.T
    weights = lengths[:, None] * torch.hypot(x, y) * (1 - standing)
    bins = 2 * round(45 / width)
    place = (torch.atan2(x, y) / math.pi).remainder(1.0) * bins
    first = place.floor()
    part, first = place - first, first.long() % bins
    piles = torch.zeros(bins, len(ups))
    piles.scatter_add_(0, first, weights * (1 - part)).scatter_add_(0, (first + 1) % bins, weights * part)
    piles = piles + (piles.roll(1, 0) + piles.roll(-1, 0)) / 2
    return lengths @ standing, (piles + piles.roll(bins // 2, 0)).amax(0)


def _tilt_of_horizon(picture: Tensor, fov: float) -> Tilt:
    small = _scaled(picture, 64)
    if float(small.reshape(-1, 3).std(0, correction=0).norm()) < _LEAST_CONTRAST:
        return Tilt(0.0, 0.0, NOTHING, 0.0)
    pitch, roll = _tilts(0.0, 0.0, _SEARCHED[1], _SEARCHED[1], 2.5)
    score = _parted(small, fov, up_of(pitch, roll), 3.0)[0] * _preference(pitch, roll).sqrt()
    best = int(score.argmax())
    at = float(pitch[best]), float(roll[best])
    for longest, step, width in ((64, 0.6, 1.5), (160, 0.15, 0.7)):
        small = _scaled(picture, longest)
        pitch, roll = _tilts(*at, 4 * step, 4 * step, step)
        best = int(_parted(small, fov, up_of(pitch, roll), width)[0].argmax())
        at = float(pitch[best]), float(roll[best])
    up = up_of(torch.tensor([at[0]]), torch.tensor([at[1]]))
    parted, elevations, difference = _parted(small, fov, up, 0.7)
    elevations, colours = elevations[:, 0], small.reshape(-1, 3)
    over, under = ((sign * elevations > 0.7) & (sign * elevations < 4) for sign in (1, -1))
    if not (bool(over.any()) and bool(under.any())):
        return Tilt(*at, NOTHING, 0.0)
    # A gradual change parts a picture, too, but nothing changes at the line itself.
    step = float((colours[over].mean(0) - colours[under].mean(0)).norm() / difference[0].clamp_min(1e-6))
    found = float(parted[0]) >= _LEAST_PARTED and step >= _LEAST_SHARP
    return Tilt(*at, HORIZON if found else NOTHING, float(parted[0]) * min(step, 1.0))


def _parted(picture: Tensor, fov: float, ups: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """How well the horizons of worlds' ups [G, 3] part a picture.

    Returns:
        The part of its variance that lies between the two regions [G], 0 where one has under 6 % of it; the elevations
        of the pixels over each, degrees [N, G]; and how far the two means are from each other [G].
    """
    height, across = picture.shape[:2]
    rays = F.normalize(camera_directions(height, across, fov), dim=-1).reshape(-1, 3)
    elevations = torch.rad2deg(torch.asin((rays @ ups.T).clamp(-1, 1)))
    above = (elevations / width + 0.5).clamp(0, 1)
    colours = picture.reshape(-1, 3)
    colours = colours - colours.mean(0)
    count, over = len(colours), above.sum(0)
    under = count - over
    total = above.T @ colours
    difference = (total / over.clamp_min(1e-6)[:, None] + total / under.clamp_min(1e-6)[:, None]).norm(dim=-1)
    variance = colours.square().sum()
    parted = over * under / count * difference.square() / variance.clamp_min(1e-9)
    enough = torch.minimum(over, under) > 0.06 * count
    return torch.where(enough, parted, 0), elevations, difference


def _tilts(pitch: float, roll: float, most_pitch: float, most_roll: float, step: float) -> tuple[Tensor, Tensor]:
    """Pitches and rolls on a grid round a middle one, [G] each."""
    ups, sides = (torch.arange(-round(most / step), round(most / step) + 1) * step for most in (most_pitch, most_roll))
    across, along = torch.meshgrid(pitch + ups, roll + sides, indexing="ij")
    return across.flatten(), along.flatten()


def _preference(pitch: Tensor, roll: Tensor) -> Tensor:
    return torch.exp(-((pitch / _USUAL[0]) ** 2 + (roll / _USUAL[1]) ** 2) / 2)


def _scaled(picture: Tensor, longest: int) -> Tensor:
    """A picture [H, W, 3] whose longer side has at most so many pixels."""
    sides = picture.shape[:2]
    if max(sides) <= longest:
        return picture
    size = [max(4, round(side * longest / max(sides))) for side in sides]
    return F.interpolate(picture.movedim(-1, 0)[None], size=size, mode="area")[0].movedim(0, -1)
