"""The small video model's tuning on warped noise: a LoRA in the layout that ComfyUI's LoRA loaders read for Wan."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .demo_format import check_fit, load
from .demo_lora import NETWORK, apply_factors, initial_factors, rank_of
from .demo_video import build_network

KIND = "video_lora_warped_noise"
FILE_NAME = "papernodes_demo_warped_noise.safetensors"
"""Under which the stock LoRA loaders list it, among the user's own; it lies in demo/checkpoints/loras."""

RANK = 32
LAYERS = (".self_attn.q", ".self_attn.k", ".self_attn.v", ".self_attn.o", ".ffn.0", ".ffn.2")
"""What is tuned in every block, beside the first layer: what finds and moves noise that belongs together."""


def tuned_layers() -> list[str]:
    """The names of the layers that the LoRA changes, as the network has them."""
    names = [name.removesuffix(".weight") for name in build_network("meta").state_dict() if name.endswith(".weight")]
    return [name for name in names if name == "patch_embedding" or name.endswith(LAYERS)]


def initial_lora(seed: int, rank: int = RANK) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: the change is exactly 0.

    Args:
        seed: of the random down factors.
        rank: of the factors.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    return initial_factors(build_network("meta").state_dict(), tuned_layers(), NETWORK, rank, generator)


def apply_lora(state: Mapping[str, Tensor], network_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tuned weights, as the host computes them at strength 1; gradients reach ``state``.

    Args:
        state: what the file holds.
        network_state: the network's weights, on the same device.

    Returns:
        Only the weights that change.
    """
    return apply_factors(state, network_state, NETWORK)


def load_lora(path: str | os.PathLike) -> dict[str, Tensor]:
    """What comfy.sd.load_lora_for_models takes, from a file of kind "video_lora_warped_noise".

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    state, _ = load(path, KIND)
    check_fit(path, state, initial_lora(0, rank_of(state) or RANK))
    return state
