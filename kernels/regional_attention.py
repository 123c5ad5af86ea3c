"""Attention in which a query meets only the keys that it shares a region with.

    out_i = sum_j softmax_j(scale q_i . k_j) v_j  over the j with regions(q_i) & regions(k_j) != 0

Regions are bits of an int64, of queries and of keys. This is the masked cross attention of BlobGEN (Nie et al., 2024)
and the masked attention over all frames of BlobGEN-Vid (Feng et al., 2025): one softmax over all keys that a query may
see. A query that may see none gets exactly 0.

This module is the public door. The eager reference is PyTorch's attention with a mask, a part of the queries at a
time, right on any device; ``regional_attention_triton`` is the fast path on CUDA, which sorts tokens by their regions
and visits only blocks in which some pair meets. Its lists are made once by ``plan_regions`` for any number of calls,
without waiting for the GPU. ``backend`` forces one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .noise_warp import Backend, choose_backend

MOST_REGIONS = 62
WIDEST_HEAD = 128
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LARGEST_MASK = 2**26
"""Pairs of a query and a key that the eager path's mask holds at a time."""


@dataclass(frozen=True, eq=False)
class BlockLists:
    """Which blocks of keys each block of queries visits; the tokens in the order of their regions.

    B is 1 or the batch; tokens are filled up to whole blocks.
    """

    block_queries: int
    block_keys: int
    query_order: Tensor
    """int32 [B, whole blocks of queries]: which token stands there; Lq = none."""

    key_order: Tensor
    """int32 [B, whole blocks of keys]: which token stands there; Lk = none."""

    query_regions: Tensor
    """int64, of those tokens; none has 0."""

    key_regions: Tensor
    """int64, of those tokens; none has 0."""

    queue: Tensor
    """int32 [B, query blocks]: their numbers, those with the most to do first."""

    full: Tensor
    """int32 [B, query blocks]: how many key blocks are visited in which every pair meets; they come first in blocks."""

    visited: Tensor
    """int32 [B, query blocks]: how many key blocks are visited."""

    blocks: Tensor
    """int32 [B, query blocks, key blocks]: their numbers."""

    def share(self) -> float:
        """Which part of all pairs of blocks is visited. Waits for the GPU."""
        return float(self.visited.sum()) / self.blocks.numel()


@dataclass(frozen=True, eq=False)
class RegionPlan:
    """What ``plan_regions`` makes of queries' and keys' regions, for as many calls as have these."""

    query_regions: Tensor
    """int64 [1 or B, Lq]."""

    key_regions: Tensor
    """int64 [1 or B, Lk]."""

    lists: BlockLists | None
    """For the fast path; None = the eager path."""


def plan_regions(
    query_regions: Tensor,
    key_regions: Tensor,
    *,
    block_queries: int | None = None,
    block_keys: int | None = None,
    ordered: bool = True,
    backend: Backend = "auto",
) -> RegionPlan:
    """Make the lists that the fast path goes by; never waits for the GPU.

    Args:
        query_regions: int64 [1 or B, Lq]: the set of regions of each query, region r as 1 << r, r up to 61.
        key_regions: int64 [1 or B, Lk], on the same device.
        block_queries, block_keys: tokens in a block, powers of two from 16; None = what suits the device.
        ordered: whether tokens are sorted by their regions first, so that most blocks are of one kind.
        backend: "auto", "eager" or "triton".

    Raises:
        ValueError: another shape, dtype or backend; different devices.
    """
    for name, regions in (("query_regions", query_regions), ("key_regions", key_regions)):
        if regions.dtype != torch.int64 or regions.ndim != 2:
            raise ValueError(
                f"{name}: got {regions.dtype} of shape {list(regions.shape)}; expected int64 [1 or B, tokens]."
            )
    rows = {regions.shape[0] for regions in (query_regions, key_regions)} - {1}
    if len(rows) > 1:
        raise ValueError(
            f"key_regions: got {key_regions.shape[0]} rows for {query_regions.shape[0]} of query_regions; expected as "
            "many, or 1."
        )
    if query_regions.device != key_regions.device:
        raise ValueError(f"key_regions: are on {key_regions.device}, query_regions on {query_regions.device}.")
    lists = None
    if choose_backend(backend, query_regions.device) == "triton" and query_regions.numel() and key_regions.numel():
        sizes = _block_sizes(query_regions.device)
        sizes = (block_queries or sizes[0], block_keys or sizes[1])
        if min(sizes) < 16 or any(size & (size - 1) for size in sizes):
            raise ValueError(f"block_queries, block_keys: got {sizes}; expected powers of two from 16.")
        lists = _block_lists(*_alike(query_regions, key_regions), *sizes, ordered)
    return RegionPlan(query_regions, key_regions, lists)


