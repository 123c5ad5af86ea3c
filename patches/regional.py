"""A bias on the logits of chosen text tokens, in the attention of a running model; and masks for parts of the picture.

Works on UNets (cross attention, through ``attn2`` replacements), on transformers with cross attention (Wan, LTXV) and
on those where text and picture share one attention (SD3, Flux, Chroma, HunyuanVideo), there through a block replacement
that sees the block's own attention calls. In a shared attention only the picture's queries are biased by a KeyBias.
Blobs (patches/blobs.py) go through the same places: their bias depends on the query, and they restrict the picture's
attention to itself as well.

The biases travel in the CONDITIONING and reach only its own rows (patches/rows.py). Everything is put in place when the
network is called and is gone afterwards, so it does not matter in which order models are patched: what other patches
have put in the same place is called too.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from comfy.ldm.modules import attention
from torch import Tensor
from torch.nn import functional

from .rows import is_active, repeat_rows, set_row_values, text_length

KEY = "papernodes_key_bias"
"""Name of the biases in a CONDITIONING, of their wrappers and of their rows."""

OVERRIDE = "optimized_attention_override"

UNET, CROSS, JOINT_TEXT_FIRST, JOINT_TEXT_LAST = "unet", "cross", "joint, text first", "joint, text last"

FAMILIES = {
    "UNetModel": (UNET, ()),
    "WanModel": (CROSS, ("blocks",)),
    "VaceWanModel": (CROSS, ("blocks",)),
    "CameraWanModel": (CROSS, ("blocks",)),
    "LTXVModel": (CROSS, ("transformer_blocks",)),
    "OpenAISignatureMMDITWrapper": (JOINT_TEXT_FIRST, ("joint_blocks",)),
    "Flux": (JOINT_TEXT_FIRST, ("double_blocks", "single_blocks")),
    "Chroma": (JOINT_TEXT_FIRST, ("double_blocks", "single_blocks")),
    "QwenImageTransformer2DModel": (JOINT_TEXT_FIRST, ("transformer_blocks",)),
    "HunyuanVideo": (JOINT_TEXT_LAST, ("double_blocks", "single_blocks")),
}
"""The host's network class -> how its text meets its picture, and the names of its lists of blocks."""


@dataclass(frozen=True)
class KeyBias:
    """What is added to the logits of text tokens: ``ln(base + strength * kept)``.

    The attention to a token becomes ``base + strength`` times as strong (before it is shared out among all tokens).
    With a dropout, ``kept`` is 0 that often, anew at every query and call, for all heads alike, and 1 otherwise.
    """

    strength: Tensor
    """float32 [T], at least 0; 0 where a token is left alone."""

    base: Tensor
    """float32 [T]: 1, or 0 for tokens that were only added to be biased."""

    dropout: float = 0.0
    start: float = 0.0
    end: float = 1.0
    """The part of the sampling in which it holds, 0 to 1."""


def family_of(model: object) -> str:
    """UNET, CROSS, JOINT_TEXT_FIRST or JOINT_TEXT_LAST.

    Raises:
        ValueError: another network.
    """
    name = type(model.get_model_object("diffusion_model")).__name__
    if name not in FAMILIES:
        raise ValueError(
            f"this model ({name}) is of a family whose attention is not known here. Known are UNets (SD1.5, SD2, SDXL "
            "and their like), SD3, Flux, Chroma, Qwen-Image, Wan, LTXV and HunyuanVideo."
        )
    return FAMILIES[name][0]


def add_key_bias(model: object) -> object:
    """A clone of a MODEL that obeys the KeyBias of the CONDITIONING it is sampled with.

    Raises:
        ValueError: a network of another family.
    """
    family_of(model)
    model = model.clone()
    set_row_values(model, KEY, _read, _use)
    return model


def with_key_bias(entry: list, bias: KeyBias) -> list:
    """An entry of a CONDITIONING, ``[tensor, dict]``, with one bias more."""
    text, options = entry
    return [text, {**options, KEY: (*options.get(KEY, ()), bias)}]


