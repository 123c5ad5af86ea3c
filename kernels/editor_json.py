"""What the JSON texts of all editors have in common: reading them with exact messages, and key frames.

An editor's text is an object with a "version" and lists of things. A thing may have keys, each at its own frame, in
increasing order; the way of a key bends the time from the key before it to this one as in ``kernels/schedule.py``.
A message names the input, the thing and the key, what came and what was expected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .schedule import WAYS, travel

MOST_CHARACTERS = 16_000_000

_Key = TypeVar("_Key")


def read_text(text: str, name: str, editor: str, thing: str, version: int, example: str) -> dict | None:
    """The object that an editor's text holds, or None for an empty text.

    Args:
        text: what the editor wrote.
        name: how the messages call it, usually the input's name.
        editor: the editor's name, for example "Cut and Drag".
        thing: what the text describes, for example "a motion".
        version: the newest version that can be read; versions count from 1.
        example: the shortest text that can be read, for the messages.

    Raises:
        ValueError: not a text, too long, not JSON, not an object, or of a version that is not known.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name}: got a {type(text).__name__}; expected the JSON text of the {editor} editor.")
    if not text.strip():
        return None
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{name}: the text has {len(text)} characters; at most {MOST_CHARACTERS} are read.")
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"{name}: the JSON is nested too deeply to be {thing}.") from None
    except ValueError as error:  # JSONDecodeError is one
        raise ValueError(f"{name}: this is not JSON ({error}); expected the text of the {editor} editor.") from None
    if not isinstance(content, dict):
        came = "nothing" if content is None else article(content)
        raise ValueError(f"{name}: got {came}; expected {example}.")
    _check_version(content, name, version)
    return content


def read_list(entry: dict, field: str, where: str) -> list:
    """A list that may be missing or null, which is an empty one.

    Raises:
        ValueError: something else.
    """
    values = entry.get(field)
    values = [] if values is None else values
    if not isinstance(values, list):
        raise ValueError(f'{where}: "{field}" is {article(values)}; expected a list.')
    return values


def read_number(value: object, where: str, low: float, high: float) -> float:
    """A number from low to high, both included.

    Raises:
        ValueError: something else.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not good:  # NaN fails the comparison too
        raise ValueError(f"{where} is {short(value)}; expected a number from {low:g} to {high:g}.")
    return float(value)


def read_frame(key: dict, where: str, frames: int) -> int:
    """The frame of a key, 0 to frames - 1.

    Raises:
        ValueError: missing, not a whole number, or beyond the clip.
    """
    frame = key.get("frame")
    # NaN and the infinities have no whole remainder either.
    whole = isinstance(frame, (int, float)) and not isinstance(frame, bool) and frame % 1 == 0
    if not whole or frame < 0:
        came = '"frame" is missing' if "frame" not in key else f'"frame" is {short(frame)}'
        raise ValueError(f"{where}: {came}; expected a whole number from 0 to {frames - 1}.")
    if frame > frames - 1:
        raise ValueError(
            f"{where} is at frame {short(int(frame))}, beyond the clip of {frames} frames (0 to {frames - 1}). Move or"
            " delete the key, or raise 'frames'."
        )
    return int(frame)


def read_way(key: dict, where: str) -> str:
    """The way of a key: one of ``WAYS``; missing = the first of them.

    Raises:
        ValueError: another one.
    """
    way = key.get("way", WAYS[0])
    if not isinstance(way, str) or way not in WAYS:
        raise ValueError(f'{where}: "way" is {short(way)}; expected one of {", ".join(WAYS)}.')
    return way


def read_keys(entry: dict, where: str, read: Callable[[object, str], _Key]) -> tuple[_Key, ...]:
    """The keys of a thing.

    Args:
        entry: the thing; its "keys" may be missing.
        where: how the messages call it.
        read: makes a key, which has a ``frame``, of a JSON value and of what the messages call it.

    Raises:
        ValueError: no list, frames that do not increase, or what ``read`` raises.
    """
    keys: list[_Key] = []
    for index, key in enumerate(read_list(entry, "keys", where), start=1):
        keys.append(read(key, f"{where}: key {index}"))
        if index > 1 and keys[-1].frame <= keys[-2].frame:
            raise ValueError(
                f"{where}: key {index} is at frame {keys[-1].frame}, but key {index - 1} is at frame"
                f" {keys[-2].frame}; frames must increase from key to key."
            )
    return tuple(keys)


def between_keys(keys: Sequence, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Between which keys every frame of a clip lies, and how far it has come from the one to the other.

    Args:
        keys: at least one, each with a ``frame`` and a ``way``, frames increasing.
        frames: T, the clip's length.

    Returns:
        before int64 [T], after int64 [T]: indices of keys; part float64 [T]: 0 at the first, towards 1 at the second.
        Before the first key and from the last one on both are that key, and part is 0.
    """
    time = torch.arange(frames, dtype=torch.float64)
    before = torch.zeros(frames, dtype=torch.int64)
    after, part = before.clone(), torch.zeros_like(time)
    for index, key in enumerate(keys):
        here = time >= key.frame
        if index + 1 == len(keys):
            before[here] = after[here] = index
            part[here] = 0.0
            continue
        following = keys[index + 1]
        before[here], after[here] = index, index + 1
        part[here] = travel((time[here] - key.frame) / (following.frame - key.frame), following.way)
    return before, after, part


def article(value: object) -> str:
    """What kind of JSON value something is, for a person."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return "missing" if value is None else names[type(value)]


def short(value: object) -> str:
    """A JSON value as it was written, cut short."""
    if value is None or isinstance(value, (dict, list)):
        return article(value)
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"  # Python refuses to write the largest ones
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _check_version(content: dict, name: str, newest: int) -> None:
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        came = '"version" is missing' if "version" not in content else f'"version" is {short(version)}'
        raise ValueError(f"{name}: {came}; expected {newest}.")
    if version > newest:
        raise ValueError(
            f"{name}: it was written by a newer version of this pack (format {short(version)}, this pack reads up to"
            f" {newest}). Update ComfyUI-PaperNodes."
        )
