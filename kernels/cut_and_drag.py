"""Cut-and-drag: parts of a still picture move over it; the clip, the parts' masks and the exact flow.

An object at frame f is its outline's content in the first frame under
``T_f(p) = pivot + scale * R(angle) (p - pivot) + move``; objects lie over each other in their order. Work is restricted
to each object's bounding box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import Affine, Box, read_affine, turn_and_scale, values_at
from .drag_motion import Motion, MotionObject
from .hole_fill import fill_holes
from .polygons import Coverage, polygon_coverage

HOLES = ("fill", "keep")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of the clip.

    Args:
        composite: float32 [H, W, 3].
        labels: uint8 [H, W]: 0 = background, k = object k - 1 lies on top there (its alpha is over 0.5).
        boxes, alphas: for every object the pixels it can touch, and its alpha there, float32 [h, w] in 0..1, whole: not
            cut by what lies before it.
    """

    composite: Tensor
    labels: Tensor
    boxes: tuple[Box, ...]
    alphas: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of T frames with N objects.

    Args:
        composites: float32 [T, H, W, 3].
        vectors: float32 [T - 1, 2, H, W], pixels, forward.
        occlusion: float32 [T - 1, H, W]: 1 where what a pixel shows is not seen in the next frame.
        masks: float32 [N * T, H, W], all frames of the rearmost object first; [T, H, W] of zeros without objects.
    """

    composites: Tensor
    vectors: Tensor
    occlusion: Tensor
    masks: Tensor


class CutAndDrag:
    """The clip in which the objects of a motion move over a picture.

    Args:
        image: float [H, W, 3 or more], 0..1; only the first three channels are used.
        motion: what moves.
        frames: length of the clip, 1 or more.
        hole: what lies where an object was: "fill" = its surroundings, interpolated; "keep" = the picture as it is.
        device: where to compute; default: the image's.

    Raises:
        ValueError: a wrong shape, an unknown hole.
    """

    def __init__(self, image: Tensor, motion: Motion, frames: int, *, hole: str = "fill", device=None):
        if hole not in HOLES:
            raise ValueError(f"hole: got {hole!r}; expected one of {', '.join(HOLES)}.")
        if image.ndim != 3 or image.shape[2] < 3 or 0 in image.shape:
            raise ValueError(f"image: got {list(image.shape)}; expected [height, width, 3].")
        self.device = torch.device(device) if device is not None else image.device
        self.height, self.width = image.shape[:2]
        self.frames = frames
        self.objects = motion.objects
        self._places = [self._in_pixels(moved) for moved in motion.objects]
        image = image[..., :3].to(self.device, torch.float32)
        coverages = [self._coverage(moved) for moved in motion.objects]
        self._sources = [self._cut(image, coverage) for coverage in coverages]
        self._coverages = coverages
        self.background = self._background(image, coverages) if hole == "fill" and coverages else image

    def render(self, *, device=None, on_frame: Callable[[int, int], None] | None = None) -> Clip:
        """The whole clip.

        Args:
            device: where the results lie; default: where they are computed. One frame at a time is computed.
            on_frame: called with (index, frames) before each frame; may raise to stop.

        Raises:
            ValueError: fewer than 2 frames.
        """
        if self.frames < 2:
            raise ValueError(f"frames: got {self.frames}; flow needs at least 2.")
        device = self.device if device is None else torch.device(device)
        size = (self.height, self.width)
        clip = Clip(
            torch.empty(self.frames, *size, 3, device=device),
            torch.empty(self.frames - 1, 2, *size, device=device),
            torch.empty(self.frames - 1, *size, device=device),
            torch.zeros(max(len(self.objects), 1) * self.frames, *size, device=device),
        )
        before = None
        for index in range(self.frames):
            if on_frame is not None:
                on_frame(index, self.frames)
            frame = self.frame(index)
            clip.composites[index] = frame.composite
            for number, (box, alpha) in enumerate(zip(frame.boxes, frame.alphas, strict=True)):
                clip.masks[number * self.frames + index][box.slices] = alpha
            if before is not None:
                vectors, occlusion = self.flow(index - 1, before, frame)
                clip.vectors[index - 1], clip.occlusion[index - 1] = vectors, occlusion
            before = frame
        return clip

    def frame(self, index: int) -> Frame:
        """The clip's frame ``index``."""
        composite = self.background.clone(memory_format=torch.contiguous_format)
        labels = torch.zeros(self.height, self.width, dtype=torch.uint8, device=self.device)
        boxes, alphas = [], []
        for number in range(len(self.objects)):
            box, sampled = self._sample(number, index)
            boxes.append(box)
            alphas.append(sampled[3])
            if box.empty:
                continue
            colour, alpha = sampled[:3].permute(1, 2, 0), sampled[3]
            under = composite[box.slices]
            # Written so that an object at rest over its own picture changes no bit of it, and alpha 1 is the object.
            mixed = (colour - under * alpha[..., None]).add_(under)
            composite[box.slices] = torch.where((alpha >= 1.0)[..., None], colour, mixed)
            labels[box.slices].masked_fill_(alpha > 0.5, number + 1)
        return Frame(composite, labels, tuple(boxes), tuple(alphas))

    def flow(self, index: int, here: Frame, there: Frame) -> tuple[Tensor, Tensor]:
        """Forward flow from frame ``index`` (given as ``here``) to the next (``there``).

        Returns:
            vectors float32 [2, H, W] in pixels, exactly 0 on the background; occlusion float32 [H, W]: 1 where what the
            pixel shows is outside the picture or behind something else in the next frame.
        """
        vectors = torch.zeros(2, self.height, self.width, device=self.device)
        occluded = (here.labels == 0) & (there.labels != 0)
        flat = there.labels.view(-1)
        for number, box in enumerate(here.boxes):
            if box.empty:
                continue
            shown = here.labels[box.slices] == number + 1
            across, down = values_at(self._step(number, index), box, self.device)
            for channel, part in enumerate((across, down)):
                target = vectors[channel][box.slices]
                target.copy_(torch.where(shown, part, target))
            column = (across + torch.arange(box.left, box.right, device=self.device)).add_(0.5).floor_()
            row = (down + torch.arange(box.top, box.bottom, device=self.device)[:, None]).add_(0.5).floor_()
            inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
            place = row.clamp_(0, self.height - 1).to(torch.int64) * self.width
            place += column.clamp_(0, self.width - 1).to(torch.int64)
            hidden = shown & ~(inside & (flat[place] == number + 1))
            occluded[box.slices] |= hidden
        return vectors, occluded.to(torch.float32)

    def transform(self, number: int, index: int) -> Affine:
        """T_f of object ``number`` (from 0) at frame ``index``, in pixels."""
        pivot, places = self._places[number]
        x, y, angle, scale = places[index]
        return turn_and_scale(angle, scale, pivot, (x, y))

    def _step(self, number: int, index: int) -> Affine:
        """T_{f+1} T_f^-1 less the identity: the flow of an object as a map of pixels."""
        pivot, places = self._places[number]
        (x, y, angle, scale), (next_x, next_y, next_angle, next_scale) = places[index], places[index + 1]
        centre, move = (pivot[0] + x, pivot[1] + y), (next_x - x, next_y - y)
        return turn_and_scale(next_angle - angle, next_scale / scale, centre, move).displacement()

    def _in_pixels(self, moved: MotionObject) -> tuple[tuple[float, float], list[list[float]]]:
        """The pivot, and x, y (pixels), angle (degrees), scale at every frame."""
        pivot = (moved.pivot[0] * self.width - 0.5, moved.pivot[1] * self.height - 0.5)
        places = moved.places(self.frames) * torch.tensor([self.width, self.height, 1.0, 1.0], dtype=torch.float64)
        return pivot, places.tolist()

    def _coverage(self, moved: MotionObject) -> Coverage:
        points = torch.tensor(moved.polygon, dtype=torch.float64)
        size = torch.tensor([self.width, self.height], dtype=torch.float64)
        return polygon_coverage(points * size - 0.5, self.height, self.width)

    def _cut(self, image: Tensor, coverage: Coverage) -> Tensor:
        """float32 [4, h + 2, w + 2]: colour * alpha and alpha inside the outline's box, a pixel of zeros around."""
        rows, columns = coverage.alpha.shape
        part = image[coverage.top : coverage.top + rows, coverage.left : coverage.left + columns].permute(2, 0, 1)
        alpha = coverage.alpha.to(self.device)[None]
        return F.pad(torch.cat([part * alpha, alpha]), (1, 1, 1, 1)).contiguous()

    def _background(self, image: Tensor, coverages: list[Coverage]) -> Tensor:
        known = torch.ones(self.height, self.width, device=self.device)
        for coverage in coverages:
            rows, columns = coverage.alpha.shape
            window = known[coverage.top : coverage.top + rows, coverage.left : coverage.left + columns]
            window.masked_fill_(coverage.alpha.to(self.device) > 0, 0.0)
        return fill_holes(image.permute(2, 0, 1), known).permute(1, 2, 0).contiguous()

    def _sample(self, number: int, index: int) -> tuple[Box, Tensor]:
        """Where object ``number`` can be seen at a frame, and colour * alpha and alpha there, float32 [4, h, w]."""
        source, coverage = self._sources[number], self._coverages[number]
        height, width = source.shape[1:]
        left, top = coverage.left - 1, coverage.top - 1  # of the source with its rim of zeros
        transform = self.transform(number, index)
        corners = [transform.apply(x, y) for x in (left, left + width - 1) for y in (top, top + height - 1)]
        columns, rows = zip(*corners, strict=True)
        box = Box(
            min(max(math.floor(min(columns)), 0), self.width),
            min(max(math.floor(min(rows)), 0), self.height),
            max(min(math.ceil(max(columns)) + 1, self.width), 0),
            max(min(math.ceil(max(rows)) + 1, self.height), 0),
        )
        if box.empty or 0 in coverage.alpha.shape:
            return Box(0, 0, 0, 0), source.new_zeros(4, 0, 0)
        inside = transform.inverse()
        inside = Affine(inside.a, inside.b, inside.c, inside.d, inside.x - left, inside.y - top)
        return box, read_affine(source, inside, box)
