"""Brightness and colour apart: the brightness of one picture under another's colours, and colours steadied in time.

Replacing the luma of what a model drew by that of its source keeps lines and shading and takes flicker of brightness
away (Fang et al., VanGogh, 2025, do so in colourised video). Colours that the new brightness cannot have are made
paler until they exist, so that the brightness stays exact. YCbCr: ITU-R BT.601 weights on the coded values, as JPEG has
it. Lab: CIE L*a*b*, D65, of sRGB.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import Flow, invert_flow, occlusion_mask, resize_flow
from .sampling import pixel_grid, remap

SPACES = ("Lab", "YCbCr")
GAMUTS = ("desaturate", "clip")
"""What becomes of colours outside 0..1: paler at the same brightness, or cut off, which changes the brightness."""

UPSAMPLING = ("guided", "bilinear", "bicubic")
"""How colours of another size reach the source's: guided lets them end where the source's brightness does."""

WEIGHTS = (0.299, 0.587, 0.114)
HALVINGS = 16
"""Of the interval in which Lab's palest necessary colour lies."""

GUIDED_EPSILON = 1e-3
"""Variance of brightness below which the guided filter takes no edge."""


def split(pictures: Tensor, space: str) -> tuple[Tensor, Tensor]:
    """Luma float32 [B, 1, H, W], 0..1, and chroma [B, 2 (Lab) or 3 (YCbCr: what differs from grey), H, W].

    Args:
        pictures: float32 [B, H, W, 3], 0..1.
        space: one of SPACES.
    """
    channels = pictures.movedim(-1, 1)
    if space == "Lab":
        from kornia.color import rgb_to_lab

        lab = rgb_to_lab(channels.contiguous())
        return lab[:, :1] / 100, lab[:, 1:]
    weights = torch.tensor(WEIGHTS, device=channels.device).view(1, 3, 1, 1)
    luma = (channels * weights).sum(1, keepdim=True)
    return luma, channels - luma


def joined(luma: Tensor, chroma: Tensor, space: str, gamut: str) -> Tensor:
    """Pictures float32 [B, H, W, 3], 0..1, of what ``split`` gives; see GAMUTS for colours that do not exist."""
    if gamut == "desaturate":
        chroma = chroma * (_existing(luma, chroma) if space == "YCbCr" else _existing_lab(luma, chroma))
    return _compose(luma, chroma, space).clamp(0, 1).movedim(1, -1)


def _compose(luma: Tensor, chroma: Tensor, space: str) -> Tensor:
    if space == "YCbCr":
        return luma + chroma
    from kornia.color import lab_to_rgb

    return lab_to_rgb(torch.cat((luma * 100, chroma), 1), clip=False)


def _existing(luma: Tensor, chroma: Tensor) -> Tensor:
    """[B, 1, H, W], 0..1: the largest share of each pixel's chroma that stays within 0..1 at its luma."""
    room = torch.where(chroma > 0, 1 - luma, luma)
    return (room / chroma.abs().clamp_min(1e-12)).amin(1, keepdim=True).clamp(0, 1)


def _existing_lab(luma: Tensor, chroma: Tensor) -> Tensor:
    """The same in Lab, by halving; only pixels that need it are looked at again."""

    def outside(luma: Tensor, chroma: Tensor) -> Tensor:
        found = _compose(luma, chroma, "Lab")
        return (found < -1e-5).any(1) | (found > 1 + 1e-5).any(1)

    share = torch.ones_like(luma)
    wrong = outside(luma, chroma)
    if not bool(wrong.any()):
        return share
    pixels = wrong[:, None]
    some_luma = luma[pixels].view(1, 1, 1, -1)
    some_chroma = torch.stack([channel[wrong] for channel in chroma.unbind(1)]).view(1, 2, 1, -1)
    low, high = torch.zeros_like(some_luma), torch.ones_like(some_luma)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        bad = outside(some_luma, some_chroma * middle)[:, None]
        low, high = torch.where(bad, low, middle), torch.where(bad, middle, high)
    share[pixels] = low.flatten()
    return share


def luma_replace(
    generated: Tensor,
    source: Tensor,
    *,
    space: str = SPACES[0],
    strength: float = 1.0,
    gamut: str = GAMUTS[0],
    upsampling: str = UPSAMPLING[0],
) -> Tensor:
    """The source's brightness with the generated picture's colours, as large as the source.

    Args:
        generated: float32 [B, h, w, 3], 0..1.
        source: float32 [B or 1, H, W, 3], 0..1.
        space: one of SPACES, in which brightness and colour are told apart.
        strength: 1: the source's brightness; 0: the generated picture's own.
        gamut: one of GAMUTS.
        upsampling: one of UPSAMPLING; counts where the sizes differ.

    Returns:
        float32 [B, H, W, 3], 0..1. At strength 1 and "desaturate" its luma is the source's, and doing it again changes
        nothing; at strength 0 and equal sizes it is ``generated`` itself.

    Raises:
        ValueError: shapes that do not fit, or another choice.
    """
    if generated.ndim != 4 or source.ndim != 4 or generated.shape[-1] != 3 or source.shape[-1] != 3:
        raise ValueError(
            f"generated has shape {list(generated.shape)} and source {list(source.shape)}; expected [batch, height,"
            " width, 3] both."
        )
    if source.shape[0] not in (1, generated.shape[0]):
        raise ValueError(
            f"source holds {source.shape[0]} pictures and generated {generated.shape[0]}; expected one, or as many."
        )
    for name, came, known in (
        ("space", space, SPACES),
        ("gamut", gamut, GAMUTS),
        ("upsampling", upsampling, UPSAMPLING),
    ):
        if came not in known:
            raise ValueError(f"{name} is {came!r}; expected one of {', '.join(known)}.")
    same_size = generated.shape[1:3] == source.shape[1:3]
    if strength == 0 and same_size:
        return generated
    own, chroma = split(generated, space)
    wanted, _ = split(source.expand(generated.shape[0], -1, -1, -1), space)
    if not same_size:
        own, chroma = (_resized(some, wanted, upsampling) for some in (own, chroma))
    return joined(own + strength * (wanted - own), chroma, space, gamut)