def _read(condition: dict, base_model: object, timestep: Tensor) -> Tensor | None:
    """A condition's biases of this step, float32 [1, 1 or 3, T]: the logit's bias and, with a dropout, what it is where
    dropped and how often that happens.
    """
    active = [bias for bias in condition.get(KEY, ()) if is_active(bias.start, bias.end, base_model, timestep)]
    length = text_length(condition)
    if not active or length is None:
        return None
    kept, dropped, dropout = torch.zeros(3, length)
    for bias in active:
        size = bias.strength.shape[0]
        if size > length:
            raise ValueError(
                f"Identity Attention: the prompt had {size} tokens when its identity was marked, but {length} reach "
                "the model. Put nodes that shorten a conditioning before Identity Attention."
            )
        kept[:size] += (bias.base + bias.strength).log()
        dropped[:size] += torch.where(bias.strength > 0, bias.base, bias.base + bias.strength).log()
        dropout[:size] = torch.where(bias.strength > 0, dropout[:size].clamp_min(bias.dropout), dropout[:size])
    if bool(dropout.any()):
        return torch.stack([kept, dropped, dropout])[None]
    return kept[None, None] if bool(kept.any()) else None


def _use(rows: Tensor, options: dict, base_model: object, latents: Tensor) -> dict:
    return options_with_bias(rows, options, base_model.diffusion_model)


def options_with_bias(rows: Tensor, options: dict, network: torch.nn.Module) -> dict:
    """The options of one call of the network, with a bias in all of its attention to text.

    Args:
        rows: float32 [B, 1, T], of each row of the batch what is added to the logits of the text's T tokens; or
            [B, 3, T]: that, what is added instead where it is dropped, and how often that happens.
        options: transformer_options; not changed.
        network: one of FAMILIES.
    """
    return options_with(_Bias(rows), options, network)


class Regions(Protocol):
    """What changes attention, in one call of a network."""

    length: int
    """Rows of text that the network is handed."""

    name: str
    """The node, for messages."""

    def mask(self, q: Tensor, queries: int, keys: int, options: dict, *, call: int = 0, first: int = 0) -> Tensor:
        """What is added to the logits of the picture's queries, [batch, 1, 1 or queries, keys] in the dtype of ``q``.

        Args:
            q: the queries' tensor, whose first axis is the batch.
            queries: how many of them get it.
            keys: of the attention; those beyond the text (added by another patch) get 0.
            options: transformer options, which say where and when this is.
            call: which of a block's attention calls it is.
            first: which key is the text's first.
        """

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict) -> Tensor | None:
        """Cross attention to text in place of the host's under ``mask``, with its arguments; None = under the mask."""

    def within(self, block: int) -> bool:
        """Whether the attention of picture to picture is restricted in a block, counted from 0 as they run."""

    def attend_within(self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict) -> Tensor | None:
        """Attention of picture to picture in such a block, with the arguments of the host's, which is ``attend``;
        None = leave it to the host.
        """

    def attend_shared(
        self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict, text: slice, block: int
    ) -> Tensor | None:
        """Attention that text and picture share, where more than the picture's attention to text is restricted; None =
        ``mask`` is all. ``how`` may hold a "mask"; ``text`` says which keys are the text's.
        """


def options_with(regions: Regions, options: dict, network: torch.nn.Module) -> dict:
    """The options of one call of the network, with what regions change in its attention.

    Args:
        regions: of this call.
        options: transformer_options; not changed.
        network: one of FAMILIES.
    """
    family, lists = FAMILIES[type(network).__name__]
    replace = {name: dict(patches) for name, patches in options.get("patches_replace", {}).items()}
    if family == UNET:
        order = unet_attention_order(network)
        attn2 = replace.setdefault("attn2", {})
        for block in {*((name, number) for name, number, _ in order), *attn2}:
            attn2[block] = _CrossAttention(regions, attn2.get(block))
        if any(regions.within(place) for place in order.values()):
            attn1 = replace.setdefault("attn1", {})
            for block in {*((name, number) for name, number, _ in order), *attn1}:
                attn1[block] = _SelfAttention(regions, order, attn1.get(block))
    else:
        dit, blocks, place = replace.setdefault("dit", {}), _Blocks(regions, family), 0
        for name in lists:
            kind = "single_block" if name == "single_blocks" else "double_block"
            for number in range(len(getattr(network, name))):
                dit[kind, number] = blocks.around(dit.get((kind, number)), place)
                place += 1
    return {**options, "patches_replace": replace}


