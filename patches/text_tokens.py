"""Which rows of a CONDITIONING are which tokens of a prompt, for the text encoders whose layout is known.

A text encoder of the CLIP kind reads a prompt in chunks of 77 rows: begin token, words, end token, padding. The host
puts the chunks one after the other, and what several encoders say of the same rows side by side (SDXL) or one after the
other (SD3).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.story_text import find_tokens

CLIP_ENCODERS = ("l", "g", "h")
"""Encoders that read causally, in chunks with begin and end tokens: CLIP-L, CLIP-G (bigG), OpenCLIP-H."""

ARRANGEMENTS: dict[frozenset[str], tuple[tuple[str, ...], ...]] = {
    frozenset({"l"}): (("l",),),  # SD1.5
    frozenset({"h"}): (("h",),),  # SD2
    frozenset({"g"}): (("g",),),  # the SDXL refiner
    frozenset({"l", "g"}): (("l", "g"),),  # SDXL
    frozenset({"l", "g", "t5xxl"}): (("l", "g"), ("t5xxl",)),  # SD3
    frozenset({"l", "t5xxl"}): (("t5xxl",),),  # Flux, which takes only the pooled output of CLIP-L
    frozenset({"t5xxl"}): (("t5xxl",),),  # LTXV, Chroma
    frozenset({"umt5xxl"}): (("umt5xxl",),),  # Wan
}
"""Names of a CLIP's encoders -> groups that follow one another along the rows; encoders of a group lie side by side."""


class TextError(ValueError):
    """Something about a prompt or a CLIP that the person at the graph can change."""


@dataclass(frozen=True)
class EncodedText:
    """A prompt as one encoder reads it; rows are those of the CONDITIONING."""

    encoder: str
    tokens: tuple[Hashable, ...]
    """Of its words, without begin, end and padding."""

    places: tuple[int, ...]
    """Row of each of them."""

    begins: tuple[int, ...]
    """Row of each chunk's begin token; empty for encoders without one."""

    ends: tuple[int, ...]
    """Rows of end tokens and padding, of all chunks."""

    rows: range
    """All rows that come from this encoder's group."""

    chunks: int

    def find(self, wanted: Sequence[Hashable], start: int = 0) -> int:
        """Number of the token at which others begin, the first one from ``start`` on; -1 if they are not there."""
        return find_tokens(self.tokens, wanted, start)

    def words(self, first: int, count: int) -> list[int]:
        """Rows of some of the tokens."""
        return list(self.places[first : first + count])

    def begins_of(self, rows: Sequence[int]) -> list[int]:
        """The begin tokens of the chunks in which rows lie."""
        size = len(self.rows) // self.chunks
        chunks = {(row - self.rows.start) // size for row in rows}
        return [row for row in self.begins if (row - self.rows.start) // size in chunks]

    def mask(self, rows: Sequence[int]) -> Tensor:
        """bool [chunks, rows of a chunk], True at rows."""
        found = torch.zeros(len(self.rows), dtype=torch.bool)
        found[[row - self.rows.start for row in rows]] = True
        return found.view(self.chunks, -1)


def encoder_names(clip: object) -> tuple[tuple[str, ...], ...]:
    """The groups of ARRANGEMENTS that a CLIP has.

    Raises:
        TextError: a CLIP that is not listed there.
    """
    return _arrangement(clip.tokenize("a"))


def _arrangement(tokens: dict) -> tuple[tuple[str, ...], ...]:
    found = ARRANGEMENTS.get(frozenset(tokens)) if isinstance(tokens, dict) else None
    if found is None:
        names = ", ".join(sorted(tokens)) if isinstance(tokens, dict) else type(tokens).__name__
        raise TextError(
            f"this CLIP's text encoders are not known here ({names}). Known are those of SD1.5, SD2, SDXL, SD3, Flux, "
            "Chroma, LTXV and Wan."
        )
    return found


def read_text(clip: object, text: str) -> list[EncodedText]:
    """A prompt as each encoder of a CLIP reads it whose rows reach the CONDITIONING, in the order of the rows.

    Prompt weights such as ``(fox:1.2)`` are read as the host does; ``embedding:name`` counts as so many tokens as it
    has vectors.

    Raises:
        TextError: a CLIP that is not listed in ARRANGEMENTS.
    """
    tokens = clip.tokenize(text, return_word_ids=True)
    groups, found, first = _arrangement(tokens), [], 0
    for group in groups:
        length = min(sum(len(chunk) for chunk in tokens[name]) for name in group)
        for name in group:
            found.append(_read_chunks(name, tokens[name], range(first, first + length)))
        first += length
    return found


def _read_chunks(name: str, chunks: list[list[tuple]], rows: range) -> EncodedText:
    """One encoder's tokens; an entry is (token, weight, word), and word 0 is begin, end or padding."""
    tokens, places, begins, ends, row = [], [], [], [], rows.start
    for chunk in chunks:
        for number, (token, _, word) in enumerate(chunk):
            if row >= rows.stop:
                break
            if word:
                tokens.append(_comparable(token))
                places.append(row)
            elif number == 0 and name in CLIP_ENCODERS:
                begins.append(row)
            else:
                ends.append(row)
            row += 1
    # Encoders without chunks pad to a length of their own.
    count = len(chunks) if name in CLIP_ENCODERS else 1
    return EncodedText(name, tuple(tokens), tuple(places), tuple(begins), tuple(ends), rows, count)


def _comparable(token: object) -> Hashable:
    """A token id, or the beginning of an embedding's vector."""
    return int(token) if not isinstance(token, Tensor) else tuple(token.flatten()[:16].tolist())


def tokens_of(clip: object, text: str) -> dict[str, tuple[Hashable, ...]]:
    """Encoder -> the tokens of a text by itself, to be looked for in a prompt."""
    return {encoded.encoder: encoded.tokens for encoded in read_text(clip, text)}


def channels_of(clip: object, encoder: str, width: int) -> slice:
    """Which channels of a CONDITIONING of some width come from an encoder of the CLIP kind.

    Raises:
        TextError: a width that does not fit the CLIP.
    """
    group = next(group for group in encoder_names(clip) if encoder in group)
    first = 0
    for name in group:
        size = _width(clip, name)
        if name == encoder:
            if first + size > width:
                raise TextError(
                    f"the conditioning is {width} wide, too narrow for this CLIP. Connect the CLIP it is from."
                )
            return slice(first, first + size)
        first += size
    raise AssertionError(f"{encoder} is not in {group}")


def _width(clip: object, encoder: str) -> int:
    """How many channels an encoder of the CLIP kind fills."""
    network = getattr(clip.cond_stage_model, f"clip_{encoder}", None)
    if network is None:  # SD3 without this file leaves the channels 0
        return {"l": 768, "g": 1280, "h": 1024}[encoder]
    return network.transformer.get_input_embeddings().weight.shape[1]


def fit_rows(texts: list[EncodedText], rows: int) -> list[EncodedText]:
    """Those of a prompt's encoders that a CONDITIONING of so many rows has: SD3 may have been loaded without its T5.

    Raises:
        TextError: the rows are those of another prompt or another CLIP.
    """
    for end in sorted({text.rows.stop for text in texts}, reverse=True):
        kept = [text for text in texts if text.rows.stop <= end]
        if rows == end:
            return kept
    expected = " or ".join(str(end) for end in sorted({text.rows.stop for text in texts}))
    raise TextError(
        f"the conditioning has {rows} tokens, but this prompt has {expected} with this CLIP (a chunk is 77). Connect "
        "the conditioning of the same prompt and the same CLIP."
    )
