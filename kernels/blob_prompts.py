"""What a language model is asked when it plans a layout: two passes, each with demonstrations of our own."""

from __future__ import annotations

from dataclasses import replace

from .blob_layout import Ellipse
from .blob_plan import PlannedBlob, canvas_of, write_parameters

Message = dict[str, str]

_ANGLES = {
    "vertical": "0 means that the major axis stands upright, 90 that it lies level",
    "horizontal": "0 means that the major axis lies level, 90 that it stands upright",
}

DEMONSTRATIONS = (
    (
        "a lighthouse to the right of a small white house under a cloudy sky",
        (
            ("sky", Ellipse(0.5, 0.2, 0.49, 0.19, 0), "a wide sky with heavy grey clouds and a pale yellow gap"),
            ("house", Ellipse(0.27, 0.71, 0.17, 0.14, 0), "a small white house with a red tiled roof and two windows"),
            ("lighthouse", Ellipse(0.73, 0.5, 0.36, 0.09, 90), "a tall lighthouse with red and white stripes"),
        ),
    ),
    (
        "two oranges and a leaning bottle of oil on a wooden table",
        (
            ("table", Ellipse(0.5, 0.8, 0.49, 0.19, 0), "a broad table of dark oiled wood with a visible grain"),
            ("orange", Ellipse(0.22, 0.62, 0.12, 0.12, 0), "a ripe round orange with a dimpled skin"),
            ("orange", Ellipse(0.45, 0.64, 0.11, 0.11, 0), "a smaller orange with a green leaf at its stem"),
            ("bottle", Ellipse(0.76, 0.42, 0.32, 0.1, 100), "a slim glass bottle of golden olive oil with a cork"),
        ),
    ),
    (
        "a kite flying above a running girl",
        (
            ("girl", Ellipse(0.36, 0.68, 0.29, 0.12, 80), "a girl in a yellow coat running, her hair in the wind"),
            ("kite", Ellipse(0.7, 0.2, 0.16, 0.1, 140), "a kite of red and blue cloth with a long ribbon tail"),
        ),
    ),
)
"""Prompt, and of each thing its name, its ellipse as in a layout, and its description."""


def parameter_messages(prompt: str, width: int, height: int, angle_zero: str) -> list[Message]:
    """The first pass: where things stand."""
    across, down = canvas_of(width, height)
    system = (
        "You plan pictures. For a caption, say where each thing stands, as a tilted ellipse around all of it, one line "
        "a thing and nothing else:\n"
        "name {major-radius: ?px; minor-radius: ?px; cx: ?px; cy: ?px; angle: ?}\n"
        f"The canvas is {across}px wide and {down}px high; cx: 0px is its left and cy: 0px its upper border. All "
        "values are whole numbers. angle is that of the major axis, clockwise in degrees from 0 to 180: "
        f"{_ANGLES[angle_zero]}. "
        "Write the things from the farthest to the nearest. Write one line for every single thing: three cats are "
        "three lines. Things are large, fill the picture well, stay inside the canvas, and overlap only where the "
        "caption asks for it. Do exactly what the caption says about numbers and places."
    )
    messages = [{"role": "system", "content": system}]
    for caption, things in DEMONSTRATIONS:
        narrow = min(width / height, 1.0)
        planned = [
            PlannedBlob(name, replace(ellipse, a=ellipse.a * narrow, b=ellipse.b * narrow))
            for name, ellipse, _ in things
        ]
        messages += _turn(f"caption: {caption}", write_parameters(planned, width, height, angle_zero))
    return [*messages, {"role": "user", "content": f"caption: {prompt}"}]


def description_messages(prompt: str, parameters: str) -> list[Message]:
    """The second pass: what each thing looks like, of the lines of the first one."""
    system = (
        "You describe what is to be seen in a picture. For its caption and the things in it, write one line a thing in "
        "the same order and nothing else:\nname {one sentence}\n"
        "The sentence says the thing's colour, looks, size and style, as the caption has them and otherwise as they "
        "fit, of this thing alone and without its place in the picture."
    )
    messages = [{"role": "system", "content": system}]
    for caption, things in DEMONSTRATIONS:
        planned = [PlannedBlob(name, ellipse) for name, ellipse, _ in things]
        answer = "\n".join(f"{name} {{{sentence}}}" for name, _, sentence in things)
        messages += _turn(f"caption: {caption}\n{write_parameters(planned, 512, 512, 'vertical')}", answer)
    return [*messages, {"role": "user", "content": f"caption: {prompt}\n{parameters}"}]


def repair_messages(messages: list[Message], answer: str, errors: tuple[str, ...]) -> list[Message]:
    """The same question once more, with what was wrong with the answer."""
    told = "\n".join(f"- {error}" for error in errors[:20])
    request = f"There are mistakes in your lines:\n{told}\nWrite all lines again, in the same form, and nothing else."
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": request}]


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
