"""The Triton fast path of the ``particle`` algorithm (Deng et al., ICLR 2025): see ``noise_warp_eager`` for the
reference.

Every new pixel sends up to four requests, one to each bilinear neighbour of the place it came from. A source walks
the list of its requests twice (how much is asked; the sum of the random parts) and keeps what all increments have in
common; the new pixels then add their own random part. Lists are unordered, so shares and random parts are summed as
integers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .noise_warp_random import BRIDGE, START, standard_normal
from .noise_warp_triton_lists import ENDED
from .noise_warp_triton_split import RANDOM_SCALE, round_any

_BRIDGE, _FRESH = tl.constexpr(BRIDGE), tl.constexpr(START)
SHARE_SCALE = tl.constexpr(float(2**20))


@triton.jit
def _request(back, p, corner, height, width, pixels, valid):
    """Request ``corner`` (0..3) of new pixels ``p``: (source pixel, share in 2**-20; 0: nothing is asked)."""
    x = (p % width).to(tl.float32) + tl.load(back + p, valid, 0.0)
    y = (p // width).to(tl.float32) + tl.load(back + pixels + p, valid, 0.0)
    real = valid & (x == x) & (y == y)
    x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
    y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
    left, top = tl.floor(x), tl.floor(y)
    right, below = (corner % 2).to(tl.float32), (corner // 2).to(tl.float32)
    share_x = tl.where(right > 0, x - left, 1.0 - (x - left))
    share_y = tl.where(below > 0, y - top, 1.0 - (y - top))
    column, row = left + right, top + below
    inside = real & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    share = tl.where(inside, round_any(share_x * share_y * SHARE_SCALE), 0.0).to(tl.int32)
    source = tl.where(inside, row, 0).to(tl.int32) * width + tl.where(inside, column, 0).to(tl.int32)
    return source, share


@triton.jit
def _link_requests(back, head, following, height, width, pixels, BLOCK: tl.constexpr):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < pixels
    for corner in tl.static_range(4):
        source, share = _request(back, p, p * 0 + corner, height, width, pixels, valid)
        request = p * 4 + corner
        tl.store(following + request, tl.atomic_xchg(head + source, request, mask=share > 0), share > 0)


@triton.jit
def _bridge(
    back,
    values,
    head,
    following,
    demand,
    height,
    width,
    pixels,
    channels,
    seed,
    frame,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """In place: x becomes x - sum_k sqrt(f_k) z_k over the requests k. ``demand``: shares asked, 0 for one request."""
    s = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = s < pixels
    column = tl.arange(0, C)
    first = tl.load(head + s, valid, ENDED)
    asked = tl.zeros([BLOCK], tl.int64)
    count = tl.zeros([BLOCK], tl.int32)
    request = first
    while tl.max(request) >= 0:
        live = request >= 0
        at = tl.where(live, request, 0)
        _source, share = _request(back, at // 4, at % 4, height, width, pixels, live)
        asked += share.to(tl.int64)
        count += live.to(tl.int32)
        request = tl.load(following + at, live, ENDED)
    whole = asked.to(tl.float32)
    tl.store(demand + s, tl.where(count > 1, whole, 0.0), valid)
    drawn = tl.zeros([BLOCK, C], tl.int64)
    request = tl.where(count > 1, first, ENDED)
    while tl.max(request) >= 0:
        live = request >= 0
        at = tl.where(live, request, 0)
        _source, share = _request(back, at // 4, at % 4, height, width, pixels, live)
        fraction = share.to(tl.float32) / tl.where(live, whole, 1.0)
        z = standard_normal(seed, frame, at // 4, (at % 4 + _BRIDGE)[:, None], C)
        drawn += round_any(tl.sqrt(fraction)[:, None] * z * RANDOM_SCALE).to(tl.int64)
        request = tl.load(following + at, live, ENDED)
    place = values + s.to(tl.int64)[:, None] * channels + column[None, :]
    mask = (valid & (count > 1))[:, None] & (column < channels)[None, :]
    tl.store(place, tl.load(place, mask, 0.0) - drawn.to(tl.float32) / RANDOM_SCALE, mask)


@triton.jit
def _collect(
    back, values, new_values, demand, height, width, pixels, channels, seed, frame, C: tl.constexpr, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = p < pixels
    column = tl.arange(0, C)
    here = (column < channels)[None, :]
    total = tl.zeros([BLOCK, C], tl.float32)
    norm = tl.zeros([BLOCK], tl.float32)
    for corner in tl.static_range(4):
        source, share = _request(back, p, p * 0 + corner, height, width, pixels, valid)
        live = share > 0
        whole = tl.load(demand + source, live, 0.0)
        bridged = whole > 0
        fraction = tl.where(live, tl.where(bridged, share.to(tl.float32) / tl.where(bridged, whole, 1.0), 1.0), 0.0)
        x = tl.load(values + source.to(tl.int64)[:, None] * channels + column[None, :], live[:, None] & here, 0.0)
        part = fraction[:, None] * x
        if tl.max(bridged.to(tl.int32)) > 0:
            z = standard_normal(seed, frame, p, (p * 0 + corner + _BRIDGE)[:, None], C)
            drawn = round_any(tl.sqrt(fraction)[:, None] * z * RANDOM_SCALE) / RANDOM_SCALE
            part += tl.where(bridged[:, None], drawn, 0.0)
        total += part
        norm += fraction
    fresh = valid & (norm == 0)
    value = total / tl.sqrt(tl.where(fresh, 1.0, norm))[:, None]
    if tl.max(fresh.to(tl.int32)) > 0:
        value = tl.where(fresh[:, None], standard_normal(seed, frame, p, _FRESH, C), value)
    tl.store(new_values + p.to(tl.int64)[:, None] * channels + column[None, :], value, valid[:, None] & here)


def step_particle(state, back: Tensor, size: tuple[int, int] | None) -> Tensor | None:
    """One step of a ``TritonState`` of the particle algorithm; ``back`` is the inverse flow ``[2, height, width]``."""
    pixels, device = state.pixels, state.device
    if state._lists is None:
        state._lists = {
            "head": torch.empty(pixels, dtype=torch.int32, device=device),
            "following": torch.empty(4 * pixels, dtype=torch.int32, device=device),
            "demand": torch.empty(pixels, device=device),
        }
    lists = state._lists
    lists["head"].fill_(-1)
    shape = (state.height, state.width, pixels)
    wide = (triton.cdiv(pixels, state.INDEX_BLOCK),)
    _link_requests[wide](back, lists["head"], lists["following"], *shape, BLOCK=state.INDEX_BLOCK)
    tiles, draw = (triton.cdiv(pixels, state.block),), (state.channels, state.seed, state.frame)
    tile = {"C": state.block_channels, "BLOCK": state.block}
    _bridge[tiles](back, state.values, lists["head"], lists["following"], lists["demand"], *shape, *draw, **tile)
    _collect[tiles](back, state.values, state._new_values, lists["demand"], *shape, *draw, **tile)
    state.values, state._new_values = state._new_values, state.values
    return state.noise(size) if size is not None else None
