"""What is measured of completed panoramas: how things move all around, what was given, and the seam.

Motion is measured by least squares over all pixels of a view (Lucas and Kanade 1981, with one motion for all of it):
how fast the picture goes to the right, or how fast it grows. Both are small in the toy world, less than two pixels a
frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.panorama_clips import MOVES, seen_ahead, views_of
from kernels.panorama_seam import seam_error

EDGE = 64
AHEAD, BEHIND = 0, 2
"""Numbers of two of the cube's views."""

LEAST = 0.1
"""How much of the true motion counts as having moved."""

SIDEWAYS = tuple(abs(right) > 0 for right, _ in MOVES.values())


def smooth(pictures: Tensor) -> Tensor:
    """Grey pictures [N, H, W] of [N, 3, H, W], blurred, so that small motions are seen as slopes."""
    grey = pictures.mean(1, keepdim=True)
    for _ in range(2):
        grey = F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return grey[:, 0]


def speeds(views: Tensor) -> tuple[Tensor, Tensor]:
    """How a view's picture moves.

    Args:
        views: float32 [B, T, 3, H, W].

    Returns:
        float32 [B] each, means over the frames: to the right, pixels a frame; and growth, a part of the size a frame.
    """
    count, frames, _, height, width = views.shape
    grey = smooth(views.flatten(0, 1)).unflatten(0, (count, frames))
    before, after = grey[:, :-1], grey[:, 1:]
    middle = (before + after) / 2
    change = (after - before)[:, :, 1:-1, 1:-1]
    slope_x = (middle[:, :, 1:-1, 2:] - middle[:, :, 1:-1, :-2]) / 2
    slope_y = (middle[:, :, 2:, 1:-1] - middle[:, :, :-2, 1:-1]) / 2
    y, x = torch.meshgrid(
        torch.arange(1, height - 1, device=views.device) - (height - 1) / 2,
        torch.arange(1, width - 1, device=views.device) - (width - 1) / 2,
        indexing="ij",
    )
    found = []
    for along in (slope_x, slope_x * x + slope_y * y):
        found.append(-(along * change).sum((1, 2, 3)) / along.square().sum((1, 2, 3)).clamp_min(1e-9))
    return found[0], found[1]


def motion(panoramas: Tensor, moves: Tensor, view: int) -> Tensor:
    """float32 [B]: how fast a view moves in the way that tells a viewer's move: to the right, or growing.

    Args:
        panoramas: float32 [B, T, 3, H, 2 H].
        moves: int64 [B], of MOVES.
        view: AHEAD or BEHIND.
    """
    count, frames = panoramas.shape[:2]
    seen = torch.cat([views_of(part, EDGE)[:, view] for part in panoramas.flatten(0, 1).split(64)])
    right, growth = speeds(seen.unflatten(0, (count, frames)))
    return torch.where(torch.tensor(SIDEWAYS, device=moves.device)[moves], right, growth)


def moved(found: Tensor, true: Tensor) -> Tensor:
    """bool [B]: whether things moved the way they should, by at least LEAST of what they should."""
    return found * true.sign() > LEAST * true.abs()


def inside(panoramas: Tensor, videos: Tensor, pitch: float) -> Tensor:
    """float32 [B]: how well what was given is kept, decibels (PSNR) over all frames, looked at as the camera did.

    Args:
        panoramas: float32 [B, T, 3, H, 2 H].
        videos: [B, T, 3, h, h], what the camera saw.
        pitch: degrees.
    """
    seen = seen_ahead(panoramas.flatten(0, 1), pitch, EDGE)
    wanted = F.adaptive_avg_pool2d(videos.flatten(0, 1), EDGE)
    error = (seen - wanted).square().mean((1, 2, 3)).view(panoramas.shape[:2]).mean(1)
    return -10 * error.clamp_min(1e-10).log10()


def seam(panoramas: Tensor) -> Tensor:
    """float32 [B]: the step across the edges that meet over the mean one, in all frames of clips [B, T, 3, H, W]."""
    return seam_error(panoramas.flatten(1, 2))