def _alike(query_regions: Tensor, key_regions: Tensor) -> tuple[Tensor, Tensor]:
    """Both with as many rows."""
    rows = max(query_regions.shape[0], key_regions.shape[0])
    return query_regions.expand(rows, -1), key_regions.expand(rows, -1)


def has_large_shared_memory(device: torch.device) -> bool:
    """Whether it is a Hopper or a Blackwell of a data centre, whose blocks hold 227 kB."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in (9, 10)


def _block_sizes(device: torch.device) -> tuple[int, int]:
    """Queries and keys in a block."""
    return (128, 128) if has_large_shared_memory(device) else (128, 64)


def _block_lists(
    query_regions: Tensor, key_regions: Tensor, block_queries: int, block_keys: int, ordered: bool
) -> BlockLists:
    query_order, queries = _in_order(query_regions, block_queries, ordered)
    key_order, keys = _in_order(key_regions, block_keys, ordered)
    query_any, query_all = _of_blocks(queries, block_queries)
    key_any, key_all = _of_blocks(keys, block_keys)
    # 2 = every pair meets, 1 = some pair does. A region that all of them share is enough for the former; where blocks
    # are of one kind nothing is missed.
    meets = (query_any[:, :, None] & key_any[:, None, :]) != 0
    wholly = (query_all[:, :, None] & key_all[:, None, :]) != 0
    kinds = meets.to(torch.int8) + wholly.to(torch.int8)
    visited, full = meets.sum(-1, dtype=torch.int32), wholly.sum(-1, dtype=torch.int32)
    blocks = kinds.sort(dim=-1, descending=True, stable=True).indices.int()
    queue = visited.sort(dim=-1, descending=True, stable=True).indices.int()
    return BlockLists(block_queries, block_keys, query_order, key_order, queries, keys, queue, full, visited, blocks)


def _in_order(regions: Tensor, block: int, ordered: bool) -> tuple[Tensor, Tensor]:
    """Tokens' numbers, int32, and their regions, in order and filled up to whole blocks."""
    length = regions.shape[1]
    if ordered:
        regions, order = regions.sort(dim=-1, stable=True)
    else:
        order = torch.arange(length, device=regions.device).expand_as(regions)
    missing = -length % block
    order = functional.pad(order.int(), (0, missing), value=length)
    return order.contiguous(), functional.pad(regions, (0, missing)).contiguous()


