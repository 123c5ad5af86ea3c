"""Optical flow as a value: what travels on a PN_FLOW socket, resizing, inversion and the forward-backward check.

Everywhere in this pack a flow is float32 ``[N, 2, H, W]``: channel 0 is dx in pixels (positive to the right), channel 1 is
dy in pixels (positive down), N counts pairs of neighbouring frames.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DIRECTIONS = ("forward", "backward")

# Half-way samples between two pixels whose displacements differ by more than this (pixels) lie on a motion boundary, not
# on a stretched surface: the surface is torn there and the sample is left out.
TEAR = 2.0
# Residuals below this (pixels) are left as they are, which keeps exact cases (zero, constant shift) exact.
GOOD_ENOUGH = 1e-3
# Longest refinement step in pixels; beyond it the linear model says nothing.
LONGEST_STEP = 8.0
# How many pixels are inverted at once (bounds the temporary memory to some tens of bytes for each).
PIXELS_AT_ONCE = 1 << 23


@dataclass(frozen=True, eq=False)
class Flow:
    """The value on a PN_FLOW socket.

    Args:
        vectors: float32 [T-1, 2, H, W] in pixels, T >= 2.
        direction: "forward": ``vectors[t]`` moves a pixel of frame t to frame t+1; "backward": ``vectors[t]`` maps a pixel
            of frame t+1 to frame t.
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

    def as_forward(self) -> Tensor:
        """float32 [T-1, 2, H, W] forward vectors, whatever the direction of this flow (a backward flow is inverted)."""
        return self.vectors if self.direction == "forward" else invert_flow(self.vectors)


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


def _pixel_grid(height: int, width: int, device) -> Tensor:
    """float32 [2, height, width]: x and y of every pixel."""
    rows = torch.arange(height, dtype=torch.float32, device=device).view(height, 1).expand(height, width)
    columns = torch.arange(width, dtype=torch.float32, device=device).view(1, width).expand(height, width)
    return torch.stack([columns, rows])


def _read_bilinear(values: Tensor, positions: Tensor) -> Tensor:
    """Bilinear values [N, C, H, W] at pixel positions [N, 2, h, w]; positions outside read the nearest border pixel."""
    height, width = values.shape[2:]
    span = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=torch.float32, device=values.device)
    # Clamped here rather than by padding_mode="border", which MPS lacks.
    grid = (positions.permute(0, 2, 3, 1) * (2.0 / span) - 1.0).clamp(-1.0, 1.0)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def occlusion_mask(forward: Tensor, backward: Tensor, *, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Which pixels have no counterpart in the other frame, by the forward-backward check.

    A pixel p is visible in both frames where going there and back returns to p: with f = forward(p) and b = backward(p + f)
    it is occluded if |f + b|^2 > relative * (|f|^2 + |b|^2) + absolute (Sundaram, Brox, Keutzer: Dense point trajectories
    by GPU-accelerated large displacement optical flow, ECCV 2010, section 2). Pixels that leave the image are marked too.

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
            f"backward flow: got {list(backward.shape)}, but the forward flow is {list(forward.shape)}; both must have the"
            " same shape."
        )
    height, width = forward.shape[2:]
    positions = _pixel_grid(height, width, forward.device) + forward
    back = _read_bilinear(backward, positions)
    mismatch = (forward + back).square().sum(dim=1)
    tolerance = relative * (forward.square().sum(dim=1) + back.square().sum(dim=1)) + absolute
    x, y = positions.unbind(dim=1)
    # A pixel's square reaches half a pixel beyond its centre.
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return ((mismatch > tolerance) | outside).to(torch.float32)


