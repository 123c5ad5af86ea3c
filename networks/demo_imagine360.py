"""Imagine360 for the small image model: what was trained in the file, the published layout in memory.

Tan et al., Imagine360, 2024. A published release holds two whole UNets and the blocks by which they exchange what they
know. Here a file holds, for each branch, low-rank offsets to the image model's UNet and the first convolution's in
full; motion modules that both branches share; and the exchange blocks. ``expanded`` makes of it what ``mv_model`` files
hold, and from there on both go through the same door. There are no image tokens and no frame rate.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from .demo_format import check_fit, load
from .demo_image import GROUPS, UNET_CONFIG, build_unet
from .demo_light import FIRST, tuned_layers
from .demo_lora import apply_factors, initial_factors
from .demo_motion import POSITIONS, module_shapes, position_table
from .imagine360 import Imagine360Network
from .imagine360_files import METADATA
from .imagine360_layout import Training, exchange_name, published_name, unet_names
from .motion import ModuleSizes, Place
from .panorama_branch import BranchSizes

KIND = "imagine360"
BASE = "image_unet"
CHANNELS = 9
"""Of the first convolution: noisy latent, mask, masked latent."""

BRANCHES = {"panorama": 5, "views": 2}
"""Branch -> rank of its offsets: the views look like what the image model knows."""

PLACES = (Place("down", 0, 1), Place("down", 1, 1), Place("up", 2, 0), Place("up", 2, 2), Place("up", 3, 2))
"""Where motion modules are: at the two largest resolutions."""

TRAINING = Training(
    head_channels=-1, heads=UNET_CONFIG["num_heads"], groups=GROUPS, encoding="float32", prediction="eps",
    schedule="linear", zero_terminal=False, without=("motion", "image tokens", "fps"),
)  # fmt: skip
"""What the published layout does not show."""

_PUBLISHED = {"panorama": "pano_unet.", "views": "unet."}
_INNER = "temporal_transformer."


def metadata() -> dict[str, str]:
    """What the file says beside what every demonstration file does: in what it differs from the published one."""
    usual = Training()
    told = {name: value for name, value in asdict(TRAINING).items() if value != getattr(usual, name)}
    return {METADATA: json.dumps(told)}


def sizes() -> BranchSizes:
    """Of both branches."""
    motion = {place: ModuleSizes(_width(place), 1, 2, POSITIONS) for place in PLACES}
    return BranchSizes({**UNET_CONFIG, "in_channels": CHANNELS}, motion, None, False, GROUPS)


def _width(place: Place) -> int:
    factors = UNET_CONFIG["channel_mult"]
    factor = factors[place.level] if place.side == "down" else factors[::-1][place.level]
    return UNET_CONFIG["model_channels"] * factor


def initial_imagine360(seed: int) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: two image models that know nothing of each other.

    Args:
        seed: of the random weights.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    generator, unet = torch.Generator().manual_seed(seed), build_unet("meta").state_dict()
    state: dict[str, Tensor] = {}
    for branch, rank in BRANCHES.items():
        state |= initial_factors(unet, tuned_layers(unet), f"{branch}.", rank, generator)
        first = unet[FIRST].shape
        state[f"{branch}.{FIRST}"] = torch.zeros(first[0], CHANNELS, *first[2:])
    for place in PLACES:
        for name, shape in module_shapes(_width(place)).items():
            state[f"motion.{place.name}.{_INNER}{name}"] = _initial(name, shape, generator, name.startswith("proj_out"))
    network = Imagine360Network(sizes(), device="meta")
    for name, value in network.exchange.state_dict().items():
        if not name.endswith(".bands"):
            last = ".attn1.to_out." in name or ".ff.net.2." in name
            state[f"exchange.{name}"] = _initial(name, tuple(value.shape), generator, last)
    return state


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator, last: bool) -> Tensor:
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape)
    if last or len(shape) < 2:
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator) * shape[1] ** -0.5


def network_state(state: Mapping[str, Tensor], unet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the whole network; gradients reach ``state``.

    Args:
        state: what the file holds.
        unet: the image model's, on the same device.

    Returns:
        Imagine360Network's names -> tensors, without the exchange blocks' bands.
    """
    found = {name: value for name, value in state.items() if name.startswith("exchange.")}
    motion = {name: value for name, value in state.items() if name.startswith("motion.")}
    motion |= _position_tables(next(iter(state.values())).device)
    for branch in BRANCHES:
        wide = torch.nn.functional.pad(unet[FIRST], (0, 0, 0, 0, 0, CHANNELS - unet[FIRST].shape[1]))
        own = {**unet, **apply_factors(state, unet, f"{branch}.")}
        own[FIRST] = wide + state[f"{branch}.{FIRST}"].to(wide.dtype)
        found |= {f"{branch}.unet.{name}": value for name, value in own.items()}
        found |= {f"{branch}.{name}": value for name, value in motion.items()}
    return found


@functools.cache
def _position_tables(device: torch.device) -> dict[str, Tensor]:
    """Kept, because a captured step cannot bring anything to the device."""
    return {
        f"motion.{place.name}.{_INNER}transformer_blocks.0.attention_blocks.{number}.pos_encoder.pe": position_table(
            _width(place)
        ).to(device)
        for place in PLACES
        for number in range(2)
    }


def expanded(state: Mapping[str, Tensor], unet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a published ``mv_model`` file with both UNets would hold.

    Args:
        state: what ``load`` gives of a file.
        unet: the image model's.
    """
    names, levels, found = unet_names(sizes().unet), len(UNET_CONFIG["channel_mult"]), {}
    network = Imagine360Network(sizes())
    whole = {name: value for name, value in network.state_dict().items() if name.endswith(".bands")}
    for name, value in {**whole, **network_state(state, unet)}.items():
        group, _, rest = name.partition(".")
        own = exchange_name(rest, levels) if group == "exchange" else _PUBLISHED[group] + published_name(rest, names)
        found[own] = value
    return found


def load_imagine360(path: str | os.PathLike) -> dict[str, Tensor]:
    """The weights of a demonstration file, in the published layout; the image model's UNet lies beside the file.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    state, _ = load(path, KIND)
    check_fit(path, state, initial_imagine360(0))
    return expanded(state, load(Path(path).with_name(f"{BASE}.safetensors"), BASE)[0])
