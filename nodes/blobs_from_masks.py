"""Blobs From Masks: things that a segmentation found, as ellipses with captions."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.blob_layout import (
    LARGEST_SIDE,
    MOST_BLOBS,
    MOST_FRAMES,
    SMALLEST_AXIS,
    Blob,
    BlobKey,
    BlobLayout,
    Ellipse,
    blobs_to_json,
    parse_blobs,
)
from ..kernels.ellipse_fit import FittedEllipses, fit_ellipses, steadied
from .sockets import CATEGORY_BLOBS, PnBlobs, check_choice, check_range

BY_FRAME, BY_OBJECT = "objects within frames", "frames within objects"
ORDERS = (BY_FRAME, BY_OBJECT)


class BlobsFromMasks(io.ComfyNode):
    """An ellipse for each object of each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobsFromMasks",
            display_name="Blobs From Masks",
            category=CATEGORY_BLOBS,
            description=(
                "Turns masks of things, such as a segmentation's, into a blob layout: for each the ellipse that "
                "covers it best, in every frame, and a caption."
            ),
            inputs=[
                io.Mask.Input("masks", tooltip="One mask for each object and frame; more than 0.5 is inside."),
                io.String.Input(
                    "captions",
                    multiline=True,
                    default="a red ball",
                    tooltip="What the objects are: a line for each, in the masks' order, from the bottom to the top.",
                ),
                io.Int.Input(
                    "frames", default=1, min=1, max=MOST_FRAMES, tooltip="Frames of the clip: 1 for a picture."
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default=BY_FRAME,
                    tooltip=(
                        "How a clip's masks come. objects within frames: all objects of the first frame, then all of "
                        "the next. frames within objects: the first object's whole clip, then the next one's."
                    ),
                ),
                io.Boolean.Input(
                    "refine",
                    default=True,
                    tooltip=(
                        "Move each ellipse until it overlaps most: better for things that are cut off or no ellipses. "
                        "Off: from the mask's mean and spread alone, at once."
                    ),
                ),
            ],
            outputs=[
                PnBlobs.Output(display_name="blobs", tooltip="The layout, as large as the masks."),
                io.String.Output(display_name="log", tooltip="How well each ellipse covers its mask."),
                io.String.Output(
                    display_name="layout",
                    tooltip="The layout as JSON, the text that Blob Layout's 'layout' takes when linked.",
                ),
            ],
        )

    @classmethod
    def execute(cls, masks: Tensor, captions: str, frames: int, order: str, refine: bool) -> io.NodeOutput:
        check_range(frames, "frames", 1, MOST_FRAMES)
        check_choice(order, "order", ORDERS)
        masks = per_object(masks, frames, order)
        lines = caption_lines(captions, masks.shape[1])
        progress = comfy.utils.ProgressBar(frames)
        fits = []
        for now in masks:
            comfy.model_management.throw_exception_if_processing_interrupted()
            fits.append(fit_ellipses(now.to(comfy.model_management.get_torch_device()), refine))
            progress.update(1)
        fit = FittedEllipses(
            steadied(torch.stack([one.ellipses.cpu() for one in fits])),
            torch.stack([one.present.cpu() for one in fits]),
            torch.stack([one.iou.cpu() for one in fits]),
        )
        height, width = masks.shape[-2:]
        blobs = tuple(blob_of(str(k + 1), caption, fit, k) for k, caption in enumerate(lines))
        text = blobs_to_json(BlobLayout(blobs, width, height, frames))
        return io.NodeOutput(parse_blobs(text, width, height, frames), log_of(lines, fit), text)


