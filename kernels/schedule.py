"""The one grammar for a value that varies over frames or steps: a plain number, or keys "0:0, 12:0.5 ease, 24:1".

    schedule := number | key ("," key)* [","]
    key      := position ":" number [way]
    position := whole number >= 0, or a percentage of the length such as 50% (0% = first frame, 100% = last frame)
    way      := linear | ease | ease-in | ease-out | hold

The way says how the value travels from the previous key to this one: ``linear`` (also when nothing is written),
``ease`` (slow at both ends, smoothstep 3t^2 - 2t^3), ``ease-in`` (slow at the start, t^2), ``ease-out`` (slow at the
end, 1 - (1-t)^2), ``hold`` (keeps the previous value and jumps on reaching the key). Before the first key its value
holds, after the last key its value holds. Semicolons and line breaks separate keys like commas.
"""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

WAYS = ("linear", "ease", "ease-in", "ease-out", "hold")
GRAMMAR = 'a number such as 0.5, or keys such as "0:0, 12:0.5 ease, 24:1"'

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_POSITION = re.compile(r"(\d{1,9}|(\d{1,9}(\.\d*)?|\.\d+)\s*%)", re.ASCII)
_MOST_CHARACTERS = 100_000
_LARGEST = 1e38  # differences of two values must stay inside float32


@dataclass(frozen=True)
class Key:
    """One key: where (frames, or percent if ``percent``), which value, and the way from the previous key to here."""

    position: float
    value: float
    way: str = "linear"
    percent: bool = False


@dataclass(frozen=True)
class Schedule:
    """A value over frames or steps. Make one with ``Schedule.parse``; read it with ``at``."""

    keys: tuple[Key, ...]
    name: str = "schedule"

    @staticmethod
    def parse(
        text: str | float, name: str = "schedule", *, minimum: float | None = None, maximum: float | None = None
    ) -> "Schedule":
        """Read the text of a schedule.

        Args:
            text: the grammar at the top of this module; a number is taken as it is.
            name: how the messages call it, usually the input's name.
            minimum, maximum: the values must lie within these, both included; None = no bound.

        Returns:
            The schedule.

        Raises:
            ValueError: names the input and the offending piece, and says what was expected.
        """
        if isinstance(text, (int, float)) and not isinstance(text, bool):
            text = repr(float(text)) if isinstance(text, float) else str(text)
        if not isinstance(text, str):
            raise ValueError(f"{name}: got a {type(text).__name__}; expected {GRAMMAR}.")
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"{name}: the text has {len(text)} characters; at most {_MOST_CHARACTERS} are read.")
        pieces = [piece.strip() for piece in re.split(r"[,;\n]", text)]
        while len(pieces) > 1 and not pieces[-1]:
            pieces.pop()
        if not any(pieces):
            raise ValueError(f"{name}: it is empty; expected {GRAMMAR}.")
        if len(pieces) == 1 and ":" not in pieces[0]:
            keys = [Key(0.0, _number(pieces[0], pieces[0], name))]
        else:
            keys = [_key(piece, number, name) for number, piece in enumerate(pieces, start=1)]
        for before, after in pairwise(keys):
            if before.percent == after.percent and after.position <= before.position:
                raise ValueError(
                    f"{name}: the key at {_place(after)} comes after the key at {_place(before)}; positions must"
                    " increase from key to key."
                )
        for key in keys:
            low = minimum is not None and key.value < minimum
            if low or (maximum is not None and key.value > maximum):
                where = "" if len(keys) == 1 else f" at {_place(key)}"
                raise ValueError(f"{name}: the value {key.value:g}{where} is {_range(minimum, maximum)}.")
        return Schedule(tuple(keys), name)

    @property
    def constant(self) -> bool:
        """Whether the value is the same everywhere."""
        return all(key.value == self.keys[0].value for key in self.keys)

    def at(self, frames: int | Tensor, *, length: int | None = None) -> Tensor:
        """The values at frames or at given positions.

        Args:
            frames: an int T asks for frames 0..T-1; a tensor of any shape holds positions in frames, whole or not.
            length: how many frames 100 % spans (T; position T - 1 is 100 %); needed only for percent keys with a
                tensor of positions, and taken from ``frames`` when that is an int.

        Returns:
            float32 tensor, [T] or of the positions' shape, on the positions' device.

        Raises:
            ValueError: a negative count, percent keys without a length, or percent keys and frame keys that cross.
        """
        if isinstance(frames, Tensor):
            positions = frames.to(torch.float32)
        else:
            if frames < 0:
                raise ValueError(f"{self.name}: asked for {frames} frames; expected 0 or more.")
            positions = torch.arange(frames, dtype=torch.float32)
            length = frames if length is None else length
        places = self._places(length)
        first = self.keys[0]
        result = torch.full_like(positions, first.value)
        for index in range(1, len(self.keys)):
            before, key = self.keys[index - 1], self.keys[index]
            start, end = places[index - 1], places[index]
            if end > start:
                travelled = travel((positions - start) / (end - start), key.way)
                between = before.value + (key.value - before.value) * travelled
                result = torch.where((positions >= start) & (positions < end), between, result)
            result = torch.where(positions >= end, key.value, result)
        return result

    def format(self) -> str:
        """The shortest text that ``parse`` reads back as this schedule."""
        if len(self.keys) == 1 and self.keys[0].position == 0 and self.keys[0].way == "linear":
            return _shortest(self.keys[0].value)
        parts = []
        for key in self.keys:
            way = "" if key.way == "linear" else f" {key.way}"
            parts.append(f"{_shortest(key.position)}{'%' if key.percent else ''}:{_shortest(key.value)}{way}")
        return ", ".join(parts)

    def _places(self, length: int | None) -> list[float]:
        """Every key's position in frames."""
        if not any(key.percent for key in self.keys):
            return [key.position for key in self.keys]
        if length is None:
            raise ValueError(f"{self.name}: it has keys in percent, but here the number of frames is not known.")
        last = max(length - 1, 0)
        places = [key.position / 100.0 * last if key.percent else key.position for key in self.keys]
        for index in range(1, len(places)):
            # Percent keys may fall together in a very short clip; only a mixture can really cross.
            mixed = self.keys[index].percent != self.keys[index - 1].percent
            if places[index] < places[index - 1] or (mixed and last > 0 and places[index] == places[index - 1]):
                before, after = self.keys[index - 1], self.keys[index]
                raise ValueError(
                    f"{self.name}: with {length} frames the key at {_place(after)} falls on frame {places[index]:g},"
                    f" not after the key at {_place(before)} (frame {places[index - 1]:g}); positions must increase."
                )
        return places


