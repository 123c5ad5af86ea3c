"""Optical flow as a value: what travels on a PN_FLOW socket, resizing, inversion and the forward-backward check.

Everywhere in this pack a flow is float32 ``[N, 2, H, W]``: channel 0 is dx in pixels (positive to the right), channel 1
is dy in pixels (positive down), N counts pairs of neighbouring frames.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import flow_inverse
from .sampling import pixel_grid, read_bilinear

DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True, eq=False)
class Flow:
    """The value on a PN_FLOW socket.

    Args:
        vectors: float32 [T-1, 2, H, W] in pixels, T >= 2.
        direction: "forward": ``vectors[t]`` moves a pixel of frame t to frame t+1; "backward": ``vectors[t]`` maps a
            pixel of frame t+1 to frame t.
        occlusion: float32 [T-1, H, W] in 0..1 or None, 1 = the pixel has no counterpart in the other frame.

    Raises:
        ValueError: a wrong shape, dtype, direction, or NaN / infinite numbers; the message names what came.
    """

    vectors: Tensor
    direction: str = "forward"
    occlusion: Tensor | None = None

    def __post_init__(self):
        check_vectors(self.vectors)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"flow: the direction is {self.direction!r}; expected 'forward' or 'backward'.")
        if self.occlusion is None:
            return
        if not isinstance(self.occlusion, Tensor):
            raise ValueError(f"flow: the occlusion is a {type(self.occlusion).__name__}; expected a float32 tensor.")
        expected = (self.vectors.shape[0], *self.vectors.shape[2:])
        if tuple(self.occlusion.shape) != expected or self.occlusion.dtype != torch.float32:
            raise ValueError(
                f"flow: the occlusion is {_describe(self.occlusion)}; expected float32 {list(expected)}"
                " (one mask for each pair of frames, as large as the flow)."
            )
        if not bool(torch.isfinite(self.occlusion).all()):
            raise ValueError("flow: the occlusion holds NaN or infinite values; expected numbers from 0 to 1.")

    @property
    def frames(self) -> int:
        """T, the number of frames that the flow connects: one more than it has pairs."""
        return self.vectors.shape[0] + 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self.vectors.shape[2], self.vectors.shape[3]

    def to(self, device) -> "Flow":
        """The same flow on another device."""
        occlusion = None if self.occlusion is None else self.occlusion.to(device)
        return Flow(self.vectors.to(device), self.direction, occlusion)


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def check_vectors(vectors: Tensor, name: str = "flow") -> None:
    """Refuse what is not a flow.

    Args:
        vectors: anything; accepted are float32 [N, 2, H, W] tensors with N, H, W >= 1 and finite numbers.
        name: how the message calls it.

    Raises:
        ValueError: names the argument, what came and what was expected.
    """
    if not isinstance(vectors, Tensor):
        raise ValueError(
            f"{name}: got a {type(vectors).__name__}; expected a float32 tensor [frames - 1, 2, height, width]."
        )
    if vectors.ndim != 4 or vectors.shape[1] != 2:
        raise ValueError(
            f"{name}: got {_describe(vectors)}; expected float32 [frames - 1, 2, height, width] with channel 0 = dx and"
            " channel 1 = dy, both in pixels."
        )
    if vectors.shape[0] < 1:
        raise ValueError(
            f"{name}: it connects fewer than 2 frames ({_describe(vectors)}); at least 2 frames are needed."
        )
    if vectors.shape[2] < 1 or vectors.shape[3] < 1:
        raise ValueError(f"{name}: got {_describe(vectors)}; height and width must be at least 1 pixel.")
    if vectors.dtype != torch.float32:
        raise ValueError(f"{name}: got {_describe(vectors)}; expected float32 numbers.")
    finite = torch.isfinite(vectors).flatten(1).all(dim=1)
    if not bool(finite.all()):
        pair = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name}: the vectors from frame {pair} to frame {pair + 1} hold NaN or infinite values; expected finite"
            " displacements in pixels. Compute the flow again, or replace the unknown vectors by 0."
        )


def resize_flow(vectors: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a flow to another resolution and rescale its displacements by the matching ratio.

    Args:
        vectors: float [N, 2, H, W] in pixels.
        size: (height, width) of the result.

    Returns:
        [N, 2, height, width]: area mean along an axis that shrinks, bilinear (pixel centres, align_corners=False) along
        one that grows; dx is multiplied by width / W and dy by height / H.

    Raises:
        ValueError: the flow is not [N, 2, H, W] or the size is smaller than 1 pixel.
    """
    if vectors.ndim != 4 or vectors.shape[1] != 2:
        raise ValueError(f"flow: got {_describe(vectors)}; expected [frames - 1, 2, height, width].")
    height, width = (int(edge) for edge in size)
    if height < 1 or width < 1:
        raise ValueError(f"size: got {height}x{width}; height and width must be at least 1 pixel.")
    old_height, old_width = vectors.shape[2:]
    if (height, width) == (old_height, old_width):
        return vectors
    shrunk = (min(height, old_height), min(width, old_width))
    result = vectors
    if shrunk != (old_height, old_width):
        # MPS pools only by whole factors.
        divisible = old_height % shrunk[0] == 0 and old_width % shrunk[1] == 0
        on_cpu = vectors.device.type == "mps" and not divisible
        result = F.interpolate(result.cpu() if on_cpu else result, size=shrunk, mode="area").to(vectors.device)
    if (height, width) != shrunk:
        result = F.interpolate(result, size=(height, width), mode="bilinear", align_corners=False)
    ratio = torch.tensor([width / old_width, height / old_height], dtype=result.dtype, device=result.device)
    return result * ratio.view(1, 2, 1, 1)


