"""Imagine360's files: the two UNets, what the panorama and its views exchange, a LoRA, and the pack's small form.

Tan et al., Imagine360, 2024. The published ``mv_model`` file may hold the UNets as well (``unet.``, ``pano_unet.``);
then, as in the authors' order of loading, its weights count and not those of the UNets' own files, LoRA included. A
file that holds everything needs no other, and that is what a small form is expanded to.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import comfy.ops
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .checkpoints import difference, some
from .imagine360 import Imagine360Network
from .imagine360_layout import (
    UNUSED_ATTENTION,
    LayoutError,
    Training,
    branch_sizes,
    exchange_fits,
    exchange_name,
    own_temporal_names,
    published_layout,
    published_name,
    unet_names,
    with_positions,
)
from .panorama_branch import BranchSizes

SOURCE = "https://github.com/3DTopia/Imagine360"
VIEWS_FILE, PANORAMA_FILE, EXCHANGE_FILE, LORA_FILE = (
    "pers_unet_checkpoint-20000.ckpt",
    "pano_unet_checkpoint-20000.ckpt",
    "mv_model_checkpoint-20000.ckpt",
    "panolora_20000.ckpt",
)
METADATA = "imagine360"
"""Where a safetensors file's metadata say, as JSON, in what its Training differs from the published one."""

_VIEWS_PREFIX, _PANORAMA_PREFIX, _BLOCKS = "unet.", "pano_unet.", "cp_blocks_"
_LORA = re.compile(r"(.+?)\.(?:processor\.)?to_(q|k|v|out)_lora\.(down|up)\.weight")


class Imagine360FileError(Exception):
    """A file is not what Imagine360's are; the message is for the person at the graph."""


@dataclass(frozen=True)
class Source:
    """One of the files."""

    name: str
    state: Mapping[str, Tensor]
    widget: str = ""
    """That chose it, for messages."""

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor]:
        """By name, without what wraps them and what training on several devices puts before all names."""
        inner = self.state.get("state_dict")
        state = inner if isinstance(inner, Mapping) else self.state
        held = bool(state) and all(name.startswith("module.") for name in state)
        return {
            name.removeprefix("module.") if held else name: value
            for name, value in state.items()
            if isinstance(value, Tensor)
        }

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"'{self.widget}' ({self.name})" if self.widget else self.name


@dataclass
class Report:
    """What was made of the files."""

    used: int = 0
    """Weights that the network took."""

    dropped: int = 0
    """Weights that the published classes hold and never use."""

    notes: list[str] = field(default_factory=list)
    """Sentences for the log."""


def training_at(path: str | os.PathLike) -> Training:
    """What the network of a file was trained with: the published one's, unless a safetensors file says otherwise.

    Raises:
        Imagine360FileError: see training_of.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):  # another format, which says nothing
        metadata = {}
    return training_of(metadata)


def training_of(metadata: Mapping[str, str]) -> Training:
    """What a network was trained with.

    Args:
        metadata: of its file; without METADATA it is the published network's.

    Raises:
        Imagine360FileError: no JSON, or settings that this version does not know.
    """
    try:
        told = json.loads(metadata.get(METADATA, "{}"))
        unknown = sorted(set(told) - {one.name for one in fields(Training)})
        if unknown:
            raise ValueError(f"it sets {', '.join(unknown)}, which this version of the pack does not know")
        training = Training(**{key: tuple(value) if isinstance(value, list) else value for key, value in told.items()})
        if training.prediction not in ("v", "eps") or training.encoding not in ("bfloat16", "float32"):
            raise ValueError(f"it predicts {training.prediction!r}, encodes in {training.encoding!r}")
    except (ValueError, TypeError) as error:
        raise Imagine360FileError(f"the metadata of this Imagine360 cannot be used: {error}.") from error
    return training


def whole_branches(exchange: Source, training: Training) -> list[str]:
    """Which UNets an mv_model file holds whole, "views" and "panorama": their own files need not be read.

    Raises:
        Imagine360FileError: it is another file.
    """
    found = []
    inside = _exchange_parts(exchange)[1]
    for role, weights in inside.items():
        try:
            weights = own_temporal_names(weights)
            sizes = branch_sizes(with_positions(weights, inside["panorama"]), training)
        except LayoutError:
            continue
        if needed_names(sizes)[role] <= weights.keys():
            found.append(role)
    return found


def needed_names(sizes: BranchSizes) -> dict[str, set[str]]:
    """The names of a branch's file that the network takes, of the views' and of the panorama's."""
    network, names = Imagine360Network(sizes, device="meta"), unet_names(sizes.unet)
    return {
        role: {published_name(own, names) for own in getattr(network, role).state_dict()}
        for role in ("views", "panorama")
    }


