"""A layout of blobs: ellipses with captions, in an order, moving over the frames; the JSON that the editor writes.

Blobs are those of BlobGEN (Nie et al., ICML 2024) and BlobGEN-Vid (Feng et al., 2025): a tilted ellipse says where a
thing stands, a caption what it is. Version 1; x in fractions of the picture's width and y of its height, (0, 0) = its
top left corner, both half axes in fractions of its height, so that turning an ellipse never shears it::

    {"version": 1,
     "blobs": [
       {"id": "1", "caption": "a red ball", "x": 0.5, "y": 0.5, "a": 0.2, "b": 0.1, "angle": 0, "weight": 1,
        "path": "linear", "there": true,
        "keys": [{"frame": 0, "x": 0.2, "way": "linear"}, {"frame": 16, "x": 0.8, "way": "ease"}],
        "captions": [{"frame": 0, "text": "a red ball"}, {"frame": 16, "text": "a blue ball"}]}]}

The first blob lies at the bottom, the last one on top. angle: that of the half axis a, in degrees, 0 = towards the
right, clockwise on the screen: 90 = down. (The paper counts from the vertical; ``kernels/blob_plan.py`` reads that.)
Only id and caption are needed; by default x and y are 0.5, a and b 0.2, the rest as above, without keys and captions.
What a key does not say is as in its blob. captions: what the thing is at some frames, where that changes; without them
its caption holds throughout.

Between keys an ellipse travels in the time that the key's way bends as in ``kernels/schedule.py``: with path "linear"
evenly, with "cubic" along a smooth curve through all keys (Catmull and Rom's, in frames), along which half axes grow by
factors. An angle turns the shorter way, modulo 180 degrees. Before the first key and from the last one on it rests.
"there": whether the thing is in the picture, from its key on until the next one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .editor_json import (
    article,
    between_keys,
    read_frame,
    read_keys,
    read_list,
    read_number,
    read_text,
    read_way,
    short,
)

VERSION = 1
MOST_BLOBS = 100
MOST_FRAMES = 1000
LARGEST_SIDE = 16384
LONGEST_CAPTION = 2000
PATHS = ("linear", "cubic")
SMALLEST_AXIS = 0.001
EXAMPLE = f'{{"version": {VERSION}, "blobs": [...]}}'

RANGES = {
    "x": (-10.0, 10.0, 0.5),
    "y": (-10.0, 10.0, 0.5),
    "a": (SMALLEST_AXIS, 10.0, 0.2),
    "b": (SMALLEST_AXIS, 10.0, 0.2),
    "angle": (-36000.0, 36000.0, 0.0),
}
"""An ellipse's numbers: lowest, highest, default."""


@dataclass(frozen=True)
class Ellipse:
    """A tilted ellipse: middle, half axes, angle in degrees; units as at the top of this module."""

    x: float = 0.5
    y: float = 0.5
    a: float = 0.2
    b: float = 0.2
    angle: float = 0.0


@dataclass(frozen=True)
class BlobKey:
    """A blob's ellipse at a frame; way: how it got there; there: whether it is in the picture from here on."""

    frame: int
    ellipse: Ellipse
    way: str = "linear"
    there: bool = True


@dataclass(frozen=True)
class CaptionKey:
    """What a thing is at a frame."""

    frame: int
    text: str


@dataclass(frozen=True)
class Blob:
    """One thing: where it stands and what it is."""

    id: str
    caption: str
    ellipse: Ellipse = Ellipse()
    weight: float = 1.0
    """How strongly its caption counts where it stands, at least 0, as a factor; 0 = its caption is not used."""

    path: str = "linear"
    there: bool = True
    keys: tuple[BlobKey, ...] = ()
    captions: tuple[CaptionKey, ...] = ()

    def geometry(self, frames: int) -> Tensor:
        """float64 [frames, 5]: x, y, a, b as in its ellipse, and the angle in radians."""
        rows = torch.tensor([_numbers_of(key.ellipse) for key in self.keys or (self,)], dtype=torch.float64)
        if not self.keys:
            rows[:, 4] = torch.deg2rad(rows[:, 4])
            return rows.expand(frames, -1).clone()
        rows[:, 4] = _unwrapped(torch.deg2rad(rows[:, 4]))
        before, after, part = between_keys(self.keys, frames)
        if self.path == "cubic":
            return _cubic(rows, torch.tensor([float(key.frame) for key in self.keys]).double(), before, after, part)
        return rows[before] + (rows[after] - rows[before]) * part[:, None]

    def presence(self, frames: int) -> Tensor:
        """bool [frames]: where it is in the picture."""
        if not self.keys:
            return torch.full((frames,), self.there)
        before, _, _ = between_keys(self.keys, frames)
        return torch.tensor([key.there for key in self.keys])[before]

    def anchors(self) -> tuple[CaptionKey, ...]:
        """Its captions, or the one that holds throughout; at least one."""
        return self.captions or (CaptionKey(0, self.caption),)

    def caption_at(self, frame: int) -> str:
        """What it is at a frame: the caption of the last anchor at or before it, or of the first one."""
        anchors = self.anchors()
        return next((key.text for key in reversed(anchors) if key.frame <= frame), anchors[0].text)