def _resized(channels: Tensor, guide: Tensor, upsampling: str) -> Tensor:
    """Channels [B, C, h, w] in the size of the guide [B, 1, H, W]."""
    from kornia.filters import guided_blur

    size = guide.shape[2:]
    mode = "bicubic" if upsampling == "bicubic" else "bilinear"
    found = F.interpolate(channels, size=size, mode=mode, align_corners=False, antialias=True)
    scale = max(size[0] / channels.shape[2], size[1] / channels.shape[3])
    if upsampling != "guided" or scale <= 1:
        return found
    # Twice as wide as the blur that enlarging made, so that both sides of an edge are seen; no wider than the picture.
    window = min(4 * round(scale) + 1, *(2 * ((side - 1) // 2) + 1 for side in size))
    return guided_blur(guide, found, window, GUIDED_EPSILON)


def chroma_smooth(
    video: Tensor,
    flow: Flow,
    occlusion: Tensor | None = None,
    strength: float = 0.8,
    *,
    space: str = SPACES[0],
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Colours averaged along the motion, brightness as it was.

    A pixel's colour becomes the mean of its colours in all frames along the flow, with weights strength^|distance in
    frames|; where the flow loses it, frames beyond have none.

    Args:
        video: float32 [T, H, W, 3], 0..1.
        flow: of T frames, in either direction; another size is resampled.
        occlusion: float32 [1, T - 1 or T][H, W], 1 where a pixel is not to be taken from other frames, beside what the
            flow's own forward-backward check finds. T - 1 masks belong to the frames after the first.
        strength: 0: nothing; 1: all frames count alike.
        space: one of SPACES.
        on_frame: called before each step with its number and how many there are; what it raises ends the work.

    Returns:
        float32 [T, H, W, 3], 0..1.

    Raises:
        ValueError: another number of frames or shape, or a strength outside 0..1.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or flow.frames != video.shape[0]:
        raise ValueError(
            f"video has shape {list(video.shape)} and the flow connects {flow.frames} frames; expected [frames, height,"
            " width, 3] of as many."
        )
    frames, height, width = video.shape[:3]
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; expected 0 to 1.")
    if space not in SPACES:
        raise ValueError(f"space is {space!r}; expected one of {', '.join(SPACES)}.")
    if strength == 0 or frames == 1:
        return video
    own = resize_flow(flow.vectors.to(video.device), (height, width))
    other = invert_flow(own)
    forward, backward = (own, other) if flow.direction == "forward" else (other, own)
    seen_next, seen_before = (1 - occlusion_mask(*pair) for pair in ((forward, backward), (backward, forward)))
    if occlusion is not None:
        if occlusion.shape[0] not in (1, frames - 1, frames) or occlusion.shape[1:] != video.shape[1:3]:
            raise ValueError(
                f"occlusion has shape {list(occlusion.shape)}; expected [1, {frames - 1} or {frames}, {height},"
                f" {width}]."
            )
        kept = 1 - occlusion.clamp(0, 1)
        kept = torch.cat((torch.ones_like(kept[:1]), kept)) if kept.shape[0] == frames - 1 else kept
        kept = kept.expand(frames, -1, -1)
        seen_before, seen_next = seen_before * kept[1:], seen_next * kept[:-1]
    luma, chroma = split(video, space)
    grid = pixel_grid(height, width, video.device)
    # Colours and, in the last channel, how many frames they are the sum of.
    alone = torch.cat((chroma, torch.ones_like(luma)), 1)

    def gathered(order: range, step: int, vectors: Tensor, seen: Tensor) -> list[Tensor]:
        sums: dict[int, Tensor] = {}
        for frame in order:
            if on_frame is not None:
                on_frame(frame if step == 1 else 2 * frames - 1 - frame, 2 * frames)
            total = alone[frame : frame + 1]
            if frame - step in sums:
                pair = min(frame, frame - step)
                there = remap(sums[frame - step], grid + vectors[pair : pair + 1], border="border")
                total = total + strength * seen[pair] * there
            sums[frame] = total
        return [sums[frame] for frame in range(frames)]

    before = gathered(range(frames), 1, backward, seen_before)
    after = gathered(range(frames - 1, -1, -1), -1, forward, seen_next)
    sums = torch.cat(before) + torch.cat(after) - alone
    return joined(luma, sums[:, :-1] / sums[:, -1:], space, GAMUTS[0])