def read_network(
    exchange: Source,
    views: Source | None = None,
    panorama: Source | None = None,
    lora: Source | None = None,
    lora_strength: float = 1.0,
    training: Training | None = None,
    *,
    dtype: torch.dtype | None = None,
    operations: type = comfy.ops.manual_cast,
) -> tuple[Imagine360Network, Report]:
    """The network of the published files, or of a small form's.

    Args:
        exchange: mv_model; alone it must hold both UNets.
        views, panorama: pers_unet and pano_unet.
        lora: merged into the panorama's UNet.
        lora_strength: how many times.
        training: what the weights do not show; the published network's where left out.
        dtype: of the weights; the files' own where left out.
        operations: ComfyUI's namespace of layers.

    Returns:
        The network in eval mode on the CPU, and what was made of the files.

    Raises:
        Imagine360FileError: files of another kind, swapped ones, weights that are missing or too many or of another
            shape.
    """
    training = training or Training()
    report = Report()
    blocks, inside = _exchange_parts(exchange)
    branches = {}
    for role, source, other in (("views", views, "panorama"), ("panorama", panorama, "views")):
        weights = {} if source is None else _branch_file(source, role, other)
        if role == "panorama" and lora is not None and weights:
            weights = merge_lora(weights, lora, lora_strength)
        over = inside[role]
        if over and weights:
            report.notes.append(
                f"{exchange.label} holds {len(over)} weights of the {role} UNet, which count in place of those of "
                f"{source.label}{' and of the LoRA' if role == 'panorama' and lora is not None else ''}."
            )
        name = exchange.label if source is None else source.label
        if not over and source is None:
            file = VIEWS_FILE if role == "views" else PANORAMA_FILE
            raise Imagine360FileError(
                f"{name} holds no UNet of the {role}. Choose {file} of {SOURCE} for the {role} UNet."
            )
        branches[role] = name, _renamed(name, {**weights, **over})
    known = {role: with_positions(weights, branches["panorama"][1]) for role, (_, weights) in branches.items()}
    sizes = {role: _sized(branches[role][0], weights, training) for role, weights in known.items()}
    if _shown(sizes["views"]) != _shown(sizes["panorama"]):
        raise Imagine360FileError(
            f"{branches['views'][0]} and {branches['panorama'][0]} are of two different networks: their sizes differ. "
            f"Use files of one release ({SOURCE})."
        )
    wrong = exchange_fits(blocks, sizes["panorama"])
    if wrong:
        raise Imagine360FileError(f"{exchange.label} does not go with the UNets:{wrong} Use files of one release.")
    network = Imagine360Network(
        sizes["panorama"], getattr(torch, training.encoding), dtype=dtype or torch.float32, device="meta",
        operations=operations,
    )  # fmt: skip
    _fill(network, exchange.label, blocks, branches, sizes["panorama"], dtype, report)
    return network.eval().requires_grad_(False), report


