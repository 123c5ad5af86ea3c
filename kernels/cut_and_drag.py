"""Cut-and-drag: parts of a still picture move over it; the clip, the parts' masks and the exact flow.

An object at frame f is its outline's content in the first frame under
``T_f(p) = pivot + scale * R(angle) (p - pivot) + move``; objects lie over each other in their order.

This module is the public door. ``cut_and_drag_eager`` is the reference, right on any device; ``cut_and_drag_triton`` is
the fast path on CUDA. ``backend`` forces one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import cut_and_drag_eager
from .affine import Box
from .clip_results import Courier, zeros
from .cut_and_drag_scene import Scene
from .drag_motion import Motion
from .noise_warp import Backend, choose_backend

HOLES = ("fill", "keep")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of the clip.

    Args:
        composite: float32 [H, W, 3]; the colours lie in planes.
        rimmed: uint8 [H + 2, W + 2]: the labels with a pixel of zeros around.
        boxes, alphas: for every object the pixels it can touch, and its alpha there, float32 [h, w] in 0..1, whole: not
            cut by what lies before it.
    """

    composite: Tensor
    rimmed: Tensor
    boxes: tuple[Box, ...]
    alphas: tuple[Tensor, ...]

    @property
    def labels(self) -> Tensor:
        """uint8 [H, W]: 0 = background, k = object k - 1 lies on top there (its alpha is over 0.5)."""
        return self.rimmed[1:-1, 1:-1]


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of T frames with N objects.

    Args:
        composites: float32 [T, H, W, 3]; the colours lie in planes.
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
        backend: "auto", "eager" or "triton".

    Raises:
        ValueError: a wrong shape, an unknown hole or backend.
    """

    def __init__(
        self,
        image: Tensor,
        motion: Motion,
        frames: int,
        *,
        hole: str = "fill",
        device=None,
        backend: Backend = "auto",
    ):
        if hole not in HOLES:
            raise ValueError(f"hole: got {hole!r}; expected one of {', '.join(HOLES)}.")
        if image.ndim != 3 or image.shape[2] < 3 or 0 in image.shape:
            raise ValueError(f"image: got {list(image.shape)}; expected [height, width, 3].")
        self.device = torch.device(device) if device is not None else image.device
        self.height, self.width = image.shape[:2]
        self.frames = frames
        self.backend = choose_backend(backend, self.device)
        self.scene = Scene(image, motion.objects, frames, hole == "fill", self.device)
        self._painter = None
        if self.backend == "triton":
            from .cut_and_drag_triton import TritonPainter

            self._painter = TritonPainter(self.scene)

    @property
    def background(self) -> Tensor:
        """float32 [H, W, 3]: what lies behind all objects."""
        return self.scene.background.permute(1, 2, 0)

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
        planes = zeros(self.frames, 3, *size, device=device)
        clip = Clip(
            planes.permute(0, 2, 3, 1),
            zeros(self.frames - 1, 2, *size, device=device),
            zeros(self.frames - 1, *size, device=device),
            zeros(max(len(self.scene.sources), 1) * self.frames, *size, device=device),
        )
        in_place = device == self.device
        courier = Courier(self.device, device)
        before = None
        for index in range(self.frames):
            if on_frame is not None:
                on_frame(index, self.frames)
            masks = clip.masks[index :: self.frames] if in_place else None
            frame = self._frame(index, planes[index] if in_place else None, masks)
            if not in_place:
                alphas = zip(clip.masks[index :: self.frames], frame.boxes, frame.alphas, strict=False)
                sent = [(alpha, mask[box.slices]) for mask, box, alpha in alphas]
                courier.send([(frame.composite.permute(2, 0, 1), planes[index]), *sent])
            if before is not None:
                into = (clip.vectors[index - 1], clip.occlusion[index - 1])
                if in_place:
                    self._flow(index - 1, before, frame, *into)
                else:
                    courier.send(list(zip(self.flow(index - 1, before, frame), into, strict=True)))
            before = frame
        courier.finish()
        return clip

    def frame(self, index: int) -> Frame:
        """The clip's frame ``index``."""
        return self._frame(index)

    def flow(self, index: int, here: Frame, there: Frame) -> tuple[Tensor, Tensor]:
        """Forward flow from frame ``index`` (given as ``here``) to the next (``there``).

        Returns:
            vectors float32 [2, H, W] in pixels, exactly 0 on the background; occlusion float32 [H, W]: 1 where what the
            pixel shows is outside the picture or behind something else in the next frame.
        """
        vectors = torch.zeros(2, self.height, self.width, device=self.device)
        occlusion = torch.zeros(self.height, self.width, device=self.device)
        self._flow(index, here, there, vectors, occlusion)
        return vectors, occlusion

    def _frame(self, index: int, composite: Tensor | None = None, masks: Tensor | None = None) -> Frame:
        size = (self.height, self.width)
        count = len(self.scene.sources)
        if composite is None:
            composite = torch.empty(3, *size, device=self.device)
        rimmed = torch.zeros(self.height + 2, self.width + 2, dtype=torch.uint8, device=self.device)
        if self._painter is not None:
            boxes, alphas = self._painter.paint(index, composite, rimmed)
            for mask, box, alpha in zip(() if masks is None else masks, boxes, alphas, strict=False):
                mask[box.slices] = alpha
            return Frame(composite.permute(1, 2, 0), rimmed, tuple(boxes), tuple(alphas))
        if masks is None:
            masks = torch.zeros(count, *size, device=self.device)
        boxes = cut_and_drag_eager.paint(self.scene, index, composite, rimmed[1:-1, 1:-1], masks)
        alphas = tuple(mask[box.slices] for mask, box in zip(masks, boxes, strict=False))
        return Frame(composite.permute(1, 2, 0), rimmed, tuple(boxes), alphas)

    def _flow(self, index: int, here: Frame, there: Frame, vectors: Tensor, occlusion: Tensor) -> None:
        if self._painter is not None:
            self._painter.follow(index, here.rimmed, there.rimmed, vectors, occlusion)
            return
        boxes = (here.boxes, there.boxes)
        cut_and_drag_eager.follow(self.scene, index, here.rimmed, there.rimmed, boxes, vectors, occlusion)
