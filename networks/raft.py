"""RAFT optical flow: torchvision's modules, weights from the user's models/optical_flow folder.

Teed, Deng: RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020. The network itself is torchvision's.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.flow import resize_flow
from ..kernels.optical_flow import check_frames, resize_frames, working_size

SIZES = ("small", "large")
# Torchvision's own files, what a message sends the user to.
FILES = {
    "small": "raft_small_C_T_V2-01064c6d.pth",
    "large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
}
SOURCE = "https://download.pytorch.org/models/"

_STEP = 8  # features live on a grid of 8 x 8 pixels
_SMALLEST = 128  # four pyramid levels of the correlation need at least this
_LEVELS = 4


def build_raft(size: str) -> nn.Module:
    """An untrained RAFT in eval mode.

    Args:
        size: "small" (1 million parameters) or "large" (5 million).

    Raises:
        ValueError: another size.
        ImportError: torchvision is missing.
    """
    if size not in SIZES:
        raise ValueError(f"RAFT size: got {size!r}; expected 'small' or 'large'.")
    try:
        from torchvision.models import optical_flow
    except ImportError as error:
        raise ImportError(
            "RAFT needs torchvision with its optical flow models, which could not be imported"
            f" ({error}). Install the torchvision that matches your torch, or use the method DIS."
        ) from error
    build = optical_flow.raft_small if size == "small" else optical_flow.raft_large
    return build(weights=None, progress=False).eval().requires_grad_(False)


def load_raft(state_dict: Mapping[str, Tensor], size: str, name: str = "RAFT file") -> nn.Module:
    """A RAFT with the given weights, in eval mode, float32, on the CPU.

    Args:
        state_dict: what the file holds, keys as torchvision names them (an outer "module." or "state_dict" is removed).
        size: "small" or "large".
        name: how messages call the file.

    Raises:
        ValueError: the weights are another network's; says which keys and what file was expected.
    """
    network = build_raft(size)
    state_dict = _unwrap(state_dict)
    wanted = network.state_dict()
    # Counters of the batch normalisation that old files lack; inference does not read them.
    missing = [key for key in wanted if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in wanted]
    reshaped = [key for key in wanted if key in state_dict and state_dict[key].shape != wanted[key].shape]
    if missing or unexpected or reshaped:
        raise ValueError(_report(state_dict, wanted, missing, unexpected, reshaped, size, name))
    broken = [key for key, value in state_dict.items() if not bool(torch.isfinite(value.to(torch.float32)).all())]
    if broken:
        raise ValueError(f"{name}: the weights {_some(broken)} hold NaN or infinite values; download the file again.")
    network.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state_dict.items()}, strict=False)
    return network


def raft_memory(height: int, width: int, factor: float = 1.0) -> int:
    """Bytes that one pair needs besides the weights: the all-pairs correlation and its pyramid, float32, twice."""
    height, width = (_padded(edge) // _STEP for edge in working_size(height, width, factor))
    return int(2 * 4 * (height * width) ** 2 * sum(0.25**level for level in range(_LEVELS)))


def raft_flow(
    network: nn.Module,
    frames: Tensor,
    *,
    direction: str = "forward",
    factor: float = 1.0,
    iterations: int = 12,
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Flow between neighbouring frames.

    Args:
        network: from ``load_raft``; runs on the device and in the dtype of its weights.
        frames: float [T, H, W, C], T >= 2, C = 1, 3 or 4 (alpha is ignored), in 0..1; any device.
        direction: "forward": result[t] moves a pixel of frame t to frame t+1; "backward": it maps one of t+1 to t.
        factor: the flow is computed on frames resized by this; the result is given at the frames' own resolution.
        iterations: refinement steps; 12 is the network's default.
        on_frame: called with (pair, T - 1) before each pair; may raise to stop.

    Returns:
        float32 [T-1, 2, H, W] in pixels of the given frames, on the CPU.

    Raises:
        ValueError: see kernels.optical_flow.check_frames; NaN in the frames or in the result.
    """
    check_frames(frames, direction, factor)
    weight = next(network.parameters())
    total, height, width = frames.shape[0] - 1, frames.shape[1], frames.shape[2]
    size = working_size(height, width, factor)
    result = torch.empty((total, 2, height, width), dtype=torch.float32)
    with torch.no_grad():
        before = _prepare(frames, 0, size, weight)
        for pair in range(total):
            if on_frame is not None:
                on_frame(pair, total)
            after = _prepare(frames, pair + 1, size, weight)
            first, second = (before, after) if direction == "forward" else (after, before)
            vectors = network(first, second, num_flow_updates=iterations)[-1].to(torch.float32)
            top, left = (vectors.shape[2] - size[0]) // 2, (vectors.shape[3] - size[1]) // 2
            vectors = vectors[..., top : top + size[0], left : left + size[1]]
            if not bool(torch.isfinite(vectors).all()):
                raise ValueError(
                    f"RAFT: no finite flow between frames {pair} and {pair + 1}. Run it in float32, or choose the"
                    " method DIS."
                )
            result[pair] = resize_flow(vectors, (height, width))[0].cpu()
            before = after
    return result


