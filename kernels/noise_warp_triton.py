"""The Triton fast path of ``noise_warp`` (``nearest`` and ``subpixel``); ``particle`` is in ``noise_warp_triton_particle``.

The state is pixel-major: the ``C`` values of a pixel lie together, so that gathering a source costs whole memory sectors for
any flow. A step reads and writes the state once:

1. ``_link_sources``: every source hangs itself into the list of the pixel it moves to (``head``, ``following``).
2. ``_link_children``: every pixel nobody reached hangs itself into the list of the parent it copies (``children``, ``sibling``).
3. ``_find_split_sources``: weights are divided among copies; sources with several copies are listed.
4. ``_split_sources`` (few copies: one lane walks the list) and ``_sum_large_families``, ``_split_large_families`` (many).
5. ``_gather``: every pixel collects its sources and, where asked, the output's weighted area sums.

The lists are built with integer exchanges, so their order differs from run to run. Results do not: whatever is summed over a
list is first rounded to integers (values: 27 bits below the heaviest source of the pixel; random numbers: multiples of 2**-20),
and integer sums do not depend on order. There are no floating-point atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .noise_warp_random import SPLIT_CHILD, SPLIT_OWN, START, standard_normal

LARGE_FAMILY = 64  # a parent of more children is summed by its children, not walked by one lane
ENDED = tl.constexpr(-1)  # end of a list
DROPPED = tl.constexpr(-2)  # ``following`` of a source that leaves the image
FRESH = tl.constexpr(-1)  # ``head`` of a pixel that takes fresh noise
READY = tl.constexpr(-(2**31))  # ``head`` of a pixel whose new value is already written
TOTAL_SCALE = tl.constexpr(float(2**24))  # fixed point of the weight total
RANDOM_SCALE = tl.constexpr(float(2**20))  # random numbers that are summed are multiples of its inverse
VALUE_SCALE = tl.constexpr(float(2**27))
_STREAM_CHILD, _STREAM_OWN, _STREAM_FRESH = tl.constexpr(SPLIT_CHILD), tl.constexpr(SPLIT_OWN), tl.constexpr(START)


@triton.jit
def _round(value):
    """Round half to even, as torch does; exact for |value| < 2**22."""
    return (value + 12582912.0) - 12582912.0


@triton.jit
def _pixel_number(x, y, height, width):
    """The pixel a position rounds to, and whether it is inside the image (never, for NaN)."""
    x = _round(tl.minimum(tl.maximum(x, -2.0), width + 1.0))
    y = _round(tl.minimum(tl.maximum(y, -2.0), height + 1.0))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return tl.where(inside, y, 0).to(tl.int32) * width + tl.where(inside, x, 0).to(tl.int32), inside


@triton.jit
def _link_sources(
    flow, offsets, position, head, following, height, width, pixels, CARRY: tl.constexpr, BLOCK: tl.constexpr
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = i < pixels
    x = (i % width).to(tl.float32) + tl.load(flow + i, valid, 0.0)
    y = (i // width).to(tl.float32) + tl.load(flow + pixels + i, valid, 0.0)
    if CARRY:
        x += tl.load(offsets + i, valid, 0.0)
        y += tl.load(offsets + pixels + i, valid, 0.0)
        tl.store(position + i, x, valid)
        tl.store(position + pixels + i, y, valid)
    target, inside = _pixel_number(x, y, height, width)
    inside = inside & (x == x) & (y == y) & valid
    link = tl.atomic_xchg(head + target, i, mask=inside)
    tl.store(following + i, tl.where(inside, link, DROPPED), valid)


@triton.jit
def _nearest_neighbour(p, gap, position, head, following, parent, inside, height, width, pixels):
    """For gaps beside reached pixels: the first source of that neighbour which landed nearest; else what came in."""
    x, y = p % width, p // width
    nearest = tl.full(p.shape, float("inf"), tl.float32)
    for around in tl.static_range(9):
        if around != 4:
            column, row = x + (around % 3 - 1), y + (around // 3 - 1)
            real = gap & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            first = tl.load(head + row * width + column, real, ENDED)
            real = real & (first >= 0)  # other programs turn gaps into children meanwhile: both are negative
            other = tl.load(following + first, real, ENDED)
            while tl.max(other) >= 0:
                first = tl.where(other >= 0, tl.minimum(first, other), first)
                other = tl.load(following + other, other >= 0, ENDED)
            dx = tl.load(position + first, real, 0.0) - x.to(tl.float32)
            dy = tl.load(position + pixels + first, real, 0.0) - y.to(tl.float32)
            distance = dx * dx + dy * dy
            closer = real & (distance < nearest)
            nearest = tl.where(closer, distance, nearest)
            parent = tl.where(closer, first, parent)
            inside = inside | closer
    return parent, inside


@triton.jit
def _link_children(
    flow,
    position,
    head,
    following,
    children,
    sibling,
    copies,
    total,
    height,
    width,
    pixels,
    CARRY: tl.constexpr,
    LARGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < pixels
    gap = (tl.load(head + p, valid, 0) == FRESH) & valid
    dx = tl.load(flow + p, gap, 0.0)
    dy = tl.load(flow + pixels + p, gap, 0.0)
    limit = 4194303.0
    x = (p % width).to(tl.float32) - _round(tl.minimum(tl.maximum(dx, -limit), limit))
    y = (p // width).to(tl.float32) - _round(tl.minimum(tl.maximum(dy, -limit), limit))
    parent, inside = _pixel_number(x, y, height, width)
    inside = inside & (dx == dx) & (dy == dy) & gap
    if CARRY:
        if tl.max(gap.to(tl.int32)) > 0:
            parent, inside = _nearest_neighbour(
                p, gap, position, head, following, parent, inside, height, width, pixels
            )
    fresh = tl.sum((gap & ~inside).to(tl.int64))
    if fresh > 0:
        tl.atomic_add(total, fresh * 16777216)
    members = tl.sum(inside.to(tl.int32))
    if members > 0:
        tl.store(head + p, -3 - parent, inside)
        first = tl.min(tl.where(inside, parent, 2147483647))
        last = tl.max(tl.where(inside, parent, -1))
        if (first == last) & (members > LARGE):
            # One large family fills the block: its list is never walked, so only its size is kept.
            tl.atomic_add(copies + first, members)
        else:
            tl.atomic_add(copies + parent, 1, mask=inside)
            tl.store(sibling + p, tl.atomic_xchg(children + parent, p, mask=inside), inside)


@triton.jit
def _find_split_sources(
    weights,
    following,
    copies,
    children,
    small,
    large,
    counters,
    total,
    pixels,
    LARGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = s < pixels
    count = tl.load(copies + s, valid, 0)
    contracts = (tl.load(following + s, valid, DROPPED) != DROPPED).to(tl.int32)
    weight = tl.load(weights + s, valid, 0.0)
    used = valid & (count + contracts > 0)
    tl.atomic_add(total, tl.sum(tl.where(used, weight * TOTAL_SCALE + 0.5, 0.0).to(tl.int64)))
    split = valid & (count > 0) & (count + contracts > 1)
    splits = split.to(tl.int32)
    if tl.sum(splits) > 0:
        share = weight / (count + contracts).to(tl.float32)
        is_large = split & (count > LARGE)
        # The sign tells the gather that the values of this parent's children come from its large family.
        tl.store(weights + s, tl.where(is_large, -share, share), split)
        is_small = (split & ~is_large).to(tl.int32)
        base = tl.atomic_add(counters, tl.sum(is_small))
        tl.store(small + base + tl.cumsum(is_small) - 1, s, is_small > 0)
        if tl.sum(is_large.to(tl.int32)) > 0:
            slot = tl.atomic_add(counters + 1 + tl.zeros_like(s), 1, mask=is_large)
            tl.store(large + slot, s, is_large)
            tl.store(children + s, slot, is_large)


@triton.jit
def _rounded_normal(seed, frame, number, stream, C: tl.constexpr):
    """Standard normal rounded to multiples of 2**-20, in those units: exact to sum as integers."""
    return _round_any(standard_normal(seed, frame, number, stream, C) * RANDOM_SCALE)


@triton.jit
def _round_any(value):
    return tl.floor(value + 0.5)


@triton.jit
def _split_sources(
    values,
    weights,
    new_values,
    new_weights,
    following,
    copies,
    children,
    sibling,
    head,
    small,
    counters,
    position,
    new_offsets,
    width,
    pixels,
    channels,
    seed,
    frame,
    CARRY: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Few copies: x / sqrt(n) + (z_j - mean z), written to the children and, in place, to a source that also contracts."""
    column = tl.arange(0, C)
    have = column < channels
    amount = tl.load(counters)
    for start in range(tl.program_id(0) * BLOCK, amount, tl.num_programs(0) * BLOCK):
        row = start + tl.arange(0, BLOCK)
        valid = row < amount
        s = tl.load(small + row, valid, 0)
        contracts = (tl.load(following + s, valid, DROPPED) != DROPPED) & valid
        number = (tl.load(copies + s, valid, 1) + contracts.to(tl.int32)).to(tl.float32)
        share = tl.load(weights + s, valid, 1.0)
        first = tl.load(children + s, valid, ENDED)
        own = tl.where(contracts[:, None], _rounded_normal(seed, frame, s, _STREAM_OWN, C), 0.0)
        drawn = own.to(tl.int32)
        child = first
        while tl.max(child) >= 0:
            z = _rounded_normal(seed, frame, child, _STREAM_CHILD, C).to(tl.int32)
            drawn += tl.where((child >= 0)[:, None], z, 0)
            child = tl.load(sibling + child, child >= 0, ENDED)
        place = values + s.to(tl.int64)[:, None] * channels + column[None, :]
        mask = valid[:, None] & have[None, :]
        x = tl.load(place, mask, 0.0)
        common = x / tl.sqrt(number)[:, None] - drawn.to(tl.float32) / RANDOM_SCALE / number[:, None]
        tl.store(place, common + own / RANDOM_SCALE, mask & contracts[:, None])
        child = first
        while tl.max(child) >= 0:
            live = child >= 0
            z = _rounded_normal(seed, frame, child, _STREAM_CHILD, C) / RANDOM_SCALE
            place = new_values + child.to(tl.int64)[:, None] * channels + column[None, :]
            tl.store(place, common + z, live[:, None] & have[None, :])
            tl.store(new_weights + child, share, live)
            tl.store(head + child, READY, live)
            if CARRY:
                x_off = tl.load(position + s, live, 0.0) - (child % width).to(tl.float32)
                y_off = tl.load(position + pixels + s, live, 0.0) - (child // width).to(tl.float32)
                tl.store(new_offsets + child, tl.minimum(tl.maximum(x_off, -0.5), 0.5), live)
                tl.store(new_offsets + pixels + child, tl.minimum(tl.maximum(y_off, -0.5), 0.5), live)
            child = tl.load(sibling + child, live, ENDED)


@triton.jit
def _sum_large_families(
    head, weights, children, sums, pixels, channels, seed, frame, C: tl.constexpr, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(head + p, p < pixels, 0)
    child = (code <= -3) & (code != READY)
    parent = tl.where(child, -3 - code, 0)
    child = child & (tl.load(weights + parent, child, 1.0) < 0)
    if tl.max(child.to(tl.int32)) > 0:
        column = tl.arange(0, C)
        slot = tl.load(children + parent, child, 0)
        z = tl.where(child[:, None], _rounded_normal(seed, frame, p, _STREAM_CHILD, C), 0.0).to(tl.int64)
        first = tl.min(tl.where(child, slot, 2147483647))
        if first == tl.max(tl.where(child, slot, -1)):
            tl.atomic_add(sums + first.to(tl.int64) * channels + column, tl.sum(z, axis=0), mask=column < channels)
        else:
            place = sums + slot.to(tl.int64)[:, None] * channels + column[None, :]
            tl.atomic_add(place, z, mask=child[:, None] & (column < channels)[None, :])


@triton.jit
def _split_large_families(
    values,
    following,
    copies,
    large,
    counters,
    sums,
    commons,
    channels,
    seed,
    frame,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, C)
    have = column < channels
    amount = tl.load(counters + 1)
    for start in range(tl.program_id(0) * BLOCK, amount, tl.num_programs(0) * BLOCK):
        slot = start + tl.arange(0, BLOCK)
        valid = slot < amount
        s = tl.load(large + slot, valid, 0)
        contracts = (tl.load(following + s, valid, DROPPED) != DROPPED) & valid
        number = (tl.load(copies + s, valid, 1) + contracts.to(tl.int32)).to(tl.float32)
        own = tl.where(contracts[:, None], _rounded_normal(seed, frame, s, _STREAM_OWN, C), 0.0)
        mask = valid[:, None] & have[None, :]
        row = slot.to(tl.int64)[:, None] * channels + column[None, :]
        drawn = (tl.load(sums + row, mask, 0) + own.to(tl.int64)).to(tl.float32) / RANDOM_SCALE
        place = values + s.to(tl.int64)[:, None] * channels + column[None, :]
        common = tl.load(place, mask, 0.0) / tl.sqrt(number)[:, None] - drawn / number[:, None]
        tl.store(commons + row, common, mask)
        tl.store(sums + row, tl.zeros([BLOCK, C], tl.int64), mask)
        tl.store(place, common + own / RANDOM_SCALE, mask & contracts[:, None])


@triton.jit
def _gather(
    values,
    weights,
    offsets,
    new_values,
    new_weights,
    new_offsets,
    position,
    head,
    following,
    children,
    commons,
    total,
    output,
    width,
    pixels,
    channels,
    cell_height,
    cell_width,
    cells_x,
    seed,
    frame,
    CARRY: tl.constexpr,
    POOL: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program makes one output cell (POOL) or ``BLOCK`` pixels in a row."""
    column = tl.arange(0, C)
    have = column < channels
    mean = tl.load(total).to(tl.float32) / TOTAL_SCALE / pixels
    cell = tl.program_id(0)
    area = cell_height * cell_width if POOL else BLOCK
    sum_values = tl.zeros([BLOCK, C], tl.float32)
    sum_squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, area, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        if POOL:
            row = (cell // cells_x) * cell_height + inner // cell_width
            p = row * width + (cell % cells_x) * cell_width + inner % cell_width
            valid = inner < area
        else:
            p = cell * BLOCK + inner
            valid = p < pixels
        code = tl.load(head + p, valid, READY)
        arrived = code >= 0
        ready = (code == READY) & valid
        child = (code <= -3) & (code != READY)
        source = tl.where(arrived, code, tl.where(child, -3 - code, 0))
        rest = tl.load(following + source, arrived, ENDED)
        signed = tl.load(weights + source, arrived | child, 1.0)
        weight = tl.abs(signed)
        here = have[None, :]
        value = tl.load(
            values + source.to(tl.int64)[:, None] * channels + column[None, :], (arrived | child)[:, None] & here, 0.0
        )
        place = new_values + p.to(tl.int64)[:, None] * channels + column[None, :]
        if CARRY:
            x_off = tl.load(position + source, arrived | child, 0.0) - (p % width).to(tl.float32)
            y_off = tl.load(position + pixels + source, arrived | child, 0.0) - (p // width).to(tl.float32)
            x_off = tl.where(arrived | child, tl.minimum(tl.maximum(x_off, -0.5), 0.5), 0.0)
            y_off = tl.where(arrived | child, tl.minimum(tl.maximum(y_off, -0.5), 0.5), 0.0)
        if tl.max(ready.to(tl.int32)) > 0:
            value = tl.where(ready[:, None], tl.load(place, ready[:, None] & here, 0.0), value)
            weight = tl.where(ready, tl.load(new_weights + p, ready, 1.0), weight)
        large = child & (signed < 0)
        fresh = (code == FRESH) & valid
        if tl.max((large | fresh).to(tl.int32)) > 0:
            slot = tl.load(children + source, large, 0).to(tl.int64)
            z = standard_normal(seed, frame, p, tl.where(large, _STREAM_CHILD, _STREAM_FRESH)[:, None], C)
            z = tl.where(large[:, None], _round_any(z * RANDOM_SCALE) / RANDOM_SCALE, z)
            common = tl.load(commons + slot[:, None] * channels + column[None, :], large[:, None] & here, 0.0)
            value = tl.where((large | fresh)[:, None], common + z, value)
        crowded = arrived & (rest >= 0)
        if tl.max(crowded.to(tl.int32)) > 0:
            heaviest = weight
            other = tl.where(crowded, rest, ENDED)
            while tl.max(other) >= 0:
                live = other >= 0
                heaviest = tl.maximum(heaviest, tl.abs(tl.load(weights + other, live, 0.0)))
                other = tl.load(following + other, live, ENDED)
            scale = VALUE_SCALE / heaviest
            part = weight * scale
            total_values = _round_any(part[:, None] * value).to(tl.int64)
            total_weight = _round_any(part).to(tl.int64)
            ratio = weight / heaviest
            total_square = _round_any(ratio * ratio * VALUE_SCALE).to(tl.int64)
            if CARRY:
                total_x = _round_any(part * x_off).to(tl.int64)
                total_y = _round_any(part * y_off).to(tl.int64)
            other = tl.where(crowded, rest, ENDED)
            while tl.max(other) >= 0:
                live = other >= 0
                one = tl.abs(tl.load(weights + other, live, 0.0))
                part = one * scale
                x = tl.load(
                    values + other.to(tl.int64)[:, None] * channels + column[None, :], live[:, None] & here, 0.0
                )
                total_values += _round_any(part[:, None] * x).to(tl.int64)
                total_weight += _round_any(part).to(tl.int64)
                ratio = one / heaviest
                total_square += _round_any(ratio * ratio * VALUE_SCALE).to(tl.int64)
                if CARRY:
                    rx = tl.load(position + other, live, 0.0) - (p % width).to(tl.float32)
                    ry = tl.load(position + pixels + other, live, 0.0) - (p // width).to(tl.float32)
                    total_x += tl.where(live, _round_any(part * rx), 0.0).to(tl.int64)
                    total_y += tl.where(live, _round_any(part * ry), 0.0).to(tl.int64)
                other = tl.load(following + other, live, ENDED)
            length = tl.sqrt(total_square.to(tl.float32) * VALUE_SCALE)
            value = tl.where(crowded[:, None], total_values.to(tl.float32) / length[:, None], value)
            weight = tl.where(crowded, total_weight.to(tl.float32) / scale, weight)
            if CARRY:
                x_off = tl.where(crowded, total_x.to(tl.float32) / total_weight.to(tl.float32), x_off)
                y_off = tl.where(crowded, total_y.to(tl.float32) / total_weight.to(tl.float32), y_off)
        weight = tl.exp2(0.9999 * tl.log2(weight / mean + 1e-5))
        tl.store(place, value, (valid & ~ready)[:, None] & here)
        tl.store(new_weights + p, weight, valid)
        if CARRY:
            tl.store(new_offsets + p, x_off, valid & ~ready)
            tl.store(new_offsets + pixels + p, y_off, valid & ~ready)
        if POOL:
            weight = tl.where(valid, weight, 0.0)
            sum_values += weight[:, None] * value
            sum_squares += weight * weight
    if POOL:
        pooled = tl.sum(sum_values, axis=0) / tl.sqrt(tl.sum(sum_squares))
        cells = pixels // (cell_height * cell_width)
        tl.store(output + column * cells + cell, pooled, have)


@triton.jit
def _pool(
    values,
    weights,
    output,
    width,
    pixels,
    channels,
    cell_height,
    cell_width,
    cells_x,
    WEIGHTED: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Output cells of a state at rest: sum(w x) / sqrt(sum(w^2))."""
    cells = pixels // (cell_height * cell_width)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < cells
    column = tl.arange(0, C)
    mask = valid[:, None] & (column < channels)[None, :]
    corner = (cell // cells_x) * cell_height * width + (cell % cells_x) * cell_width
    sum_values = tl.zeros([BLOCK, C], tl.float32)
    sum_squares = tl.zeros([BLOCK], tl.float32)
    for inner in range(0, cell_height * cell_width):
        p = corner + (inner // cell_width) * width + inner % cell_width
        value = tl.load(values + p.to(tl.int64)[:, None] * channels + column[None, :], mask, 0.0)
        weight = tl.load(weights + p, valid, 1.0) if WEIGHTED else tl.full([BLOCK], 1.0, tl.float32)
        sum_values += weight[:, None] * value
        sum_squares += weight * weight
    pooled = sum_values / tl.sqrt(sum_squares)[:, None]
    tl.store(output + column[None, :] * cells + cell[:, None], pooled, mask)


@triton.jit
def _fill_normal(values, pixels, channels, seed, C: tl.constexpr, BLOCK: tl.constexpr):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, C)
    place = values + p.to(tl.int64)[:, None] * channels + column[None, :]
    mask = (p < pixels)[:, None] & (column < channels)[None, :]
    tl.store(place, standard_normal(seed, 0, p, _STREAM_FRESH, C), mask)


def _programs(device: torch.device) -> int:
    """Programs of a kernel that loops over a list whose length only the device knows."""
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


class TritonState:
    """See ``noise_warp.NoiseWarper``. Two buffers of the state are swapped; the lists are filled anew in each step."""

    INDEX_BLOCK = 1024  # pixels a program in the kernels that handle one number a pixel
    TILE = 2048  # values a program in the kernels that handle all channels of a pixel
    FUSED_AREA = 64  # output cells of fewer pixels are pooled by a second kernel

    def __init__(
        self, channels: int, height: int, width: int, *, seed: int, device: torch.device, algorithm: str
    ) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.algorithm, self.device, self.frame = algorithm, device, 0
        self.seed = seed - 2**64 if seed >= 2**63 else seed  # a signed 64-bit kernel argument
        pixels = self.pixels = height * width
        self.block_channels = max(4, triton.next_power_of_2(channels))
        self.block = max(16, self.TILE // self.block_channels)
        self.values = torch.empty(pixels, channels, device=device)
        _fill_normal[(triton.cdiv(pixels, self.block),)](
            self.values, pixels, channels, self.seed, C=self.block_channels, BLOCK=self.block
        )
        self._new_values = torch.empty_like(self.values)
        self._lists: dict[str, Tensor] | None = None
        if algorithm == "particle":
            self.weights = torch.ones(pixels, device=device)
            return
        self.weights = torch.ones(pixels, device=device)
        self._new_weights = torch.empty_like(self.weights)
        carries = pixels if algorithm == "subpixel" else 1
        self.offsets, self._new_offsets = torch.zeros(2, carries, device=device), torch.zeros(2, carries, device=device)

    def _allocate_lists(self) -> dict[str, Tensor]:
        def whole(count: int) -> Tensor:
            return torch.empty(count, dtype=torch.int32, device=self.device)

        families = self.pixels // LARGE_FAMILY + 1
        carries = self.pixels if self.algorithm == "subpixel" else 1
        return {
            "head": whole(self.pixels),
            "following": whole(self.pixels),
            "children": whole(self.pixels),
            "sibling": whole(self.pixels),
            "copies": whole(self.pixels),
            "small": whole(self.pixels),
            "large": whole(families),
            "counters": whole(2),
            "total": torch.empty(1, dtype=torch.int64, device=self.device),
            "sums": torch.zeros(families, self.channels, dtype=torch.int64, device=self.device),
            "commons": torch.empty(families, self.channels, device=self.device),
            "position": torch.empty(2, carries, device=self.device),
        }

    def noise(self, size: tuple[int, int]) -> Tensor:
        h, w = size
        output = torch.empty(self.channels, h, w, device=self.device)
        block = 16 if h * w < 4096 else self.block
        _pool[(triton.cdiv(h * w, block),)](
            self.values,
            self.weights,
            output,
            self.width,
            self.pixels,
            self.channels,
            self.height // h,
            self.width // w,
            w,
            WEIGHTED=(self.height, self.width) != (h, w),
            C=self.block_channels,
            BLOCK=block,
        )
        return output

    def step(self, flow: Tensor, size: tuple[int, int] | None) -> Tensor | None:
        self.frame += 1
        if self.algorithm == "particle":
            from .noise_warp_triton_particle import step_particle

            return step_particle(self, flow, size)
        if self._lists is None:
            self._lists = self._allocate_lists()
        lists = self._lists
        carry = self.algorithm == "subpixel"
        height, width, pixels, channels = self.height, self.width, self.pixels, self.channels
        for name in ("head", "children"):
            lists[name].fill_(-1)
        for name in ("copies", "counters", "total"):
            lists[name].zero_()
        wide = {"BLOCK": self.INDEX_BLOCK}
        tile = {"C": self.block_channels, "BLOCK": self.block}
        grid, tile_grid = (triton.cdiv(pixels, self.INDEX_BLOCK),), (triton.cdiv(pixels, self.block),)
        head, following, children = lists["head"], lists["following"], lists["children"]
        sibling, copies, position, total = lists["sibling"], lists["copies"], lists["position"], lists["total"]
        _link_sources[grid](flow, self.offsets, position, head, following, height, width, pixels, CARRY=carry, **wide)
        _link_children[grid](
            flow,
            position,
            head,
            following,
            children,
            sibling,
            copies,
            total,
            height,
            width,
            pixels,
            CARRY=carry,
            LARGE=LARGE_FAMILY,
            **wide,
        )
        _find_split_sources[grid](
            self.weights,
            following,
            copies,
            children,
            lists["small"],
            lists["large"],
            lists["counters"],
            total,
            pixels,
            LARGE=LARGE_FAMILY,
            **wide,
        )
        some = (_programs(self.device),)
        _split_sources[some](
            self.values,
            self.weights,
            self._new_values,
            self._new_weights,
            following,
            copies,
            children,
            sibling,
            head,
            lists["small"],
            lists["counters"],
            position,
            self._new_offsets,
            width,
            pixels,
            channels,
            self.seed,
            self.frame,
            CARRY=carry,
            **tile,
        )
        _sum_large_families[tile_grid](
            head, self.weights, children, lists["sums"], pixels, channels, self.seed, self.frame, **tile
        )
        _split_large_families[some](
            self.values,
            following,
            copies,
            lists["large"],
            lists["counters"],
            lists["sums"],
            lists["commons"],
            channels,
            self.seed,
            self.frame,
            **tile,
        )
        output = self._gather(size, lists, carry, tile)
        self.values, self._new_values = self._new_values, self.values
        self.weights, self._new_weights = self._new_weights, self.weights
        self.offsets, self._new_offsets = self._new_offsets, self.offsets
        return output if output is not None or size is None else self.noise(size)

    def _gather(self, size: tuple[int, int] | None, lists: dict[str, Tensor], carry: bool, tile: dict) -> Tensor | None:
        """Launches ``_gather``; returns the output where the cells are large enough to be made in the same pass."""
        cell_height, cell_width = (self.height // size[0], self.width // size[1]) if size else (1, 1)
        pool = cell_height * cell_width >= self.FUSED_AREA
        if pool:
            output = torch.empty(self.channels, *size, device=self.device)
            programs = size[0] * size[1]
        else:
            output, programs = None, triton.cdiv(self.pixels, self.block)
        _gather[(programs,)](
            self.values,
            self.weights,
            self.offsets,
            self._new_values,
            self._new_weights,
            self._new_offsets,
            lists["position"],
            lists["head"],
            lists["following"],
            lists["children"],
            lists["commons"],
            lists["total"],
            self._new_values if output is None else output,
            self.width,
            self.pixels,
            self.channels,
            cell_height,
            cell_width,
            self.width // cell_width,
            self.seed,
            self.frame,
            CARRY=carry,
            POOL=pool,
            **tile,
        )
        return output
