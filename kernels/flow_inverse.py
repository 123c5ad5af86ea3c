"""The parts of ``flow.invert_flow``: scatter the sources, fill what nobody reaches, refine to sub-pixel positions."""

import torch
from torch import Tensor

from .sampling import pixel_grid, read_bilinear

# Points half-way between two pixels whose displacements differ by more than this (pixels) lie on a motion boundary, not
# on a stretched surface: the surface is torn there.
TEAR = 2.0
# Residuals below this (pixels) are left as they are, which keeps exact cases (zero, constant shift) exact.
GOOD_ENOUGH = 1e-3
# Residuals up to this (pixels) are ended by one fixed-point step.
EASY = 0.02
# Newton steps longer than this (pixels) are not taken: the guess is that of the nearest reached pixel, so a target that
# needs more is an uncovered one, which has no answer.
LONGEST_STEP = 4.0
# How many pixels are inverted at once on a GPU (bounds the temporary memory to about a hundred bytes for each).
PIXELS_AT_ONCE = 1 << 23


def invert(vectors: Tensor, refinements: int) -> Tensor:
    """See ``flow.invert_flow``; the arguments have been checked there. float32 [N, 2, H, W] -> float32 [N, 2, H, W]."""
    pairs, _, height, width = vectors.shape
    at_once = 2 if vectors.device.type == "cpu" else max(1, PIXELS_AT_ONCE // (height * width))
    pieces = [_invert(piece.contiguous(), refinements) for piece in vectors.split(min(at_once, pairs))]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _typical_motion(vectors: Tensor) -> Tensor:
    """float32 [N, 2, 1, 1]: median displacement of each pair, from at most some thousand pixels."""
    flat = vectors.flatten(2)
    return flat[..., :: max(1, flat.shape[-1] // 4096)].median(dim=-1).values.view(-1, 2, 1, 1)


def _scatter_winners(vectors: Tensor) -> Tensor:
    """int32 [N, H * W]: which source each target pixel shows, as y * W + x of the source, -1 where none arrives."""
    pairs, _, height, width = vectors.shape
    pixels = height * width
    device = vectors.device
    goal = (vectors + pixel_grid(height, width, device)).round_()
    # One integer holds "how ordinary is the motion" above the source's index: its minimum is the winner.
    index_bits = max(1, (pixels - 1).bit_length())
    levels = (1 << (31 - index_bits)) - 1
    apart_x, apart_y = (vectors - _typical_motion(vectors)).unbind(dim=1)
    unusual = (apart_x * apart_x).addcmul_(apart_y, apart_y).sqrt_()
    most = unusual.amax(dim=(1, 2), keepdim=True).clamp(min=1.0)
    ordinary = (unusual.div_(most).neg_().add_(1.0).mul_(levels - 1)).to(torch.int32)
    key = (ordinary << index_bits) | torch.arange(pixels, dtype=torch.int32, device=device).view(height, width)
    nobody = torch.iinfo(torch.int32).max
    # One more place per pair takes what leaves the image.
    best = torch.full((pairs, pixels + 1), nobody, dtype=torch.int32, device=device)
    inside = _inside(goal[:, 0], goal[:, 1], height, width)
    best.scatter_reduce_(1, _place(goal[:, 0], goal[:, 1], inside, width, pixels).flatten(1), key.flatten(1), "amin")

    # Where neighbours land more than a pixel apart, the points half-way between them fill the gap.
    best = best.view(-1)
    flat, keys = vectors.reshape(-1), key.view(-1)
    gap_x = (goal[..., :-1] - goal[..., 1:]).abs_().amax(dim=1) > 1
    gap_y = (goal[..., :-1, :] - goal[..., 1:, :]).abs_().amax(dim=1) > 1
    gaps = ((gap_x, 1, 0), (gap_y, 0, 1), (gap_x[:, :-1] | gap_y[:, :, :-1], 1, 1))
    for gap, right, down in gaps:
        corners = sorted({0, right, down * width, right + down * width})
        pair, y, x = gap.nonzero().unbind(dim=1)
        here = pair * (2 * pixels) + y * width + x
        dx = torch.stack([flat[here + corner] for corner in corners])
        dy = torch.stack([flat[here + corner + pixels] for corner in corners])
        goal_x = (x + 0.5 * right + dx.mean(dim=0)).round_()
        goal_y = (y + 0.5 * down + dy.mean(dim=0)).round_()
        whole = (dx.amax(dim=0) - dx.amin(dim=0) < TEAR) & (dy.amax(dim=0) - dy.amin(dim=0) < TEAR)
        whole &= _inside(goal_x, goal_y, height, width)
        place = _place(goal_x, goal_y, whole, width, pixels) + pair * (pixels + 1)
        best.scatter_reduce_(0, place, keys[pair * pixels + y * width + x], "amin")
    best = best.view(pairs, pixels + 1)[:, :-1]
    return torch.where(best == nobody, -1, best & ((1 << index_bits) - 1))


def _inside(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def _place(x: Tensor, y: Tensor, valid: Tensor, width: int, nowhere: int) -> Tensor:
    """int64 y * width + x of whole float coordinates, ``nowhere`` where not valid."""
    if nowhere < 1 << 24:  # float32 counts exactly up to there
        return torch.where(valid, y * width + x, float(nowhere)).to(torch.int64)
    whole_y, whole_x = torch.where(valid, y, 0.0).to(torch.int64), torch.where(valid, x, 0.0).to(torch.int64)
    return torch.where(valid, whole_y * width + whole_x, nowhere)


def _fill_from_nearest(winner: Tensor, height: int, width: int) -> Tensor:
    """Give each -1 of int32 [N, H * W] the entry of the nearest filled pixel in its row or column.

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
        by_column = winner.view(-1, height, width).transpose(1, 2).reshape(-1)
        searches = (
            (flat, holes, width),
            (by_column, (row // height * width + column) * height + row % height, height),
        )
        best_distance = torch.full_like(holes, height + width)
        best_entry = torch.full_like(holes, -1, dtype=torch.int32)
        for entries, place, length in searches:
            filled = (entries >= 0).nonzero().squeeze(1)
            after = torch.searchsorted(filled, place)
            for neighbour in (after - 1, after):
                found = filled[neighbour.clamp(0, filled.numel() - 1)]
                same_line = found // length == place // length
                distance = torch.where(same_line, (found - place).abs(), height + width)
                closer = distance < best_distance
                best_entry = torch.where(closer, entries[found], best_entry)
                best_distance = torch.where(closer, distance, best_distance)
        winner = flat.scatter(0, holes, best_entry).view(shape)
    return winner


def _invert(vectors: Tensor, refinements: int) -> Tensor:
    height, width = vectors.shape[2:]
    pixels = height * width
    winner = _fill_from_nearest(_scatter_winners(vectors), height, width).to(torch.int64)
    # In a frame where nothing arrives the pixel's own motion is the best guess.
    own = torch.arange(pixels, device=vectors.device)
    winner = torch.where(winner < 0, own, winner)
    guess = -vectors.flatten(2).gather(2, winner.unsqueeze(1).expand(-1, 2, -1)).view_as(vectors)
    if refinements < 1:
        return guess
    positions = guess + pixel_grid(height, width, vectors.device)
    residual = (guess + read_bilinear(vectors, positions)).neg_()
    error = residual.abs().amax(dim=1)
    # Where the flow is nearly constant (most of most frames) one fixed-point step ends it.
    easy = (error > GOOD_ENOUGH) & (error <= EASY)
    result = torch.where(easy.unsqueeze(1), guess + residual, guess)
    hard = (error > EASY).view(-1).nonzero().squeeze(1)
    if hard.numel():
        _newton(vectors, result, hard, refinements)
    return result


def _newton(vectors: Tensor, result: Tensor, chosen: Tensor, steps: int) -> None:
    """Newton steps on q + F(q) = p with bilinear F, written into ``result`` at the chosen pixels.

    Args:
        vectors: float32 [N, 2, H, W], contiguous.
        result: float32 [N, 2, H, W], contiguous: the displacements b, changed in place.
        chosen: int64 [K], pair * H * W + y * W + x of the target pixels.
    """
    height, width = vectors.shape[2:]
    pixels = height * width
    flat, target = vectors.view(-1), result.view(-1)
    right, down = min(1, width - 1), min(1, height - 1) * width

    def look(base: Tensor, x: Tensor, y: Tensor, bx: Tensor, by: Tensor) -> tuple[Tensor, ...]:
        """Residual (x, y), its square, and the flow's derivatives (dx/dx, dx/dy, dy/dx, dy/dy) at p + b."""
        qx, qy = x + bx, y + by
        inside_x, inside_y = qx.clamp(0, width - 1), qy.clamp(0, height - 1)
        x0 = inside_x.floor().clamp_(max=max(width - 2, 0))
        y0 = inside_y.floor().clamp_(max=max(height - 2, 0))
        fx, fy = inside_x - x0, inside_y - y0
        corner = base + y0.to(torch.int64) * width + x0.to(torch.int64)
        # Outside the image the border's flow goes on: no slope across it.
        slope_x, slope_y = (inside_x == qx).to(torch.float32), (inside_y == qy).to(torch.float32)
        values, slopes = [], []
        for channel in (0, pixels):
            a, b = (flat.index_select(0, corner + (channel + offset)) for offset in (0, right))
            c, d = (flat.index_select(0, corner + (channel + offset)) for offset in (down, down + right))
            top, bottom = torch.lerp(a, b, fx), torch.lerp(c, d, fx)
            values.append(torch.lerp(top, bottom, fy))
            slopes += [torch.lerp(b - a, d - c, fy) * slope_x, (bottom - top) * slope_y]
        rx, ry = -(bx + values[0]), -(by + values[1])
        return rx, ry, rx * rx + ry * ry, *slopes

    base, pixel = chosen // pixels * (2 * pixels), chosen % pixels
    x, y = (pixel % width).to(torch.float32), (pixel // width).to(torch.float32)
    place = base + pixel
    bx, by = target[place], target[place + pixels]
    state = look(base, x, y, bx, by)
    for _ in range(steps):
        rx, ry, error, dx_dx, dx_dy, dy_dx, dy_dy = state
        a, d = dx_dx + 1.0, dy_dy + 1.0
        determinant = a * d - dx_dy * dy_dx
        # Where the map folds or flattens the linear model is useless: a fixed-point step instead.
        usable = determinant > 0.05
        scale = torch.where(usable, determinant, 1.0).reciprocal_()
        step_x = torch.where(usable, (d * rx - dx_dy * ry) * scale, rx)
        step_y = torch.where(usable, (a * ry - dy_dx * rx) * scale, ry)
        short = step_x * step_x + step_y * step_y < LONGEST_STEP**2
        bx, by = bx + step_x, by + step_y
        state = look(base, x, y, bx, by)
        better = (short & (state[2] < 0.25 * error)).nonzero().squeeze(1)
        if better.numel() == 0:
            return
        target[place[better]], target[place[better] + pixels] = bx[better], by[better]
        # What did not move stays as it is, what is exact enough is done.
        going = better[state[2][better] > GOOD_ENOUGH**2]
        base, x, y, place, bx, by = (values[going] for values in (base, x, y, place, bx, by))
        state = tuple(values[going] for values in state)
