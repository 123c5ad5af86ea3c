"""IC-Light for the small image model: low-rank offsets in the file, the whole UNet's in memory.

The published files are offsets for every weight of a UNet (networks/ic_light.py), as large as the UNet itself. Here a
file holds factors of the offsets that were trained and the first convolution's in full; ``expanded`` makes of them
what a published file holds, and from there on both go through the same door.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .demo_format import check_fit, load
from .demo_image import build_unet
from .demo_lora import NETWORK, apply_factors, initial_factors, rank_of
from .ic_light import FIRST, KINDS, NOISY_CHANNELS

FILE_KINDS = {"ic_light_fc": 8, "ic_light_fbc": 12}
"""Kind of a demonstration file -> channels that its first convolution takes, see ic_light.KINDS."""

RANK = 8
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj", "net.2", "proj_in", "proj_out", "in_layers.2", "out_layers.3",
          "emb_layers.1")  # fmt: skip
"""Ends of the names of the layers that are tuned: attention, feed-forward, convolutions and what the time does."""


def tuned_layers(unet: Mapping[str, Tensor]) -> list[str]:
    """The names of the layers whose offsets have factors, as the UNet has them."""
    names = [
        name.removesuffix(".weight") for name, value in unet.items() if name.endswith(".weight") and value.ndim > 1
    ]
    return [name for name in names if name.endswith(LAYERS)]


def initial_light(channels: int, seed: int, rank: int = RANK) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: the offsets are exactly 0.

    Args:
        channels: that the first convolution takes, one of ic_light.KINDS.
        seed: of the random down factors.
        rank: of the factors.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    if channels not in KINDS:
        raise ValueError(f"channels is {channels}; expected {' or '.join(map(str, KINDS))}.")
    unet = build_unet("meta").state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = initial_factors(unet, tuned_layers(unet), NETWORK, rank, generator)
    first = unet[FIRST].shape
    return state | {FIRST: torch.zeros(first[0], channels, *first[2:])}


def apply_light(state: Mapping[str, Tensor], unet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's tuned weights, only those that change; the first convolution takes more channels than before.

    Args:
        state: what the file holds; gradients reach it.
        unet: the UNet's weights, on the same device.
    """
    merged = apply_factors(state, unet, NETWORK)
    more = state[FIRST].shape[1] - NOISY_CHANNELS
    wide = torch.nn.functional.pad(unet[FIRST], (0, 0, 0, 0, 0, more))
    return merged | {FIRST: wide + state[FIRST].to(wide.dtype)}


def expanded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a published file of this UNet would hold: an offset for every weight, 0 where none was trained.

    Args:
        state: what ``load`` gives of a file.

    Returns:
        ComfyUI's names -> float32 on the CPU.
    """
    zeros = {name: torch.zeros(value.shape) for name, value in build_unet("meta").state_dict().items()}
    return {**zeros, **apply_light(state, zeros)}


def load_light(path: str | os.PathLike, kind: str) -> dict[str, Tensor]:
    """The offsets of a demonstration file, in the published layout.

    Args:
        path: the file.
        kind: one of FILE_KINDS.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this UNet's.
    """
    state, _ = load(path, kind)
    factors = {name: value for name, value in state.items() if name != FIRST}
    check_fit(path, state, initial_light(FILE_KINDS[kind], 0, rank_of(factors) or RANK))
    return expanded(state)
