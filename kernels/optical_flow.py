"""Optical flow of a clip by OpenCV's dense inverse search, which needs no weights, and what every method shares.

Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search, ECCV 2016 (``cv2.DISOpticalFlow``).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import DIRECTIONS, resize_flow

PRESETS = ("ultrafast", "fast", "medium")

# DIS lays patches of 8 pixels on a pyramid; smaller pictures are continued to this edge.
_SMALLEST = 32
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def check_frames(frames: Tensor, direction: str, factor: float) -> None:
    """Refuse what no optical flow can be computed from.

    Args:
        frames: float [T, H, W, C] with T >= 2 and C = 1 (gray), 3 (RGB) or 4 (RGB and alpha), in 0..1.
        direction: "forward" or "backward".
        factor: the flow is computed on frames resized by this, 0 < factor <= 4.

    Raises:
        ValueError: names the input, what came and what was expected.
    """
    if not isinstance(frames, Tensor) or frames.ndim != 4 or frames.shape[3] not in (1, 3, 4):
        came = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise ValueError(
            f"frames: got {came}; expected a clip [frames, height, width, channels] with 1, 3 or 4 channels."
        )
    if frames.shape[0] < 2:
        raise ValueError(
            f"frames: got {frames.shape[0]} frame{'' if frames.shape[0] == 1 else 's'}; optical flow needs at least 2."
            " Connect a video or a batch of images."
        )
    if min(frames.shape[1:3]) < 1:
        raise ValueError(f"frames: got {frames.shape[1]}x{frames.shape[2]} pixels; expected at least 1x1.")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: got {direction!r}; expected 'forward' or 'backward'.")
    if not 0 < factor <= 4:
        raise ValueError(f"resize factor: got {factor:g}; expected more than 0 and at most 4.")


def working_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """(height, width) of the frames that the flow is computed on: at least 1 pixel."""
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 [N, C, H, W] -> [N, C, height, width]: area mean when shrinking, bilinear when enlarging."""
    if tuple(frames.shape[2:]) == tuple(size):
        return frames
    return F.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)


def dis_flow(
    frames: Tensor,
    *,
    direction: str = "forward",
    factor: float = 1.0,
    preset: str = "medium",
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Flow between neighbouring frames by dense inverse search, on the CPU.

    Args:
        frames: float [T, H, W, C], T >= 2, C = 1, 3 or 4 (alpha is ignored), in 0..1; any device.
        direction: "forward": result[t] moves a pixel of frame t to frame t+1; "backward": it maps one of t+1 to t.
        factor: the flow is computed on frames resized by this; the result is given at the frames' own resolution.
        preset: "ultrafast", "fast" or "medium" (the most exact).
        on_frame: called with (pair, T - 1) before each pair; may raise to stop.

    Returns:
        float32 [T-1, 2, H, W] in pixels of the given frames, on the CPU.

    Raises:
        ValueError: see check_frames; NaN in the frames; an unknown preset.
        ImportError: OpenCV is missing or was built without DIS.
    """
    check_frames(frames, direction, factor)
    if preset not in PRESETS:
        raise ValueError(f"preset: got {preset!r}; expected one of {', '.join(PRESETS)}.")
    estimator = _estimator(preset)
    total, height, width = frames.shape[0] - 1, frames.shape[1], frames.shape[2]
    size = working_size(height, width, factor)
    result = torch.empty((total, 2, height, width), dtype=torch.float32)
    before = _gray(frames, 0, size)
    for pair in range(total):
        if on_frame is not None:
            on_frame(pair, total)
        after = _gray(frames, pair + 1, size)
        first, second = (before, after) if direction == "forward" else (after, before)
        vectors = torch.from_numpy(estimator.calc(first, second, None)).permute(2, 0, 1)
        vectors = vectors[None, :, : size[0], : size[1]].contiguous()
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError(f"frames: OpenCV found no finite flow between frames {pair} and {pair + 1}.")
        result[pair] = resize_flow(vectors, (height, width))[0]
        before = after
    return result


def _estimator(preset: str):
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "The DIS optical flow needs OpenCV, which is not installed. Run: pip install opencv-python-headless"
        ) from error
    if not hasattr(cv2, "DISOpticalFlow_create"):
        raise ImportError(
            f"This OpenCV ({getattr(cv2, '__version__', 'unknown version')}) has no DISOpticalFlow. Run:"
            " pip install --upgrade opencv-python-headless"
        )
    return cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))


def _gray(frames: Tensor, index: int, size: tuple[int, int]):
    """uint8 numpy [h, w] brightness of a frame, continued at the right and bottom to the smallest size DIS takes."""
    frame = frames[index].to(device="cpu", dtype=torch.float32)
    if not bool(torch.isfinite(frame).all()):
        raise ValueError(f"frames: frame {index} holds NaN or infinite values; expected brightness from 0 to 1.")
    frame = frame[..., 0] if frame.shape[-1] == 1 else frame[..., :3] @ torch.tensor(_LUMA)
    frame = resize_frames(frame[None, None], size)
    right, bottom = max(0, _SMALLEST - size[1]), max(0, _SMALLEST - size[0])
    if right or bottom:
        frame = F.pad(frame, (0, right, 0, bottom), mode="replicate")
    return (frame[0, 0] * 255.0).round_().clamp_(0, 255).to(torch.uint8).contiguous().numpy()
