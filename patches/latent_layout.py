"""Reads a LATENT's shape: which axis is time, how many independent pictures or clips it holds, and how to put noise
together.

ComfyUI's LATENT says nothing about the meaning of its axes. A batch of four-dimensional latents is either the frames
of one clip (AnimateDiff) or separate pictures; five dimensions are ``[B, C, T, H, W]`` in every family of the host, but
``[B, T, C, H, W]`` in the CogVideoX wrapper pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["frames", "pictures", "B,C,T,H,W", "B,T,C,H,W"]
BATCH_4D = ("frames", "pictures")
LAYOUTS_5D = ("auto", "B,C,T,H,W", "B,T,C,H,W")
FRAME_RATIOS = (4, 8)  # video frames for each latent frame after the first: Wan, HunyuanVideo, CogVideoX; LTXV
COGVIDEOX_CHANNELS = 16
HOST_VIDEO_CHANNELS = frozenset(
    {12, 16, 32, 48, 64, 128}
)  # of the families in comfy.latent_formats with three dimensions


@dataclass(frozen=True)
class LatentLayout:
    """How the noise of one LATENT tensor is made of independent clips.

    ``items`` clips of ``frames`` latent frames, each ``[channels, height, width]``.
    """

    kind: Kind
    items: int
    frames: int
    channels: int
    height: int
    width: int

    def assemble(self, clips: Sequence[Tensor]) -> Tensor:
        """Puts one ``[frames, channels, height, width]`` tensor an item together in the LATENT's own order of axes."""
        if self.kind == "frames":
            return clips[0]
        if self.kind == "pictures":
            return torch.cat(list(clips))
        stacked = torch.stack(list(clips))  # [B, T, C, H, W]
        return stacked.transpose(1, 2).contiguous() if self.kind == "B,C,T,H,W" else stacked

    def split(self, samples: Tensor) -> list[Tensor]:
        """The reverse of ``assemble``: one ``[frames, channels, height, width]`` view an item."""
        if self.kind == "frames":
            return [samples]
        if self.kind == "pictures":
            return list(samples.split(1))
        return list((samples.transpose(1, 2) if self.kind == "B,C,T,H,W" else samples).unbind(0))


def choose_layout_5d(shape: Sequence[int], clip_frames: int | None = None) -> Literal["B,C,T,H,W", "B,T,C,H,W"]:
    """Which of the two five-dimensional orders a shape has.

    The host's order unless the third axis has CogVideoX's 16 channels and the second cannot be a channel count of the
    host's families, or fits the clip's length where the host's reading does not.

    Args:
        shape: the five sizes.
        clip_frames: frames of the clip that the noise follows, where known.
    """
    second, third = int(shape[1]), int(shape[2])
    if third != COGVIDEOX_CHANNELS:
        return "B,C,T,H,W"
    if second not in HOST_VIDEO_CHANNELS:
        return "B,T,C,H,W"
    if clip_frames is not None and second != third:
        fitting = {clip_frames, *((clip_frames - 1) // ratio + 1 for ratio in FRAME_RATIOS)}
        if second in fitting and third not in fitting:
            return "B,T,C,H,W"
    return "B,C,T,H,W"


def read_layout(
    samples: Tensor, *, batch_4d: str = "frames", layout_5d: str = "auto", clip_frames: int | None = None
) -> LatentLayout:
    """The layout of a LATENT's tensor.

    Args:
        samples: ``[B, C, h, w]``, ``[B, C, T, h, w]`` or ``[B, T, C, h, w]``.
        batch_4d: ``frames`` (a batch of four-dimensional latents is one clip) or ``pictures``.
        layout_5d: ``auto`` or one of the two orders.
        clip_frames: helps ``auto``, see ``choose_layout_5d``.

    Raises:
        ValueError: another number of dimensions, or an axis of size 0.
    """
    shape = tuple(int(n) for n in samples.shape)
    if samples.ndim not in (4, 5):
        raise ValueError(
            f"LATENT has shape {list(shape)}; noise that follows a clip needs pictures [batch, channels, height, "
            "width] or video [batch, channels, frames, height, width]. Connect a picture or video latent."
        )
    if 0 in shape:
        raise ValueError(f"LATENT has shape {list(shape)}: an axis is empty. Connect a latent with at least one frame.")
    if samples.ndim == 4:
        batch, channels, height, width = shape
        if batch_4d == "frames":
            return LatentLayout("frames", 1, batch, channels, height, width)
        return LatentLayout("pictures", batch, 1, channels, height, width)
    kind = choose_layout_5d(shape, clip_frames) if layout_5d == "auto" else layout_5d
    frames, channels = (shape[2], shape[1]) if kind == "B,C,T,H,W" else (shape[1], shape[2])
    return LatentLayout(kind, shape[0], frames, channels, shape[3], shape[4])


def read_batch_index(latent: dict, length: int) -> list[int] | None:
    """The LATENT's ``batch_index`` (which items of a larger batch these are), or None.

    Raises:
        ValueError: not as long as the batch, or with a negative number.
    """
    index = latent.get("batch_index")
    if index is None:
        return None
    index = [int(i) for i in index]
    if len(index) != length:
        raise ValueError(
            f"LATENT holds {length} item(s), but its batch_index names {len(index)}: {index}. "
            "Connect the latent straight from the node that split the batch."
        )
    if min(index) < 0:
        raise ValueError(f"LATENT's batch_index has a negative number: {index}.")
    return index


def derived_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed that depends on ``seed`` and a purpose and on nothing else.

    A hash and not ``seed + i``, so that the second item of seed 5 is not the first of seed 6, and so that two random
    streams of one item (its noise, its degradation) never start alike.
    """
    text = ":".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def item_seed(seed: int, item: int, part: int = 0) -> int:
    """The seed of one batch item: the first item of the first part uses ``seed`` itself."""
    return seed if item == 0 and part == 0 else derived_seed(seed, "item", item, part)


def plain_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Independent normal numbers, float32 on the CPU, from a generator of their own."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
