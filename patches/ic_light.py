"""IC-Light as a patch on whatever SD1.5 MODEL is there: offsets on its weights, latents beside the noisy ones.

The base is shared by every clone, so nothing of it is written: the wider first convolution is a patch like any other
(the host pads the weight with zeros and restores it), and the latents travel with the conditioning as ``noise_concat``,
which the host lays beside the noise after scaling it. So several variants from one loader, and plain sampling between
them, do not know of each other.
"""

from __future__ import annotations

import comfy.patcher_extension
from torch import Tensor

from ..networks.ic_light import FIRST, KINDS, NOISY_CHANNELS, Offsets

KEY = "papernodes_ic_light"
_PREFIX = "diffusion_model."


class ICLightModelError(Exception):
    """A MODEL or a conditioning does not fit IC-Light; the message is for the person at the graph."""


def check_base(model: object) -> None:
    """Raises ICLightModelError unless a MODEL is an SD1.5 whose first convolution takes the noisy latent alone.

    Other packs' first convolutions and a second IC-Light show in the MODEL's patches.
    """
    key = _PREFIX + FIRST
    if KEY in model.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {}):
        raise ICLightModelError(
            "'model' has IC-Light already. Connect the MODEL from before it; one variant at a time."
        )
    weights = model.model_state_dict()
    if key not in weights:
        raise ICLightModelError(
            f"'model' is a {type(model.model).__name__}, which is no SD1.5 UNet. Connect an SD1.5 checkpoint."
        )
    if any(name.startswith(f"{_PREFIX}label_emb.") for name in weights):
        raise ICLightModelError(
            "'model' is an SDXL-class UNet; IC-Light was trained on SD1.5. Connect an SD1.5 checkpoint."
        )
    # Not the weight's own shape: another variant's patches may lie on the shared base at the moment.
    channels = model.model.model_config.unet_config["in_channels"]
    if channels != NOISY_CHANNELS or key in model.patches:
        why = "it has a patch there already" if channels == NOISY_CHANNELS else f"it takes {channels}"
        raise ICLightModelError(
            f"'model': the first convolution must take {NOISY_CHANNELS} channels, and {why}. Connect a plain SD1.5 "
            "checkpoint, not an inpainting or instruct-pix2pix one."
        )


def apply_offsets(model: object, offsets: Offsets, strength: float) -> object:
    """A MODEL with IC-Light.

    Args:
        model: a ModelPatcher of an SD1.5; it stays as it is.
        offsets: of a file.
        strength: of the offsets; 0 samples as the model alone does, whatever the conditioning holds.

    Raises:
        ICLightModelError: see check_base.
    """
    check_base(model)
    tuned = model.clone()
    patches = {_PREFIX + key: ("diff", (offset,)) for key, offset in offsets.weights.items() if key != FIRST}
    patches[_PREFIX + FIRST] = ("diff", (offsets.weights[FIRST], {"pad_weight": True}))
    added = tuned.add_patches(patches, strength)
    assert len(added) == len(patches)  # read_offsets compared the names
    beside = offsets.channels - NOISY_CHANNELS

    def check_latents(executor, x, t, c_concat=None, *rest, **more):
        channels = 0 if c_concat is None else c_concat.shape[1]
        if channels != beside:
            raise ICLightModelError(
                f"This IC-Light file takes {_latents(beside)} beside the noise, and a conditioning has "
                f"{_latents(channels)}. Connect positive and negative of IC-Light Conditioning, "
                f"{'with' if beside > NOISY_CHANNELS else 'without'} a background."
            )
        return executor(x, t, c_concat, *rest, **more)

    tuned.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, check_latents)
    return tuned


def _latents(channels: int) -> str:
    """What latents beside the noise are of."""
    kind = KINDS.get(channels + NOISY_CHANNELS)
    return f"the latents of {kind}" if kind else f"{channels} channels" if channels else "none"


def with_latents(conditioning: list, latents: Tensor) -> list:
    """A CONDITIONING whose entries carry latents to be laid beside the noise.

    Args:
        conditioning: it stays as it is.
        latents: [B, 4 or 8, h, w] as the VAE gives them, scaled by the model's latent format.
    """
    return [[text, {**extra, "noise_concat": latents}] for text, extra in conditioning]