def occlusion_mask(forward: Tensor, backward: Tensor, *, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Which pixels have no counterpart in the other frame, by the forward-backward check.

    A pixel p is visible in both frames where going there and back returns to p: with f = forward(p) and
    b = backward(p + f) it is occluded if |f + b|^2 > relative * (|f|^2 + |b|^2) + absolute (Sundaram, Brox, Keutzer:
    Dense point trajectories by GPU-accelerated large displacement optical flow, ECCV 2010). Pixels that leave the
    image are marked too.

    Args:
        forward: float32 [N, 2, H, W], the flow whose pixels are judged, in pixels.
        backward: float32 [N, 2, H, W], the flow of the opposite direction, on the other frame's grid.
        relative: tolerance that grows with the squared motion.
        absolute: tolerance in squared pixels.

    Returns:
        float32 [N, H, W]: 1 = occluded or outside, 0 = visible.

    Raises:
        ValueError: one of them is not a flow or their shapes differ.
    """
    check_vectors(forward, "forward flow")
    check_vectors(backward, "backward flow")
    if forward.shape != backward.shape:
        raise ValueError(
            f"backward flow: got {list(backward.shape)}, but the forward flow is {list(forward.shape)}; both must have"
            " the same shape."
        )
    height, width = forward.shape[2:]
    positions = pixel_grid(height, width, forward.device) + forward
    back = read_bilinear(backward, positions)
    mismatch = (forward + back).square().sum(dim=1)
    tolerance = relative * (forward.square().sum(dim=1) + back.square().sum(dim=1)) + absolute
    x, y = positions.unbind(dim=1)
    # A pixel's square reaches half a pixel beyond its centre.
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return ((mismatch > tolerance) | outside).to(torch.float32)


def invert_flow(vectors: Tensor, *, refinements: int = 3) -> Tensor:
    """Turn a flow defined on the frame it leaves into one defined on the frame it reaches.

    Every pixel p of the target frame asks where it came from: b(p) with q = p + b(p) and q + F(q) = p. First a source
    pixel names itself to the target pixel that it reaches (points half-way between two pixels do so too where the flow
    stretches the picture); where several do, the one whose motion differs most from the frame's typical motion wins,
    because what moves on its own usually lies in front. Targets that nobody reaches (uncovered or entering parts) take
    the displacement of the nearest reached pixel. That guess is corrected by the flow read there, and where this is not
    enough by Newton steps on the bilinear flow; a step is kept only where it at least halves the residual, so uncovered
    parts keep their guess. The only reductions are over integers, so every run gives the same bits.

    Args:
        vectors: float32 [N, 2, H, W], pixels, finite.
        refinements: number of Newton steps.

    Returns:
        float32 [N, 2, H, W] in pixels, on the target grid. p + b(p) may lie outside the image: then p shows something
        that entered from there. Zero flow gives zero and a constant shift gives exactly its opposite.

    Raises:
        ValueError: not a flow (see check_vectors).
    """
    check_vectors(vectors)
    return flow_inverse.invert(vectors, refinements)
