"""The scenes that the video models are measured on, their captions and flows, from seeds that no training uses."""

import torch
from torch import Tensor

from demo.world.attributes import MOTIONS
from demo.world.captions import captions
from demo.world.scene import Scenes, draw_scenes, still_camera, still_characters
from demo.world.truth import forward_flow

FIRST_SEED = 7_000_000_000_000
"""The first of the seeds that are kept for measuring videos; training's, which grow with its steps, never get there."""

FRAMES = 17
KINDS = ("object", "camera")
"""What moves: the characters before a still camera, or the camera before still characters."""

CHARACTERS = (0.6, 0.4, 0.0, 0.0)
"""One or two of them: more are too small at 128 x 128 for a latent of 16 x 16."""

LEAST_CAMERA = 0.15
"""Stage units, or the zoom's logarithm, that a camera must travel to count as moving."""

FLOW_PART = 32
"""Scenes whose flows are computed at a time, to save memory."""


def travel(scenes: Scenes) -> Tensor:
    """float32 [B]: how far the camera travels, the larger of its way (stage units) and its zoom (logarithm)."""
    first, last = scenes.camera[:, 0], scenes.camera[:, -1]
    way = (last[:, :2] - first[:, :2]).norm(dim=-1)
    return torch.maximum(way, (last[:, 2] / first[:, 2]).log().abs())


def flow_scenes(kind: str, count: int, seed: int, *, frames: int = FRAMES, combinations: str = "train") -> Scenes:
    """Scenes in which something moves, one or two characters each.

    Args:
        kind: one of KINDS.
        count: how many.
        seed: added to FIRST_SEED.
        frames: of each video, at least 2.
        combinations: as in draw_scenes.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}.")
    drawn = draw_scenes(
        4 * count + 32, FIRST_SEED + seed, characters=CHARACTERS, frames=frames, combinations=combinations
    )
    if kind == "object":
        drawn = still_camera(drawn)
        moves = (drawn.present & (drawn.motion != MOTIONS.index("still"))).any(1)
    else:
        drawn = still_characters(drawn)
        moves = travel(drawn) >= LEAST_CAMERA
    rows = moves.nonzero()[:count, 0]
    assert rows.numel() == count
    return drawn.select(rows)


def text_scenes(
    count: int, seed: int, characters: int, *, frames: int = FRAMES, combinations: str = "train"
) -> tuple[Scenes, list[str]]:
    """Scenes before a still camera, and the sentences that name everything about them, motions too."""
    drawn = draw_scenes(count, FIRST_SEED + seed, characters=characters, frames=frames, combinations=combinations)
    scenes = still_camera(drawn)
    return scenes, captions(scenes, FIRST_SEED + seed, full=True)


def still_captions(scenes: Scenes, seed: int) -> list[str]:
    """The sentences that name everything of the first frame, and no motion."""
    return captions(scenes.at(slice(0, 1)), FIRST_SEED + seed, full=True)


def flows_of(scenes: Scenes, device: torch.device | str = "cpu", size: int = 128) -> tuple[Tensor, Tensor]:
    """The scenes' own flows and occlusions, as ``forward_flow`` gives them, on the device."""
    parts = [
        forward_flow(scenes.select(torch.arange(start, min(start + FLOW_PART, scenes.size))).to(device), size, size)
        for start in range(0, scenes.size, FLOW_PART)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def every(scenes: Scenes, step: int) -> Scenes:
    """Only each ``step``-th frame, the first one included."""
    return scenes.at(slice(0, None, step))
