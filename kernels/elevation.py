"""A camera's pitch or roll over the frames of a clip: a line through what single frames say, and its text."""

from __future__ import annotations

import torch
from torch import Tensor

from .schedule import Key, Schedule

LINEAR, ROBUST, CONSTANT, EACH = "linear", "linear, robust", "constant", "each frame"
FITS = (LINEAR, ROBUST, CONSTANT, EACH)

DIGITS = 3
"""Digits after the point in the text of a schedule, degrees."""


def fit_angles(angles: Tensor, known: Tensor, fit: str) -> Tensor:
    """Angles for all frames from those of some.

    Args:
        angles: float [T], degrees; what stands where nothing is known does not count.
        known: bool [T], at least one True.
        fit: ``LINEAR``: least squares over the frame's number, as Imagine360 does with pitch;
            ``ROBUST``: Theil and Sen's line, the median of the slopes between all pairs, which up to a quarter of wrong
            frames hardly move; ``CONSTANT``: the median; ``EACH``: the angles themselves, in between a straight line,
            before the first and after the last known frame that one's.

    Returns:
        float64 [T], degrees.

    Raises:
        ValueError: shapes that do not fit, nothing known, numbers that are not finite, or an unknown fit.
    """
    if angles.ndim != 1 or known.shape != angles.shape or known.dtype != torch.bool:
        raise ValueError(
            f"angles and known: got {list(angles.shape)} and {known.dtype} {list(known.shape)}; expected [T]."
        )
    if fit not in FITS:
        raise ValueError(f"fit: got {fit!r}; expected one of {', '.join(FITS)}.")
    if not bool(known.any()):
        raise ValueError("known: no frame is known; expected at least one.")
    frames = torch.arange(len(angles), dtype=torch.float64)
    x, y = frames[known.cpu()], angles.detach().cpu().double()[known.cpu()]
    if not bool(y.isfinite().all()):
        raise ValueError("angles: got NaN or infinite ones; expected degrees.")
    if fit == EACH:
        after = torch.searchsorted(x, frames).clamp(max=len(x) - 1)
        before = (after - 1).clamp(min=0)
        part = ((frames - x[before]) / (x[after] - x[before]).clamp_min(1)).clamp(0, 1)
        return torch.where(frames < x[0], y[0], y[before] + (y[after] - y[before]) * part)
    if fit == CONSTANT or len(x) == 1:
        return torch.full_like(frames, float(y.quantile(0.5)))
    if fit == LINEAR:
        centred = x - x.mean()
        slope = (centred * (y - y.mean())).sum() / centred.square().sum()
        return y.mean() + slope * (frames - x.mean())
    first, second = torch.triu_indices(len(x), len(x), 1)
    slope = ((y[second] - y[first]) / (x[second] - x[first])).quantile(0.5)
    return slope * frames + (y - slope * x).quantile(0.5)


def angle_schedule(angles: Tensor, fit: str, name: str) -> Schedule:
    """Fitted angles as a schedule: two keys of a line, one number that does not change, else a key for each frame.

    Args:
        angles: float [T], degrees, as ``fit_angles`` gives them.
        fit: that of ``fit_angles``.
        name: the schedule's.

    Returns:
        The schedule; its ``format()`` is the text, its numbers rounded to ``DIGITS``.
    """
    rounded = [round(angle, DIGITS) + 0.0 for angle in angles.tolist()]  # no minus before a nought
    last = len(rounded) - 1
    if len(set(rounded)) == 1:
        return Schedule((Key(0, rounded[0]),), name)
    places = range(last + 1) if fit == EACH else (0, last)
    return Schedule(tuple(Key(place, rounded[place]) for place in places), name)
