"""A story's prompts as words and tokens: windows of frames, and where one text stands in another.

Liu et al., "One-Prompt-One-Story", ICLR 2025, arXiv 2501.13554. Text only: nothing here knows a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

WORD_LIMIT = 77
"""The paper's: a prompt takes up frames until it has so many words (words between spaces, not tokens)."""

_NAME = re.compile(r"^\s*([A-Za-z0-9][\w .'-]{0,31}?)\s*:\s+(.*\S)\s*$")
_CAST = re.compile(r"^\s*([A-Za-z0-9][\w .,'&-]{0,127}?)\s*:\s+(.*\S)\s*$")


@dataclass(frozen=True)
class Prompt:
    """One frame's prompt, in parts."""

    identities: tuple[str, ...]
    """The identity texts of the characters that the frame shows; together they begin the prompt."""

    frames: tuple[int, ...]
    """Numbers of the frames whose texts follow, in order."""

    texts: tuple[str, ...]
    """Those texts."""

    shown: int
    """Which of ``texts`` this frame shows; the others are suppressed."""

    @property
    def identity(self) -> str:
        """How the prompt begins."""
        return " and ".join(self.identities)

    @property
    def text(self) -> str:
        """The whole prompt: its parts with single spaces between."""
        return " ".join([self.identity, *self.texts] if self.identities else self.texts)

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Which of ``texts`` are suppressed, in order: all others, but for repeats of what the frame shows."""
        return tuple(k for k, text in enumerate(self.texts) if text != self.texts[self.shown])


def read_identities(text: str) -> dict[str, str]:
    """Name -> identity text, from a widget: one description, or a line "name: description" for each character.

    One description without a name has the name "". Spaces and line breaks become single spaces.

    Raises:
        ValueError: nothing there, a line without a name among lines with one, or a name twice.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("it is empty; describe who or what stays the same, such as 'a red fox with a scarf'")
    named = [_NAME.match(line) for line in lines]
    if not any(named):
        return {"": " ".join(text.split())}
    identities: dict[str, str] = {}
    for line, found in zip(lines, named, strict=True):
        if not found:
            raise ValueError(f"{line.strip()!r} has no name; with several characters each line is 'name: description'")
        name, description = found[1], " ".join(found[2].split())
        if name.lower() in (other.lower() for other in identities):
            raise ValueError(f"the name {name!r} is there twice")
        identities[name] = description
    return identities


def read_frames(text: str, identities: dict[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """For each frame the names of who is in it and its text, from a widget with a line each; empty lines are no frames.

    "Anna: reads a book" and "Anna, Bob: walk home" say who is in a frame; a line without names shows everyone. Only
    names of ``identities`` count, so that a colon may stand in any other text.

    Raises:
        ValueError: no frame, or a line with nothing after its names.
    """
    by_name = {name.lower(): name for name in identities if name}
    frames = []
    for line in (line for line in text.splitlines() if line.strip()):
        cast, shown = tuple(identities), " ".join(line.split())
        if found := _CAST.match(line):
            said = [part.strip().lower() for part in re.split(r",|&|\band\b", found[1])]
            if all(name in by_name for name in said):
                cast = tuple(dict.fromkeys(by_name[name] for name in said))
                shown = " ".join(found[2].split())
        elif line.strip().rstrip(":").strip().lower() in by_name and line.rstrip().endswith(":"):
            raise ValueError(f"{line.strip()!r} says who is in the frame, but not what happens")
        frames.append((cast, shown))
    if not frames:
        raise ValueError("it is empty; write one line for each frame, such as 'in a forest'")
    return frames


def window_length(identity: str, frames: Sequence[str], window: int) -> int:
    """How many frames a prompt holds: at most ``window``, and fewer where the words would reach WORD_LIMIT; at least 1.

    Args:
        identity: how the prompts begin.
        frames: all frames' texts; counted from the first.
        window: at least 1.

    Raises:
        ValueError: no frames, or a window below 1.
    """
    if not frames or window < 1:
        raise ValueError(f"expected at least one frame and a window of at least 1; got {len(frames)} and {window}")
    words, fitting = len(identity.split()), 0
    for frame in frames:
        words += len(frame.split())
        if words >= WORD_LIMIT:
            break
        fitting += 1
    return max(1, min(window, fitting))


def make_prompts(
    identities: dict[str, str], frames: Sequence[tuple[tuple[str, ...], str]], window: int
) -> list[Prompt]:
    """One prompt for each frame.

    If all frames fit into the window, every prompt holds all of them in order and differs from the others in which
    text it shows. Otherwise frame i holds the frames i, i + 1, ... of its window, beginning anew after the last.

    Args:
        identities: name -> identity text, from ``read_identities``.
        frames: from ``read_frames``.
        window: at most so many frames in a prompt; at least 1.

    Raises:
        ValueError: no frames, or a window below 1.
    """
    texts = [text for _, text in frames]
    casts = [tuple(identities[name] for name in cast) for cast, _ in frames]
    longest = max((" and ".join(cast) for cast in casts), key=lambda text: len(text.split()), default="")
    length, count = window_length(longest, texts, window), len(texts)
    prompts = []
    for index, cast in enumerate(casts):
        if length >= count:
            held, shown = tuple(range(count)), index
        else:
            held, shown = tuple((index + step) % count for step in range(length)), 0
        prompts.append(Prompt(cast, held, tuple(texts[k] for k in held), shown))
    return prompts


def find_tokens(tokens: Sequence[Hashable], wanted: Sequence[Hashable], start: int = 0) -> int:
    """Where ``wanted`` begins in ``tokens`` for the first time at or after ``start``; -1 if nowhere, or if it is empty.

    >>> find_tokens([5, 7, 8, 7, 8], [7, 8])
    1
    """
    wanted = list(wanted)
    if not wanted:
        return -1
    tokens, size = list(tokens), len(wanted)
    return next((i for i in range(start, len(tokens) - size + 1) if tokens[i : i + size] == wanted), -1)
