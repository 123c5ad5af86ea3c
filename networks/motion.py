"""Motion modules: temporal attention between the blocks of an image UNet, in AnimateDiff's layout.

Guo et al., AnimateDiff, ICLR 2024 (section 4.2); Fang et al., RelightVid, 2025, uses the same. A module is a
transformer over time at every place of the picture: group norm of each frame, a linear layer in, blocks of self
attention over the frames and a feed-forward layer, a linear layer out, added to what came in.

Files hold ``down_blocks.i.motion_modules.j``, ``up_blocks.i.motion_modules.j`` and, some of them,
``mid_block.motion_modules.0``. How many there are, their widths, depths and positions are read from the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import comfy.ops
import torch
from comfy.ldm.modules.attention import CrossAttention, FeedForward
from torch import Tensor, nn

from ..kernels.frames import pictures_of, tracks_of
from .checkpoints import difference, some, wrong_shape

HEADS = 8
GROUPS = 32
FILES = (
    "mm_sd_v15_v2.ckpt or v3_sd15_mm.ckpt of huggingface.co/guoyww/animatediff, or relvid_mm_sd15_fbc.pth of "
    "huggingface.co/aleafy/RelightVid"
)
"""What a message sends the person to."""

_PREFIXES = ("module.", "unet.")
_NAME = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.motion_modules\.(\d+)\.(.+)")
_INNER = "temporal_transformer."
# AnimateDiff's names of what lies in a block, and diffusers'.
_DIFFUSERS = (
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
_POSITIONS = "pos_encoder.pe"


class MotionFileError(Exception):
    """A file is no motion file; the message is for the person at the graph."""


class Place(NamedTuple):
    """Where a module belongs, in the order that the UNet runs in."""

    side: str
    """"down", "mid" or "up"."""

    level: int
    """Counted from the input on the way down, from the middle on the way up; 0 in the middle."""

    number: int
    """Of the block within its level."""

    @property
    def name(self) -> str:
        """As files call it."""
        block = "mid_block" if self.side == "mid" else f"{self.side}_blocks.{self.level}"
        return f"{block}.motion_modules.{self.number}"


@dataclass(frozen=True)
class ModuleSizes:
    """What the shapes of a module's weights say."""

    width: int
    """Channels of the block it follows."""

    blocks: int
    attentions: int
    """In each block."""

    positions: int
    """The most frames that it tells apart."""


