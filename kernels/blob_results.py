"""What other nodes take of a blob layout: masks, boxes with captions, and the captions of a frame."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from .blob_layout import BlobLayout
from .ellipses import boxes, raster

MASK_KINDS = ("hard", "soft", "composited")
MOST_NUMBERS = 2**32
"""Of a batch of masks: 16 GiB of float32."""

DRAWN_TOGETHER = 2**28
"""Numbers that are drawn at a time: 1 GiB of a GPU's memory."""


def layout_masks(
    layout: BlobLayout, kind: str, frames: Sequence[int], height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """One mask for each blob of each frame.

    Args:
        layout: with at least one blob.
        kind: hard: 1 inside. soft: 1 well inside, falling through 1/2 on the ellipse. composited: the soft ones, less
            what blobs above hide; of a pixel they and the background add up to 1.
        frames: which of the layout's.
        height, width: of the masks, in pixels; the layout's own or others.
        device: where to draw; None = the CPU.

    Returns:
        float32 [frames * blobs, height, width], 0..1, the blobs of the first frame first, from the bottom to the top;
        zeros where a blob is not there.

    Raises:
        ValueError: another kind, no blobs, or more than 16 GiB.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(MASK_KINDS)}.")
    count = len(layout.blobs)
    if not count:
        raise ValueError("The layout has no blobs, so there are no masks.")
    if len(frames) * count * height * width > MOST_NUMBERS:
        raise ValueError(
            f"{len(frames)} frames of {count} blobs at {width}x{height} are more than 16 GiB of masks. Take one frame, "
            "or a smaller size."
        )
    geometry, presence = layout.geometry()[list(frames)], layout.presence()[list(frames)]
    composited, drawing = kind == "composited", "hard" if kind == "hard" else "soft"
    found = torch.empty(len(frames), count, height, width)
    part = max(1, DRAWN_TOGETHER // (count * height * width))
    for start in range(0, len(frames), part):
        some = slice(start, start + part)
        drawn = raster(geometry[some], presence[some], height, width, drawing, composited, device=device)
        found[some] = drawn[:, 1:] if composited else drawn  # without the background
    return found.flatten(0, 1)


def layout_boxes(layout: BlobLayout, width: int, height: int, clipped: bool) -> tuple[Tensor, Tensor]:
    """The upright box of each blob of each frame.

    Args:
        clipped: cut at the picture's borders.

    Returns:
        float64 [frames, blobs, 4]: left, top, right, bottom in fractions of the picture; bool [frames, blobs]: whether
        the blob is there and, if clipped, its box has a part of the picture.
    """
    found, there = boxes(layout.geometry(), height, width), layout.presence()
    if clipped:
        found = found.clamp(0, 1)
        there = there & (found[..., 2:] > found[..., :2]).all(-1)
    return found, there


def boxes_to_json(layout: BlobLayout, frames: Sequence[int], width: int, height: int, clipped: bool) -> str:
    """The boxes of some frames as JSON, version 1::

        {"version": 1, "width": 512, "height": 512, "frames": [
          {"frame": 0, "boxes": [
            {"blob": 1, "id": "1", "caption": "a red ball", "pixels": [51.2, 102.4, 153.6, 204.8],
             "normalised": [0.1, 0.2, 0.3, 0.4]}]}]}

    Boxes are left, top, right, bottom, blobs counted from 1 from the bottom to the top; those that are not there, or
    clipped to nothing, are left out.
    """
    found, there = layout_boxes(layout, width, height, clipped)
    scale = torch.tensor([width, height, width, height], dtype=torch.float64)
    entries = []
    for frame in frames:
        seen = [
            {
                "blob": number + 1,
                "id": blob.id,
                "caption": blob.caption_at(frame),
                "pixels": [round(value, 3) for value in (found[frame, number] * scale).tolist()],
                "normalised": [round(value, 6) for value in found[frame, number].tolist()],
            }
            for number, blob in enumerate(layout.blobs)
            if there[frame, number]
        ]
        entries.append({"frame": frame, "boxes": seen})
    return json.dumps({"version": 1, "width": width, "height": height, "frames": entries}, ensure_ascii=False)
