"""Attention within regions, as the host's attention is called: by a mask, or by the kernel that visits what is seen.

Regions are bool [B, tokens, regions], of queries and of keys; a query sees the keys that it shares one with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.regional_attention import MOST_REGIONS, RegionPlan, plan_regions, regional_attention
from .rows import repeat_rows


def dense_mask(asks: Tensor, shows: Tensor, device: torch.device) -> Tensor:
    """What is added to logits, float32 [B, 1, queries, keys]: 0 where a key is seen, else -inf."""
    mask = torch.zeros(asks.shape[0], 1, asks.shape[1], shows.shape[1], device=device)
    # As numbers, since there is no product of truth values; a count, exact in float32.
    return mask.masked_fill_((asks.float() @ shows.float().mT == 0)[:, None], -math.inf)


def plan_of(asks: Tensor, shows: Tensor, rows: int) -> RegionPlan | None:
    """For an attention of ``rows`` rows; None where regions are too many for a set of bits.

    Args:
        asks, shows: bool [B, tokens, regions], of queries and of keys.
    """
    if asks.shape[2] > MOST_REGIONS:
        return None
    bits = torch.arange(asks.shape[2], device=asks.device)
    sets = (repeat_rows((side.long() << bits).sum(-1), rows if len(side) > 1 else 1) for side in (asks, shows))
    return plan_regions(*sets)


def attend_sparse(q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict, plan: RegionPlan) -> Tensor:
    """Attention with the host's arguments and shapes."""
    if not how.get("skip_reshape"):
        q, k, v = (some.unflatten(-1, (heads, -1)).transpose(1, 2) for some in (q, k, v))
    found = regional_attention(q, k, v, plan)
    return found if how.get("skip_output_reshape") else found.transpose(1, 2).flatten(2)


def stacked(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Regions of several rows, bool [rows, tokens, regions]: those of a row with fewer are not used."""
    most = max(asks.shape[1] for asks, _ in parts)
    return tuple(
        torch.stack([functional.pad(pair[side], (0, most - pair[side].shape[1])) for pair in parts]) for side in (0, 1)
    )