def unet_attention_order(network: torch.nn.Module) -> dict[tuple[str, int, int], int]:
    """Of each transformer block of a UNet (part, number there, number in its layer): when it runs, from 0."""
    parts = [("input", number, layer) for number, layer in enumerate(network.input_blocks)]
    parts += [("middle", 0, network.middle_block or ())]
    parts += [("output", number, layer) for number, layer in enumerate(network.output_blocks)]
    found: dict[tuple[str, int, int], int] = {}
    for name, number, layer in parts:
        inside = [len(module.transformer_blocks) for module in layer if hasattr(module, "transformer_blocks")]
        for index in range(max(inside, default=0)):
            found[name, number, index] = len(found)
    return found


class _Bias:
    """A batch's biases, float32 [B, 1 or 3, T] as ``_read`` makes them, for every attention of one network call."""

    name = "Identity Attention"

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.length = rows, rows.shape[-1]
        self._made: dict[tuple, Tensor] = {}

    def mask(self, q: Tensor, queries: int, keys: int, options: dict, *, call: int = 0, first: int = 0) -> Tensor:
        """See Regions."""
        after = keys_after(self, keys, first)
        if self.rows.shape[1] == 1:
            place = (q.shape[0], keys, first, q.dtype)
            if place not in self._made:
                bias = repeat_rows(self.rows, q.shape[0])[:, :, None].to(q)
                self._made[place] = functional.pad(bias, (first, after))
            return self._made[place]
        kept, dropped, dropout = (
            part[:, None, None] for part in repeat_rows(self.rows, q.shape[0]).to(q.device).unbind(1)
        )
        generator = torch.Generator(q.device).manual_seed(_seed(options, call))
        # One draw for all rows, so that it does not matter which of them are in this batch.
        chance = torch.rand(1, 1, queries, self.length, generator=generator, device=q.device)
        return functional.pad(torch.where(chance < dropout, dropped, kept), (first, after)).to(q.dtype)

    def attend_text(self, *_) -> None:
        """See Regions."""

    def within(self, block: int) -> bool:
        """See Regions."""
        return False

    def attend_within(self, *_) -> None:
        """See Regions."""

    def attend_shared(self, *_) -> None:
        """See Regions."""


def keys_after(regions: Regions, keys: int, first: int) -> int:
    """How many keys of an attention lie behind the text.

    Raises:
        ValueError: it has fewer keys than the text has rows.
    """
    after = keys - first - regions.length
    if after < 0:
        raise ValueError(
            f"{regions.name}: attention sees {keys} keys where the prompt alone has {regions.length}. Another patch "
            "on this model replaces the text; leave one of the two out."
        )
    return after


def _seed(options: dict, call: int) -> int:
    """Of the dropout: the step's noise level and the place in the network."""
    sigmas = options.get("sigmas")
    when = None if sigmas is None else float(sigmas.flatten()[0])
    where = [options.get(name) for name in ("block", "block_index", "block_type")]
    return zlib.crc32(repr((when, where, call)).encode())


class _CrossAttention:
    """An ``attn2`` replacement: the host's attention with the bias.

    Where another patch replaces the same attention, what it adds to the plain attention is kept.
    """

    def __init__(self, bias: Regions, other: Callable | None) -> None:
        self.bias, self.other = bias, other

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        heads = options["n_heads"]
        how = {"attn_precision": options.get("attn_precision"), "transformer_options": options}
        mask = self.bias.mask(q, q.shape[1], k.shape[1], options)
        biased = attention.optimized_attention_masked(q, k, v, heads, mask=mask, **how)
        if self.other is None:
            return biased
        return self.other(q, k, v, options) + (biased - attention.optimized_attention(q, k, v, heads, **how))


