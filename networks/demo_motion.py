"""RelightVid for the small image model: its motion modules in the file, in AnimateDiff's layout in memory.

Fang et al., RelightVid, 2025. The published file has a module behind every block of an SD1.5 but the middle one's. Here
those of the two smallest resolutions are not trained: a character is one or two pixels wide there. ``expanded`` makes
of the file what a published one holds; the modules that it lacks add nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .demo_format import check_fit, load
from .demo_image import UNET_CONFIG

KIND = "relight_motion"
POSITIONS = 32
PREFIX = "unet."
"""RelightVid's, before every name."""

TRAINED_LEVELS = {"down": (0, 1), "up": (2, 3)}
"""Levels, counted as in diffusers' names, whose modules are trained: the two with the largest pictures."""

_INNER = "temporal_transformer."
_ATTENTIONS = 2


def places() -> dict[str, int]:
    """Name of each module that a published file of this UNet would have -> its width."""
    widths = [UNET_CONFIG["model_channels"] * factor for factor in UNET_CONFIG["channel_mult"]]
    down = {f"down_blocks.{i}.motion_modules.{j}": width for i, width in enumerate(widths) for j in range(2)}
    up = {f"up_blocks.{i}.motion_modules.{j}": width for i, width in enumerate(reversed(widths)) for j in range(3)}
    return down | up


def trained_places() -> dict[str, int]:
    """Those of ``places`` that the file holds."""
    kept = [f"{side}_blocks.{level}." for side, levels in TRAINED_LEVELS.items() for level in levels]
    return {name: width for name, width in places().items() if name.startswith(tuple(kept))}


def position_table(width: int, positions: int = POSITIONS) -> Tensor:
    """float32 [1, positions, width]: sines and cosines of rising wavelengths (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(positions, dtype=torch.float64)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    table = torch.zeros(positions, width, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = (place * rates).sin(), (place * rates).cos()
    return table[None].float()


def module_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight of a motion module of AnimateDiff's layout, without its positions."""
    block = "transformer_blocks.0."
    shapes = {f"{name}.{kind}": (width,) for name in ("norm",) for kind in ("weight", "bias")}
    for name in ("proj_in", "proj_out"):
        shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    for number in range(_ATTENTIONS):
        attention = f"{block}attention_blocks.{number}."
        shapes |= {f"{attention}{name}.weight": (width, width) for name in ("to_q", "to_k", "to_v", "to_out.0")}
        shapes[f"{attention}to_out.0.bias"] = (width,)
        shapes |= {f"{block}norms.{number}.{kind}": (width,) for kind in ("weight", "bias")}
    shapes |= {f"{block}ff.net.0.proj.weight": (8 * width, width), f"{block}ff.net.0.proj.bias": (8 * width,)}
    shapes |= {f"{block}ff.net.2.weight": (width, 4 * width), f"{block}ff.net.2.bias": (width,)}
    return shapes | {f"{block}ff_norm.{kind}": (width,) for kind in ("weight", "bias")}


def initial_motion(seed: int) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: the modules add exactly 0.

    Args:
        seed: of the random weights.

    Returns:
        float32 on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for place, width in trained_places().items():
        for name, shape in module_shapes(width).items():
            if name.endswith(("norm.weight", "norms.0.weight", "norms.1.weight")):
                value = torch.ones(shape)
            elif len(shape) < 2 or name.startswith("proj_out"):
                value = torch.zeros(shape)
            else:
                value = torch.randn(shape, generator=generator) * shape[1] ** -0.5
            state[f"{place}.{_INNER}{name}"] = value
    return state


def with_positions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights and the tables of positions, which no file of ours needs to hold."""
    tables = {
        f"{place}.{_INNER}transformer_blocks.0.attention_blocks.{number}.pos_encoder.pe": position_table(width)
        for place, width in trained_places().items()
        for number in range(_ATTENTIONS)
    }
    device = next(iter(state.values())).device
    return {**state, **{name: table.to(device) for name, table in tables.items()}}


def expanded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a published file of this UNet would hold, RelightVid's prefix included.

    Args:
        state: what ``load`` gives of a file.

    Returns:
        name -> float32 on the CPU; the modules that were not trained add 0.
    """
    found = with_positions(state)
    for place, width in places().items():
        if place in trained_places():
            continue
        for name, shape in module_shapes(width).items():
            found[f"{place}.{_INNER}{name}"] = torch.zeros(shape)
        for number in range(_ATTENTIONS):
            name = f"{place}.{_INNER}transformer_blocks.0.attention_blocks.{number}.pos_encoder.pe"
            found[name] = position_table(width)
    return {PREFIX + name: value for name, value in found.items()}


def load_motion(path: str | os.PathLike) -> dict[str, Tensor]:
    """The motion modules of a demonstration file, in the published layout, for read_motion with GROUPS.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this UNet's.
    """
    state, _ = load(path, KIND)
    check_fit(path, state, initial_motion(0))
    return expanded(state)
