"""Triton kernels of ``noise_warp_triton`` that move values: the gather, the output's weighted area sums, the first
frame."""

from __future__ import annotations

import triton
import triton.language as tl

from .noise_warp_random import START, standard_normal
from .noise_warp_triton_lists import ENDED, FRESH, READY, TOTAL_SCALE
from .noise_warp_triton_split import RANDOM_SCALE, STREAM_CHILD, round_any

STREAM_FRESH = tl.constexpr(START)
SHORT_LIST = tl.constexpr(14)  # sources of a pixel that 32 bits can sum: 14 * 2**24 * 8 < 2**31 (slack is at most 8)
SHORT_SCALE = tl.constexpr(float(2**24))
LONG_SCALE = tl.constexpr(float(2**27))


@triton.jit
def _sum_sources(
    values, weights, following, position, crowded, rest, value, weight, heaviest, x_off, y_off, p, width, pixels,
    channels, SCALE: tl.constexpr, INTEGER: tl.constexpr, CARRY: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """sum(w x) / sqrt(sum(w^2)), sum(w) and the mean offset over the sources of crowded pixels, summed as integers of
    1 / SCALE of the heaviest source. ``value`` .. ``y_off`` are the first source's."""
    column = tl.arange(0, C)
    scale = SCALE / heaviest
    part = weight * scale
    sum_values = round_any(part[:, None] * value).to(INTEGER)
    sum_weight = round_any(part).to(INTEGER)
    ratio = weight / heaviest
    sum_square = round_any(ratio * ratio * SCALE).to(INTEGER)
    sum_x = round_any(part * x_off).to(INTEGER)
    sum_y = round_any(part * y_off).to(INTEGER)
    other = tl.where(crowded, rest, ENDED)
    while tl.max(other) >= 0:
        live = other >= 0
        one = tl.abs(tl.load(weights + other, live, 0.0))
        part = one * scale
        place = values + other.to(tl.int64)[:, None] * channels + column[None, :]
        x = tl.load(place, live[:, None] & (column < channels)[None, :], 0.0)
        sum_values += round_any(part[:, None] * x).to(INTEGER)
        sum_weight += round_any(part).to(INTEGER)
        ratio = one / heaviest
        sum_square += round_any(ratio * ratio * SCALE).to(INTEGER)
        if CARRY:
            x_off = tl.load(position + other, live, 0.0) - (p % width).to(tl.float32)
            y_off = tl.load(position + pixels + other, live, 0.0) - (p // width).to(tl.float32)
            sum_x += round_any(part * x_off).to(INTEGER)
            sum_y += round_any(part * y_off).to(INTEGER)
        other = tl.load(following + other, live, ENDED)
    length = tl.sqrt(sum_square.to(tl.float32) * SCALE)
    total = sum_weight.to(tl.float32)
    mean_x, mean_y = sum_x.to(tl.float32) / total, sum_y.to(tl.float32) / total
    return sum_values.to(tl.float32) / length[:, None], total / scale, mean_x, mean_y


@triton.jit
def gather(
    values,
    weights,
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
    slack,
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
            x_off = tl.where(arrived | child, tl.minimum(tl.maximum(x_off, -slack), slack), 0.0)
            y_off = tl.where(arrived | child, tl.minimum(tl.maximum(y_off, -slack), slack), 0.0)
        if tl.max(ready.to(tl.int32)) > 0:
            value = tl.where(ready[:, None], tl.load(place, ready[:, None] & here, 0.0), value)
            weight = tl.where(ready, tl.load(new_weights + p, ready, 1.0), weight)
        large = child & (signed < 0)
        fresh = (code == FRESH) & valid
        if tl.max((large | fresh).to(tl.int32)) > 0:
            slot = tl.load(children + source, large, 0).to(tl.int64)
            z = standard_normal(seed, frame, p, tl.where(large, STREAM_CHILD, STREAM_FRESH)[:, None], C)
            z = tl.where(large[:, None], round_any(z * RANDOM_SCALE) / RANDOM_SCALE, z)
            common = tl.load(commons + slot[:, None] * channels + column[None, :], large[:, None] & here, 0.0)
            value = tl.where((large | fresh)[:, None], common + z, value)
        crowded = arrived & (rest >= 0)
        if tl.max(crowded.to(tl.int32)) > 0:
            heaviest = weight
            longest = 1
            other = tl.where(crowded, rest, ENDED)
            while tl.max(other) >= 0:
                live = other >= 0
                heaviest = tl.maximum(heaviest, tl.abs(tl.load(weights + other, live, 0.0)))
                other = tl.load(following + other, live, ENDED)
                longest += 1
            x_off = x_off if CARRY else weight
            y_off = y_off if CARRY else weight
            if longest <= SHORT_LIST:
                new, sum_weight, sum_x, sum_y = _sum_sources(
                    values, weights, following, position, crowded, rest, value, weight, heaviest, x_off, y_off, p,
                    width, pixels, channels, SHORT_SCALE, tl.int32, CARRY, C,
                )  # fmt: skip
            else:
                new, sum_weight, sum_x, sum_y = _sum_sources(
                    values, weights, following, position, crowded, rest, value, weight, heaviest, x_off, y_off, p,
                    width, pixels, channels, LONG_SCALE, tl.int64, CARRY, C,
                )  # fmt: skip
            value = tl.where(crowded[:, None], new, value)
            weight = tl.where(crowded, sum_weight, weight)
            if CARRY:
                x_off = tl.where(crowded, sum_x, x_off)
                y_off = tl.where(crowded, sum_y, y_off)
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
def pool(
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
def fill_normal(values, pixels, channels, seed, C: tl.constexpr, BLOCK: tl.constexpr):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, C)
    place = values + p.to(tl.int64)[:, None] * channels + column[None, :]
    mask = (p < pixels)[:, None] & (column < channels)[None, :]
    tl.store(place, standard_normal(seed, 0, p, STREAM_FRESH, C), mask)