def _padded(edge: int) -> int:
    return max(_SMALLEST, -(-edge // _STEP) * _STEP)


def _prepare(frames: Tensor, index: int, size: tuple[int, int], weight: Tensor) -> Tensor:
    """[1, 3, h, w] in -1..1 with edges that the network takes, continued evenly on all sides by the border pixels."""
    frame = frames[index].to(device=weight.device, dtype=torch.float32)
    if not bool(torch.isfinite(frame).all()):
        raise ValueError(f"frames: frame {index} holds NaN or infinite values; expected colours from 0 to 1.")
    frame = frame.expand(-1, -1, 3) if frame.shape[-1] == 1 else frame[..., :3]
    frame = resize_frames(frame.permute(2, 0, 1).unsqueeze(0), size)
    more_y, more_x = _padded(size[0]) - size[0], _padded(size[1]) - size[1]
    sides = (more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2)
    frame = F.pad(frame, sides, mode="replicate").clamp(0, 1)
    return (frame * 2.0 - 1.0).to(weight.dtype).contiguous()


def _unwrap(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inner = state_dict.get("state_dict", state_dict) if isinstance(state_dict, Mapping) else None
    if not isinstance(inner, Mapping):
        return {}
    return {str(key).removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}


def _report(state_dict, wanted, missing, unexpected, reshaped, size: str, name: str) -> str:
    """What is wrong with the weights, in words a user can act on."""
    other = "large" if size == "small" else "small"
    expected = f"Expected torchvision's {FILES[size]} from {SOURCE}{FILES[size]}."
    if not state_dict:
        return f"{name}: it holds no weights. {expected}"
    theirs = build_raft(other).state_dict()
    fits = sum(key in theirs and theirs[key].shape == value.shape for key, value in state_dict.items())
    if fits == len(state_dict):
        return f"{name}: these are the weights of RAFT {other}, but RAFT {size} was chosen. {expected}"
    if any(key.startswith(("fnet.", "cnet.", "update_block.encoder")) for key in state_dict):
        return f"{name}: these are RAFT weights in the authors' own layout, not in torchvision's. {expected}"
    known = len(wanted) - len(missing)
    if known == 0:
        return f"{name}: these are not RAFT weights (it holds {_some(list(state_dict))}). {expected}"
    parts = [f"{name}: the weights do not fit RAFT {size}."]
    for label, keys in (("Missing", missing), ("Not expected", unexpected)):
        if keys:
            parts.append(f"{label}: {_some(keys)}.")
    if reshaped:
        key = reshaped[0]
        came, expects = list(state_dict[key].shape), list(wanted[key].shape)
        parts.append(f"Of another shape: {_some(reshaped)} (the first is {came}, expected {expects}).")
    return " ".join([*parts, expected])


def _some(keys: list[str]) -> str:
    shown = ", ".join(str(key)[:80] for key in keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"
