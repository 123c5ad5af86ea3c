"""Attention to a reference picture, in the self attention of a running UNet.

A first UNet sees the reference and what goes into each of its self attentions is kept, the bank. The UNet that samples
then attends to its own tokens and to the bank's, block by block, with its own weights; where points were matched,
their embeddings say which tokens belong together (Liu et al., MangaNinja, CVPR 2025).

With n the block's tokens, b the bank's, P and R the embeddings of the target's and the reference's points, a row of the
batch attends by its role:

    NO_REFERENCE      Q = n        K = n                    V = n
    REFERENCE         Q = n        K = [n; b]               V = [n; b]
    WITH_POINTS       Q = n + P    K = [n + P; b + R]       V = [n; b]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

NO_REFERENCE, REFERENCE, WITH_POINTS = range(3)
ROLES = (NO_REFERENCE, REFERENCE, WITH_POINTS)

OVERRIDE = "optimized_attention_override"
PATCH = "attn1_patch"
REPLACE = "attn1"

Place = tuple[str, int, int]
"""A self attention: "input", "middle" or "output", the number of the block, and the transformer's in it."""


def place_of(options: Mapping) -> Place:
    """Where an attention patch is called, from the options that the host hands it."""
    name, number = options["block"]
    return name, number, options.get("block_index", 0)


def with_patch(options: Mapping, patch: Callable) -> dict:
    """transformer_options with one more self attention patch, which comes after those that are there."""
    patches = options.get("patches", {})
    return {**options, "patches": {**patches, PATCH: [*patches.get(PATCH, ()), patch]}}