def merge_lora(weights: Mapping[str, Tensor], lora: Source, strength: float) -> dict[str, Tensor]:
    """Weights with strength * up @ down added, by the published names of LoRA processors.

    Args:
        weights: of a branch, diffusers' names.
        lora: ``X.processor.to_q_lora.down.weight`` and so on for ``X.to_q.weight``; of an output ``X.to_out.0.weight``.
        strength: how many times they are added.

    Raises:
        Imagine360FileError: no such LoRA, or one of other layers.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    state = lora.tensors
    use = f"Use {LORA_FILE} of {SOURCE}, or none."
    for name, value in state.items():
        match = _LORA.fullmatch(name.removeprefix(_PANORAMA_PREFIX).removeprefix(_VIEWS_PREFIX))
        if match is None:
            raise Imagine360FileError(f"{lora.label} is no LoRA of Imagine360's UNets: it holds {some([name])}. {use}")
        layer, kind, side = match.groups()
        pairs.setdefault(f"{layer}.to_{kind}{'.0' if kind == 'out' else ''}.weight", {})[side] = value
    merged = dict(weights)
    for name, pair in pairs.items():
        target = weights.get(name)
        if target is None or len(pair) != 2:
            what = "the UNet has no such layer" if target is None else "one half is missing"
            raise Imagine360FileError(f"{lora.label} does not fit the panorama UNet: {name}: {what}. {use}")
        up, down = pair["up"].float(), pair["down"].float()
        if (up.shape[0], *down.shape[1:]) != tuple(target.shape) or up.shape[1:] != down.shape[:1]:
            raise Imagine360FileError(
                f"{lora.label} does not fit the panorama UNet: {name} has shape {list(target.shape)}, the factors "
                f"{list(up.shape)} and {list(down.shape)}. {use}"
            )
        merged[name] = torch.add(target.float(), up @ down, alpha=strength).to(target.dtype)
    return merged


def _exchange_parts(exchange: Source) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The exchange blocks of a file, and what it holds of the UNets."""
    state = exchange.tensors
    blocks = {name: value for name, value in state.items() if name.startswith(_BLOCKS)}
    if not blocks:
        raise Imagine360FileError(
            f"{exchange.label} holds no exchange blocks ({_BLOCKS}...): it is {_what_it_is(state)}. Use "
            f"{EXCHANGE_FILE} of {SOURCE}."
        )
    inside = {
        role: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for role, prefix in (("views", _VIEWS_PREFIX), ("panorama", _PANORAMA_PREFIX))
    }
    rest = [name for name in state if not name.startswith((_BLOCKS, _VIEWS_PREFIX, _PANORAMA_PREFIX))]
    if rest:
        raise Imagine360FileError(f"{exchange.label} holds what no Imagine360 has: {some(rest)}. Use {EXCHANGE_FILE}.")
    return blocks, inside


def _branch_file(source: Source, role: str, other: str) -> dict[str, Tensor]:
    """A UNet's weights of a file of its own."""
    state = source.tensors
    file, others = (VIEWS_FILE, PANORAMA_FILE) if role == "views" else (PANORAMA_FILE, VIEWS_FILE)
    use = f"Use {file} of {SOURCE} for the {role} UNet."
    # The two have one layout, and nothing but the name tells them apart.
    mine, theirs = ("pers", "pano") if role == "views" else ("pano", "pers")
    base = re.split(r"[\\/]", source.name.lower())[-1]
    if theirs in base and mine not in base:
        raise Imagine360FileError(f"{source.label} is, by its name, the UNet of the {other} ({others}). {use}")
    first = state.get("conv_in.weight")
    motion = any("motion_modules" in name for name in state)
    if first is None or first.ndim != 4 or not (motion or "fps_embedding.linear_1.weight" in state):
        raise Imagine360FileError(f"{source.label} is no UNet of Imagine360: it is {_what_it_is(state)}. {use}")
    return state


