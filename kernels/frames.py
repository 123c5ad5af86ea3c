"""Clips as batches: image networks see the frames of a clip as a batch of pictures, time wants them side by side."""

from __future__ import annotations

from torch import Tensor


def clips_of(x: Tensor, frames: int) -> Tensor:
    """Frames of a batch laid side by side, as a volume whose depth is time.

    A group norm of the volume has one mean and one variance for all frames of a clip, which is what networks trained on
    ``[B, C, F, H, W]`` compute (RelightVid, Fang et al. 2025, after AnimateDiff, Guo et al. 2024).

    Args:
        x: ``[B * frames, C, H, W]``, any dtype and device; the frames of one clip follow each other.
        frames: of each clip, at least 1.

    Returns:
        ``[B, C, frames, H, W]``, contiguous if there is something to rearrange.

    Raises:
        ValueError: the batch is no multiple of ``frames``, or x has another number of dimensions.
    """
    _check(x, frames)
    if frames == 1:
        return x.unsqueeze(2)
    return x.unflatten(0, (-1, frames)).transpose(1, 2).contiguous()


def frames_of(clips: Tensor) -> Tensor:
    """What ``clips_of`` was given: ``[B, C, F, H, W]`` -> ``[B * F, C, H, W]``, contiguous where F > 1."""
    return clips.transpose(1, 2).flatten(0, 1)


def tracks_of(x: Tensor, frames: int) -> Tensor:
    """What each place of the picture holds over time, as sequences that attend to nothing but themselves.

    Args:
        x: ``[B * frames, C, H, W]``, any dtype and device; the frames of one clip follow each other.
        frames: of each clip, at least 1.

    Returns:
        ``[B * H * W, frames, C]``.

    Raises:
        ValueError: the batch is no multiple of ``frames``, or x has another number of dimensions.
    """
    _check(x, frames)
    return x.flatten(2).unflatten(0, (-1, frames)).permute(0, 3, 1, 2).flatten(0, 1)


def pictures_of(tracks: Tensor, height: int, width: int) -> Tensor:
    """What ``tracks_of`` was given.

    Args:
        tracks: ``[B * height * width, F, C]``, any dtype and device.
        height, width: of the pictures.

    Returns:
        ``[B * F, C, height, width]``.
    """
    apart = tracks.unflatten(0, (-1, height * width)).permute(0, 2, 3, 1)
    return apart.flatten(0, 1).unflatten(2, (height, width))


def _check(x: Tensor, frames: int) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {list(x.shape)}; expected [clips * frames, C, H, W]")
    if frames < 1 or x.shape[0] % frames:
        raise ValueError(f"a batch of {x.shape[0]} pictures does not divide into clips of {frames} frames")
