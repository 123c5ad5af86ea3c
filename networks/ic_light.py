"""IC-Light's files: offsets for the weights of an SD1.5 UNet whose first convolution takes more channels.

lllyasviel, IC-Light (2024). ``iclight_sd15_fc``, ``_fcon``: latents of a foreground beside the noisy ones, 8 channels;
``iclight_sd15_fbc``: foreground and background, 12. A file has one tensor for each of the UNet's, named as diffusers
names them or as ComfyUI does, and is added to whatever SD1.5 UNet there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import comfy.utils
from torch import Tensor

from .checkpoints import difference

NOISY_CHANNELS = 4
KINDS = {8: "foreground", 12: "foreground and background"}
"""Channels that the first convolution takes -> what lies beside the noisy latent, 4 channels each."""

FIRST = "input_blocks.0.0.weight"
"""The first convolution's weight as ComfyUI names it."""

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")


class ICLightFileError(Exception):
    """A file is not what IC-Light's are, or not for this UNet; the message is for the person at the graph."""


@dataclass(frozen=True)
class Offsets:
    """What a file adds to a UNet."""

    weights: dict[str, Tensor]
    """The UNet's own names -> offset; the first convolution's has ``channels`` input channels."""

    channels: int
    """8 or 12, see KINDS."""


def read_offsets(
    name: str, state: Mapping[str, Tensor], unet_weights: Mapping[str, Tensor], unet_config: dict
) -> Offsets:
    """The offsets of a file for a UNet.

    Args:
        name: the file's, for messages.
        state: what it holds.
        unet_weights: the UNet's, of which names and shapes count.
        unet_config: the host's description of it (model_config.unet_config).

    Raises:
        ICLightFileError: another layout, weights that are missing or too many, sizes that are not the UNet's, or a
            first convolution that takes neither 8 nor 12 channels.
    """
    found = _own_names(state, unet_config)
    if FIRST not in found:
        raise ICLightFileError(
            f"{name} is no IC-Light file: it has no first convolution (conv_in.weight or {FIRST}). Use "
            "iclight_sd15_fc, iclight_sd15_fcon or iclight_sd15_fbc of huggingface.co/lllyasviel/ic-light."
        )
    channels = found[FIRST].shape[1] if found[FIRST].ndim == 4 else 0
    if channels not in KINDS:
        raise ICLightFileError(
            f"{name}: its first convolution takes {channels} channels; expected "
            f"{' or '.join(f'{number} ({kind})' for number, kind in KINDS.items())}. "
            f"{'A plain SD1.5 UNet is no IC-Light file. ' if channels == NOISY_CHANNELS else ''}"
            "Use one of iclight_sd15_fc, iclight_sd15_fcon and iclight_sd15_fbc."
        )
    wrong = difference(unet_weights, found)
    if wrong:
        raise ICLightFileError(
            f"{name} does not fit this model's UNet:{wrong} IC-Light's files fit SD1.5 and its fine-tunes."
        )
    for key, offset in found.items():
        expected = list(unet_weights[key].shape)
        if key == FIRST:
            expected[1] = channels
        if list(offset.shape) != expected:
            raise ICLightFileError(
                f"{name} does not fit this model's UNet: {key} has shape {list(offset.shape)}; expected {expected}."
                " IC-Light's files fit SD1.5 and its fine-tunes."
            )
    return Offsets(found, channels)


def _own_names(state: Mapping[str, Tensor], unet_config: dict) -> dict[str, Tensor]:
    """A file's tensors under the UNet's own names; those it has no name for keep theirs."""
    prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in state)), "")
    plain = {name.removeprefix(prefix): value for name, value in state.items()}
    if FIRST in plain:
        return plain
    names = comfy.utils.unet_to_diffusers(unet_config)
    return {names.get(name, name): value for name, value in plain.items()}