@dataclass(frozen=True)
class BlobLayout:
    """What a PN_BLOBS socket holds: blobs from the bottom to the top, for a picture of a size and a number of frames.

    The size is the one that it was drawn for; ellipses can be drawn at any other.
    """

    blobs: tuple[Blob, ...]
    width: int
    height: int
    frames: int = 1

    def __post_init__(self) -> None:
        for name, value, most in (
            ("width", self.width, LARGEST_SIDE),
            ("height", self.height, LARGEST_SIDE),
            ("frames", self.frames, MOST_FRAMES),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"a layout's {name} is {value}; expected 1 to {most}.")
        names = [blob.id for blob in self.blobs]
        if len(names) > MOST_BLOBS:
            raise ValueError(f"a layout has {len(names)} blobs; at most {MOST_BLOBS} can stand in it.")
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if twice is not None:
            raise ValueError(f"a layout has two blobs of id {twice!r}; give every blob an id of its own.")

    def geometry(self) -> Tensor:
        """float64 [frames, blobs, 5] on the CPU: x, y, a, b, angle in radians; see ``kernels/ellipses.py``."""
        rows = [blob.geometry(self.frames) for blob in self.blobs]
        return torch.stack(rows, 1) if rows else torch.zeros(self.frames, 0, 5, dtype=torch.float64)

    def presence(self) -> Tensor:
        """bool [frames, blobs]: which blobs are in the picture."""
        rows = [blob.presence(self.frames) for blob in self.blobs]
        return torch.stack(rows, 1) if rows else torch.zeros(self.frames, 0, dtype=torch.bool)


def parse_blobs(text: str, width: int, height: int, frames: int, name: str = "layout") -> BlobLayout:
    """Read the editor's JSON.

    Args:
        text: version 1 of the JSON at the top of this module; empty = no blobs. Fields it does not know are ignored.
        width, height: of the picture, in pixels.
        frames: length of the clip; keys must lie in frames 0..frames - 1.
        name: how the messages call it, usually the input's name.

    Returns:
        The layout.

    Raises:
        ValueError: names the blob and the key, what came and what was expected.
    """
    content = read_text(text, name, "Blob Layout", "a layout", VERSION, EXAMPLE)
    entries = [] if content is None else read_list(content, "blobs", name)
    if len(entries) > MOST_BLOBS:
        raise ValueError(f"{name}: there are {len(entries)} blobs; at most {MOST_BLOBS} can stand in a layout.")
    blobs, names = [], {}
    for number, entry in enumerate(entries, start=1):
        blob = _blob(entry, number, f"{name}: blob {number}", frames)
        if blob.id in names:
            raise ValueError(
                f'{name}: blobs {names[blob.id]} and {number} both have the "id" {short(blob.id)}; expected different '
                "ones."
            )
        names[blob.id] = number
        blobs.append(blob)
    return BlobLayout(tuple(blobs), width, height, frames)


def blobs_to_json(layout: BlobLayout) -> str:
    """The JSON text that ``parse_blobs`` reads the same layout from, on one line."""
    return json.dumps({"version": VERSION, "blobs": [_entry(blob) for blob in layout.blobs]}, ensure_ascii=False)


def _entry(blob: Blob) -> dict:
    entry = {"id": blob.id, "caption": blob.caption, **vars(blob.ellipse), "weight": blob.weight, "path": blob.path}
    entry["there"] = blob.there
    if blob.keys:
        entry["keys"] = [
            {"frame": key.frame, **vars(key.ellipse), "way": key.way, "there": key.there} for key in blob.keys
        ]
    if blob.captions:
        entry["captions"] = [{"frame": key.frame, "text": key.text} for key in blob.captions]
    return entry


def _numbers_of(ellipse: Ellipse) -> list[float]:
    return [ellipse.x, ellipse.y, ellipse.a, ellipse.b, ellipse.angle]


