"""The Triton fast path of ``cut_and_drag``: one launch paints a frame with all its objects, one more gives its flow.

A program owns a tile of the picture. It goes through the objects from back to front, skips those whose box does not
touch the tile, reads the others at the inverse map of its pixels, and writes every pixel once. Positions are worked out
in float64, as the eager path's are, so the flow is the same bit for bit; pictures are read at positions that are
rounded less than grid_sample's, so they agree to about 1e-4 of a pixel. Products and sums are not fused: an object at
rest over its own picture then cancels exactly.

Everything that depends on the frame lies in tables on the device from the start: a frame needs no transfer and no wait.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from .affine import Affine, Box
from .cut_and_drag_scene import Scene

TILE_X, TILE_Y = 64, 8
# Columns of the table of places.
LEFT, TOP, RIGHT, BOTTOM, MASK, SOURCE, ROWS, COLUMNS = range(8)


class TritonPainter:
    """See ``cut_and_drag_eager``, whose functions these are.

    Args:
        scene: what to paint, on a CUDA device (or, under Triton's interpreter, on any).
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        count = len(scene.sources)
        starts = torch.tensor([0, *(source.numel() for source in scene.sources)]).cumsum(0).tolist()
        places, maps, steps = [], [], []
        self._boxes: list[list[Box]] = []
        self._mask_pixels: list[int] = []
        for index in range(scene.frames):
            boxes, pixels = [], 0
            for number, source in enumerate(scene.sources):
                box = (scene.bands(number, index) or [Box(0, 0, 0, 0)])[0]
                edges = (box.left, box.top, box.right, box.bottom)
                places.append([*edges, pixels, starts[number], source.shape[1], source.shape[2]])
                maps.append(_numbers(scene.inside(number, index).to_whole_pixels()))
                if index + 1 < scene.frames:
                    steps.append(_numbers(scene.step(number, index)))
                boxes.append(box)
                pixels += _pixels(box)
            self._boxes.append(boxes)
            self._mask_pixels.append(pixels)
        device = scene.device
        self._sources = torch.cat([source.view(-1) for source in scene.sources] or [torch.zeros(1, device=device)])
        self._places = torch.tensor(places, dtype=torch.int64).view(-1, 8).to(device)
        self._maps = torch.tensor(maps, dtype=torch.float64).view(-1, 6).to(device)
        self._steps = torch.tensor(steps, dtype=torch.float64).view(-1, 6).to(device)
        self._count = count
        self._tiles = (triton.cdiv(scene.width, TILE_X), triton.cdiv(scene.height, TILE_Y))

    def paint(self, index: int, composite: Tensor, rimmed: Tensor) -> tuple[list[Box], list[Tensor]]:
        """One frame.

        Args:
            index: which frame.
            composite: float32 [3, H, W], contiguous, written.
            rimmed: uint8 [H + 2, W + 2] of zeros: the labels are written inside.

        Returns:
            For every object the pixels it can touch, and its alpha there, float32 [h, w].
        """
        scene, boxes = self.scene, self._boxes[index]
        masks = torch.empty(max(self._mask_pixels[index], 1), device=scene.device)
        with _on(scene.device):
            _paint[self._tiles](
                scene.background.contiguous(), self._sources, self._maps, self._places, composite, rimmed, masks,
                index * self._count, self._count, scene.height, scene.width, tile_x=TILE_X, tile_y=TILE_Y,
                enable_fp_fusion=False,
            )  # fmt: skip
        alphas = [part.view(_shape(box)) for part, box in zip(_split(masks, boxes), boxes, strict=True)]
        return boxes, alphas

    def follow(self, index: int, here: Tensor, there: Tensor, vectors: Tensor, occlusion: Tensor) -> None:
        """The flow from a frame to the next.

        Args:
            index: which frame.
            here, there: uint8 [H + 2, W + 2]: the labels of this frame and of the next.
            vectors: float32 [2, H, W], contiguous, written.
            occlusion: float32 [H, W], contiguous, written.
        """
        with _on(self.scene.device):
            _follow[self._tiles](
                self._steps, here, there, vectors, occlusion, index * self._count, self.scene.height, self.scene.width,
                tile_x=TILE_X, tile_y=TILE_Y, enable_fp_fusion=False,
            )  # fmt: skip


def _numbers(affine: Affine) -> list[float]:
    return [affine.a, affine.b, affine.c, affine.d, affine.x, affine.y]


def _shape(box: Box) -> tuple[int, int]:
    return box.bottom - box.top, box.right - box.left


def _pixels(box: Box) -> int:
    return (box.bottom - box.top) * (box.right - box.left)


def _split(masks: Tensor, boxes: list[Box]) -> list[Tensor]:
    sizes = [_pixels(box) for box in boxes]
    return list(masks[: sum(sizes)].split(sizes)) if sizes else []


def _on(device: torch.device):
    """Triton launches on the current CUDA device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@triton.jit
def _read(plane, place, width, top_left, top_right, bottom_left, bottom_right, w00, w01, w10, w11):
    """The bilinear sum of a plane's four pixels; the masks say which of them lie inside."""
    total = tl.load(plane + place, top_left, 0.0) * w00
    total += tl.load(plane + place + 1, top_right, 0.0) * w01
    total += tl.load(plane + place + width, bottom_left, 0.0) * w10
    total += tl.load(plane + place + width + 1, bottom_right, 0.0) * w11
    return total


@triton.jit
def _over(colour, alpha, under):
    """An object's colour * alpha over what lies below; see cut_and_drag_eager.paint."""
    return tl.where(alpha >= 1.0, colour, (colour - under * alpha) + under)


@triton.jit(do_not_specialize=["first"])
def _paint(
    background, sources, maps, places, composite, rimmed, masks, first, objects, height, width,
    tile_x: tl.constexpr, tile_y: tl.constexpr,
):  # fmt: skip
    left, top = tl.program_id(0) * tile_x, tl.program_id(1) * tile_y
    x, y = left + tl.arange(0, tile_x)[None, :], top + tl.arange(0, tile_y)[:, None]
    x_wide, y_wide = x.to(tl.float64), y.to(tl.float64)
    shown = (x < width) & (y < height)
    pixel, pixels = y * width + x, height * width
    red = tl.load(background + pixel, shown, 0.0)
    green = tl.load(background + pixels + pixel, shown, 0.0)
    blue = tl.load(background + 2 * pixels + pixel, shown, 0.0)
    label = tl.zeros([tile_y, tile_x], tl.int32)
    for number in range(objects):
        place = places + (first + number) * 8
        box_left, box_top = tl.load(place), tl.load(place + 1)
        box_right, box_bottom = tl.load(place + 2), tl.load(place + 3)
        touches = (box_left < left + tile_x) & (box_right > left) & (box_top < top + tile_y) & (box_bottom > top)
        if touches:
            numbers = maps + (first + number) * 6
            a, b, c, d = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2), tl.load(numbers + 3)
            u = a * x_wide + tl.load(numbers + 4) + b * y_wide
            v = c * x_wide + tl.load(numbers + 5) + d * y_wide
            u_low, v_low = tl.floor(u), tl.floor(v)
            part_u, part_v = (u - u_low).to(tl.float32), (v - v_low).to(tl.float32)
            column, row = u_low.to(tl.int32), v_low.to(tl.int32)
            rows, columns = tl.load(place + 6).to(tl.int32), tl.load(place + 7).to(tl.int32)
            in_box = (x >= box_left) & (x < box_right) & (y >= box_top) & (y < box_bottom)
            above, below = (row >= 0) & (row < rows) & in_box, (row >= -1) & (row < rows - 1) & in_box
            before, after = (column >= 0) & (column < columns), (column >= -1) & (column < columns - 1)
            m00, m01, m10, m11 = above & before, above & after, below & before, below & after
            w00, w01 = (1.0 - part_u) * (1.0 - part_v), part_u * (1.0 - part_v)
            w10, w11 = (1.0 - part_u) * part_v, part_u * part_v
            source, plane = sources + tl.load(place + 5), rows * columns
            corner = row * columns + column
            alpha = _read(source + 3 * plane, corner, columns, m00, m01, m10, m11, w00, w01, w10, w11)
            colour = _read(source, corner, columns, m00, m01, m10, m11, w00, w01, w10, w11)
            red = _over(colour, alpha, red)
            colour = _read(source + plane, corner, columns, m00, m01, m10, m11, w00, w01, w10, w11)
            green = _over(colour, alpha, green)
            colour = _read(source + 2 * plane, corner, columns, m00, m01, m10, m11, w00, w01, w10, w11)
            blue = _over(colour, alpha, blue)
            label = tl.where(alpha > 0.5, number + 1, label)
            inside_box = (y - box_top) * (box_right - box_left) + (x - box_left)
            tl.store(masks + tl.load(place + 4) + inside_box, alpha, in_box)
    tl.store(composite + pixel, red, shown)
    tl.store(composite + pixels + pixel, green, shown)
    tl.store(composite + 2 * pixels + pixel, blue, shown)
    tl.store(rimmed + (y + 1) * (width + 2) + (x + 1), label.to(tl.uint8), shown)


