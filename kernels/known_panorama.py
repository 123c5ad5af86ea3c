"""What is known of panoramas into which pictures were laid, and what of it cameras see, on Imagine360's grids.

Tan et al.: Imagine360: Immersive 360 Video Generation from Perspective Anchor, 2024. What is not known is grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .panorama import CONVENTIONS, equirect_to_perspective, perspective_to_equirect

EXACT = CONVENTIONS[1]

Camera = tuple[float, float, float]
"""Yaw, pitch and field of view, degrees."""

_GREY, _HALF = 0.5, 0.5


def lay_out(pictures: Tensor, turns: tuple[Tensor, Tensor, Tensor, Tensor], height: int) -> tuple[Tensor, Tensor]:
    """Pictures laid into panoramas where their cameras looked.

    Args:
        pictures: float32 [T, C, h, w], 0..1.
        turns: yaw, pitch, roll and field of view, [T] each, degrees.
        height: of the panoramas, pixels.

    Returns:
        float32 [T, C, H, 2 H], 0..1, and [T, 1, H, 2 H]: 1 where it is known, 0 elsewhere.

    Raises:
        ValueError: as in ``panorama.perspective_to_equirect``.
    """
    laid, known = perspective_to_equirect(pictures, *turns, height, 2 * height, mode="bicubic", convention=EXACT)
    return laid.clamp(0, 1), known[:, None]


def with_grey(pictures: Tensor, known: Tensor) -> Tensor:
    """Pictures [..., C, H, W] where they are known, [..., 1, H, W], and grey elsewhere."""
    return torch.where(known > _HALF, pictures, _GREY)


def seen_by(layers: Tensor, cameras: Sequence[Camera], height: int, width: int, mode: str) -> Tensor:
    """What cameras see of layers, which are frames and channels in any order: a camera looks one way in all of them.

    Args:
        layers: float [N, H, 2 H].
        cameras: V of them.
        height, width: of the views.
        mode: "nearest", "bilinear" or "bicubic".

    Returns:
        [V, N, height, width].
    """
    yaw, pitch, fov = torch.tensor(cameras, dtype=torch.float64).unbind(1)
    return equirect_to_perspective(
        layers[None], yaw, pitch, torch.zeros_like(yaw), fov, height, width, mode=mode, convention=EXACT
    )


def known_views(panoramas: Tensor, known: Tensor, cameras: Sequence[Camera], edge: int) -> tuple[Tensor, Tensor]:
    """What square views show of panoramas and of what is known of them.

    Args:
        panoramas: float32 [N, C, H, 2 H].
        known: float32 [N, 1, H, 2 H].
        cameras: V of them.
        edge: of the views, pixels.

    Returns:
        float32 [V, N, C, edge, edge], grey where at least half is not known, and [V, N, 1, edge, edge], 0 or 1.
    """
    both = torch.cat((panoramas, known), 1)
    seen = seen_by(both.flatten(0, 1), cameras, edge, edge, "bilinear").unflatten(1, both.shape[:2])
    known = (seen[:, :, -1:] > _HALF).float()
    return with_grey(seen[:, :, :-1], known), known


def to_generate(known: Tensor, size: Sequence[int]) -> Tensor:
    """float32 [N, 1, *size], of latents' size: 1 where something is to be generated; known is [N, 1, H, W]."""
    return F.interpolate(1 - known, tuple(size), mode="nearest")
