"""Cut-and-drag in plain torch: the reference, right on any device.

Work is restricted to each object's bounding box, and on a CPU it goes through the boxes in bands of rows, so that what
is computed in between stays in the caches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .affine import Box, read_affine_parts, values_at
from .cut_and_drag_scene import Scene

_ROWS = 96  # of a band
_BAND = 1 << 17  # pixels of a band as wide as the picture


def paint(scene: Scene, index: int, composite: Tensor, labels: Tensor, masks: list[Tensor]) -> list[Box]:
    """One frame, painted back to front.

    Args:
        scene: what to paint.
        index: which frame.
        composite: float32 [3, H, W], written.
        labels: uint8 [H, W], written: 0 = background, k = object k - 1 lies on top there (its alpha is over 0.5).
        masks: for every object float32 [H, W] of zeros: its alpha is written where it can be.

    Returns:
        For every object the pixels it can touch.
    """
    composite.copy_(scene.background)
    labels.zero_()
    boxes = []
    for number, source in enumerate(scene.sources):
        inside = scene.inside(number, index)
        bands = _bands(scene, number, index)
        boxes.append(around(bands))
        for band in bands:
            sampled = read_affine_parts(source, inside, band)
            colour, alpha = sampled[:3], sampled[3]
            rows, columns = band.slices
            parts = (alpha.shape[0], -1)
            under = composite[:, rows, columns].unflatten(1, parts)
            # Written so that an object at rest over its own picture changes no bit of it, and alpha 1 is the object.
            mixed = (colour - under * alpha).add_(under)
            torch.where(alpha >= 1.0, colour, mixed, out=under)
            labels[rows, columns].unflatten(0, parts).masked_fill_(alpha > 0.5, number + 1)
            masks[number][rows, columns].unflatten(0, parts).copy_(alpha)
    return boxes


def follow(
    scene: Scene,
    index: int,
    here: Tensor,
    there: Tensor,
    boxes: tuple[list[Box], list[Box]],
    vectors: Tensor,
    occlusion: Tensor,
) -> None:
    """The flow from a frame to the next.

    Args:
        scene: what moves.
        index: which frame.
        here, there: uint8 [H + 2, W + 2]: the labels of this frame and of the next, a pixel of zeros around.
        boxes: of this frame and of the next.
        vectors: float32 [2, H, W] of zeros, written.
        occlusion: float32 [H, W] of zeros, written.
    """
    height, width = scene.height, scene.width
    labels, flat = here[1:-1, 1:-1], there.view(-1)
    for number in range(len(scene.sources)):
        step = scene.step(number, index)
        for band in _bands(scene, number, index):
            shown = (labels[band.slices] == number + 1).to(torch.float32)
            for channel, values in enumerate(values_at(step, band, scene.device)):
                # No two objects are shown at one pixel: everywhere else 0 is added.
                vectors[channel][band.slices].addcmul_(values, shown)
    region = around([*boxes[0], *boxes[1]])
    rows = max(1, _BAND // width) if scene.device.type == "cpu" else height
    for top in range(region.top, region.bottom, rows):
        band = Box(region.left, top, region.right, min(top + rows, region.bottom))
        # Rounded and moved by the rim; what leaves the picture reads the rim's 0, which no object has.
        columns = torch.arange(band.left, band.right, device=scene.device, dtype=torch.float32).add_(1.5)
        lines = torch.arange(band.top, band.bottom, device=scene.device, dtype=torch.float32).add_(1.5)
        x = (vectors[0][band.slices] + columns).clamp_(0.0, width + 1.0).to(torch.int32)
        y = (vectors[1][band.slices] + lines[:, None]).clamp_(0.0, height + 1.0).to(torch.int32)
        shows = flat.index_select(0, y.mul_(width + 2).add_(x).view(-1)).view(x.shape)
        occlusion[band.slices] = shows != labels[band.slices]


def around(boxes: list[Box]) -> Box:
    """The smallest box that holds all of them."""
    boxes = [box for box in boxes if not box.empty]
    if not boxes:
        return Box(0, 0, 0, 0)
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def _bands(scene: Scene, number: int, index: int) -> list[Box]:
    """Where an object can be seen: in pieces on a CPU, whole elsewhere."""
    return scene.bands(number, index, _ROWS if scene.device.type == "cpu" else None)