@triton.jit(do_not_specialize=["first"])
def _follow(
    steps, here, there, vectors, occlusion, first, height, width, tile_x: tl.constexpr, tile_y: tl.constexpr
):  # fmt: skip
    x = tl.program_id(0) * tile_x + tl.arange(0, tile_x)[None, :]
    y = tl.program_id(1) * tile_y + tl.arange(0, tile_y)[:, None]
    x_wide, y_wide = x.to(tl.float64), y.to(tl.float64)
    shown = (x < width) & (y < height)
    pixel, line = y * width + x, width + 2
    label = tl.load(here + (y + 1) * line + (x + 1), shown, 0).to(tl.int32)
    known = label > 0
    step = steps + (first + label - 1) * 6
    a, b = tl.load(step, known, 0.0), tl.load(step + 1, known, 0.0)
    c, d = tl.load(step + 2, known, 0.0), tl.load(step + 3, known, 0.0)
    across = (a * x_wide + tl.load(step + 4, known, 0.0)).to(tl.float32) + (b * y_wide).to(tl.float32)
    down = (c * x_wide + tl.load(step + 5, known, 0.0)).to(tl.float32) + (d * y_wide).to(tl.float32)
    # Rounded and moved by the rim; what leaves the picture reads the rim's 0, which no object has.
    column = tl.minimum(tl.maximum(across + (x.to(tl.float32) + 1.5), 0.0), width + 1.0).to(tl.int32)
    row = tl.minimum(tl.maximum(down + (y.to(tl.float32) + 1.5), 0.0), height + 1.0).to(tl.int32)
    shows = tl.load(there + row * line + column, shown, 0).to(tl.int32)
    tl.store(vectors + pixel, across, shown)
    tl.store(vectors + height * width + pixel, down, shown)
    tl.store(occlusion + pixel, (shows != label).to(tl.float32), shown)
