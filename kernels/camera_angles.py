"""Yaw, pitch and roll read from rotations of a camera, and the turn that undoes a turn."""

from __future__ import annotations

import torch
from torch import Tensor

from .panorama import camera_rotations

# Cosines of a pitch below this: straight up or down, where yaw and roll are one.
_STRAIGHT = 1e-9


def camera_angles(rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of ``panorama.camera_rotations``.

    Args:
        rotations: float64 [T, 3, 3], from a camera's directions to the world's.

    Returns:
        Yaw, pitch and roll, float64 [T] each, degrees: -180..180, -90..90, -180..180; roll is 0 straight up or down.

    Raises:
        ValueError: another shape.
    """
    if rotations.ndim != 3 or rotations.shape[1:] != (3, 3):
        raise ValueError(f"rotations: got {list(rotations.shape)}; expected [T, 3, 3].")
    level = torch.hypot(rotations[:, 0, 2], rotations[:, 2, 2])
    straight = level < _STRAIGHT
    pitch = torch.atan2(-rotations[:, 1, 2], level)
    yaw = torch.where(
        straight,
        torch.atan2(rotations[:, 2, 0], rotations[:, 0, 0]),
        torch.atan2(-rotations[:, 0, 2], rotations[:, 2, 2]),
    )
    roll = torch.where(straight, 0.0, torch.atan2(-rotations[:, 1, 0], rotations[:, 1, 1]))
    return yaw.rad2deg(), pitch.rad2deg(), roll.rad2deg()


def undoing_angles(yaw: Tensor, pitch: Tensor, roll: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles of the turns that undo turns: with them ``panorama.rotate_panorama`` gives back what it began with.

    Args:
        yaw, pitch, roll: [T] each, degrees.

    Returns:
        Three float64 [T], degrees.
    """
    return camera_angles(camera_rotations(yaw, pitch, roll).transpose(1, 2))
