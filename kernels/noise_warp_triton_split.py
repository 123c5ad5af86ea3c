"""Triton kernels of ``noise_warp_triton`` that split a source into several jointly Gaussian copies."""

from __future__ import annotations

import triton
import triton.language as tl

from .noise_warp_random import SPLIT_CHILD, SPLIT_OWN, standard_normal
from .noise_warp_triton_lists import DROPPED, ENDED, READY

RANDOM_SCALE = tl.constexpr(float(2**20))  # random numbers that are summed are multiples of its inverse
STREAM_CHILD, STREAM_OWN = tl.constexpr(SPLIT_CHILD), tl.constexpr(SPLIT_OWN)


@triton.jit
def rounded_normal(seed, frame, number, stream, C: tl.constexpr):
    """Standard normal rounded to multiples of 2**-20, in those units: exact to sum as integers."""
    return round_any(standard_normal(seed, frame, number, stream, C) * RANDOM_SCALE)


@triton.jit
def round_any(value):
    return tl.floor(value + 0.5)


@triton.jit
def split_sources(
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
    slack,
    width,
    pixels,
    channels,
    seed,
    frame,
    CARRY: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Few copies: x / sqrt(n) + (z_j - mean z), to the children and, in place, to a contracting source."""
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
        own = tl.where(contracts[:, None], rounded_normal(seed, frame, s, STREAM_OWN, C), 0.0)
        drawn = own.to(tl.int32)
        child = first
        while tl.max(child) >= 0:
            z = rounded_normal(seed, frame, child, STREAM_CHILD, C).to(tl.int32)
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
            z = rounded_normal(seed, frame, child, STREAM_CHILD, C) / RANDOM_SCALE
            place = new_values + child.to(tl.int64)[:, None] * channels + column[None, :]
            tl.store(place, common + z, live[:, None] & have[None, :])
            tl.store(new_weights + child, share, live)
            tl.store(head + child, READY, live)
            if CARRY:
                x_off = tl.load(position + s, live, 0.0) - (child % width).to(tl.float32)
                y_off = tl.load(position + pixels + s, live, 0.0) - (child // width).to(tl.float32)
                tl.store(new_offsets + child, tl.minimum(tl.maximum(x_off, -slack), slack), live)
                tl.store(new_offsets + pixels + child, tl.minimum(tl.maximum(y_off, -slack), slack), live)
            child = tl.load(sibling + child, live, ENDED)


@triton.jit
def sum_large_families(
    head, weights, children, counters, sums, pixels, channels, seed, frame, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Sums the random numbers of the children of large families. The first four families, which may be huge, are kept
    in registers until the end: otherwise every block would queue for the same few addresses."""
    if tl.load(counters + 1) > 0:
        column = tl.arange(0, C)
        have = column < channels
        first, second = tl.zeros([BLOCK, C], tl.int32), tl.zeros([BLOCK, C], tl.int32)
        third, fourth = tl.zeros([BLOCK, C], tl.int32), tl.zeros([BLOCK, C], tl.int32)
        stride = tl.num_programs(0) * BLOCK
        p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        code = tl.load(head + p, p < pixels, 0)
        for start in range(tl.program_id(0) * BLOCK, pixels, stride):
            p = start + tl.arange(0, BLOCK)
            ahead = tl.load(head + p + stride, p < pixels - stride, 0)  # in flight while this tile is drawn
            child = (code <= -3) & (code != READY)
            parent = tl.where(child, -3 - code, 0)
            child = child & (tl.load(weights + parent, child, 1.0) < 0)
            if tl.max(child.to(tl.int32)) > 0:
                slot = tl.load(children + parent, child, -1)
                z = rounded_normal(seed, frame, p, STREAM_CHILD, C).to(tl.int32)
                first += tl.where((slot == 0)[:, None], z, 0)
                second += tl.where((slot == 1)[:, None], z, 0)
                third += tl.where((slot == 2)[:, None], z, 0)
                fourth += tl.where((slot == 3)[:, None], z, 0)
                if tl.max(slot) > 3:
                    place = sums + slot.to(tl.int64)[:, None] * channels + column[None, :]
                    tl.atomic_add(place, z.to(tl.int64), mask=(slot > 3)[:, None] & have[None, :])
            code = ahead
        tl.atomic_add(sums + column, tl.sum(first.to(tl.int64), axis=0), mask=have)
        tl.atomic_add(sums + channels + column, tl.sum(second.to(tl.int64), axis=0), mask=have)
        tl.atomic_add(sums + 2 * channels + column, tl.sum(third.to(tl.int64), axis=0), mask=have)
        tl.atomic_add(sums + 3 * channels + column, tl.sum(fourth.to(tl.int64), axis=0), mask=have)


@triton.jit
def split_large_families(
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
        own = tl.where(contracts[:, None], rounded_normal(seed, frame, s, STREAM_OWN, C), 0.0)
        mask = valid[:, None] & have[None, :]
        row = slot.to(tl.int64)[:, None] * channels + column[None, :]
        drawn = (tl.load(sums + row, mask, 0) + own.to(tl.int64)).to(tl.float32) / RANDOM_SCALE
        place = values + s.to(tl.int64)[:, None] * channels + column[None, :]
        common = tl.load(place, mask, 0.0) / tl.sqrt(number)[:, None] - drawn / number[:, None]
        tl.store(commons + row, common, mask)
        tl.store(sums + row, tl.zeros([BLOCK, C], tl.int64), mask)
        tl.store(place, common + own / RANDOM_SCALE, mask & contracts[:, None])