def _of_blocks(regions: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """int64 [B, blocks]: the regions that any token of a block has, and those that all of them have."""
    some = every = regions.unflatten(-1, (-1, block))
    while some.shape[-1] > 1:  # there is no reduction by bits
        half = some.shape[-1] // 2
        some = some[..., :half] | some[..., half:]
        every = every[..., :half] & every[..., half:]
    return some[..., 0], every[..., 0]


def regional_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_regions: Tensor | RegionPlan,
    key_regions: Tensor | None = None,
    *,
    scale: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """See the top of this module.

    Args:
        q: floating [B, heads, Lq, D].
        k, v: of the same dtype, [B, heads, Lk, D].
        query_regions: int64 [1 or B, Lq], see plan_regions; or a plan.
        key_regions: int64 [1 or B, Lk]; None with a plan.
        scale: of the logits, above 0; None = 1 / sqrt(D).
        backend: "auto", "eager" or "triton". The fast path takes heads of up to 128 channels in float16, bfloat16 and
            float32, and no gradients.

    Returns:
        [B, heads, Lq, D]; by the fast path in the memory order of ``q``.

    Raises:
        ValueError: shapes or devices that do not go together, a scale of 0 or less, an unknown backend, "triton" for
            what it does not take.
    """
    if isinstance(query_regions, RegionPlan):
        plan = query_regions
    else:
        if key_regions is None:
            raise ValueError("key_regions: got None; expected int64 [1 or B, Lk], or a plan in place of query_regions.")
        plan = plan_regions(query_regions, key_regions, backend="eager")
    _check(q, k, v, plan)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale: got {scale}; expected more than 0.")
    if not _takes_fast_path(q, k, v, backend):
        return _eager(q, k, v, plan, scale)
    from .regional_attention_triton import attend

    if plan.lists is None:
        plan = plan_regions(plan.query_regions, plan.key_regions, backend="triton")
    if plan.lists is None:  # nobody to look at, or nobody who looks
        return torch.zeros_like(q)
    return attend(q, k, v, plan.lists, scale)


def _check(q: Tensor, k: Tensor, v: Tensor, plan: RegionPlan) -> None:
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4 or (*k.shape[:2], k.shape[3]) != (*q.shape[:2], q.shape[3]):
        raise ValueError(
            f"q, k, v: got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}; expected [B, heads, Lq, D] and twice "
            "[B, heads, Lk, D]."
        )
    if len({q.dtype, k.dtype, v.dtype}) > 1 or not q.dtype.is_floating_point:
        raise ValueError(f"q, k, v: got {q.dtype}, {k.dtype} and {v.dtype}; expected one floating point dtype.")
    for name, regions, tokens in (("query_regions", plan.query_regions, q), ("key_regions", plan.key_regions, k)):
        rows, length = regions.shape
        if rows not in (1, q.shape[0]) or length != tokens.shape[2]:
            raise ValueError(
                f"{name}: got shape {[rows, length]}; expected [1 or {q.shape[0]}, {tokens.shape[2]}], a set for each "
                "token."
            )
        if regions.device != q.device:
            raise ValueError(f"{name}: are on {regions.device}, q on {q.device}.")


def _takes_fast_path(q: Tensor, k: Tensor, v: Tensor, backend: Backend) -> bool:
    chosen = choose_backend(backend, q.device)
    old = q.device.type == "cuda" and torch.cuda.get_device_capability(q.device)[0] < 8
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
    serves = q.shape[-1] <= WIDEST_HEAD and q.dtype in DTYPES and not learns
    if backend == "triton" and not serves:
        raise ValueError(
            f"backend 'triton' takes heads of at most {WIDEST_HEAD} channels in float16, bfloat16 or float32 without "
            f"gradients; got {q.shape[-1]} channels in {q.dtype}; use 'eager' or 'auto'."
        )
    return chosen == "triton" and serves and q.numel() > 0 and (backend == "triton" or not old)


def _eager(q: Tensor, k: Tensor, v: Tensor, plan: RegionPlan, scale: float) -> Tensor:
    keys = plan.key_regions[:, None, None, :]
    rows = max(plan.query_regions.shape[0], keys.shape[0])
    part = max(1, LARGEST_MASK // max(1, rows * keys.shape[-1]))
    found = []
    for some, regions in zip(q.split(part, 2), plan.query_regions.split(part, 1), strict=True):
        allowed = (regions[:, None, :, None] & keys) != 0
        blind = ~allowed.any(-1, keepdim=True)
        # Without a key the softmax would be 0 / 0.
        seen = functional.scaled_dot_product_attention(some, k, v, attn_mask=allowed | blind, scale=scale)
        found.append(seen.masked_fill(blind, 0))
    return torch.cat(found, 2) if len(found) > 1 else found[0]
