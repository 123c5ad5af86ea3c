"""Motion LoRAs: changes of low rank to the layers of motion modules, whatever names a file has for them.

Guo et al., AnimateDiff, ICLR 2024 (section 4.3, MotionLoRA); Hu et al., LoRA, ICLR 2022: a layer's weight becomes
``W + strength * alpha / rank * up @ down``. Names differ by the program that trained a file. All are read here, and the
host's own adapters do the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import comfy.lora
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from .checkpoints import some
from .motion import MotionNetwork, diffusers_name

FILES = (
    "warpednoise_motionlora_animatediffv3_00012000.safetensors of "
    "huggingface.co/spacepxl/animatediffv3_warpednoise_motionlora with v3_sd15_mm.ckpt, or v2_lora_ZoomIn.ckpt and its "
    "like of huggingface.co/guoyww/animatediff with mm_sd_v15_v2.ckpt"
)
"""What a message sends the person to."""

# Where a layer's name begins, after a prefix of any program: module., unet., diffusion_model., lora_unet_ and others.
_BLOCK = re.compile(r"(?:(?:down|up)_blocks[._]\d+|mid_block)[._]motion_modules[._]")
# Where a layer's name ends.
_LAYER = re.compile(r"(.+?)(?:_lora\.|\.lora|\.alpha$|\.dora_scale$)")


class MotionLoraError(Exception):
    """A file is no motion LoRA, or one of other motion modules; the message is for the person at the graph."""


def read_motion_lora(name: str, state: Mapping[str, Tensor], network: MotionNetwork) -> dict[str, LoRAAdapter]:
    """What a motion LoRA changes in motion modules.

    Args:
        name: the file's, for messages.
        state: what it holds: names of AnimateDiff, with or without ``processor.``, of diffusers' motion adapters, or
            either with underscores as kohya's programs write them; with any prefix.
        network: the modules that are to be changed; they stay as they are.

    Returns:
        Weights of the network, by name -> the host's adapters, for ModelPatcher.add_patches.

    Raises:
        MotionLoraError: another kind of file, layers that the modules do not have, shapes that are not theirs.
    """
    names, weights = _file_names(network), network.state_dict()
    lora, other = {}, []
    for key, value in state.items():
        begin = _BLOCK.search(key)
        if begin is None:
            other.append(key)
        else:
            lora[key[begin.start() :].replace(".processor.", ".").replace("_processor_", "_")] = value
    _check_kind(name, state, lora, other, names)
    try:
        found = comfy.lora.load_lora(lora, names, log_missing=False)
    except KeyError as error:
        raise MotionLoraError(f"{name} is incomplete: it lacks {error.args[0]}. Get it again.") from None
    unlike = [key for key, adapter in found.items() if not isinstance(adapter, LoRAAdapter)]
    if unlike:
        raise MotionLoraError(f"{name} changes {some(unlike)} in another way than a LoRA does. Use {FILES}.")
    read = set().union(*(adapter.loaded_keys for adapter in found.values()))
    left = [key for key in lora if key not in read]
    unknown = [key for key in left if (layer := _LAYER.match(key)) is None or layer[1] not in names]
    if unknown:
        raise MotionLoraError(
            f"{name} was made for other motion modules: these have nothing that fits {some(unknown)}. Use {FILES}."
        )
    if left:
        raise MotionLoraError(f"{name} is incomplete: {some(left)} stands alone. Get it again.")
    for key, adapter in found.items():
        up, down = (tuple(matrix.shape) for matrix in adapter.weights[:2])
        wanted = tuple(weights[key].shape)
        if len(up) != 2 or len(down) != 2 or up[1] != down[0] or (up[0], down[1]) != wanted:
            raise MotionLoraError(
                f"{name} does not fit these motion modules: for {key}, of shape {list(wanted)}, it has matrices "
                f"{list(up)} and {list(down)}; expected [{wanted[0]}, rank] and [rank, {wanted[1]}]. Use {FILES}."
            )
    return found


def _file_names(network: MotionNetwork) -> dict[str, str]:
    """All that a file may call a layer, from its block on -> the layer's weight in the network."""
    names = {}
    for key, weight in network.state_dict().items():
        if weight.ndim != 2 or not key.endswith(".weight"):
            continue
        layer = key.removesuffix(".weight")
        for dotted in (layer, diffusers_name(layer)):
            # AnimateDiff's first attention processors had one layer at the end, without a number.
            for one in (dotted, dotted.removesuffix(".0")):
                names[one] = names[one.replace(".", "_")] = key
    return names


def _check_kind(
    name: str, state: Mapping[str, Tensor], lora: Mapping[str, Tensor], other: list[str], names: Mapping[str, str]
) -> None:
    """Raises MotionLoraError for files that hold something else."""
    if not lora and any("lora" in key.lower() for key in state):
        raise MotionLoraError(
            f"{name} is a LoRA of another part, such as the UNet ({some(state)}), and no motion LoRA. Put it into "
            f"models/loras and use the stock Load LoRA for it. Here use {FILES}."
        )
    if not lora:
        came = f"it holds {some(state)}" if state else "it holds nothing"
        raise MotionLoraError(f"{name} is no motion LoRA: {came}. Use {FILES}.")
    if any(key.removesuffix(".weight") in names for key in lora):
        raise MotionLoraError(
            f"{name} holds motion modules themselves and no LoRA of them: put it into models/animatediff_models and "
            f"choose it in Motion Modules. Here use {FILES}."
        )
    if other:
        raise MotionLoraError(f"{name} holds more than a motion LoRA: {some(other)}. Use {FILES}.")
    if len(lora) + len(other) < len(state):
        raise MotionLoraError(f"{name} changes the same layers twice, under two prefixes. Use {FILES}.")