class TemporalAttention(CrossAttention):
    """Self attention over the frames, which are told their positions first."""

    def __init__(self, width: int, positions: int, *, dtype, device, operations: type) -> None:
        super().__init__(width, heads=HEADS, dim_head=width // HEADS, dtype=dtype, device=device, operations=operations)
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", torch.empty(1, positions, width, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """``[tracks, F, C]`` -> the same."""
        # A low-VRAM load moves layers, and this buffer belongs to none.
        positions = comfy.ops.cast_to_input(self.pos_encoder.pe[:, : x.shape[1]], x)
        return super().forward(x + positions)


class TemporalBlock(nn.Module):
    """Attentions and a feed-forward layer, each after a norm and added to what came in."""

    def __init__(self, sizes: ModuleSizes, **options) -> None:
        super().__init__()
        norm = {"dtype": options["dtype"], "device": options["device"]}
        operations, count = options["operations"], range(sizes.attentions)
        self.attention_blocks = nn.ModuleList(TemporalAttention(sizes.width, sizes.positions, **options) for _ in count)
        self.norms = nn.ModuleList(operations.LayerNorm(sizes.width, **norm) for _ in count)
        self.ff = FeedForward(sizes.width, glu=True, **options)
        self.ff_norm = operations.LayerNorm(sizes.width, **norm)

    def forward(self, x: Tensor) -> Tensor:
        """``[tracks, F, C]`` -> the same."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = attention(norm(x)) + x
        return self.ff(self.ff_norm(x)) + x


class TemporalTransformer(nn.Module):
    """One motion module."""

    def __init__(self, sizes: ModuleSizes, groups: int, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        operations, width = options["operations"], sizes.width
        self.sizes = sizes
        self.norm = operations.GroupNorm(groups, width, eps=1e-6, **layer)
        self.proj_in = operations.Linear(width, width, **layer)
        self.transformer_blocks = nn.ModuleList(TemporalBlock(sizes, **options) for _ in range(sizes.blocks))
        self.proj_out = operations.Linear(width, width, **layer)

    def forward(self, x: Tensor, frames: int, scale: float = 1.0, tracks: int | None = None) -> Tensor:
        """Frames that know of each other.

        Args:
            x: ``[clips * frames, C, H, W]``, C the module's width; computed in its dtype.
            frames: of each clip, 1 to ``sizes.positions``.
            scale: how much of what the module adds is added.
            tracks: how many places are computed at a time, which bounds the memory; None = all.

        Returns:
            Shape and dtype of ``x``.

        Raises:
            ValueError: more frames than positions, or a batch that is no multiple of the frames.
        """
        if frames > self.sizes.positions:
            raise ValueError(
                f"a clip of {frames} frames, and the motion modules know {self.sizes.positions} positions; "
                "set a context length of at most that"
            )
        places = tracks_of(self.norm(x), frames)
        if tracks is None or tracks >= len(places):
            moved = self._along(places)
        else:
            moved = torch.cat([self._along(part) for part in places.split(max(1, tracks))])
        return torch.add(x, pictures_of(moved, *x.shape[2:]), alpha=scale)

    def _along(self, places: Tensor) -> Tensor:
        """``[tracks, F, C]`` -> what is added to each."""
        inner = self.proj_in(places)
        for block in self.transformer_blocks:
            inner = block(inner)
        return self.proj_out(inner)


class MotionNetwork(nn.Module):
    """All modules of a file, under the file's own names."""

    def __init__(self, layout: Mapping[Place, ModuleSizes], groups: int = GROUPS, **options) -> None:
        """
        Args:
            layout: the modules there are.
            groups: of the group norms; 32 in every published file.
            options: ``dtype``, ``device`` and ``operations``, ComfyUI's namespace of layers.
        """
        super().__init__()
        self._at: dict[Place, TemporalTransformer] = {}
        for place, sizes in layout.items():
            module: nn.Module = self
            for part in place.name.split("."):
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            module.temporal_transformer = TemporalTransformer(sizes, groups, **options)
            self._at[place] = module.temporal_transformer

    def by_place(self) -> Mapping[Place, TemporalTransformer]:
        """Each module with where it belongs."""
        return self._at

    @property
    def positions(self) -> int:
        """The most frames that all modules tell apart."""
        return min(module.sizes.positions for module in self._at.values())


def read_motion(
    name: str,
    state: Mapping[str, Tensor],
    groups: int = GROUPS,
    operations: type = comfy.ops.manual_cast,
) -> MotionNetwork:
    """The motion modules of a file.

    Args:
        name: the file's, for messages.
        state: what it holds: AnimateDiff's names (v1, v2, v3), with ``unet.`` before them as RelightVid writes them,
            or those of diffusers' motion adapters.
        groups: of the modules' group norms; the UNet's own number (32 in every published one).
        operations: ComfyUI's namespace of layers.

    Returns:
        The modules in eval mode, holding the file's own tensors in their dtypes.

    Raises:
        MotionFileError: another kind of file, weights that are missing or too many, shapes that do not fit together.
    """
    weights = _own_names(name, state)
    layout = {}
    for key in weights:
        place, _ = parted(key)
        if place not in layout:
            layout[place] = sizes_of(name, place, weights, groups)
    layout = dict(sorted(layout.items()))
    dtype = next(iter(weights.values())).dtype
    network = MotionNetwork(layout, groups, dtype=dtype, device="meta", operations=operations)
    wanted = network.state_dict()
    wrong = difference(wanted, weights)
    if wrong:
        raise MotionFileError(f"{name} holds no complete motion modules:{wrong} Use {FILES}.")
    misshapen = wrong_shape(wanted, weights)
    if misshapen:
        raise MotionFileError(f"{name}: {misshapen} Use {FILES}.")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def diffusers_name(name: str) -> str:
    """What diffusers' motion adapters call a layer or weight.

    Args:
        name: as MotionNetwork has it, AnimateDiff's.
    """
    for own, theirs in _DIFFUSERS:
        name = name.replace(own, theirs)
    return name.replace(_INNER, "")


def _own_names(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under AnimateDiff's names."""
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in state)), "")
    plain = {key.removeprefix(prefix): value for key, value in state.items()}
    other = [key for key in plain if not _NAME.fullmatch(key)]
    if any("lora" in key for key in plain):
        raise MotionFileError(
            f"{name} is a LoRA ({some(plain)}), which changes motion modules and holds none. Use {FILES}."
        )
    if len(other) == len(plain):
        came = f"it holds {some(plain)}" if plain else "it holds nothing"
        raise MotionFileError(
            f"{name} is no motion file: {came}; expected names such as down_blocks.0.motion_modules.0. Use {FILES}."
        )
    if other:
        raise MotionFileError(f"{name} holds more than motion modules: {some(other)}. Use {FILES}.")
    found = {}
    for key, value in plain.items():
        place, inner = parted(key)
        if inner.startswith(_INNER):
            found[key] = value
            continue
        for own, theirs in _DIFFUSERS:
            inner = inner.replace(theirs, own)
        # One for all attentions of a block there, one for each here.
        names = [inner]
        if inner.endswith(".pos_embed.pe"):
            block = inner.removesuffix("pos_embed.pe")
            names = [f"{block}attention_blocks.{number}.{_POSITIONS}" for number in range(2)]
        found.update({f"{place.name}.{_INNER}{one}": value for one in names})
    return found


def is_motion(key: str) -> bool:
    """Whether a name is a motion module's weight in AnimateDiff's layout."""
    return _NAME.fullmatch(key) is not None and _INNER in key


def parted(key: str) -> tuple[Place, str]:
    """Where a weight's module belongs, and the weight's name within it; of names under AnimateDiff's."""
    side, level, number, inner = _NAME.fullmatch(key).groups()
    return Place(side or "mid", int(level or 0), int(number)), inner


def sizes_of(name: str, place: Place, weights: Mapping[str, Tensor], groups: int) -> ModuleSizes:
    """A module's sizes from its weights."""
    module = f"{place.name}.{_INNER}"
    inner = [key for key in weights if key.startswith(module)]
    blocks, attentions = (
        len({found[1] for key in inner if (found := re.search(rf"\.{kind}\.(\d+)\.", key))})
        for kind in ("transformer_blocks", "attention_blocks")
    )
    projection = weights.get(f"{module}proj_in.weight")
    table = weights.get(f"{module}transformer_blocks.0.attention_blocks.0.{_POSITIONS}")
    if projection is None or projection.ndim != 2 or table is None or table.ndim != 3:
        raise MotionFileError(
            f"{name}: {place.name} lacks temporal attention with positions (proj_in, and "
            f"transformer_blocks.0.attention_blocks.0.{_POSITIONS} of shape [1, positions, width]). Use {FILES}."
        )
    width = projection.shape[0]
    if width % HEADS or width % groups:
        raise MotionFileError(
            f"{name}: {place.name} is {width} wide; expected a multiple of {HEADS} heads and of {groups} groups."
        )
    return ModuleSizes(width, blocks, attentions, positions=table.shape[1])