def _unwrapped(angles: Tensor) -> Tensor:
    """Angles [keys] in radians, each moved by half turns to within a quarter turn of the one before."""
    steps = angles.diff()
    steps = steps - math.pi * (steps / math.pi).round()
    return torch.cat((angles[:1], angles[:1] + steps.cumsum(0)))


def _cubic(rows: Tensor, frames: Tensor, before: Tensor, after: Tensor, part: Tensor) -> Tensor:
    """Along a cubic Hermite curve whose slope at a key is that from the key before it to the key after it.

    Args:
        rows: float64 [keys, 5]; half axes are interpolated by their logarithms, so that they stay above 0.
        frames: float64 [keys].
        before, after, part: of ``between_keys``.
    """
    rows = torch.cat((rows[:, :2], rows[:, 2:4].log(), rows[:, 4:]), 1)
    slopes = torch.zeros_like(rows)
    if len(rows) > 2:
        slopes[1:-1] = (rows[2:] - rows[:-2]) / (frames[2:] - frames[:-2])[:, None]
    if len(rows) > 1:  # at the ends, the slope of the parabola that the next key's slope belongs to
        for end, near in ((0, 1), (-1, -2)):
            chord = (rows[near] - rows[end]) / (frames[near] - frames[end])
            slopes[end] = chord if len(rows) == 2 else 2 * chord - slopes[near]
    span = (frames[after] - frames[before])[:, None]
    t = part[:, None]
    first, second = rows[before], rows[after]
    found = (
        (2 * t**3 - 3 * t**2 + 1) * first
        + (t**3 - 2 * t**2 + t) * span * slopes[before]
        + (3 * t**2 - 2 * t**3) * second
        + (t**3 - t**2) * span * slopes[after]
    )
    return torch.cat((found[:, :2], found[:, 2:4].exp(), found[:, 4:]), 1)


def _blob(entry: object, number: int, where: str, frames: int) -> Blob:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {article(entry)}; expected an object with id, caption, x, y, a, b and angle.")
    name = entry.get("id", str(number))
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise ValueError(f'{where}: "id" is {short(name)}; expected a text of 1 to 100 characters.')
    ellipse = _ellipse(entry, where, Ellipse())
    there = _truth(entry, "there", where, True)
    path = entry.get("path", PATHS[0])
    if not isinstance(path, str) or path not in PATHS:
        raise ValueError(f'{where}: "path" is {short(path)}; expected one of {", ".join(PATHS)}.')
    return Blob(
        id=name,
        caption=_caption(entry.get("caption", ""), f'{where}: "caption"'),
        ellipse=ellipse,
        weight=read_number(entry.get("weight", 1.0), f'{where}: "weight"', 0.0, 10.0),
        path=path,
        there=there,
        keys=_keys(entry, where, frames, ellipse, there),
        captions=_captions(entry, where, frames),
    )


def _keys(entry: dict, where: str, frames: int, ellipse: Ellipse, there: bool) -> tuple[BlobKey, ...]:
    def read(key: object, at: str) -> BlobKey:
        if not isinstance(key, dict):
            raise ValueError(f"{at} is {article(key)}; expected an object with frame, x, y, a, b, angle and way.")
        frame = read_frame(key, at, frames)
        return BlobKey(frame, _ellipse(key, at, ellipse), read_way(key, at), _truth(key, "there", at, there))

    return read_keys(entry, where, read)


def _captions(entry: dict, where: str, frames: int) -> tuple[CaptionKey, ...]:
    def read(key: object, at: str) -> CaptionKey:
        if not isinstance(key, dict):
            raise ValueError(f"{at} is {article(key)}; expected an object with frame and text.")
        return CaptionKey(read_frame(key, at, frames), _caption(key.get("text"), f'{at}: "text"'))

    found = read_keys({"keys": entry.get("captions")}, f"{where}: captions", read)
    return found


def _ellipse(entry: dict, where: str, default: Ellipse) -> Ellipse:
    return Ellipse(
        **{
            field: read_number(entry.get(field, getattr(default, field)), f'{where}: "{field}"', low, high)
            for field, (low, high, _) in RANGES.items()
        }
    )


def _truth(entry: dict, field: str, where: str, default: bool) -> bool:
    value = entry.get(field, default)
    if not isinstance(value, bool):
        raise ValueError(f'{where}: "{field}" is {short(value)}; expected true or false.')
    return value


def _caption(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {article(value)}; expected a text.")
    if len(value) > LONGEST_CAPTION:
        raise ValueError(f"{where} has {len(value)} characters; at most {LONGEST_CAPTION} can be read.")
    return value
