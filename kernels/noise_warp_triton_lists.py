"""Triton kernels of ``noise_warp_triton`` that decide which source goes where: index lists, divided weights."""

from __future__ import annotations

import triton
import triton.language as tl

ENDED = tl.constexpr(-1)  # end of a list
DROPPED = tl.constexpr(-2)  # ``following`` of a source that leaves the image
FRESH = tl.constexpr(-1)  # ``head`` of a pixel that takes fresh noise
NOBODY = tl.constexpr(2**31 - 1)  # ``first`` of a pixel nobody reached
READY = tl.constexpr(-(2**31))  # ``head`` of a pixel whose new value is already written
LIMIT = tl.constexpr(4194303.0)  # pixels; beyond it ``round_even`` is not exact, and every image ends
TOTAL_SCALE = tl.constexpr(float(2**24))  # fixed point of the weight total


@triton.jit
def round_even(value):
    """Round half to even, as torch does; exact for |value| < 2**22."""
    return (value + 12582912.0) - 12582912.0


@triton.jit
def pixel_number(x, y, height, width):
    """The pixel a position rounds to, and whether it is inside the image (never, for NaN)."""
    x = round_even(tl.minimum(tl.maximum(x, -2.0), width + 1.0))
    y = round_even(tl.minimum(tl.maximum(y, -2.0), height + 1.0))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return tl.where(inside, y, 0).to(tl.int32) * width + tl.where(inside, x, 0).to(tl.int32), inside


@triton.jit
def link_sources(
    flow,
    offsets,
    position,
    first,
    head,
    following,
    height,
    width,
    pixels,
    slack,
    CARRY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = i < pixels
    dx, dy = tl.load(flow + i, valid, 0.0), tl.load(flow + pixels + i, valid, 0.0)
    x, y = (i % width).to(tl.float32) + dx, (i // width).to(tl.float32) + dy
    if CARRY:
        x += tl.load(offsets + i, valid, 0.0)
        y += tl.load(offsets + pixels + i, valid, 0.0)
        tl.store(position + i, x, valid)
        tl.store(position + pixels + i, y, valid)
        # Neighbours that round alike keep step; only an offset beyond the slack makes a value change lanes.
        step_x = (i % width).to(tl.float32) + round_even(tl.minimum(tl.maximum(dx, -LIMIT), LIMIT))
        step_y = (i // width).to(tl.float32) + round_even(tl.minimum(tl.maximum(dy, -LIMIT), LIMIT))
        x = tl.where(tl.abs(x - step_x) <= slack, step_x, x)
        y = tl.where(tl.abs(y - step_y) <= slack, step_y, y)
    target, inside = pixel_number(x, y, height, width)
    inside = inside & (x == x) & (y == y) & valid
    if CARRY:
        tl.atomic_min(first + target, i, mask=inside)
    link = tl.atomic_xchg(head + target, i, mask=inside)
    tl.store(following + i, tl.where(inside, link, DROPPED), valid)


@triton.jit
def _nearest_neighbour(p, gap, position, first, parent, height, width, pixels):
    """For gaps beside reached pixels: the first source of that neighbour which landed nearest; else what came in."""
    x, y = p % width, p // width
    nearest = tl.full(p.shape, float("inf"), tl.float32)
    for around in tl.static_range(9):
        if around != 4:
            column, row = x + (around % 3 - 1), y + (around // 3 - 1)
            real = gap & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            source = tl.load(first + row * width + column, real, NOBODY)
            real = real & (source != NOBODY)
            dx = tl.load(position + source, real, 0.0) - x.to(tl.float32)
            dy = tl.load(position + pixels + source, real, 0.0) - y.to(tl.float32)
            distance = dx * dx + dy * dy
            closer = real & (distance < nearest)
            nearest = tl.where(closer, distance, nearest)
            parent = tl.where(closer, source, parent)
    return parent


@triton.jit
def link_children(
    flow,
    position,
    head,
    first,
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
    x = (p % width).to(tl.float32) - round_even(tl.minimum(tl.maximum(dx, -LIMIT), LIMIT))
    y = (p // width).to(tl.float32) - round_even(tl.minimum(tl.maximum(dy, -LIMIT), LIMIT))
    parent, inside = pixel_number(x, y, height, width)
    inside = inside & (dx == dx) & (dy == dy) & gap
    if CARRY:  # noqa: SIM102 - a compile-time choice around a run-time one
        if tl.max(inside.to(tl.int32)) > 0:
            parent = _nearest_neighbour(p, inside, position, first, parent, height, width, pixels)
    fresh = tl.sum((gap & ~inside).to(tl.int64))
    if fresh > 0:
        tl.atomic_add(total, fresh * 16777216)  # a fresh pixel weighs 1, that is TOTAL_SCALE
    tl.store(head + p, -3 - parent, inside)
    # Large families that fill a block would queue for one address: only their size is kept, their lists are never
    # walked.
    left = inside
    members = LARGE + 1
    while members > LARGE:
        lowest = tl.min(tl.where(left, parent, NOBODY))
        same = left & (parent == lowest)
        members = tl.sum(same.to(tl.int32))
        if members > LARGE:
            tl.atomic_add(copies + lowest, members)
            left = left & ~same
    if tl.max(left.to(tl.int32)) > 0:
        tl.atomic_add(copies + parent, 1, mask=left)
        tl.store(sibling + p, tl.atomic_xchg(children + parent, p, mask=left), left)


@triton.jit
def find_split_sources(
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
