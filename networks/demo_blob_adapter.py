"""The blob adapter for the small image model: small enough to be stored as it is, in int8."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .blob_adapter import AdapterSizes, BlobAdapter, Block
from .demo_format import check_fit, load
from .demo_image import UNET_CONFIG

KIND = "blob_adapter"
HIDDEN, WIDTH, FEED = 512, 128, 4
"""Of the position net, of a blob's token, and how many times wider than its block a feed-forward layer is."""


def sizes() -> AdapterSizes:
    """An adapter for every transformer block of the image model's UNet."""
    channels = [UNET_CONFIG["model_channels"] * times for times in UNET_CONFIG["channel_mult"]]
    blocks, number = {}, 1
    for level, width in enumerate(channels):
        for deep in range(UNET_CONFIG["num_res_blocks"][level]):
            if UNET_CONFIG["transformer_depth"][2 * level + deep]:
                blocks[Block("input", number, 0)] = width
            number += 1
        number += 1  # what makes the picture smaller
    blocks[Block("middle", 0, 0)] = channels[-1]
    depths, number = list(UNET_CONFIG["transformer_depth_output"]), 0
    for level in reversed(range(len(channels))):
        for _ in range(UNET_CONFIG["num_res_blocks"][level] + 1):
            if depths.pop():
                blocks[Block("output", number, 0)] = channels[level]
            number += 1
    inner = {block: (width, FEED * width) for block, width in blocks.items()}
    return AdapterSizes(UNET_CONFIG["context_dim"], HIDDEN, WIDTH, inner)


def initial(seed: int) -> dict[str, Tensor]:
    """What training starts from, float32 on the CPU: the gates are 0.

    Args:
        seed: of the random weights.
    """
    import comfy.ops

    generator = torch.Generator().manual_seed(seed)
    empty = BlobAdapter(sizes(), dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    state = {}
    for name, value in empty.state_dict().items():
        if value.ndim == 2:
            state[name] = torch.randn(value.shape, generator=generator) * value.shape[1] ** -0.5
        else:
            state[name] = torch.ones(value.shape) if name.endswith("norm.weight") else torch.zeros(value.shape)
    return state


def load_adapter(path: str | os.PathLike) -> dict[str, Tensor]:
    """The adapter of a demonstration file, in the published layout, for read_blob_adapter.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this UNet's.
    """
    state, _ = load(path, KIND)
    check_fit(path, state, initial(0))
    return state
