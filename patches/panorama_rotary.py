"""Rotary positions that go round: each place of a picture sees all others where they are nearest to it.

Su et al., RoFormer, 2021: a token's position turns pairs of its numbers by position x frequency, and attention sees the
difference of two tokens' positions. On a circle that difference should be the shorter way round. So the columns are cut
into groups; each group's queries meet the keys as if the picture had been cut open at the far side of the group, for
which the keys beyond are turned on by a whole width. Each key is seen once, in a distance that the network knows, and
the work is the same. (Frequencies that make whole turns over the width would need no groups. They were tried first: of
the slow ones nothing is left, and the demonstration's Wan drew nothing one could recognise.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .regional import FAMILIES, JOINT_TEXT_FIRST, OVERRIDE

EMBEDDERS = {
    "WanModel": "rope_embedder",
    "VaceWanModel": "rope_embedder",
    "CameraWanModel": "rope_embedder",
    "Flux": "pe_embedder",
    "Chroma": "pe_embedder",
    "QwenImageTransformer2DModel": "pe_embedder",
    "HunyuanVideo": "pe_embedder",
}
"""The host's network class -> its module that turns positions (the last one that of the column) into rotations."""

GROUPS = 8
"""The way to the far side is half the width and up to a sixteenth more."""


def is_rotary(network: nn.Module) -> bool:
    """Whether a network's rotary positions can be wrapped."""
    return isinstance(getattr(network, EMBEDDERS.get(type(network).__name__, " "), None), nn.Module)


@dataclass
class _Positions:
    """What the hook of an embedder leaves for the attention of the same call."""

    columns: Tensor | None = None
    """float64 [L], of all tokens of the sequence."""

    groups: list | None = None


@contextlib.contextmanager
def periodic(
    network: nn.Module, options: dict, tokens: int, pictures: int, text: int, step: float = 1.0, strength: float = 1.0
) -> Iterator[dict]:
    """Within it, a network called with the options that are yielded sees its columns on a circle.

    Args:
        network: for which ``is_rotary`` is True; afterwards it is as it was.
        options: transformer_options; not changed.
        tokens: columns of tokens.
        pictures: tokens of the picture or the video.
        text: tokens of text that the network is handed.
        step: from one column's position to the next one's.
        strength: 0 = as without, 1 = the width is gone round; in between keys are turned by a part of it.
    """
    if strength == 0:
        yield options
        return
    embedder, found = getattr(network, EMBEDDERS[type(network).__name__]), _Positions()
    first = text if FAMILIES[type(network).__name__][0] == JOINT_TEXT_FIRST else 0
    period = tokens * step

    def note(module: nn.Module, given: tuple, result: Tensor) -> None:
        columns = given[0][..., -1].flatten(0, -2)[0].detach().float()
        if columns.shape[0] >= first + pictures:
            found.columns, found.groups = columns, None

    before = options.get(OVERRIDE)

    def attend(function, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest, **how):
        def call(*some: Tensor, mask: object = None) -> Tensor:
            told = {**how, **({} if mask is None else {"mask": mask})}
            if before is not None:
                return before(function, *some, heads, *rest, **told)
            return function(*some, heads, *rest, **told)

        axis = 2 if how.get("skip_reshape") else 1
        length = q.shape[axis]
        if found.columns is None or not length == k.shape[axis] == found.columns.shape[0]:
            return call(q, k, v)
        if found.groups is None:
            found.groups = _groups(found.columns, slice(first, first + pictures), period)
        turns = _turns(embedder, period * strength, k.device)
        size = k.shape[-1] // (1 if how.get("skip_reshape") else heads)
        mask, result = how.get("mask"), None
        for queries, later, earlier in found.groups:
            keys = k
            if len(later) or len(earlier):
                keys = k.clone()
                for places, sign in ((later, 1), (earlier, -1)):
                    _turn(keys, places, axis, size, turns, sign)
            own = mask
            if isinstance(mask, Tensor) and mask.ndim >= 2 and mask.shape[-2] == length:
                own = mask.index_select(-2, queries.to(mask.device))
            made = call(q.index_select(axis, queries), keys, v, mask=own)
            if result is None:
                where = 2 if how.get("skip_output_reshape") else 1
                result = made.new_empty(*made.shape[:where], length, *made.shape[where + 1 :])
            result.index_copy_(where, queries, made)
        return result

    hook = embedder.register_forward_hook(note)
    try:
        yield {**options, OVERRIDE: attend}
    finally:
        hook.remove()


def _groups(columns: Tensor, picture: slice, period: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each group of queries their numbers, those of the keys to move a width on, and of those to move back."""
    own, places = columns[picture], torch.arange(columns.shape[0], device=columns.device)
    lowest, found = float(own.min()), []
    number = ((own - lowest) * GROUPS / period).floor().clamp(max=GROUPS - 1)
    inside = places[picture]
    others = torch.cat((places[: picture.start], places[picture.stop :]))
    nothing = places[:0]
    if len(others):
        found.append((others, nothing, nothing))
    for group in range(GROUPS):
        chosen = number == group
        if bool(chosen.any()):
            middle = float(own[chosen].min() + own[chosen].max()) / 2
            away = own - middle
            found.append((inside[chosen], inside[away < -period / 2], inside[away >= period / 2]))
    return found


def _turns(embedder: nn.Module, distance: float, device: object) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32 [D / 2], of what a distance turns the pairs of the last axis by."""
    size = embedder.axes_dim[-1]
    angles = distance * embedder.theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _turn(keys: Tensor, places: Tensor, axis: int, size: int, turns: tuple[Tensor, Tensor], sign: int) -> None:
    """Turns some keys, in place: [B, heads, L, size] (axis 2) or [B, L, heads * size] (axis 1)."""
    if not len(places):
        return
    cosine, sine = turns[0], turns[1] * sign
    some = keys.index_select(axis, places).unflatten(-1, (-1, size))
    pairs = some[..., size - 2 * len(cosine) :].float().unflatten(-1, (-1, 2))
    a, b = pairs.unbind(-1)
    turned = torch.stack((a * cosine - b * sine, a * sine + b * cosine), -1).flatten(-2).to(keys)
    some = torch.cat((some[..., : size - 2 * len(cosine)], turned), -1).flatten(-2)
    keys.index_copy_(axis, places, some)