class _SelfAttention:
    """An ``attn1`` replacement: attention within regions; what another patch adds to the plain attention is kept."""

    def __init__(self, regions: Regions, order: dict[tuple[str, int, int], int], other: Callable | None) -> None:
        self.regions, self.order, self.other = regions, order, other

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        heads = options["n_heads"]
        how = {"attn_precision": options.get("attn_precision"), "transformer_options": options}
        place, found = self.order.get((*options["block"], options.get("block_index", 0))), None
        # Another patch may have put keys of its own behind the picture's.
        if place is not None and self.regions.within(place) and k.shape[1] == q.shape[1]:
            found = self.regions.attend_within(attention.optimized_attention, q, k, v, heads, how)
        if found is None:
            if self.other is not None:
                return self.other(q, k, v, options)
            return attention.optimized_attention(q, k, v, heads, **how)
        if self.other is None:
            return found
        return self.other(q, k, v, options) + (found - attention.optimized_attention(q, k, v, heads, **how))


class _Blocks:
    """A transformer's blocks in one call of the network."""

    def __init__(self, bias: Regions, family: str) -> None:
        self.bias, self.family = bias, family
        self.text = bias.length

    def around(self, other: Callable | None, place: int) -> Callable:
        """A ``dit`` block replacement that calls the one that was there before, or the block itself; ``place``: when
        the block runs, from 0.
        """

        def replacement(args: dict, extra: dict) -> dict:
            options, length = args.get("transformer_options") or {}, args["img"].shape[1]
            if "txt" in args:
                self.text = args["txt"].shape[1]
                length += self.text
            if self.family == JOINT_TEXT_LAST and self.text != self.bias.length:
                raise ValueError(
                    f"{self.bias.name}: the model makes {self.text} tokens of a prompt's {self.bias.length}, so that "
                    "words cannot be found among them. Set its strength to 0 for this model."
                )
            options = {**options, OVERRIDE: _BlockAttention(self, length, options, place)}
            args = {**args, "transformer_options": options}
            return other(args, extra) if other else extra["original_block"](args)

        return replacement


class _BlockAttention:
    """Stands for the host's attention within one block.

    A shared attention is known by its length, text and picture together; a cross attention by coming after the block's
    self attention and by the text's length.
    """

    def __init__(self, blocks: _Blocks, length: int, options: dict, place: int) -> None:
        self.blocks, self.length, self.options, self.place = blocks, length, options, place
        self.calls = 0

    def __call__(
        self, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **how
    ) -> Tensor:
        before = self.options.get(OVERRIDE)
        attend = function if before is None else functools.partial(before, function)
        axis = 2 if how.get("skip_reshape") else 1
        keys, queries, call = k.shape[axis], q.shape[axis], self.calls
        self.calls += 1
        bias, family, text = self.blocks.bias, self.blocks.family, self.blocks.text
        if family == CROSS:
            if call > 0 and keys == bias.length:
                found = bias.attend_text(q, k, v, heads, how) if mask is None else None
                if found is not None:
                    return found
                mask = join_masks(mask, bias.mask(q, queries, keys, self.options, call=call))
            elif call == 0 and mask is None and keys == queries and bias.within(self.place):
                found = bias.attend_within(attend, q, k, v, heads, how)
                if found is not None:
                    return found
            return attend(q, k, v, heads, mask=mask, **how)
        if keys != self.length or queries != keys:
            return attend(q, k, v, heads, mask=mask, **how)
        sizes = (text, keys - text) if family == JOINT_TEXT_FIRST else (keys - text, text)
        picture = 1 if family == JOINT_TEXT_FIRST else 0
        first = 0 if family == JOINT_TEXT_FIRST else keys - text
        shared = bias.attend_shared(
            attend, q, k, v, heads, {**how, "mask": mask}, slice(first, first + text), self.place
        )
        if shared is not None:
            return shared
        found = []
        for part, some in enumerate(q.split(sizes, axis)):
            own = mask if mask is None or mask.shape[-2] != queries else mask.split(sizes, -2)[part]
            if part == picture:
                own = join_masks(own, bias.mask(q, sizes[part], keys, self.options, call=call, first=first))
            found.append(attend(some, k, v, heads, mask=own, **how))
        return torch.cat(found, 2 if how.get("skip_output_reshape") else 1)


def join_masks(mask: Tensor | None, bias: Tensor) -> Tensor:
    """A mask of the host and a bias [B, 1, 1 or Lq, Lk] as one that is added to the logits."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, -math.inf)
    # With axes for batch and heads, as the host adds them.
    mask = mask[None] if mask.ndim == 2 else mask
    return (mask[:, None] if mask.ndim == 3 else mask) + bias
