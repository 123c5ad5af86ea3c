"""What Imagine360's network is told: what of the panorama is known, in it and in the views of it, and from where.

Tan et al.: Imagine360: Immersive 360 Video Generation from Perspective Anchor, 2024. Each frame of a clip is laid into
a panorama where its camera looked; the rest is grey. Both branches get that beside their noise, as latents with a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import comfy.conds
import comfy.latent_formats
import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.anchor_view import anchor_pictures, largest_rectangles, relative_positions
from ..kernels.known_panorama import EXACT, Camera, known_views, lay_out, to_generate, with_grey
from ..kernels.panorama import perspective_to_equirect

AT_ONCE = 4 * 512 * 1024
"""Pixels of panoramas that are worked on together: four frames of the published size."""

FACTOR = 8
"""Pixels for each latent."""

FINE, COARSER = 3, 2
"""Pixels of a clip for each texel of its panorama beyond which it is averaged first, and how many are left then."""


@dataclass(frozen=True)
class Outpainting:
    """A clip as Imagine360's two branches get it."""

    panorama: Tensor
    """float32 [1, 5, F, H, W]: where to generate (1), and latents of what is known, scaled as the UNet sees them."""

    views: Tensor
    """float32 [1, 5, V * F, h, w], view by view."""

    anchors: Tensor
    """float32 [F, h, w, 3], 0..1: the largest known rectangle of each frame's panorama, in pixels of a view's size."""

    positions: Tensor
    """float32 [1, F, 6], see kernels/anchor_view.py."""


def spread_frames(held: int, wanted: int) -> Tensor:
    """Numbers of the frames that are taken of a clip: every k-th, with the largest k that leaves as many as wanted.

    Raises:
        ValueError: the clip has fewer.
    """
    if held < wanted:
        raise ValueError(f"{held} frames, and {wanted} are wanted")
    return torch.arange(wanted) * (held // wanted)


def outpainting(
    frames: Tensor,
    pitch: Tensor,
    roll: Tensor,
    fov: float,
    cameras: Sequence[Camera],
    height: int,
    encode: Callable[[Tensor], Tensor],
    *,
    on_part: Callable[[int], None] | None = None,
) -> Outpainting:
    """Lays a clip into panoramas and encodes them and their views, a few frames at a time.

    Args:
        frames: float32 [F, H, W, 3], 0..1, on any device.
        pitch: [F], degrees, above 0 where the camera looks up.
        roll: [F], degrees, above 0 where it is turned clockwise, seen from behind.
        fov: of the clip, horizontal, degrees.
        cameras: of the views.
        height: of the panorama, pixels, a multiple of 2 * FACTOR; it is twice as wide, and views are half as high.
        encode: pictures [B, H, W, 3], 0..1, to latents [B, 4, H / FACTOR, W / FACTOR], as the VAE gives them.
        on_part: called with the number of frames before each part; may raise to stop.

    Raises:
        ValueError: nothing of a panorama is known; fields of view that cannot be.
    """
    device, edge = comfy.model_management.get_torch_device(), height // 2
    zeros, fovs = torch.zeros(len(frames)), torch.full((len(frames),), float(fov))
    panoramas, views, anchors, rectangles = [], [], [], []
    for part in torch.arange(len(frames)).split(max(1, AT_ONCE // (2 * height**2))):
        if on_part is not None:
            on_part(len(part))
        pictures = _without_much_detail(frames[part].movedim(-1, 1).to(device), 2 * height * fov / 360)
        laid, known = lay_out(pictures, (zeros[part], pitch[part], roll[part], fovs[part]), height)
        rectangles.append(_square_rectangles(pitch[part], roll[part], fov, height, device))
        anchors.append(_on_host(anchor_pictures(laid, rectangles[-1], edge, edge).movedim(1, -1)))
        laid = with_grey(laid, known)
        panoramas.append(_masked_latents(laid, known, encode))
        seen, known = known_views(laid, known, cameras, edge)
        views.append(_masked_latents(seen.flatten(0, 1), known.flatten(0, 1), encode).unflatten(0, seen.shape[:2]))
    return Outpainting(
        torch.cat(panoramas).transpose(0, 1)[None],
        torch.cat(views, 1).flatten(0, 1).transpose(0, 1)[None],
        torch.cat(anchors),
        relative_positions(torch.cat(rectangles), height, 2 * height)[None],
    )


def _without_much_detail(pictures: Tensor, texels: float) -> Tensor:
    """Pictures [B, C, H, W] that lie on so many texels across; much finer ones would flicker there."""
    height, width = pictures.shape[2:]
    if width <= FINE * texels:
        return pictures
    scale = COARSER * texels / width
    size = [max(1, round(side * scale)) for side in (height, width)]
    return F.interpolate(pictures, size, mode="bilinear", antialias=True)


def _square_rectangles(pitch: Tensor, roll: Tensor, fov: float, height: int, device: torch.device) -> Tensor:
    """The anchors' rectangles int64 [F, 4]: cut for square pictures, whatever the clip's aspect."""
    tilts, which = torch.stack([pitch, roll], 1).unique(dim=0, return_inverse=True)
    zeros, fovs = torch.zeros(len(tilts)), torch.full((len(tilts),), float(fov))
    square = torch.ones(1, 1, 2, 2, device=device)
    _, known = perspective_to_equirect(
        square, zeros, *tilts.T, fovs, height, 2 * height, mode="nearest", convention=EXACT
    )
    return largest_rectangles(known)[which]


def tagged(conditioning: list, values: Mapping[str, object]) -> list:
    """A CONDITIONING whose entries carry values for the network.

    Args:
        conditioning: it stays as it is.
        values: name -> a tensor [1, ...], or something that is the same for every row.
    """
    held = {
        name: (comfy.conds.CONDRegular if isinstance(value, Tensor) else comfy.conds.CONDConstant)(value)
        for name, value in values.items()
    }
    return [[text, {**extra, "model_conds": {**extra.get("model_conds", {}), **held}}] for text, extra in conditioning]


def _masked_latents(pictures: Tensor, known: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """float32 [B, 5, h, w] of pictures [B, 3, H, W] and what is known of them [B, 1, H, W]."""
    latents = comfy.latent_formats.SD15().process_in(encode(_on_host(pictures.movedim(1, -1))))
    return torch.cat([_on_host(to_generate(known, latents.shape[-2:])), _on_host(latents)], 1)


def _on_host(value: Tensor) -> Tensor:
    return value.to(comfy.model_management.intermediate_device(), torch.float32)
