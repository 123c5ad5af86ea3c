"""Names and sizes in Imagine360's files: a UNet of each branch under diffusers' names, and the exchange blocks.

What the published classes hold and never use is known too: motion modules of levels without attention, an attention
beside each exchange block (``mv_attn``), and the views' branch's layers for positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import comfy.utils
import torch
from torch import Tensor

from .checkpoints import some
from .image_tokens import POSITION_NUMBERS, TokenSizes
from .imagine360 import Imagine360Network, exchange_widths
from .motion import GROUPS, ModuleSizes, MotionFileError, Place, is_motion, parted, sizes_of
from .panorama_branch import BranchSizes

POSITION_LAYERS = ("add_cond_embedding.", "cond_rp_proj.", "add_cond_embedding2.")
TEMPORAL = "temporal_proj."
UNUSED_ATTENTION = ".mv_attn."


class LayoutError(Exception):
    """Weights are of no Imagine360 branch; the message ends a sentence that names the file."""


@dataclass(frozen=True)
class Training:
    """What a network was trained with and its weights do not show; the published one's by default."""

    head_channels: int = 64
    """Channels of a head of the UNets' attentions; -1 = by ``heads``."""

    heads: int = -1
    groups: int = GROUPS
    """Of the group norms."""

    encoding: str = "bfloat16"
    """Arithmetic of the spherical encoding, a dtype's name."""

    prediction: str = "v"
    """"v" or "eps"."""

    schedule: str = "sqrt_linear"
    """Of the betas, ComfyUI's name: "sqrt_linear" is truly linear, "linear" is Stable Diffusion's scaled one."""

    zero_terminal: bool = True
    """Whether the schedule is rescaled so that its last step is pure noise."""

    without: tuple[str, ...] = ()
    """What a small network may lack: "motion" (all or some of the modules), "image tokens", "fps"."""


def branch_sizes(weights: Mapping[str, Tensor], training: Training) -> BranchSizes:
    """Sizes of a branch.

    Args:
        weights: under diffusers' names.
        training: what they do not show.

    Raises:
        LayoutError: they are no Imagine360 branch's.
    """
    unet = _unet_description(weights, training)
    motion = {place: size for place, size in _motion(weights, training.groups).items() if is_used(unet, place)}
    if "motion" not in training.without:
        lacking = [place.name for place in all_places(unet) if is_used(unet, place) and place not in motion]
        if lacking:
            raise LayoutError(f"it lacks {some(lacking)}")
    return BranchSizes(
        unet=unet,
        motion=motion,
        tokens=None if _lacks("image tokens", "image_proj_model.latents", weights, training) else _token_sizes(weights),
        fps=not _lacks("fps", "fps_embedding.linear_1.weight", weights, training),
        groups=training.groups,
    )