def travel(t: Tensor, way: str) -> Tensor:
    """How far from the previous value (0) to the key's value (1) at the fraction t of the way, t in 0..1."""
    if way == "hold":
        return torch.zeros_like(t)
    if way == "ease":
        return t * t * (3.0 - 2.0 * t)
    if way == "ease-in":
        return t * t
    if way == "ease-out":
        return t * (2.0 - t)
    return t


def _key(piece: str, number: int, name: str) -> Key:
    if not piece:
        raise ValueError(f"{name}: key {number} is empty (two separators in a row); expected {GRAMMAR}.")
    if piece.count(":") != 1:
        raise ValueError(f'{name}: key {number} is "{_short(piece)}"; expected position:value, for example 12:0.5.')
    left, right = (part.strip() for part in piece.split(":"))
    if not _POSITION.fullmatch(left):
        raise ValueError(
            f'{name}: the position "{_short(left)}" of key {number} ("{_short(piece)}") is not a whole number of 0 or'
            " more, nor a percentage such as 50%."
        )
    percent = left.endswith("%")
    position = float(left.rstrip("% \t"))
    if percent and position > 100:
        raise ValueError(f'{name}: the position "{left}" of key {number} is beyond 100%.')
    words = right.split()
    way = words[1].lower() if len(words) > 1 else "linear"
    if len(words) > 2 or way not in WAYS:
        raise ValueError(
            f'{name}: "{_short(" ".join(words[1:]))}" in key {number} ("{_short(piece)}") is not a way to reach the'
            f" key; expected nothing or one of {', '.join(WAYS)}."
        )
    return Key(position, _number(words[0] if words else "", piece, name), way, percent)


def _number(text: str, piece: str, name: str) -> float:
    value = float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value) or abs(value) > _LARGEST:
        inside = "" if text == piece else f' in "{_short(piece)}"'
        raise ValueError(f'{name}: "{_short(text)}"{inside} is not a number; expected {GRAMMAR}.')
    return value


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return f"too large; expected at most {maximum:g}"
    if maximum is None:
        return f"too small; expected at least {minimum:g}"
    return f"out of range; expected {minimum:g} to {maximum:g}"


def _place(key: Key) -> str:
    return f"{_shortest(key.position)}%" if key.percent else _shortest(key.position)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _shortest(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
