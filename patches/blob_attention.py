"""Attention masks of blobs, for one call of a network: see patches/blobs.py for what they mean.

Everything is said by membership: a query belongs to some regions, a key to some, and it is seen where they share one.
Up to LARGEST_DENSE tokens that is a mask for the host's attention; beyond, ``kernels/regional_attention.py`` visits
only what is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.ellipses import token_masks
from ..kernels.regional_attention import RegionPlan
from ..networks.blob_adapter import BlobRows
from .region_attention import attend_sparse, dense_mask, plan_of, stacked
from .regional import FAMILIES, UNET, join_masks, keys_after
from .rows import repeat_rows

if TYPE_CHECKING:
    from .blobs import BlobText

NAME = "Apply Blobs"
LARGEST_DENSE, LARGEST_MASK = 6144, 40_000
"""Tokens up to which attention of all to all has a dense mask, and up to which one fits into memory at all."""


def layout_frame(place: int, places: int, frames: int) -> int:
    """Which frame of a layout one of a model's frames shows.

    As many: that one. A video model's latent frames after the first stand for 4 (or 8) frames each: the middle one.
    Otherwise the one at the same part of the way.

    Args:
        place: 0 to places - 1.
        places: frames that the model has.
        frames: of the layout.
    """
    if frames == 1 or places == 1:
        return 0
    rate, rest = divmod(frames - 1, places - 1)
    if rest == 0:
        return rate * place - (rate // 2 if place else 0)
    return round(place * (frames - 1) / (places - 1))


class BlobAttention:
    """``regional.Regions`` of one call.

    Args:
        texts: of each row of the batch, or None.
        early: of each row, whether the attention of the picture to itself is restricted at this step.
        network: the network that is called.
        shape: of its latents, [B, C, H, W] or [B, C, T, H, W].
        places: frames of a row: those of a video, or the pictures that follow one another in the batch.
        total: how many the whole clip has.
        length: rows of the text that the network is handed.
        cache: keeps masks from call to call of one sampling.
    """

    name = NAME

    def __init__(
        self,
        texts: Sequence[BlobText | None],
        early: Sequence[bool],
        network: torch.nn.Module,
        shape: Sequence[int],
        places: Sequence[int],
        total: int,
        length: int,
        cache: dict,
    ) -> None:
        self.texts, self.early, self.length, self.cache = list(texts), list(early), length, cache
        self.family = FAMILIES[type(network).__name__][0]
        self.video = len(shape) == 5
        self.size, self.aspect = tuple(shape[-2:]), shape[-1] / shape[-2]
        self.patch = _patch(network)
        self.places, self.total = tuple(places), total

    @property
    def changes_attention(self) -> bool:
        """Whether any row's attention is other than the host's."""
        return any(text is not None and self._restricts(text) for text in self.texts)

    @staticmethod
    def _restricts(text: BlobText) -> bool:
        return text.ellipses.shape[1] > 0 and (text.settings.rules != "none" or text.settings.self_attention)

    # Where tokens lie.

    def grid(self, queries: int) -> tuple[int, int]:
        """Rows and columns of the tokens of one frame, in an attention of so many queries.

        Raises:
            ValueError: no grid of this picture has so many.
        """
        height, width = self.size
        if self.family != UNET:
            return -(-height // self.patch), -(-width // self.patch)
        while height * width > queries and height * width > 1:
            height, width = -(-height // 2), -(-width // 2)
        if height * width != queries:
            raise ValueError(
                f"{NAME}: attention has {queries} places, which is no size of this {self.size[1]}x{self.size[0]} "
                "latent. A node that changes the size of the picture within the model does not go with blobs."
            )
        return height, width

    def frames_of(self, row: int, frames: int) -> list[int]:
        """Frames of a layout that a row of the batch shows: of a picture one, of a video those of its latent frames."""
        if self.video:
            return [layout_frame(place, self.total, frames) for place in self.places]
        place = self.places[row % len(self.places)]
        return [place % frames]

    def cover(self, row: int, text: BlobText, height: int, width: int, device: torch.device) -> Tensor:
        """bool [tokens of the row, K]: which blobs each of its places lies in."""
        frames = self.frames_of(row, text.frames)
        found = token_masks(
            text.ellipses[frames].to(device), text.present[frames].to(device), height, width, self.aspect
        )
        return found.movedim(1, -1).flatten(0, 2)

    def _kept(self, key: tuple, make: Callable[[], Tensor]) -> Tensor:
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    # The picture's attention to text.

    def _text_bias(self, row: int, queries: int, device: torch.device) -> Tensor:
        """float32 [queries, length]: what is added to the logits of one row's text."""
        text = self.texts[row]
        if text is None or text.settings.rules == "none":
            return torch.zeros(queries, self.length, device=device)
        key = ("text", text, tuple(self.frames_of(row, text.frames)), self.early[row], queries, device)
        return self._kept(key, lambda: self._make_text_bias(row, text, queries, device))

    def _make_text_bias(self, row: int, text: BlobText, queries: int, device: torch.device) -> Tensor:
        _, weights = self._pieces_seen(row, text, queries, device)
        bias = torch.full((queries, text.length), -math.inf, device=device)
        inside = (weights > 0).any(1)
        strength = text.settings.strength
        for number, piece in enumerate(text.pieces):
            bias[:, piece.rows.start : piece.rows.stop] = (weights[:, number] * strength).log()[:, None]
        # At strength 1 this is ln 0, and the global prompt is not seen from inside.
        joined = text.settings.rules == "3dis" and not self.early[row]
        less = 0.0 if joined else (math.log1p(-strength) if strength < 1 else -math.inf)
        bias[:, : text.shared] = torch.where(inside, less, 0.0)[:, None]
        return bias

    def _pieces_seen(self, row: int, text: BlobText, queries: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which blobs cover each place, bool [queries, K]; and how much it is to see of each caption, float [queries,
        pieces]. Places beyond the grid's (of pictures that another patch lays beside it) are in no blob.
        """
        cover = self.cover(row, text, *self.grid(queries), device)
        frames = self.frames_of(row, text.frames)
        weights = cover.new_zeros(cover.shape[0], len(text.pieces), dtype=torch.float32)
        for number, piece in enumerate(text.pieces):
            at = piece.weights[frames].to(device).repeat_interleave(cover.shape[0] // len(frames))
            weights[:, number] = cover[:, piece.blob] * at
        beyond = queries - cover.shape[0]
        if beyond < 0:
            raise ValueError(f"{NAME}: attention has {queries} places, and the picture {cover.shape[0]}.")
        return functional.pad(cover, (0, 0, 0, beyond)), functional.pad(weights, (0, 0, 0, beyond))

    def mask(self, q: Tensor, queries: int, keys: int, options: dict, *, call: int = 0, first: int = 0) -> Tensor:
        """See regional.Regions."""
        after = keys_after(self, keys, first)

        def make() -> Tensor:
            rows = torch.stack([self._text_bias(row, queries, q.device) for row in range(len(self.texts))])
            rows = functional.pad(rows, (first, after)).to(q.dtype)
            return repeat_rows(rows[:, None], q.shape[0])

        state = (*self.texts, *self.early)
        return self._kept(("mask", state, self.places, q.shape[0], queries, keys, first, q.dtype, q.device), make)

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict) -> Tensor | None:
        """See regional.Regions: of many tokens, where every place sees a caption wholly or not at all."""
        queries = q.shape[2 if how.get("skip_reshape") else 1]
        if queries <= LARGEST_DENSE:
            return None

        def plan() -> RegionPlan | None:
            if not all(text is None or _is_sharp(text) for text in self.texts):
                return None
            rows = [self._text_regions(row, queries, q.device) for row in range(len(self.texts))]
            return plan_of(*stacked(rows), q.shape[0])

        state = (*self.texts, *self.early)
        found = self._kept(("text plan", state, self.places, q.shape[0], queries, q.device), plan)
        return None if found is None else attend_sparse(q, k, v, heads, how, found)

    def _text_regions(self, row: int, queries: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Regions of places and of text: the global prompt, each caption."""
        text = self.texts[row]
        if text is None or text.settings.rules == "none":
            return tuple(torch.ones(size, 1, dtype=torch.bool, device=device) for size in (queries, self.length))
        seen = self._pieces_seen(row, text, queries, device)[1] > 0
        joined = text.settings.rules == "3dis" and not self.early[row]
        shows = torch.zeros(self.length, 1 + len(text.pieces), dtype=torch.bool, device=device)
        shows[: text.shared, 0] = True
        for number, piece in enumerate(text.pieces, 1):
            shows[piece.rows.start : piece.rows.stop, number] = True
        return torch.cat((~seen.any(1, keepdim=True) | joined, seen), 1), shows

    # The picture's attention to itself.

    def within(self, block: int) -> bool:
        """See regional.Regions."""
        return any(self._row_within(row, block) for row in range(len(self.texts)))

    def _row_within(self, row: int, block: int) -> bool:
        text = self.texts[row]
        if text is None or not self.early[row]:
            return False
        settings = text.settings
        if settings.first_blocks and block >= settings.first_blocks:
            return False
        return settings.self_attention or settings.rules == "3dis"

    def _belonging(self, cover: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
        """Regions of queries and keys, bool [tokens, K + 1] each; the last region is the background.

        Where it is not symmetric, as in 3DIS, the background sees everything.
        """
        keys = torch.cat((cover, ~cover.any(1, keepdim=True)), 1)
        return (keys if symmetric else keys | keys[:, -1:]), keys

    def attend_within(self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict) -> Tensor | None:
        """See regional.Regions."""
        axis = 2 if how.get("skip_reshape") else 1
        tokens, device = q.shape[axis], q.device

        def regions() -> tuple[Tensor, Tensor]:
            parts = []
            for row, text in enumerate(self.texts):
                if text is None or not self.early[row]:
                    parts.append((torch.ones(tokens, 1, dtype=torch.bool, device=device),) * 2)
                    continue
                cover = self.cover(row, text, *self.grid(tokens), device)
                cover = functional.pad(cover, (0, 0, 0, tokens - cover.shape[0]))
                parts.append(self._belonging(cover, text.settings.self_attention))
            return stacked(parts)

        return self._attend(attend, q, k, v, heads, how, ("within", tokens), regions, None)

    def attend_shared(
        self, attend: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, how: dict, text: slice, block: int
    ) -> Tensor | None:
        """See regional.Regions.

        A caption's own tokens see themselves and their blob; the global prompt's and the background see everything.
        """
        axis = 2 if how.get("skip_reshape") else 1
        tokens, device = q.shape[axis], q.device
        queries = tokens - (text.stop - text.start)

        def regions() -> tuple[Tensor, Tensor]:
            return stacked([self._shared_regions(row, text, queries, device, block) for row in range(len(self.texts))])

        def bias() -> Tensor:
            first = text.stop if text.start == 0 else 0
            whole = torch.zeros(len(self.texts), tokens, tokens, device=device)
            for row in range(len(self.texts)):
                # What may not be seen at all is in the regions.
                own = self._text_bias(row, queries, device)
                whole[row, first : first + queries, text] = own.masked_fill(own == -math.inf, 0.0)
            return whole

        within = tuple(self._row_within(row, block) for row in range(len(self.texts)))
        soft = not all(text is None or _is_sharp(text) for text in self.texts)
        return self._attend(attend, q, k, v, heads, how, ("shared", tokens, within), regions, bias if soft else None)

    def _shared_regions(
        self, row: int, place: slice, queries: int, device: torch.device, block: int
    ) -> tuple[Tensor, Tensor]:
        """Regions: the global prompt, each caption, each blob, the background."""
        text, total = self.texts[row], queries + place.stop - place.start
        if text is None or not self._restricts(text):
            return (torch.ones(total, 1, dtype=torch.bool, device=device),) * 2
        cover, weights = self._pieces_seen(row, text, queries, device)
        bias = self._text_bias(row, queries, device)
        pieces, blobs = len(text.pieces), cover.shape[1]
        of_queries = torch.zeros(2, total, 1 + pieces + blobs + 1, dtype=torch.bool, device=device)
        asks, shows = of_queries.unbind(0)
        words, picture = asks[place], slice(place.stop, None) if place.start == 0 else slice(0, place.start)
        seen, seen_words = shows[picture], shows[place]
        words[: text.shared] = True
        words[text.shared :, 0] = True  # padding: whatever it sees, nobody sees it
        seen_words[: text.shared, 0] = True
        for number, piece in enumerate(text.pieces):
            rows = slice(piece.rows.start, piece.rows.stop)
            seen_words[rows, 1 + number] = True
            words[rows, 0] = False
            words[rows, 1 + number] = words[rows, 1 + pieces + piece.blob] = True
        asks[picture, 0] = bias[:, : max(text.shared, 1)].amax(1) > -math.inf
        if text.settings.rules == "none":
            asks[picture, 0] = True
        asks[picture, 1 : 1 + pieces] = weights > 0
        mine, seen[:, 1 + pieces :] = self._belonging(cover, text.settings.self_attention)
        asks[picture, 1 + pieces :] = mine if self._row_within(row, block) else True
        return asks, shows

    # How it is computed.

    def _attend(self, attend, q, k, v, heads, how, name, regions, bias) -> Tensor:
        """Attention of all to all, within regions, with a bias on top where there is one."""
        state = (*self.texts, *self.early)
        key = (*name, state, self.places, q.device)
        tokens = q.shape[2 if how.get("skip_reshape") else 1]
        if tokens > LARGEST_DENSE and bias is None and how.get("mask") is None:
            plan = self._kept((*key, "plan", q.shape[0]), lambda: plan_of(*regions(), q.shape[0]))
            if plan is not None:
                return attend_sparse(q, k, v, heads, how, plan)

        if tokens > LARGEST_MASK:
            raise ValueError(
                f"{NAME}: attention of {tokens} tokens to each other is too much for a mask. On this model and at this "
                "size set 'strength' and the blobs' weights to 1, or take fewer blobs."
            )

        def dense() -> Tensor:
            mask = dense_mask(*regions(), q.device)
            return (mask if bias is None else mask + bias()[:, None]).to(q.dtype)

        mask = repeat_rows(self._kept((*key, q.dtype), dense), q.shape[0])
        how = dict(how)
        return attend(q, k, v, heads, mask=join_masks(how.pop("mask", None), mask), **how)

    # What adapters see.

    def rows_for_adapter(self, device: torch.device) -> BlobRows | None:
        """The blobs of every row of the batch, on a device; None without any."""
        if not any(text is not None and text.pieces for text in self.texts):
            return None
        return self._kept(("adapter", *self.texts, self.places), lambda: self._make_rows(device))

    def _make_rows(self, device: torch.device) -> BlobRows:
        present = [text for text in self.texts if text is not None]
        blobs = max(text.ellipses.shape[1] for text in present)
        words = max((piece.states.shape[0] for text in present for piece in text.pieces), default=1)
        width = next(piece.states.shape[1] for text in present for piece in text.pieces)
        rows = len(self.texts)
        tokens, real = torch.zeros(rows, blobs, words, width), torch.zeros(rows, blobs, words, dtype=torch.bool)
        ellipses, there = torch.ones(rows, blobs, 5), torch.zeros(rows, blobs, dtype=torch.bool)
        for row, text in enumerate(self.texts):
            if text is None:
                continue
            frame = self.frames_of(row, text.frames)[0]
            count = text.ellipses.shape[1]
            ellipses[row, :count] = text.ellipses[frame]
            for piece in text.pieces:
                if piece.weights[frame] > 0 and bool(text.present[frame, piece.blob]):
                    size = piece.states.shape[0]
                    tokens[row, piece.blob, :size] = piece.states.float()
                    real[row, piece.blob, :size] = True
                    there[row, piece.blob] = True
        return BlobRows(*(value.to(device) for value in (tokens, real, ellipses, there)))


def _is_sharp(text: BlobText) -> bool:
    """Whether its masks are all or nothing."""
    settings = text.settings
    if settings.rules == "none":
        return True
    return settings.strength == 1 and all(
        bool(((piece.weights == 0) | (piece.weights == 1)).all()) for piece in text.pieces
    )


def _patch(network: torch.nn.Module) -> int:
    """Latent pixels that a token of a transformer is wide and high."""
    size = getattr(network, "patch_size", None)
    if size is None:
        size = getattr(getattr(network, "params", None), "patch_size", 1)
    return int(size[-1] if isinstance(size, (tuple, list)) else size)