def with_positions(weights: Mapping[str, Tensor], panorama: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A branch's weights with the panorama's layers for positions where it lacks them: the views' are never used."""
    return {name: value for name, value in panorama.items() if name.startswith(POSITION_LAYERS)} | dict(weights)


def _lacks(part: str, name: str, weights: Mapping[str, Tensor], training: Training) -> bool:
    if name in weights:
        return False
    if part in training.without:
        return True
    raise LayoutError(f"it lacks {name}")


def all_places(unet: Mapping[str, object]) -> list[Place]:
    """Where the published classes have motion modules: behind every block."""
    counts = list(unet["num_res_blocks"])
    down = [Place("down", level, number) for level, count in enumerate(counts) for number in range(count)]
    up = [Place("up", level, number) for level, count in enumerate(counts[::-1]) for number in range(count + 1)]
    return [*down, Place("mid", 0, 0), *up]


def published_name(own: str, unet: Mapping[str, str]) -> str:
    """A branch's file's name of a weight.

    Args:
        own: the name in ``Branch``.
        unet: of ``unet_names``.
    """
    group, _, rest = own.partition(".")
    if group == "unet":
        ours = rest.replace(".to_k_ip.", ".to_k.").replace(".to_v_ip.", ".to_v.")
        kind = re.search(r"\.to_[kv]_ip\.", rest)
        return unet[ours] if kind is None else re.sub(r"\.to_[kv]\.", kind[0], unet[ours])
    return rest if group in ("motion", "position") else own


def unet_names(description: Mapping[str, object]) -> dict[str, str]:
    """The host's names of a UNet's weights -> diffusers'."""
    return {own: name for name, own in comfy.utils.unet_to_diffusers(dict(description)).items()}


def exchange_name(own: str, levels: int) -> str:
    """The file's name of a weight of the exchange blocks.

    Args:
        own: the name in ``Imagine360Network.exchange``, which begins with the block's number.
        levels: of the UNets.
    """
    number, _, inner = own.partition(".")
    below = levels - 1
    where = int(number)
    block = (
        f"cp_blocks_encoder.{where}"
        if where < below
        else "cp_blocks_mid"
        if where == below
        else f"cp_blocks_decoder.{where - below - 1}"
    )
    if inner == "bands":
        return f"{block}.pe.freq_bands"
    return f"{block}.transformer.{inner.replace('to_out.0.', 'to_out.')}"


def published_layout(sizes: BranchSizes) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """Names and shapes in the published classes, those never used among them.

    Args:
        sizes: of both branches.

    Returns:
        Of a branch's UNet, and of the exchange blocks.
    """
    motion = dict(sizes.motion)
    widths = [sizes.unet["model_channels"] * times for times in sizes.unet["channel_mult"]]
    known = next(iter(motion.values()), None)
    for place in all_places(sizes.unet) if known is not None else ():
        width = {"down": widths, "mid": widths[-1:], "up": widths[::-1]}[place.side][place.level]
        motion.setdefault(place, ModuleSizes(width, known.blocks, known.attentions, known.positions))
    whole = Imagine360Network(BranchSizes(sizes.unet, motion, sizes.tokens, sizes.fps, sizes.groups), device="meta")
    names = unet_names(sizes.unet)
    branch = {published_name(own, names): tuple(value.shape) for own, value in whole.panorama.state_dict().items()}
    exchange = {}
    for own, value in whole.exchange.state_dict().items():
        name = exchange_name(own, len(widths))
        exchange[name] = tuple(value.shape)
        if ".transformer." in name:
            exchange[name.replace(".transformer.", UNUSED_ATTENTION)] = tuple(value.shape)
    return branch, exchange


def exchange_fits(weights: Mapping[str, Tensor], sizes: BranchSizes) -> str:
    """Why exchange blocks do not go with branches, as the end of a sentence; "" where they do."""
    widths = exchange_widths(sizes.unet)
    for number, width in enumerate(widths):
        bands = weights.get(exchange_name(f"{number}.bands", len(sizes.unet["channel_mult"])))
        if bands is not None and bands.numel() * 4 != width:
            return f" exchange block {number} is {bands.numel() * 4} wide, and the UNets are {width} wide there."
    return ""


def own_temporal_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A branch's weights, those of the temporal projection under ``TemporalProjection``'s names.

    How the published file calls these 28 is not known, so they are told apart by what they are: one convolution; for
    each of two attentions queries, keys and values by their last letter, and the layers out and of the feed-forward by
    their shapes; norms in their order.

    Raises:
        LayoutError: they are something else.
    """
    inside = {name.removeprefix(TEMPORAL): value for name, value in weights.items() if name.startswith(TEMPORAL)}
    if not inside or "blocks.0.attn.to_q.weight" in inside:
        return dict(weights)
    stems = sorted({name.rpartition(".")[0] for name in inside}, key=_natural)
    kinds: dict[str, list[str]] = {}
    queries = [stem for stem in stems if re.search(r"q(_proj)?$", stem) and f"{stem}.weight" in inside]
    if len(queries) != 2 or inside[f"{queries[0]}.weight"].ndim != 2:
        raise LayoutError(f"its temporal projection ({', '.join(stems[:6])}) has not two attentions over time")
    inner, width = inside[f"{queries[0]}.weight"].shape
    for stem in stems:
        kinds.setdefault(_temporal_kind(stem, inside.get(f"{stem}.weight"), inner, width), []).append(stem)
    wanted = {"conv": 1, "attn.to_q": 2, "attn.to_k": 2, "attn.to_v": 2, "attn.to_out.0": 2, "first": 2, "ff.net.2": 2,
              "norm": 4}  # fmt: skip
    if {kind: len(found) for kind, found in kinds.items()} != wanted:
        raise LayoutError(f"its temporal projection ({', '.join(stems[:6])}) is none of the published layout")
    gated = inside[f"{kinds['first'][0]}.weight"].shape[0] != inside[f"{kinds['ff.net.2'][0]}.weight"].shape[1]
    names = {kinds["conv"][0]: "conv"}
    for kind, found in kinds.items():
        for number, stem in enumerate(found):
            if kind == "norm":
                names[stem] = f"blocks.{number // 2}.norm{number % 2 + 1}"
            elif kind == "first":
                names[stem] = f"blocks.{number}.ff.net.0.{'proj' if gated else '0'}"
            elif kind != "conv":
                names[stem] = f"blocks.{number}.{kind}"
    result = {name: value for name, value in weights.items() if not name.startswith(TEMPORAL)}
    for name, value in inside.items():
        stem, _, last = name.rpartition(".")
        result[f"{TEMPORAL}{names[stem]}.{last}"] = value
    return result


def _temporal_kind(stem: str, weight: Tensor | None, inner: int, width: int) -> str:
    if weight is None:
        return "unknown"
    if weight.ndim != 2:
        return {1: "norm", 4: "conv"}.get(weight.ndim, "unknown")
    letter = re.search(r"([qkv])(_proj)?$", stem)
    if letter is not None and tuple(weight.shape) == (inner, width):
        return f"attn.to_{letter[1]}"
    if tuple(weight.shape) == (width, inner):
        return "attn.to_out.0"
    return "first" if weight.shape[1] == width else "ff.net.2" if weight.shape[0] == width else "unknown"


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def is_used(unet: Mapping[str, object], place: Place) -> bool:
    """Whether a motion module's block has attention: others are not executed."""
    counts = list(unet["num_res_blocks"])
    if place.side == "mid":
        return unet["transformer_depth_middle"] > 0
    if place.side == "down":
        return unet["transformer_depth"][sum(counts[: place.level]) + place.number] > 0
    at = sum(count + 1 for count in counts[::-1][: place.level]) + place.number
    return unet["transformer_depth_output"][::-1][at] > 0


def _unet_description(weights: Mapping[str, Tensor], training: Training) -> dict[str, object]:
    """ComfyUI's description of a UNet from the shapes of its weights."""

    def count(pattern: str) -> int:
        found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
        return len(found)

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != axes:
            raise LayoutError(f"it lacks {name} of {axes} axes")
        return tuple(weights[name].shape)

    first = shape("conv_in.weight", 4)
    levels = count(r"down_blocks\.(\d+)\.")
    down = [count(rf"down_blocks\.{level}\.resnets\.(\d+)\.") for level in range(levels)]
    if levels < 2 or min(down) < 1:
        raise LayoutError(f"its UNet has {levels} levels; expected at least two, each with residual blocks")
    widths = [shape(f"down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in range(levels)]
    if any(width % first[0] for width in widths):
        raise LayoutError(f"its levels are {widths} wide; expected multiples of {first[0]}")

    def depth(block: str) -> int:
        return count(rf"{re.escape(block)}\.transformer_blocks\.(\d+)\.")

    text = shape("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    linear = weights["mid_block.attentions.0.proj_in.weight"].ndim == 2
    up = [depth(f"up_blocks.{level}.attentions.{number}") for level in range(levels)
          for number in range(down[::-1][level] + 1)]  # fmt: skip
    return {
        "image_size": 32,
        "in_channels": first[1],
        "out_channels": shape("conv_out.weight", 4)[0],
        "model_channels": first[0],
        "channel_mult": [width // first[0] for width in widths],
        "num_res_blocks": down,
        "transformer_depth": [depth(f"down_blocks.{level}.attentions.{number}") for level in range(levels)
                              for number in range(down[level])],
        "transformer_depth_output": up[::-1],
        "transformer_depth_middle": depth("mid_block.attentions.0"),
        "context_dim": text,
        "num_heads": training.heads,
        "num_head_channels": training.head_channels,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": linear,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "use_checkpoint": False,
        "adm_in_channels": None,
        "legacy": False,
        # SD2's attentions overflow in float16.
        "attn_precision": torch.float32 if linear else None,
    }  # fmt: skip


def _motion(weights: Mapping[str, Tensor], groups: int) -> dict[Place, ModuleSizes]:
    found = {}
    try:
        for place in sorted({parted(name)[0] for name in weights if is_motion(name)}):
            found[place] = sizes_of("it", place, weights, groups)
    except MotionFileError as error:
        raise LayoutError(f"its motion modules are of another kind ({error})") from None
    return found


def _token_sizes(weights: Mapping[str, Tensor]) -> TokenSizes:
    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise LayoutError(f"it lacks {name}")
        return tuple(weights[name].shape)

    conv = shape(f"{TEMPORAL}conv.weight")
    block = f"{TEMPORAL}blocks.0."
    gated = f"{block}ff.net.0.proj.weight" in weights
    latents, out = shape("image_proj_model.latents"), shape("image_proj_model.proj_out.weight")
    place = shape("add_cond_embedding.linear_1.weight")
    return TokenSizes(
        features=conv[1],
        patch=conv[2],
        width=conv[0],
        attention=shape(f"{block}attn.to_q.weight")[0],
        feed_forward=shape(f"{block}ff.net.2.weight")[1],
        gated=gated,
        resampler=latents[-1],
        depth=len(_numbers(weights, "image_proj_model.layers.")),
        queries=latents[-2],
        resampler_attention=shape("image_proj_model.layers.0.0.to_q.weight")[0],
        resampler_feed_forward=shape("image_proj_model.layers.0.1.1.weight")[0],
        output=out[0],
        sinusoids=place[1] // POSITION_NUMBERS,
        position_hidden=place[0],
        position=shape("cond_rp_proj.weight")[0],
    )


def _numbers(names: Iterable[str], prefix: str) -> set[str]:
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