def per_object(masks: Tensor, frames: int, order: str) -> Tensor:
    """float32 [frames, objects, H, W] of a MASK [frames * objects, H, W].

    Raises:
        ValueError: another shape, NaN, too large, too many objects, or a number that the frames do not divide.
    """
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(f"'masks' has shape {list(masks.shape)}; expected [number, height, width].")
    if not bool(masks.isfinite().all()):
        raise ValueError("'masks' holds NaN or infinite values. Check the node that made it.")
    count, height, width = masks.shape
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"'masks' is {width}x{height} pixels; at most {LARGEST_SIDE} a side can be laid out.")
    if count % frames:
        raise ValueError(
            f"'masks' holds {count} masks, which 'frames' {frames} does not divide: there must be a mask for every "
            f"object in every frame. Set 'frames' to one of {', '.join(map(str, divisors(count)))}, or connect the "
            "missing masks (an empty one where an object is not in the picture)."
        )
    objects = count // frames
    if objects > MOST_BLOBS:
        raise ValueError(
            f"'masks' holds {objects} objects in each of {frames} frames; at most {MOST_BLOBS} can stand in a layout. "
            "Is 'frames' right?"
        )
    shaped = masks.unflatten(0, (frames, objects) if order == BY_FRAME else (objects, frames))
    return shaped if order == BY_FRAME else shaped.transpose(0, 1)


def divisors(count: int) -> list[int]:
    """The numbers of frames that so many masks may be, few of them, those of few objects rather."""
    found = [number for number in range(1, min(count, MOST_FRAMES) + 1) if count % number == 0]
    return found if len(found) <= 6 else found[:2] + found[-4:]


def caption_lines(captions: str, objects: int) -> list[str]:
    """A caption for each object; empty lines at the end do not count.

    Raises:
        ValueError: fewer or more.
    """
    lines = [line.strip() for line in captions.rstrip().splitlines()]
    if len(lines) != objects:
        raise ValueError(
            f"'captions' has {len(lines)} line{'s' * (len(lines) != 1)} and 'masks' {objects} "
            f"object{'s' * (objects != 1)} a frame; expected a line for each object. Write the missing lines, delete "
            "those that are too many, or set 'frames'."
        )
    return lines


def blob_of(name: str, caption: str, fit: FittedEllipses, k: int) -> Blob:
    """The k-th object's blob; with several frames a key for each."""
    rows = fit.ellipses[:, k].double()
    rows[:, 2:4] = rows[:, 2:4].clamp_min(SMALLEST_AXIS)
    rows[:, 4] = torch.rad2deg(rows[:, 4])
    ellipses = [Ellipse(*(round(value, 6) for value in row)) for row in rows.tolist()]
    present = fit.present[:, k].tolist()
    first = present.index(True) if True in present else 0
    if len(ellipses) == 1:
        return Blob(name, caption, ellipses[0], there=present[0])
    # Where it is not there it waits where it was seen last, or will be seen first.
    seen, keys = ellipses[first], []
    for frame, (ellipse, there) in enumerate(zip(ellipses, present, strict=True)):
        seen = ellipse if there else seen
        keys.append(BlobKey(frame, seen, there=there))
    return Blob(name, caption, ellipses[first], there=any(present), keys=tuple(keys))


def log_of(captions: list[str], fit: FittedEllipses) -> str:
    """A line for each object."""
    lines = []
    for k, caption in enumerate(captions):
        present, iou = fit.present[:, k], fit.iou[:, k]
        frames, seen = len(present), int(present.sum())
        title = f"{k + 1} ({caption})" if caption else f"{k + 1}"
        if not seen:
            lines.append(f"{title}: the mask is empty{' in all frames' * (frames > 1)}, so it is not in the picture.")
            continue
        low, mean = float(iou[present].min()), float(iou[present].mean())
        if frames == 1:
            lines.append(f"{title}: ellipse and mask overlap by {low:.3f}.")
            continue
        away = f", in {frames - seen} of {frames} frames it is not there" if seen < frames else ""
        lines.append(f"{title}: ellipse and mask overlap by {mean:.3f} on average, {low:.3f} at least{away}.")
    return "\n".join(lines)


NODES = [BlobsFromMasks]