def _renamed(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return own_temporal_names(weights)
    except LayoutError as error:
        raise Imagine360FileError(f"{name} holds no complete UNet of Imagine360: {error}. See {SOURCE}.") from None


def _sized(name: str, weights: dict[str, Tensor], training: Training) -> BranchSizes:
    try:
        sizes = branch_sizes(weights, training)
    except LayoutError as error:
        raise Imagine360FileError(f"{name} holds no complete UNet of Imagine360: {error}. See {SOURCE}.") from None
    if sizes.unet["in_channels"] != 2 * sizes.unet["out_channels"] + 1:
        raise Imagine360FileError(
            f"{name}: its first convolution takes {sizes.unet['in_channels']} channels; expected "
            f"{2 * sizes.unet['out_channels'] + 1} (noisy latent, mask, masked latent). See {SOURCE}."
        )
    return sizes


def _shown(sizes: BranchSizes) -> tuple:
    return tuple(getattr(sizes, one.name) for one in fields(sizes))


def _fill(
    network: Imagine360Network,
    exchange: str,
    blocks: Mapping[str, Tensor],
    branches: Mapping[str, tuple[str, Mapping[str, Tensor]]],
    sizes: BranchSizes,
    dtype: torch.dtype | None,
    report: Report,
) -> None:
    """Puts the files' weights into a network."""
    layout, layout_of_blocks = published_layout(sizes)
    names, levels = unet_names(sizes.unet), len(sizes.unet["channel_mult"])
    groups = [(exchange, blocks, layout_of_blocks, {})]
    for own in network.exchange.state_dict():
        groups[0][3][f"exchange.{own}"] = exchange_name(own, levels)
    for role, (file, weights) in branches.items():
        taken = {f"{role}.{own}": published_name(own, names) for own in getattr(network, role).state_dict()}
        groups.append((file, weights, layout, taken))
    loaded = {}
    for file, weights, known, taken in groups:
        wanted = set(taken.values())
        extra = {name for name in weights if name not in known and UNUSED_ATTENTION not in name}
        wrong = difference(wanted, (weights.keys() & wanted) | extra)
        if wrong:
            raise Imagine360FileError(f"{file} is no complete part of Imagine360:{wrong} See {SOURCE}.")
        for own, name in taken.items():
            value = weights[name]
            if tuple(value.shape) != known[name]:
                raise Imagine360FileError(
                    f"{file}: {name} has shape {list(value.shape)}; expected {list(known[name])}. See {SOURCE}."
                )
            loaded[own] = value.float() if own.endswith(".bands") else value if dtype is None else value.to(dtype)
        report.used += len(taken)
        report.dropped += len(weights.keys() - wanted)
    network.load_state_dict(loaded, assign=True)
    network.dtype = next(iter(loaded.values())).dtype if dtype is None else dtype


def _what_it_is(state: Mapping[str, Tensor]) -> str:
    """What a file is that was chosen for another, as the end of "it is"."""
    if not state:
        return "empty"
    for prefixes, kind in (
        (("model.diffusion_model.", "first_stage_model.", "cond_stage_model."), "a whole checkpoint"),
        (("input_blocks.", "diffusion_model."), "a UNet under ComfyUI's names, not under diffusers'"),
        (("image_encoder.", "mask_decoder.", "prompt_encoder."), "SAM, which belongs to 'image_encoder'"),
        ((_BLOCKS,), f"what panorama and views exchange ({EXCHANGE_FILE}), which belongs to 'mv_model'"),
    ):
        if any(name.startswith(prefixes) for name in state):
            return kind
    if any("lora" in name for name in state):
        return f"a LoRA ({some(state)})"
    first = state.get("conv_in.weight")
    if first is not None and first.ndim == 4:
        if any("motion_modules" in name for name in state):
            return f"one of the UNets ({VIEWS_FILE}, {PANORAMA_FILE})"
        return f"a UNet of pictures, without motion modules, that takes {first.shape[1]} channels"
    if any("motion_modules" in name for name in state):
        return "a file of motion modules"
    return f"something else, which holds {some(state)}"
