"""LoRA files of the demonstration models, in the layout that ComfyUI's LoRA loaders read for any model.

Of a layer ``L`` such a file holds ``PREFIX L.lora_A.weight`` (down, [rank, inputs]) and ``PREFIX L.lora_B.weight`` (up,
[outputs, rank]) in float16; at strength 1 their product is added to the layer's weight. The prefix says of which model
the layer is: "diffusion_model." of a MODEL's network, "text_encoders.clip_l.transformer." of a CLIP's text encoder.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

NETWORK = "diffusion_model."
TEXT_ENCODER = "text_encoders.clip_l.transformer."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def initial_factors(
    weights: Mapping[str, Tensor], layers: Sequence[str], prefix: str, rank: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Factors that change nothing yet: random down, zero up.

    Args:
        weights: the model's, of which only the shapes count.
        layers: names in it without ".weight".
        prefix: NETWORK or TEXT_ENCODER.
        rank: of the factors.
        generator: draws the down factors.

    Returns:
        float32 on the CPU, under the names that the file has.
    """
    state = {}
    for layer in layers:
        shape = weights[f"{layer}.weight"].shape
        down = torch.randn(rank, *shape[1:], generator=generator)
        state[prefix + layer + _DOWN] = down * shape[1:].numel() ** -0.5
        state[prefix + layer + _UP] = torch.zeros(shape[0], rank, *[1] * (len(shape) - 2))
    return state


def apply_factors(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A model's tuned weights, as the host computes them at strength 1; gradients reach ``state``.

    Args:
        state: what the file holds; factors of other prefixes are left out.
        weights: the model's, on the same device.
        prefix: NETWORK or TEXT_ENCODER.

    Returns:
        Only the weights that change.
    """
    groups = defaultdict(list)  # layers of one shape are multiplied together: small kernels are slow
    for name in state:
        if name.endswith(_UP) and name.startswith(prefix):
            layer = name.removesuffix(_UP)
            weight = weights[f"{layer.removeprefix(prefix)}.weight"]
            groups[weight.shape, weight.dtype].append(layer)
    merged = {}
    for (shape, dtype), layers in groups.items():
        up, down = (torch.stack([state[layer + end].flatten(1) for layer in layers]) for end in (_UP, _DOWN))
        names = [f"{layer.removeprefix(prefix)}.weight" for layer in layers]
        changes = (up @ down).view(-1, *shape).to(dtype)
        merged |= zip(names, torch.stack([weights[name] for name in names]) + changes, strict=True)
    return merged


def rank_of(state: Mapping[str, Tensor]) -> int | None:
    """The rank that all factors of a file have; None where they differ."""
    ranks = {value.shape[0] for name, value in state.items() if name.endswith(_DOWN)}
    return ranks.pop() if len(ranks) == 1 else None


def lora_path(folder: Path, kind: str, file_name: str) -> Path:
    """Where a LoRA lies: shipped apart from the models, for the host's LoRA loaders to list it alone.

    A freshly trained one beside the other files, under its kind's name, goes first.

    Args:
        folder: of the models.
        kind: of the file.
        file_name: under which it is shipped.
    """
    path = folder / f"{kind}.safetensors"
    return path if path.is_file() else folder / "loras" / file_name
