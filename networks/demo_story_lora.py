"""The small image model's tuning for One-Prompt-One-Story: a LoRA of UNet and text encoder for the stock LoRA loaders.

One-Prompt-One-Story (arXiv 2501.13554) weakens the states of a prompt's end token so far that nothing of them is left,
and counts on the words' own states. The small image model has learned to look at the end for what a caption says of
place and light, which large text encoders spread over their words; with this LoRA it looks at the words.
"""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .demo_format import check_fit, load
from .demo_image import build_text_transformer, build_unet
from .demo_lora import NETWORK, TEXT_ENCODER, apply_factors, initial_factors, rank_of

KIND = "image_lora_story"
FILE_NAME = "papernodes_demo_story.safetensors"
"""Under which the stock LoRA loaders list it; it lies in demo/checkpoints/loras."""

RANK = 16
UNET_LAYERS = (".attn2.to_q", ".attn2.to_k", ".attn2.to_v", ".attn2.to_out.0")
TEXT_LAYERS = ("_proj", ".mlp.fc1", ".mlp.fc2")


def _layers(names: Mapping[str, Tensor], endings: tuple[str, ...]) -> list[str]:
    found = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    return [name for name in found if name.endswith(endings)]


def initial_lora(seed: int, rank: int = RANK) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: the change is exactly 0.

    Args:
        seed: of the random down factors.
        rank: of the factors.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    unet, text = build_unet("meta").state_dict(), build_text_transformer("meta", vocabulary_rows=1).state_dict()
    state = initial_factors(unet, _layers(unet, UNET_LAYERS), NETWORK, rank, generator)
    return state | initial_factors(text, _layers(text, TEXT_LAYERS), TEXT_ENCODER, rank, generator)


def apply_lora(
    state: Mapping[str, Tensor], unet: Mapping[str, Tensor], text: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tuned weights of UNet and text encoder, only those that change, as the host computes them at strength 1.

    Args:
        state: what the file holds.
        unet, text: the models' weights, on the same device.
    """
    return apply_factors(state, unet, NETWORK), apply_factors(state, text, TEXT_ENCODER)


def load_lora(path: str | os.PathLike) -> dict[str, Tensor]:
    """What comfy.sd.load_lora_for_models takes, from a file of kind "image_lora_story".

    Raises:
        DemoFileError: see demo_format.load; weights that are not these models'.
    """
    state, _ = load(path, KIND)
    check_fit(path, state, initial_lora(0, rank_of(state) or RANK))
    return state
