"""The Triton fast path of ``regional_attention``: flash attention (Dao, 2023) over the blocks that meet.

One launch copies keys and values in the order of their regions, filled up to whole blocks, so that blocks are read
without gathering or bounds. A second one attends: a program owns a block of queries of one head, which it gathers where
they lie, goes through the key blocks of its list, first those in which every pair meets, which need no mask, then the
others, and writes its rows back where they belong. Blocks with much to do come first.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .regional_attention import BlockLists, has_large_shared_memory

COPIED = 64
"""Tokens that a program copies."""


def attend(q: Tensor, k: Tensor, v: Tensor, lists: BlockLists, scale: float, **choices) -> Tensor:
    """See ``regional_attention.regional_attention``.

    Args:
        q: [B, heads, Lq, D], D up to 128, on a CUDA device (or, under Triton's interpreter, on any).
        k, v: [B, heads, Lk, D].
        lists: of these tokens, with 1 row or B.
        scale: of the logits, above 0.
        choices: for measurements: block_queries (a part of the lists'), num_warps, num_stages.
    """
    batch, heads, queries, width = q.shape
    channels = max(16, triton.next_power_of_2(width))
    choices = _choices(q.dtype, lists, q.device) | choices
    block_queries = choices.pop("block_queries")
    tma = choices.pop("tma")
    shared = lists.full.shape[0] == 1
    result = torch.empty_like(q)
    places = lists.key_order.shape[1]
    with _on(q.device):
        keys, values = q.new_empty(2, batch * heads, places, channels)
        step = min(COPIED, lists.block_keys)
        _copy[(places // step, batch * heads)](
            k, v, keys, values, lists.key_order, k.shape[2], places, heads, width, shared, *k.stride(), *v.stride(),
            channels=channels, block=step, num_warps=4,
        )  # fmt: skip
        parts = lists.block_queries // block_queries
        if tma:
            from triton.tools.tensor_descriptor import TensorDescriptor

            box = [lists.block_keys, channels]
            keys, values = (TensorDescriptor.from_tensor(kept.view(-1, channels), box) for kept in (keys, values))
        _attend[(lists.queue.shape[1] * parts, batch * heads)](
            q, keys, values, result, lists.query_order, lists.query_regions, lists.key_regions, lists.queue, lists.full,
            lists.visited, lists.blocks, scale * math.log2(math.e), queries, places, lists.queue.shape[1],
            lists.blocks.shape[2], heads, width, shared, *q.stride(), *result.stride(), parts=parts, channels=channels,
            block_queries=block_queries, block_keys=lists.block_keys, tma=tma, **choices,
        )  # fmt: skip
    return result


def _choices(dtype: torch.dtype, lists: BlockLists, device: torch.device) -> dict:
    """What was fastest on an H200. float32 needs smaller blocks to fit; the copy engine is Hopper's."""
    large = has_large_shared_memory(device)
    if dtype == torch.float32:
        rows, warps = (64, 4) if large else (32, 8)
        return {"block_queries": min(lists.block_queries, rows), "num_warps": warps, "num_stages": 1, "tma": large}
    return {"block_queries": lists.block_queries, "num_warps": 8, "num_stages": 3 if large else 2, "tma": large}


def _on(device: torch.device):
    """Triton launches on the current CUDA device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@triton.jit
def _copy(
    k, v, keys, values, order, tokens, places, heads, width, shared,
    k_batch, k_head, k_token, k_channel, v_batch, v_head, v_token, v_channel,
    channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Keys and values in order; 0 where there is no token or channel."""
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // heads, row % heads
    place, channel = tl.program_id(0) * block + tl.arange(0, block), tl.arange(0, channels)[None, :]
    plan = tl.where(shared, 0, batch)
    token = tl.load(order + plan * places + place)[:, None].to(tl.int64)
    there = (token < tokens) & (channel < width)
    target = row * places * channels + place[:, None] * channels + channel
    key = tl.load(k + batch * k_batch + head * k_head + token * k_token + channel * k_channel, there, 0.0)
    value = tl.load(v + batch * v_batch + head * v_head + token * v_token + channel * v_channel, there, 0.0)
    tl.store(keys + target, key)
    tl.store(values + target, value)


@triton.jit
def _block_of(kept, start, base_row, inside, channels: tl.constexpr, tma: tl.constexpr):
    """A block of keys or values, by the copy engine or by pointers."""
    return kept.load([base_row + start, 0]) if tma else tl.load(kept + start.to(tl.int64) * channels + inside)


@triton.jit
def _visit(
    tile, keys, values, base_row, list_of_blocks, first, last, tile_regions, key_regions, scale, largest, total, sums,
    masked: tl.constexpr, channels: tl.constexpr, block_keys: tl.constexpr, tma: tl.constexpr,
):  # fmt: skip
    """Goes through key blocks; largest logit, sum of the softmax and sum of values, float32, are carried on."""
    column, channel = tl.arange(0, block_keys), tl.arange(0, channels)
    inside = column[:, None] * channels + channel[None, :]
    # One ahead, so that a block's number is there when its keys are asked for.
    following = tl.load(list_of_blocks + first, first < last, 0)
    for index in range(first, last):
        start = following * block_keys
        following = tl.load(list_of_blocks + index + 1, index + 1 < last, 0)
        key = _block_of(keys, start, base_row, inside, channels, tma)
        logits = tl.dot(tile, tl.trans(key), input_precision="tf32x3")
        if masked:
            meets = (tile_regions[:, None] & tl.load(key_regions + start + column)[None, :]) != 0
            logits = tl.where(meets, logits, -float("inf"))
        grown = tl.maximum(largest, tl.max(logits, 1) * scale)
        # A query may have met nobody yet.
        base = tl.where(grown == -float("inf"), 0.0, grown) if masked else grown
        weights = tl.math.exp2(logits * scale - base[:, None])
        shrink = tl.math.exp2(largest - base)
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None]
        value = _block_of(values, start, base_row, inside, channels, tma)
        sums = tl.dot(weights.to(value.dtype), value, sums, input_precision="tf32x3")
        largest = grown
    return largest, total, sums


@triton.jit
def _attend(
    q, keys, values, result, query_order, query_regions, key_regions, queue, full, visited, blocks,
    scale, queries, places, query_blocks, key_blocks, heads, width, shared,
    q_batch, q_head, q_token, q_channel, to_batch, to_head, to_token, to_channel,
    parts: tl.constexpr, channels: tl.constexpr, block_queries: tl.constexpr, block_keys: tl.constexpr,
    tma: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // heads, row % heads
    plan = tl.where(shared, 0, batch)
    turn, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    block = plan * query_blocks + tl.load(queue + plan * query_blocks + turn)
    place = (block * parts + part) * block_queries + tl.arange(0, block_queries)
    token = tl.load(query_order + place)[:, None].to(tl.int64)
    channel = tl.arange(0, channels)[None, :]
    there = (token < queries) & (channel < width)
    tile = tl.load(q + batch * q_batch + head * q_head + token * q_token + channel * q_channel, there, 0.0)
    regions = tl.load(query_regions + place)
    largest = tl.full([block_queries], -float("inf"), tl.float32)
    total = tl.zeros([block_queries], tl.float32)
    sums = tl.zeros([block_queries, channels], tl.float32)
    base_row = (row * places).to(tl.int32)
    if not tma:
        keys, values = keys + row * places * channels, values + row * places * channels
    key_regions += plan * places
    blocks += block * key_blocks
    whole, last = tl.load(full + block), tl.load(visited + block)
    largest, total, sums = _visit(
        tile, keys, values, base_row, blocks, 0, whole, regions, key_regions, scale, largest, total, sums,
        False, channels, block_keys, tma,
    )  # fmt: skip
    largest, total, sums = _visit(
        tile, keys, values, base_row, blocks, whole, last, regions, key_regions, scale, largest, total, sums,
        True, channels, block_keys, tma,
    )  # fmt: skip
    sums = sums / tl.where(total == 0.0, 1.0, total)[:, None]
    target = result + batch * to_batch + head * to_head + token * to_token + channel * to_channel
    tl.store(target, sums.to(result.dtype.element_ty), there)