def invert_flow(vectors: Tensor, *, refinements: int = 3) -> Tensor:
    """Turn a flow defined on the frame it leaves into one defined on the frame it reaches.

    Every pixel p of the target frame asks where it came from: b(p) with q = p + b(p) and q + F(q) = p. First each source
    sample (every pixel and the points half-way between) names itself to the target pixel that it reaches; where several
    do, the one whose motion differs most from the frame's typical motion wins, because what moves on its own usually lies
    in front. Targets that nobody reaches (stretched, uncovered or entering parts) take the displacement of the nearest
    reached pixel. Then a few chord-Newton steps, with the Jacobian of the flow at the first guess, bring q + F(q) to p; a
    step is kept only where it at least halves the residual, so uncovered parts keep their guess. All reductions are over integers, so every run gives the same bits.

    Args:
        vectors: float32 [N, 2, H, W], pixels, finite.
        refinements: number of Newton steps.

    Returns:
        float32 [N, 2, H, W] in pixels, on the target grid. p + b(p) may lie outside the image: then p shows something that
        entered from there. Zero flow gives zero and a constant shift gives exactly its opposite.

    Raises:
        ValueError: not a flow (see check_vectors).
    """
    check_vectors(vectors)
    pairs, _, height, width = vectors.shape
    at_once = max(1, PIXELS_AT_ONCE // (height * width)) if vectors.device.type != "cpu" else 2
    pieces = [_invert(piece, refinements) for piece in vectors.split(min(at_once, pairs))]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _halfway_samples(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The flow at every half pixel, float32 [N, 2, 2H-1, 2W-1], and where it is whole: bool [N, 2H-1, 2W-1]."""
    pairs, _, height, width = vectors.shape
    dense = vectors.new_empty((pairs, 2, 2 * height - 1, 2 * width - 1))
    whole = torch.ones((pairs, 2 * height - 1, 2 * width - 1), dtype=torch.bool, device=vectors.device)
    dense[..., ::2, ::2] = vectors
    left, right = vectors[..., :-1], vectors[..., 1:]
    dense[..., ::2, 1::2] = (left + right) * 0.5
    whole[..., ::2, 1::2] = (left - right).abs().amax(dim=1) < TEAR
    above, below = dense[..., :-2:2, :], dense[..., 2::2, :]
    dense[..., 1::2, :] = (above + below) * 0.5
    whole[..., 1::2, :] = ((above - below).abs().amax(dim=1) < TEAR) & whole[..., :-2:2, :] & whole[..., 2::2, :]
    return dense, whole


def _typical_motion(vectors: Tensor) -> Tensor:
    """float32 [N, 2, 1, 1]: median displacement of each pair, from at most some thousand pixels."""
    flat = vectors.flatten(2)
    return flat[..., :: max(1, flat.shape[-1] // 4096)].median(dim=-1).values.view(-1, 2, 1, 1)


def _scatter_winners(dense: Tensor, whole: Tensor, typical: Tensor, height: int, width: int) -> Tensor:
    """int32 [N, height * width]: index of the sample that each target pixel shows, -1 where none arrives."""
    pairs, _, dense_height, dense_width = dense.shape
    samples = dense_height * dense_width
    x, y = (_pixel_grid(dense_height, dense_width, dense.device) * 0.5 + dense).round().unbind(dim=1)
    arrives = whole & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    nowhere = torch.full((), height * width, dtype=torch.int64, device=dense.device)
    target = torch.where(arrives, y * width + x, 0.0) if height * width < 1 << 24 else None
    if target is None:  # float32 counts exactly only to 2^24
        target = torch.where(arrives, y, 0.0).to(torch.int64) * width + torch.where(arrives, x, 0.0).to(torch.int64)
    target = torch.where(arrives, target.to(torch.int64), nowhere)
    # One integer holds "how ordinary is the motion" above the sample's index: its minimum is the winner.
    index_bits = max(1, (samples - 1).bit_length())
    levels = max(1, (1 << (31 - index_bits)) - 1)
    unusual = (dense - typical).square().sum(dim=1).sqrt()
    most = unusual.flatten(1).amax(dim=1).clamp(min=1.0).view(-1, 1, 1)
    ordinary = ((1.0 - unusual / most) * (levels - 1)).clamp(0, levels - 1).to(torch.int32)
    index = torch.arange(samples, dtype=torch.int32, device=dense.device).view(1, dense_height, dense_width)
    key = (ordinary << index_bits) | index
    nobody = torch.iinfo(torch.int32).max
    best = torch.full((pairs, height * width + 1), nobody, dtype=torch.int32, device=dense.device)
    best.scatter_reduce_(1, target.flatten(1), key.flatten(1), "amin")
    best = best[:, :-1]
    return torch.where(best == nobody, -1, best & ((1 << index_bits) - 1))


def _fill_from_nearest(winner: Tensor, height: int, width: int) -> Tensor:
    """Give each -1 of int32 [N, height * width] the entry of the nearest filled pixel in its row or column.

    Twice, so that corners whose row and column are both empty follow their neighbours. Only frames in which nothing
    arrives at all keep -1.
    """
    shape = winner.shape
    for _ in range(2):
        flat = winner.reshape(-1)
        holes = (flat < 0).nonzero().squeeze(1)
        if holes.numel() == 0 or holes.numel() == flat.numel():
            break
        row, column = holes // width, holes % width  # row counts through all frames
        best_distance = torch.full_like(holes, height + width)
        best_entry = torch.full_like(holes, -1, dtype=torch.int32)
        by_column = winner.view(-1, height, width).transpose(1, 2).reshape(-1)
        frame, line = row // height, row % height
        searches = (
            (flat, holes, width),
            (by_column, (frame * width + column) * height + line, height),
        )
        for entries, place, length in searches:
            filled = (entries >= 0).nonzero().squeeze(1)
            after = torch.searchsorted(filled, place)
            for neighbour in (after - 1, after):
                found = filled[neighbour.clamp(0, filled.numel() - 1)]
                same_line = (found // length == place // length) & (neighbour >= 0) & (neighbour < filled.numel())
                distance = torch.where(same_line, (found - place).abs(), height + width)
                closer = distance < best_distance
                best_entry = torch.where(closer, entries[found], best_entry)
                best_distance = torch.where(closer, distance, best_distance)
        winner = flat.scatter(0, holes, best_entry).view(shape)
    return winner


def _inverse_jacobian(vectors: Tensor) -> Tensor:
    """float32 [N, 4, H, W]: rows of the inverse of I + dF/dq, the identity where the map folds or nearly so."""
    padded = F.pad(vectors, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * 0.5
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * 0.5
    # Border pixels have one neighbour only.
    if vectors.shape[-1] > 1:
        along_x[..., [0, -1]] *= 2.0
    if vectors.shape[-2] > 1:
        along_y[..., [0, -1], :] *= 2.0
    a, c = (along_x[:, 0] + 1.0), along_x[:, 1]
    b, d = along_y[:, 0], (along_y[:, 1] + 1.0)
    determinant = a * d - b * c
    usable = determinant > 0.05
    scale = torch.where(usable, 1.0 / torch.where(usable, determinant, 1.0), 1.0)
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    rows = (
        torch.where(usable, d * scale, one),
        torch.where(usable, -b * scale, zero),
        torch.where(usable, -c * scale, zero),
        torch.where(usable, a * scale, one),
    )
    return torch.stack(rows, dim=1)


def _invert(vectors: Tensor, refinements: int) -> Tensor:
    pairs, _, height, width = vectors.shape
    dense, whole = _halfway_samples(vectors)
    dense_width = dense.shape[-1]
    winner = _scatter_winners(dense, whole, _typical_motion(vectors), height, width)
    winner = _fill_from_nearest(winner, height, width).to(torch.int64)
    reached = winner >= 0
    # In a frame where nothing arrives the pixel's own motion is the best guess.
    y, x = winner // dense_width, winner % dense_width
    own = torch.arange(height * width, device=vectors.device).expand(pairs, -1)
    own_dense = (own // width) * (2 * dense_width) + (own % width) * 2
    winner = torch.where(reached, winner, own_dense)
    pixel = torch.where(reached, (y >> 1) * width + (x >> 1), own)
    result = -dense.flatten(2).gather(2, winner.unsqueeze(1).expand(-1, 2, -1)).view_as(vectors)
    if refinements < 1:
        return result
    inverse = _inverse_jacobian(vectors).flatten(2).gather(2, pixel.unsqueeze(1).expand(-1, 4, -1))
    inverse = inverse.view(pairs, 4, height, width)
    grid = _pixel_grid(height, width, vectors.device)
    residual = -(result + _read_bilinear(vectors, grid + result))
    error = residual.square().sum(dim=1, keepdim=True)
    for _ in range(refinements):
        step = torch.stack(
            [
                inverse[:, 0] * residual[:, 0] + inverse[:, 1] * residual[:, 1],
                inverse[:, 2] * residual[:, 0] + inverse[:, 3] * residual[:, 1],
            ],
            dim=1,
        ).clamp_(-LONGEST_STEP, LONGEST_STEP)
        trial = result + step
        trial_residual = -(trial + _read_bilinear(vectors, grid + trial))
        trial_error = trial_residual.square().sum(dim=1, keepdim=True)
        better = (trial_error < 0.25 * error) & (error > GOOD_ENOUGH**2)
        result = torch.where(better, trial, result)
        residual = torch.where(better, trial_residual, residual)
        error = torch.where(better, trial_error, error)
    return result
