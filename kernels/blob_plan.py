"""A layout in words: the CSS lines in which a language model plans one, read tolerantly, and what it is asked.

BlobGEN (Nie et al., ICML 2024) lets a language model plan in two passes, on a canvas of 512 x 512 pixels.
First where things stand, then what each looks like::

    cat {major-radius: 90px; minor-radius: 60px; cx: 150px; cy: 330px; angle: 90}
    cat {a small grey cat with green eyes, sitting}

The questions and the demonstrations here are our own. On a picture that is not square the canvas has its proportions
and a longer side of 512. angle is in degrees, clockwise; whether 0 is a major axis that stands (as in the paper's
tables) or lies (as its demonstrations look) is stated: ``ANGLE_ZEROS``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .blob_layout import LONGEST_CAPTION, MOST_BLOBS, SMALLEST_AXIS, Ellipse

CANVAS = 512
ANGLE_ZEROS = ("vertical", "horizontal")
LONGEST_ANSWER = 200_000
LONGEST_NAME = 100

FIELDS = {
    "major-radius": r"major(?:[-_ ]?(?:radius|axis))?",
    "minor-radius": r"minor(?:[-_ ]?(?:radius|axis))?",
    "cx": r"(?:cx|center[-_]?x)",
    "cy": r"(?:cy|center[-_]?y)",
    "angle": r"(?:angle|rotation|theta)",
}
_VALUE = re.compile(
    r"(?P<field>" + "|".join(f"(?P<_{n}>{words})" for n, words in enumerate(FIELDS.values())) + r")"
    r"['\"]?\s*[:=]\s*['\"]?(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+))?\s*(?P<unit>px|deg(?:rees)?|%)?(?P<rest>[^;,}\n]{0,80})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PlannedBlob:
    """One thing of an answer."""

    name: str
    ellipse: Ellipse


@dataclass(frozen=True)
class Answer:
    """What was read of an answer."""

    things: tuple
    """PlannedBlob of the first pass, (name, sentence) of the second."""

    errors: tuple[str, ...]
    """What is worth asking again for: things that could not be used, or are beyond the canvas."""

    notes: tuple[str, ...]
    """What was written otherwise than asked, and read all the same."""


def canvas_of(width: int, height: int) -> tuple[int, int]:
    """The canvas for a picture: its proportions, the longer side CANVAS."""
    scale = CANVAS / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def angle_from(angle: float, angle_zero: str) -> float:
    """An answer's angle of the major axis as a layout's, degrees in (-90, 90]."""
    turned = angle + (90.0 if angle_zero == "vertical" else 0.0)
    return turned - 180.0 * math.ceil((turned - 90.0) / 180.0)


def angle_to(angle: float, angle_zero: str) -> float:
    """A layout's angle of the major axis as an answer's, degrees in [0, 180)."""
    return (angle - (90.0 if angle_zero == "vertical" else 0.0)) % 180.0


def read_parameters(text: str, width: int, height: int, angle_zero: str) -> Answer:
    """Read the first pass.

    Args:
        text: the answer; whatever is not a name with braces behind it is left out.
        width, height: of the picture.
        angle_zero: one of ANGLE_ZEROS.

    Returns:
        PlannedBlobs from the bottom to the top, and every problem in words.
    """
    canvas = canvas_of(width, height)
    things, errors, notes = [], [], []
    for number, (name, body, closed) in enumerate(_entries(text, notes), start=1):
        title = f"line {number} ({name})"
        if not closed:
            notes.append(f"{title}: the closing brace is missing.")
        values = _values(body, title, canvas, errors, notes)
        if values is None:
            continue
        x, y, major, minor, angle = values
        ellipse = Ellipse(
            round(x / canvas[0], 6),
            round(y / canvas[1], 6),
            round(max(major / canvas[1], SMALLEST_AXIS), 6),
            round(max(minor / canvas[1], SMALLEST_AXIS), 6),
            round(angle_from(angle, angle_zero), 6),
        )
        things.append(PlannedBlob(name, ellipse))
    if len(things) > MOST_BLOBS:
        errors.append(f"There are {len(things)} objects; at most {MOST_BLOBS} are possible.")
        things = things[:MOST_BLOBS]
    if not things:
        errors.append("There is no line of the form: name {major-radius: ?px; minor-radius: ?px; cx: ?px; cy: ?px; "
                      "angle: ?}.")  # fmt: skip
    return Answer(tuple(things), tuple(errors), tuple(notes))


def read_descriptions(text: str, names: list[str]) -> Answer:
    """Read the second pass.

    Args:
        text: the answer.
        names: of the first pass's things, in order.

    Returns:
        (name, sentence) for each of them, the name where there is no sentence, and every problem in words.
    """
    notes: list[str] = []
    found = [(name, " ".join(body.split()).strip("\"' ")) for name, body, _ in _entries(text, notes)]
    errors = [f"line {n} ({name}): there is nothing between the braces." for n, (name, said) in enumerate(found, 1)
              if not said]  # fmt: skip
    if len(found) == len(names):
        sentences = [said for _, said in found]
        notes += [
            f"line {n}: it is called {said!r}, the object {name!r}; taken by order."
            for n, ((said, _), name) in enumerate(zip(found, names, strict=True), start=1)
            if said.lower() not in (name.lower(), "object")
        ]
    else:
        errors.append(
            f"There are {len(found)} descriptions for {len(names)} objects ({', '.join(names)}); expected one line for "
            "each, in the same order."
        )
        sentences, waiting = [], list(found)
        for name in names:
            match = next((entry for entry in waiting if entry[0].lower() == name.lower()), None)
            if match is not None:
                waiting.remove(match)
            sentences.append(match[1] if match else "")
    captions = []
    for name, sentence in zip(names, sentences, strict=True):
        if len(sentence) > LONGEST_CAPTION:
            notes.append(f"The description of {name!r} is cut to {LONGEST_CAPTION} characters.")
        captions.append((name, sentence[:LONGEST_CAPTION].strip() or name))
    return Answer(tuple(captions), tuple(errors), tuple(notes))


def write_parameters(things: list[PlannedBlob], width: int, height: int, angle_zero: str) -> str:
    """The lines that ``read_parameters`` reads the same things from, but for rounding to pixels and degrees."""
    across, down = canvas_of(width, height)
    lines = []
    for thing in things:
        e = thing.ellipse
        major, minor, turned = (e.a, e.b, e.angle) if e.a >= e.b else (e.b, e.a, e.angle + 90.0)
        lines.append(
            f"{thing.name} {{major-radius: {round(major * down)}px; minor-radius: {round(minor * down)}px; "
            f"cx: {round(e.x * across)}px; cy: {round(e.y * down)}px; "
            f"angle: {round(angle_to(turned, angle_zero)) % 180}}}"
        )
    return "\n".join(lines)


def _entries(text: str, notes: list[str]) -> list[tuple[str, str, bool]]:
    """(name, what stands between its braces, whether they are closed) of an answer."""
    if len(text) > LONGEST_ANSWER:
        notes.append(f"The answer has {len(text)} characters; the first {LONGEST_ANSWER} are read.")
        text = text[:LONGEST_ANSWER]
    if "```" in text:
        notes.append("Code fences are left out.")
        text = re.sub(r"```[A-Za-z]*", "", text)
    found, spoken, last = [], [], 0
    # By hand, since no expression finds the names of a long line without braces in one go.
    while (opening := text.find("{", last)) >= 0:
        start = max(text.rfind("\n", last, opening) + 1, text.rfind("}", last, opening) + 1, last)
        spoken.append(text[last:start])
        name = text[start:opening][-2 * LONGEST_NAME :].strip()
        name = re.sub(r"^[-*+#>.)(\d\s]+", "", name).strip("*`\"' .:=")
        closing, following = text.find("}", opening), text.find("{", opening + 1)
        closed = closing >= 0 and not 0 <= following < closing
        end = closing if closed else following if following >= 0 else len(text)
        body, last = text[opening + 1 : end], end + closed
        if not closed and following >= 0:  # its last line is the next one's name
            body, newline, after = body.rpartition("\n")
            body, last = (body, end - len(after)) if newline else (after, end)
        found.append((" ".join(name.split())[:LONGEST_NAME] or "object", body, closed))
    spoken.append(text[last:])
    words = " ".join(" ".join(spoken).split())
    if words.strip(" .;,`"):
        notes.append(f"Words around the lines are left out: {words[:80]!r}{'...' * (len(words) > 80)}.")
    return found


def _values(
    body: str, title: str, canvas: tuple[int, int], errors: list[str], notes: list[str]
) -> tuple[float, float, float, float, float] | None:
    """x, y, major, minor and angle of a line, or None if it cannot be used."""
    values, place = {}, 0
    while match := _VALUE.search(body, place):
        field = next(name for n, name in enumerate(FIELDS) if match[f"_{n}"] is not None)
        place = match.end("unit") if match["unit"] else match.end("number") if match["number"] else match.end("field")
        number, rest = match["number"], match["rest"].strip(" '\"\t.")
        if number is None:
            errors.append(f"{title}: {field} has no number.")
            continue
        if field in values:
            notes.append(f"{title}: {field} is given twice; the first one is taken.")
            continue
        if rest and _VALUE.match(rest):
            notes.append(f"{title}: after {field} the semicolon is missing.")
        elif rest:
            notes.append(f"{title}: the words after {field} are left out: {rest[:40]!r}.")
        unit = (match["unit"] or "").lower()
        if field == "angle":
            values[field] = float(number)
            continue
        if unit == "%":
            side = canvas[0] if field == "cx" else canvas[1]
            notes.append(f"{title}: {field} is in percent, of {side}px.")
            values[field] = float(number) / 100 * side
            continue
        if not unit:
            notes.append(f"{title}: {field} has no px.")
        values[field] = float(number)
    return _checked(values, title, canvas, errors, notes)


def _checked(
    values: dict[str, float], title: str, canvas: tuple[int, int], errors: list[str], notes: list[str]
) -> tuple[float, float, float, float, float] | None:
    if not values:
        errors.append(f"{title}: it has no values; expected major-radius, minor-radius, cx, cy and angle.")
        return None
    missing = [name for name in ("cx", "cy") if name not in values]
    radii = [values[name] for name in ("major-radius", "minor-radius") if name in values]
    missing += ["major-radius"] * (not radii)
    if missing:
        errors.append(f"{title}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.")
        return None
    if len(radii) == 1:
        notes.append(f"{title}: one radius is given; taken as a circle.")
    if "angle" not in values:
        notes.append(f"{title}: angle is missing; taken as 0.")
    major, minor, angle = radii[0], radii[-1], values.get("angle", 0.0)
    if min(major, minor) <= 0:
        errors.append(f"{title}: a radius is {min(major, minor):g}px; expected more than 0.")
        return None
    if minor > major:
        notes.append(f"{title}: minor-radius is longer than major-radius; drawn as written.")
    most = math.hypot(*canvas)
    if max(major, minor) > most:
        errors.append(f"{title}: a radius is {max(major, minor):g}px; expected at most {most:.0f}.")
        major, minor = min(major, most), min(minor, most)
    x, y = values["cx"], values["cy"]
    for name, value, side in (("cx", x, canvas[0]), ("cy", y, canvas[1])):
        if not 0 <= value <= side:
            errors.append(f"{title}: {name} is {value:g}px; expected 0 to {side}, inside the canvas.")
    return min(max(x, 0), canvas[0]), min(max(y, 0), canvas[1]), major, minor, math.fmod(angle, 180.0)
