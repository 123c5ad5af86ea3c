"""What a prompt says about things and their places, by rules: counts, sizes, "a left of b", corners.

No model and no grammar: words are read from left to right. An article or a number begins a thing, a relation or a place
ends it; "and" and commas join things, and what is said of places behind them holds for all that are joined, behind a
relation for the thing named last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .blob_layout import LONGEST_CAPTION, MOST_BLOBS
from .blob_words import (
    ARTICLES,
    BACKDROPS,
    COLOURS,
    EMPTY_WORDS,
    FILLERS,
    MOST_OF_A_KIND,
    NUMBERS,
    OPENINGS,
    PLACES,
    PRONOUNS,
    QUANTITIES,
    RELATIONS,
    SIZES,
    TAILS,
    singular,
)

LONGEST_PROMPT = 10_000


@dataclass
class Group:
    """One or several things of a kind."""

    words: list[str]
    """What they are, without article and number, as written."""

    noun: str
    """In the singular."""

    count: int
    size: float
    place: tuple[float | None, float | None] | None = None
    bare: bool = False
    """Whether it came without an article and a number."""

    @property
    def caption(self) -> str:
        """What one of them is."""
        tail = next((number for number, word in enumerate(self.words) if word in TAILS), len(self.words))
        head = [*self.words[: tail - 1], self.noun] if tail else [self.noun]
        text = " ".join([*head, *self.words[tail:]])
        return f"{'an' if text[0].lower() in 'aeiou' else 'a'} {text}"[:LONGEST_CAPTION]


@dataclass
class Understood:
    """What was read of a prompt: relations are (group, kind, group or groups)."""

    groups: list[Group] = field(default_factory=list)
    relations: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def understand(prompt: str) -> Understood:
    """What a prompt says.

    Returns:
        Groups in the order in which they are named, at most MOST_BLOBS things; notes say what was not understood.

    Raises:
        ValueError: a prompt that is too long.
    """
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"the prompt has {len(prompt)} characters; at most {LONGEST_PROMPT} are read.")
    result = Understood()
    for clause in re.split(r"[.;!?\n]+(?:\s+|$)", prompt):
        text = clause.strip()
        for opening in OPENINGS:
            text = re.sub(rf"^{opening}", "", text, flags=re.IGNORECASE)
        if text:
            _Clause(text, result).read()
    total = 0
    for group in result.groups:
        if total + group.count > MOST_BLOBS:
            result.notes.append(f"There are too many things; only {MOST_BLOBS - total} of '{group.noun}' are kept.")
            group.count = max(MOST_BLOBS - total, 0)
        total += group.count
    return result


class _Clause:
    """Reads one clause, word by word."""

    def __init__(self, text: str, result: Understood) -> None:
        self.words = re.findall(r"[^\s,()\"]+|,", text)
        self.low = [word.lower() for word in self.words]
        self.at = 0
        self.result = result
        self.chain: list[int] = []  # groups that "and" joins: what is said next holds for them
        self.closed = False  # a relation or a place has been said of them, so that "and" begins anew
        self.waiting: tuple[str, tuple[int, ...]] | tuple[float | None, float | None] | None = None
        self.joined = True  # at the beginning, and after "and" or a comma

    def read(self) -> None:
        """All of it."""
        while self.at < len(self.words):
            word = self.low[self.at]
            if word in (",", "and", "plus", "while", "but"):
                self.at += 1
                self.joined = True
            elif (found := self._phrase(PLACES)) and not self._phrase_longer(RELATIONS, found):
                self._place(found)
            elif found := self._phrase(RELATIONS):
                self._relation(found)
            elif word in FILLERS and not (self.joined and self._starts()):
                self.at += 1
            else:
                self._one_more()
        if self.waiting is not None and isinstance(self.waiting[0], str):
            self.result.notes.append(f"'{self.waiting[0]}' stands without a thing that it speaks of.")

    def _phrase(self, table: dict) -> str | None:
        """The longest of a table's phrases that stands here."""
        for length in range(min(9, len(self.words) - self.at), 0, -1):
            words = " ".join(self.low[self.at : self.at + length])
            if words in table:
                return words
        return None

    def _phrase_longer(self, table: dict, other: str) -> bool:
        found = self._phrase(table)
        return found is not None and len(found) > len(other)

    def _starts(self) -> bool:
        """Whether an article or a number stands here."""
        return self._count() is not None or self.low[self.at] in ARTICLES

    def _count(self) -> tuple[int, int] | None:
        """The number that stands here, and its words."""
        for words, number in QUANTITIES.items():
            if tuple(self.low[self.at : self.at + len(words)]) == words:
                return number, len(words)
        word = self.low[self.at]
        if word in NUMBERS:
            return NUMBERS[word], 1
        return (int(word), 1) if word.isascii() and word.isdigit() and len(word) < 5 else None

    def _place(self, found: str) -> None:
        self.at += len(found.split())
        if self.joined or not self.chain:  # "on the left a cat"
            self.waiting, self.joined, self.chain = PLACES[found], True, []
            return
        for number in self.chain:
            self.result.groups[number].place = PLACES[found]
        self.closed = True

    def _relation(self, found: str) -> None:
        subjects, fronted = list(self.chain), self.joined or not self.chain
        kind = RELATIONS[found]
        start, before = self.at, len(self.result.groups)
        self.at += len(found.split())
        objects = []
        while self.at < len(self.words):
            number = self._group()
            if number is None:
                break
            objects.append(number)
            if kind != "between" or len(objects) == 2 or not self._skip("and"):
                break
        if not objects:
            self.result.notes.append(f"Not understood: '{' '.join(self.words[start : self.at])}'.")
            return
        backdrop = self.result.groups[objects[-1]]
        fresh = objects[-1] >= before
        if kind in ("inside", "on", "below") and backdrop.noun in BACKDROPS and fresh:
            self.result.groups.pop()
            self.result.notes.append(f"'{' '.join(backdrop.words)}' is left to the prompt: it gets no ellipse.")
            return
        if kind == "between" and len(objects) == 1 and backdrop.count < 2:
            self.result.notes.append(f"'between' is taken as 'beside': only '{backdrop.noun}' follows.")
            kind = "beside"
        if fronted:
            self.waiting, self.joined, self.chain = (kind, tuple(objects)), True, []
            return
        for number in subjects:
            if number not in objects:
                self.result.relations.append((number, kind, tuple(objects)))
        self.chain, self.joined, self.closed = objects, False, True  # what follows is said of the nearest thing

    def _skip(self, word: str) -> bool:
        if self.at < len(self.low) and self.low[self.at] == word:
            self.at += 1
            return True
        return False

    def _one_more(self) -> None:
        """A thing that is no object of a relation."""
        bare = not self._starts() and self.low[self.at] not in SIZES
        start, before = self.at, len(self.result.groups)
        number = self._group()
        if number is None:
            skipped = " ".join(self.words[start : max(self.at, start + 1)])
            self.at = max(self.at, start + 1)
            self.result.notes.append(f"Not understood: '{skipped}'.")
            return
        group = self.result.groups[number]
        # Things without articles are read where the first one had none either.
        if bare and 0 < before < len(self.result.groups) and not self.result.groups[0].bare:
            self.result.groups.pop()
            left = " ".join(group.words)
            self.result.notes.append(f"Left to the prompt: '{left}'; a thing begins with 'a', 'the' or a number.")
            return
        if self.waiting is not None:
            if isinstance(self.waiting[0], str):
                self.result.relations.append((number, *self.waiting))
            else:
                group.place = self.waiting
            self.waiting = None
        if number not in self.chain:
            self.chain = [*self.chain, number] if self.joined and not self.closed else [number]
        self.joined = self.closed = False
        if number >= before:
            group.bare = bare

    def _group(self) -> int | None:
        """The number of the group that is named here, a new one or one named before; None if there is none."""
        if self._pronoun():
            self.at += 1
            return len(self.result.groups) - 1
        definite, count, words, tail = False, None, [], False
        while self.at < len(self.low) and not words and self._starts():
            found = self._count()
            if found:
                count = found[0]
                self.at += found[1]
            else:
                definite |= self.low[self.at] == "the"
                self.at += 1
        while self.at < len(self.low):
            word = self.low[self.at]
            if word in (",", "while", "but", "plus") or (not tail and word in FILLERS):
                break
            if word == "and":
                following = self.low[self.at + 1 : self.at + 2]
                if not (words and words[-1].lower() in COLOURS and following and following[0] in COLOURS):
                    break
            elif self._phrase(PLACES) or (self._phrase(RELATIONS) and words):
                break
            elif not words and self._phrase(RELATIONS):
                return None
            if word == "with" and not tail and words and words[-1].lower() in BACKDROPS:  # "a room with a bed"
                self.result.notes.append(f"'{' '.join(words)}' is left to the prompt: it gets no ellipse.")
                self.at += 1
                return self._group()
            tail = tail or word in TAILS
            words.append(self.words[self.at])
            self.at += 1
        while words and words[-1].lower() in FILLERS:
            words.pop()
        if not words or all(word.lower() in EMPTY_WORDS for word in words):
            return None
        return self._known(words, count, definite)

    def _pronoun(self) -> bool:
        """Whether what stands here means the thing named last; "her dog" does not."""
        if not self.result.groups or self.at >= len(self.low) or self.low[self.at] not in PRONOUNS:
            return False
        following = self.low[self.at + 1 : self.at + 2]
        known = {",", "and", *FILLERS, *ARTICLES, *NUMBERS}
        return self.low[self.at] != "her" or not following or following[0] in known

    def _known(self, words: list[str], count: int | None, definite: bool) -> int:
        low = [word.lower() for word in words]
        head = next((n for n, word in enumerate(low) if word in TAILS), len(low)) or len(low)
        last = low[head - 1]
        noun = singular(last) if count != 1 else last
        if definite:
            for number, group in enumerate(self.result.groups):
                described = {word.lower() for word in group.words}
                if group.noun == noun and described.issuperset(low[: head - 1]):
                    return number
        if count is None:
            count = 1
            if noun != last and not definite:
                count = 3
                self.result.notes.append(f"'{last}' without a number is taken as three.")
        if count == 0:
            self.result.notes.append(f"'{last}': none are asked for, none are drawn.")
        if count > MOST_OF_A_KIND:
            self.result.notes.append(f"{count} of '{noun}' are too many; {MOST_OF_A_KIND} are drawn.")
            count = MOST_OF_A_KIND
        size = next((SIZES[word] for word in low[: head - 1] if word in SIZES), 1.0)
        self.result.groups.append(Group(words, noun, count, size))
        return len(self.result.groups) - 1
