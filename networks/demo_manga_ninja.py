"""MangaNinja for the small image model: four small files that become what the four published files hold.

The denoising and the reference UNet are the image model with products of low-rank factors added; the ControlNet is the
image model's line art ControlNet with factors of its own, its hint block and its zero convolutions in full; the point
net is small enough to be stored whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .demo_controlnet import ENCODER, OWN, assemble, build_controlnet, controlnet_of
from .demo_format import FOLDER, check_fit, load
from .demo_image import UNET_CONFIG, build_unet, model_of
from .demo_light import tuned_layers
from .demo_lora import NETWORK, apply_factors, initial_factors, rank_of
from .point_net import PointNet

DENOISING, REFERENCE, POINTS, CONTROL = KINDS = (
    "manga_ninja_denoising",
    "manga_ninja_reference",
    "manga_ninja_points",
    "manga_ninja_control",
)
RANKS = {DENOISING: 8, REFERENCE: 4, CONTROL: 4}
WIDTHS = tuple(UNET_CONFIG["model_channels"] * times for times in UNET_CONFIG["channel_mult"])
"""Of the point net's stages: the UNet's levels."""


def initial(kind: str, seed: int, control: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What training starts from, in the form that a file holds: factors change nothing yet.

    Args:
        kind: one of KINDS.
        seed: of the random weights.
        control: the line art ControlNet's whole weights, for the kind CONTROL; its hint block is taken over so that
            hints from -1 to 1 do what hints from 0 to 1 did.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == POINTS:
        return _initial_points(generator)
    unet = build_unet("meta").state_dict()
    layers = tuned_layers(unet)
    if kind != CONTROL:
        return initial_factors(unet, layers, NETWORK, RANKS[kind], generator)
    inside = [layer for layer in layers if layer.startswith(ENCODER)]
    state = {name: value.clone() for name, value in control.items() if name.startswith(OWN)}
    first = "input_hint_block.0."
    # Of hints in 0..1, h = (hint + 1) / 2.
    state[first + "bias"] += state[first + "weight"].sum((1, 2, 3)) / 2
    state[first + "weight"] /= 2
    return initial_factors(unet, inside, NETWORK, RANKS[kind], generator) | state


def _initial_points(generator: torch.Generator) -> dict[str, Tensor]:
    state = {}
    for name, value in PointNet(WIDTHS, "meta").state_dict().items():
        inputs = value[0].numel() if value.ndim > 1 else 1
        drawn = torch.randn(value.shape, generator=generator)
        state[name] = drawn * (2 / inputs) ** 0.5 if value.ndim > 1 else torch.zeros(value.shape)
    return state


def apply_control(state: Mapping[str, Tensor], control: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MangaNinja's whole ControlNet; gradients reach ``state``.

    Args:
        state: what its file holds.
        control: the line art ControlNet's whole weights, on the same device.
    """
    own = {name: value for name, value in state.items() if name.startswith(OWN)}
    return {**control, **apply_factors(state, control, NETWORK), **own}


def load_small(path: str | os.PathLike, kind: str) -> dict[str, Tensor]:
    """What a file holds, once it is known to fit.

    Raises:
        DemoFileError: see demo_format.load; weights that do not fit the networks of this version.
    """
    state, _ = load(path, kind)
    rank = rank_of(state)
    unet = build_unet("meta").state_dict()
    if kind == POINTS:
        wanted = PointNet(WIDTHS, "meta").state_dict()
    else:
        layers = [layer for layer in tuned_layers(unet) if kind != CONTROL or layer.startswith(ENCODER)]
        wanted = initial_factors(unet, layers, NETWORK, rank or RANKS[kind], torch.Generator())
    if kind == CONTROL:
        whole = build_controlnet("meta").state_dict()
        wanted |= {name: value for name, value in whole.items() if name.startswith(OWN)}
    check_fit(path, state, wanted)
    return state


def load_unet(path: str | os.PathLike, kind: str, unet_path: str | os.PathLike | None = None) -> dict[str, Tensor]:
    """The whole UNet of a file of kind DENOISING or REFERENCE, the host's names, float32 on the CPU.

    Args:
        path: the file.
        kind: of it.
        unet_path: the image model's UNet that it was trained on; the shipped one where left out.

    Raises:
        DemoFileError: see load_small.
    """
    unet, _ = load(unet_path or FOLDER / "image_unet.safetensors", "image_unet")
    return unet | apply_factors(load_small(path, kind), unet, NETWORK)


def load_control(
    path: str | os.PathLike, control_path: str | os.PathLike | None = None, unet_path: str | os.PathLike | None = None
) -> dict[str, Tensor]:
    """MangaNinja's whole ControlNet, the host's names, float32 on the CPU.

    Args:
        path: a file of kind CONTROL.
        control_path, unet_path: the image model's files that it was trained on; the shipped ones where left out.

    Raises:
        DemoFileError: see load_small.
    """
    unet, _ = load(unet_path or FOLDER / "image_unet.safetensors", "image_unet")
    lines, _ = load(control_path or FOLDER / "image_controlnet_lineart.safetensors", "image_controlnet_lineart")
    return apply_control(load_small(path, CONTROL), assemble(lines, unet))


def load_published(path: str | os.PathLike, kind: str) -> dict[str, Tensor]:
    """What a published file of this size would hold: diffusers' names, the reference UNet without its output layers.

    Args:
        path: a small file.
        kind: REFERENCE or POINTS, what MangaNinja Loader reads.

    Raises:
        DemoFileError: see load_small.
    """
    # Not above: what reads MangaNinja's files needs more of the host than training has.
    from .manga_ninja import HEAD, diffusers_names

    if kind == POINTS:
        return load_small(path, kind)
    names = {own: name for own, name in diffusers_names(UNET_CONFIG).items() if name not in HEAD}
    return {names[own]: value for own, value in load_unet(path, kind).items() if own in names}


def load_model(path: str | os.PathLike, unet_path: str | os.PathLike):
    """The MODEL that UNETLoader would give for MangaNinja's denoising UNet.

    Args:
        path: a file of kind DENOISING.
        unet_path: the image model's UNet that it was trained on.

    Returns:
        comfy.model_patcher.ModelPatcher, see demo_image.load_model.

    Raises:
        DemoFileError: see load_small.
    """
    return model_of(load_unet(path, DENOISING, unet_path))


def load_controlnet(path: str | os.PathLike, control_path: str | os.PathLike, unet_path: str | os.PathLike):
    """The CONTROL_NET that ControlNetLoader would give for MangaNinja's.

    Args:
        path, control_path, unet_path: see load_control.

    Returns:
        comfy.controlnet.ControlNet; it wants hints from -1 to 1.

    Raises:
        DemoFileError: see load_small.
    """
    return controlnet_of(load_control(path, control_path, unet_path))