def keep_tokens(bank: dict[Place, Tensor], options: Mapping) -> dict:
    """transformer_options of a network call that fills a bank.

    Args:
        bank: place -> [B, L, C], what the normed tokens of that self attention are; filled by the call.
        options: the call's own; not changed.
    """

    def keep(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple[Tensor, Tensor, Tensor]:
        bank[place_of(extra)] = n
        return n, context, value

    return with_patch(options, keep)


@dataclass
class ReferenceRows:
    """The self attention of one batch.

    A place that the bank lacks is left alone. One object may serve all calls of a run, one after the other: sums that
    do not change are then made once.
    """

    bank: Mapping[Place, Tensor]
    """[1, frames or rows, L, C], on the device and in the dtype of the call: one for all rows, one for each row of
    every role, or one for each row of the batch (which is how a batch of other pictures is trained)."""

    roles: Sequence[int]
    """Of each row of the batch, one of ROLES. Rows of one role that follow each other are the frames of a clip."""

    target: Sequence[Tensor] = ()
    """P of each level of the UNet, each [1, frames or rows, tokens, C], for the rows WITH_POINTS; none: without P."""

    reference: Sequence[Tensor] = ()
    """R of each level, each [1, frames or rows, tokens, C]."""

    strength: float = 1.0
    """How many times each of the bank's tokens counts, above 0; ln of it is added to its logit."""

    _before: Callable | None = None
    _reading: tuple[int, int] | None = field(default=None, init=False)
    _behind: dict[Place, tuple[list[Tensor], list[Tensor]]] = field(default_factory=dict, init=False, repr=False)

    def options(self, options: Mapping) -> dict:
        """transformer_options of the call; those given are not changed, and what they replace is called, too."""
        self._before = options.get(OVERRIDE)
        changed = {**with_patch(options, self.patch), OVERRIDE: self.attend}
        replace = options.get("patches_replace", {})
        if replace.get(REPLACE):
            own = {place: functools.partial(self.replaced, patch) for place, patch in replace[REPLACE].items()}
            changed["patches_replace"] = {**replace, REPLACE: own}
        return changed

    @functools.cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Role, first row and end of each run of rows of one role."""
        edges = [0, *(row for row in range(1, len(self.roles)) if self.roles[row] != self.roles[row - 1])]
        ends = [*edges[1:], len(self.roles)]
        return [(self.roles[start], start, end) for start, end in zip(edges, ends, strict=True)]

    def patch(self, n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple[Tensor, Tensor, Tensor]:
        """What queries, keys and values are made from: each as given, with the bank's tokens behind keys and values."""
        place = place_of(extra)
        bank = self.bank.get(place)
        self._reading = None
        if bank is None or not any(self.roles):
            return n, context, value
        if n.shape[0] != len(self.roles):
            raise ValueError(f"self attention sees {n.shape[0]} rows where {len(self.roles)} were told of.")
        q, k = n, context
        if WITH_POINTS in self.roles and self.target:
            level = _level(self.target, n)
            q = self._with_target(n, level)
            k = q if context is n else self._with_target(context, level)
        if place not in self._behind:
            self._behind[place] = self._bank_of_rows(bank)
        keys, values = self._behind[place]
        self._reading = context.shape[1], bank.shape[1]
        return q, _beside(k, keys), _beside(value, values)

    def attend(self, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **how) -> Tensor:
        """Stands for the host's attention: rows without a reference do not see the bank's tokens behind their own."""
        attend = function if self._before is None else functools.partial(self._before, function)
        reading, self._reading = self._reading, None
        axis = 2 if how.get("skip_reshape") else 1
        if reading is None or k.shape[axis] != sum(reading) or args or how.get("mask") is not None:
            return attend(q, k, v, heads, *args, **how)
        own, _ = reading
        found = []
        for sees, start, end in self._spans():
            rows = slice(start, end)
            if not sees:
                part = (some[rows].narrow(axis, 0, own) for some in (k, v))
                found.append(attend(q[rows], *part, heads, **how))
            elif self.strength == 1:
                found.append(attend(q[rows], k[rows], v[rows], heads, **how))
            else:
                mask = q.new_zeros(1, 1, q.shape[axis], k.shape[axis])
                mask[..., own:] = math.log(self.strength)
                found.append(attend(q[rows], k[rows], v[rows], heads, **{**how, "mask": mask}))
        return _joined(found)

    def replaced(self, replacement: Callable, q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        """Stands for what another patch put in an attention's place, which is called for rows that attend alike.

        It does not know of ``strength``, only of the bank's tokens.
        """
        reading, self._reading = self._reading, None
        if reading is None or k.shape[1] != sum(reading):
            return replacement(q, k, v, extra)
        own, _ = reading
        conditions = extra.get("cond_or_uncond", ())
        each = q.shape[0] // max(len(conditions), 1)
        found = []
        for sees, start, end in self._spans():
            keys, values = (some[start:end] if sees else some[start:end, :own] for some in (k, v))
            part = {**extra, "cond_or_uncond": list(conditions[start // each : end // each])}
            found.append(replacement(q[start:end], keys, values, part))
        return _joined(found)

    def _of_rows(self, tokens: Tensor, start: int, end: int) -> Tensor:
        """Tokens [1, frames or rows, L, C] for some rows of one role."""
        if tokens.shape[0] == 1:
            return tokens.expand(end - start, -1, -1)
        if tokens.shape[0] == len(self.roles):
            return tokens[start:end]
        if (end - start) % tokens.shape[0]:
            raise ValueError(
                f"{tokens.shape[0]} frames have reference or points of their own and {end - start} are drawn."
            )
        # Several conditions of one role may follow each other.
        return tokens.repeat((end - start) // tokens.shape[0], 1, 1)

    def _spans(self) -> list[tuple[bool, int, int]]:
        """Whether they see the bank, first row and end of each run of rows that attend alike."""
        spans: list[tuple[bool, int, int]] = []
        for role, start, end in self.runs:
            sees = role != NO_REFERENCE
            if spans and spans[-1][0] == sees:
                start = spans.pop()[1]
            spans.append((sees, start, end))
        return spans

    def _bank_of_rows(self, bank: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What of a bank stands behind the keys, and behind the values, of each row of the batch: [L, C] each."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for role, start, end in self.runs:
            rows = self._of_rows(bank, start, end)
            values += rows.unbind()
            if role == WITH_POINTS and self.target:
                points = _level(self.reference, bank)
                one = bank.shape[0] == points.shape[0] == 1
                rows = self._of_rows(bank + points, start, end) if one else rows + self._of_rows(points, start, end)
            keys += rows.unbind()
        return keys, values

    def _with_target(self, tokens: Tensor, level: Tensor) -> Tensor:
        """Tokens [B, L, C] with P added to those of the rows WITH_POINTS."""
        parts = []
        for role, start, end in self.runs:
            part = tokens[start:end]
            parts.append(_plus(part, self._of_rows(level, start, end)) if role == WITH_POINTS else part)
        return _joined(parts)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _beside(own: Tensor, behind: Sequence[Tensor]) -> Tensor:
    """Tokens [B, L, C] and [M, C] for each row -> [B, L + M, C], written once."""
    parts = [part for pair in zip(own.unbind(), behind, strict=True) for part in pair]
    return torch.cat(parts).view(own.shape[0], -1, own.shape[2])


def _plus(tokens: Tensor, added: Tensor) -> Tensor:
    """Tokens [B, L, C] with something added to the first of them: another patch may have put more behind."""
    count = added.shape[1]
    if tokens.shape[1] == count:
        return tokens + added
    return torch.cat((tokens[:, :count] + added, tokens[:, count:]), 1)


def _level(levels: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """The embedding whose tokens are as many and as wide as those of an attention [B, L, C]."""
    for level in levels:
        if level.shape[1:] == tokens.shape[1:]:
            return level
    shapes = ", ".join(f"{level.shape[1]} x {level.shape[2]}" for level in levels)
    raise ValueError(
        f"the points' embeddings have {shapes} tokens and channels and the UNet's attention {tokens.shape[1]} x "
        f"{tokens.shape[2]}."
    )
