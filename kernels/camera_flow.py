"""A camera that moves before a still picture: the clip it sees, the exact flow, and what the picture does not hold.

Everything counts from the first frame, which is the picture itself. Without depth the picture is a plane that the
camera faces: ``X_t(p) = c + zoom * R(-roll) (p - c - pan)`` says where pixel p of the picture is in frame t (c = the
picture's centre), and the flow is ``X_{t+1}(X_t^-1(q)) - q``. With depth Z (1 at the picture's centre) pixel p is the
point ``((p - c) / f * Z, Z)`` seen by a pinhole camera that has moved sideways by ``pan / f`` and ahead by ``dolly``,
has gone round the point (0, 0, 1) by ``orbit``, and then zooms and rolls. Nearest points win by an integer z-buffer, so
every run gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import Affine, Box, read_affine, turn_and_scale, values_at
from .hole_fill import NOTHING_KNOWN, fill_holes
from .sampling import pixel_grid, read_bilinear

CONVENTIONS = ("near is white", "far is white")
HOLES = ("fill", "grey")

# Schedules are float32: moves this close (pixels) to whole ones were meant to be whole.
_WHOLE = 1e-3
_NEAREST = 0.02  # of the centre's depth: what comes closer to the camera is not drawn
_TORN = 1.05  # neighbours whose depths differ by more than this ratio belong to different things
_HIDDEN = 1.03  # what is this much farther than what is drawn there is behind it
_GREY = 0.03  # how far the channels of a grey picture may lie apart on average: JPEG files move them
_FINEST = 6  # most points drawn along each side of a pixel


@dataclass(frozen=True)
class View:
    """Where the camera is: pan in pixels of the first frame, zoom factor, roll and orbit in degrees, dolly.

    pan_x, pan_y: to the right and down (at the centre's depth). roll: clockwise. orbit: to the right, round the point
    at the centre. dolly: ahead, in depths of the centre.
    """

    pan_x: float = 0.0
    pan_y: float = 0.0
    zoom: float = 1.0
    roll: float = 0.0
    orbit: float = 0.0
    dolly: float = 0.0


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One frame of the clip.

    Args:
        preview: float32 [H, W, 3]: the picture as the camera sees it, what is not in it filled.
        revealed: float32 [H, W]: 1 where the camera sees what the picture does not hold.
        depth: float32 [H, W] (1 = the centre's in the picture), as this camera sees it, or None without depth.
    """

    preview: Tensor
    revealed: Tensor
    depth: Tensor | None


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """A clip of T frames.

    Args:
        previews: float32 [T, H, W, 3].
        revealed: float32 [T, H, W]: 1 where the camera sees what the picture does not hold.
        vectors: float32 [T - 1, 2, H, W], pixels, forward.
        occlusion: float32 [T - 1, H, W]: 1 where what a pixel shows is not seen in the next frame.
    """

    previews: Tensor
    revealed: Tensor
    vectors: Tensor
    occlusion: Tensor


def relative_depth(depth: Tensor, convention: str, ratio: float, size: tuple[int, int]) -> Tensor:
    """Depth from a depth picture.

    Args:
        depth: float [h, w], or [h, w, channels] with a grey picture in its first three channels; 0..1 (clamped).
        convention: "near is white": inverse depth, as depth networks give it; "far is white": depth itself.
        ratio: how many times farther the farthest point is than the nearest, 1 or more.
        size: (height, width) of the result; other sizes are resampled.

    Returns:
        float32 [height, width], 1 at the picture's centre (median of the middle twentieth of each side).

    Raises:
        ValueError: an unknown convention, a wrong shape, a picture in colours, a ratio below 1.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: got {convention!r}; expected one of {', '.join(CONVENTIONS)}.")
    if depth.ndim not in (2, 3) or 0 in depth.shape:
        raise ValueError(f"depth: got {list(depth.shape)}; expected [height, width].")
    if not (math.isfinite(ratio) and ratio >= 1):
        raise ValueError(f"ratio: got {ratio}; expected 1 or more.")
    height, width = size
    value = depth.to(torch.float32).clamp(0.0, 1.0)
    if value.ndim == 3:
        value = value[..., :3]
        if (value.amax(dim=-1) - value.amin(dim=-1)).mean() > _GREY:
            raise ValueError(
                "depth: the picture is in colours, which do not say what is near; expected a grey depth picture. Turn "
                "off the colouring of the node that made it."
            )
        value = value.median(dim=-1).values  # of equal channels exactly their value
    if tuple(value.shape) != (height, width):
        value = F.interpolate(value[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    if convention == CONVENTIONS[0]:
        result = 1.0 / (1.0 / ratio + value * (1.0 - 1.0 / ratio))
    else:
        result = 1.0 + value * (ratio - 1.0)
    tall, wide = max(1, height // 20), max(1, width // 20)
    top, left = (height - tall) // 2, (width - wide) // 2
    return result / result[top : top + tall, left : left + wide].median()


class CameraClip:
    """What a moving camera sees of a picture.

    Args:
        image: float [H, W, 3 or more], 0..1; only the first three channels are used.
        moves: name -> values at every frame, float [T] each, for the names of ``View``'s fields; missing ones do not
            change. pan_x and pan_y are in fractions of the picture's width and height. Only differences from the first
            frame (for zoom: ratios) count.
        depth: float32 [H, W] > 0 from ``relative_depth``, or None.
        field_of_view: horizontal, degrees; matters only with depth.
        hole: what fills the revealed parts of the preview: "fill" = the surroundings, interpolated; "grey".
        device: where to compute; default: the image's.

    Raises:
        ValueError: wrong shapes, an unknown hole, or orbit or dolly that change without a depth.
    """

    def __init__(
        self,
        image: Tensor,
        moves: dict[str, Tensor],
        *,
        depth: Tensor | None = None,
        field_of_view: float = 50.0,
        hole: str = HOLES[0],
        device=None,
    ):
        if hole not in HOLES:
            raise ValueError(f"hole: got {hole!r}; expected one of {', '.join(HOLES)}.")
        if image.ndim != 3 or image.shape[2] < 3 or 0 in image.shape:
            raise ValueError(f"image: got {list(image.shape)}; expected [height, width, 3].")
        if depth is not None and depth.shape != image.shape[:2]:
            raise ValueError(f"depth: got {list(depth.shape)}; expected {list(image.shape[:2])}, as the image.")
        self.device = torch.device(device) if device is not None else image.device
        self.height, self.width = image.shape[:2]
        self.hole = hole
        self.image = image[..., :3].to(self.device, torch.float32).permute(2, 0, 1).contiguous()
        self.views = _views(moves, self.height, self.width)
        self.frames = len(self.views)
        if depth is None:
            for name in ("orbit", "dolly"):
                if any(getattr(view, name) for view in self.views):
                    raise ValueError(f"{name}: it changes over the clip, which needs a depth.")
        self.depth = None if depth is None else depth.to(self.device, torch.float32).contiguous()
        self._focal = self.width / 2 / math.tan(math.radians(field_of_view) / 2)
        self._centre = ((self.width - 1) / 2, (self.height - 1) / 2)
        self._all = Box(0, 0, self.width, self.height)
        self._fine: dict[int, Tensor] = {}

    def render(self, *, device=None, on_frame: Callable[[int, int], None] | None = None) -> RenderedClip:
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
        clip = RenderedClip(
            torch.empty(self.frames, *size, 3, device=device),
            torch.empty(self.frames, *size, device=device),
            torch.empty(self.frames - 1, 2, *size, device=device),
            torch.empty(self.frames - 1, *size, device=device),
        )
        before = None
        for index in range(self.frames):
            if on_frame is not None:
                on_frame(index, self.frames)
            frame = self.frame(index)
            clip.previews[index], clip.revealed[index] = frame.preview, frame.revealed
            if before is not None:
                clip.vectors[index - 1], clip.occlusion[index - 1] = self.flow(index - 1, before, frame)
            before = frame
        return clip

    def frame(self, index: int) -> CameraFrame:
        """The clip's frame ``index``."""
        view = self.views[index]
        depth = None
        if self._flat(view):
            back = self._map(view).inverse().to_whole_pixels(_WHOLE)
            x, y = values_at(back, self._all, self.device)
            revealed = self._outside(x, y)
            colours = read_affine(self.image, back, self._all, border=True)
            if self.depth is not None:
                depth = read_affine(self.depth[None], back, self._all, border=True)[0]
        else:
            depth, drawn = self._draw(view)
            grid = pixel_grid(self.height, self.width, self.device)
            x, y, _ = self._project(*self._place(grid[0], grid[1], depth, view), View())
            revealed = ~drawn | self._outside(x, y)
            colours = read_bilinear(self.image[None], torch.stack([x, y])[None])[0]
        known = (~revealed).to(torch.float32)
        if self.hole == HOLES[1]:
            colours = torch.where(revealed, NOTHING_KNOWN, colours)
        elif bool(revealed.any()):
            colours = fill_holes(colours, known)
        return CameraFrame(colours.permute(1, 2, 0).contiguous(), 1.0 - known, depth)

    def flow(self, index: int, here: CameraFrame, there: CameraFrame) -> tuple[Tensor, Tensor]:
        """Forward flow from frame ``index`` (given as ``here``) to the next (``there``).

        Returns:
            vectors float32 [2, H, W] in pixels; occlusion float32 [H, W]: 1 where what the pixel shows is outside the
            frame or behind something nearer in the next.
        """
        view, following = self.views[index], self.views[index + 1]
        grid = pixel_grid(self.height, self.width, self.device)
        if view == following:
            return torch.zeros_like(grid), torch.zeros_like(grid[0])
        if self._flat(view) and self._flat(following):
            vectors = torch.stack(values_at(self._step(view, following).displacement(), self._all, self.device))
            return vectors, self._outside(*(grid + vectors)).to(torch.float32)
        x, y, depth = self._project(*self._place(grid[0], grid[1], here.depth, view), following)
        hidden = self._outside(x, y) | (depth < _NEAREST)
        column = (x + 0.5).floor().clamp(0, self.width - 1).to(torch.int64)
        row = (y + 0.5).floor().clamp(0, self.height - 1).to(torch.int64)
        hidden |= depth > _HIDDEN * there.depth[row, column]
        # What passes the camera has no place in the next frame: it stays where it is.
        vectors = torch.where(depth < _NEAREST, 0.0, torch.stack([x, y]) - grid)
        return vectors, hidden.to(torch.float32)

    def _flat(self, view: View) -> bool:
        """Whether the view is the same for every depth."""
        moved = view.orbit or view.dolly or (self.depth is not None and (view.pan_x or view.pan_y))
        return not moved

    def _map(self, view: View) -> Affine:
        """X_t without depth."""
        turn = turn_and_scale(-view.roll, view.zoom, (0.0, 0.0), (0.0, 0.0))
        return turn_and_scale(-view.roll, view.zoom, self._centre, turn.apply(-view.pan_x, -view.pan_y))

    def _step(self, view: View, following: View) -> Affine:
        """X_{t+1} X_t^-1 without depth; exactly a move where zoom and roll stay."""
        turn = turn_and_scale(-following.roll, following.zoom, (0.0, 0.0), (0.0, 0.0))
        move = turn.apply(view.pan_x - following.pan_x, view.pan_y - following.pan_y)
        return turn_and_scale(view.roll - following.roll, following.zoom / view.zoom, self._centre, move)

    def _outside(self, x: Tensor, y: Tensor) -> Tensor:
        """Which positions are not in the picture; a pixel's square reaches half a pixel beyond its centre."""
        return (x < -0.5) | (x > self.width - 0.5) | (y < -0.5) | (y > self.height - 0.5)

    def _place(self, x: Tensor, y: Tensor, depth: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """The points that a view shows at pixels (x, y) in a depth of its own."""
        cos, sin = math.cos(math.radians(view.roll)), math.sin(math.radians(view.roll))
        x, y = x - self._centre[0], y - self._centre[1]
        scale = depth / (view.zoom * self._focal)
        across = (cos * x - sin * y) * scale + view.pan_x / self._focal
        down = (sin * x + cos * y) * scale + view.pan_y / self._focal
        cos, sin = math.cos(math.radians(view.orbit)), math.sin(math.radians(view.orbit))
        ahead = depth + (view.dolly - 1.0)
        return cos * across - sin * ahead, down, sin * across + cos * ahead + 1.0

    def _project(self, across: Tensor, down: Tensor, ahead: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Where a view shows points: x, y in pixels, and their depth. Points behind the camera get a depth below 0.02
        and a place that means nothing.
        """
        cos, sin = math.cos(math.radians(view.orbit)), math.sin(math.radians(view.orbit))
        ahead = ahead - 1.0
        depth = cos * ahead - sin * across + (1.0 - view.dolly)
        across = cos * across + sin * ahead - view.pan_x / self._focal
        down = down - view.pan_y / self._focal
        scale = view.zoom * self._focal / depth.clamp(min=_NEAREST)
        across, down = across * scale, down * scale
        cos, sin = math.cos(math.radians(view.roll)), math.sin(math.radians(view.roll))
        return cos * across + sin * down + self._centre[0], cos * down - sin * across + self._centre[1], depth

    def _draw(self, view: View) -> tuple[Tensor, Tensor]:
        """Depth as a view sees it, float32 [H, W], holes filled; and where something was drawn, bool [H, W]."""
        pixels = self.height * self.width
        nothing = torch.iinfo(torch.int32).max
        # The bits of positive float32 numbers order like the numbers. One more place takes what falls outside.
        nearest = torch.full((pixels + 1,), nothing, dtype=torch.int32, device=self.device)
        parts = self._parts(view)
        fine = self._fine_depth(parts)
        grid = pixel_grid(self.height, self.width, self.device)
        for row in range(parts):
            for column in range(parts):
                depth = fine[row::parts, column::parts]
                x = grid[0] + ((column + 0.5) / parts - 0.5)
                y = grid[1] + ((row + 0.5) / parts - 0.5)
                x, y, depth = self._project(*self._place(x, y, depth, View()), view)
                x, y = (x + 0.5).floor_(), (y + 0.5).floor_()
                seen = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height) & (depth >= _NEAREST)
                place = torch.where(seen, y, 0.0).to(torch.int64) * self.width
                place += torch.where(seen, x, 0.0).to(torch.int64)
                place = torch.where(seen, place, pixels).view(-1)
                nearest.scatter_reduce_(0, place, depth.contiguous().view(torch.int32).view(-1), "amin")
        nearest = nearest[:-1].view(self.height, self.width)
        drawn = nearest != nothing
        depth = torch.where(drawn, nearest, 0).view(torch.float32)
        depth, drawn = _close_cracks(depth, drawn)
        # Nearness, not depth, is what is smooth across a picture of a flat surface.
        nearness = fill_holes(torch.where(drawn, 1.0 / depth, 0.0)[None], drawn.to(torch.float32))[0]
        return torch.where(drawn, depth, 1.0 / nearness), drawn

    def _parts(self, view: View) -> int:
        """Points to draw along each side of a pixel, so that what the view enlarges gets no cracks."""
        grid = pixel_grid(self.height, self.width, self.device)[:, ::8, ::8]
        before = self.depth[::8, ::8]
        x, y, depth = self._project(*self._place(grid[0], grid[1], before, View()), view)
        shown = ~self._outside(x, y) & (depth >= _NEAREST)
        enlarged = torch.where(shown, before / depth.clamp(min=_NEAREST), 1.0).amax()
        # A turned grid's cells are wider by the root of 2; slanted surfaces stretch a little more.
        return min(max(math.ceil(1.6 * view.zoom * float(enlarged)), 1), _FINEST)

    def _fine_depth(self, parts: int) -> Tensor:
        """float32 [H * parts, W * parts]: depth between pixels, interpolated but where things are torn apart."""
        if parts not in self._fine:
            depth = self.depth[None, None]
            high, low = F.max_pool2d(depth, 3, 1, 1), -F.max_pool2d(-depth, 3, 1, 1)
            torn = F.interpolate((high > low * _TORN).to(torch.float32), scale_factor=parts, mode="nearest")
            smooth = F.interpolate(depth, scale_factor=parts, mode="bilinear", align_corners=False)
            stepped = F.interpolate(depth, scale_factor=parts, mode="nearest")
            self._fine = {parts: torch.where(torn > 0, stepped, smooth)[0, 0]}
        return self._fine[parts]


def _close_cracks(depth: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Fills gaps one pixel wide between drawn neighbours with the farther one's depth."""
    for axis in (1, 0):
        size = depth.shape[axis] - 2
        if size < 1:
            continue
        before, after = (drawn.narrow(axis, start, size) for start in (0, 2))
        gap = before & after & ~drawn.narrow(axis, 1, size)
        farther = torch.maximum(depth.narrow(axis, 0, size), depth.narrow(axis, 2, size))
        depth, drawn = depth.clone(), drawn.clone()
        depth.narrow(axis, 1, size).copy_(torch.where(gap, farther, depth.narrow(axis, 1, size)))
        drawn.narrow(axis, 1, size).logical_or_(gap)
    return depth, drawn


def _views(moves: dict[str, Tensor], height: int, width: int) -> list[View]:
    """The view of every frame, counted from the first frame's."""
    lengths = {len(values) for values in moves.values()}
    unknown = set(moves) - set(View.__dataclass_fields__)
    if unknown or len(lengths) != 1:
        raise ValueError(f"moves: got {sorted(moves)} of lengths {sorted(lengths)}; expected one length for all.")
    units = {"pan_x": width, "pan_y": height}
    columns = {}
    for name, values in moves.items():
        numbers = values.to(torch.float64).tolist()
        if name == "zoom":
            columns[name] = [number / numbers[0] for number in numbers]
        else:
            columns[name] = [(number - numbers[0]) * units.get(name, 1) for number in numbers]
    return [View(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
