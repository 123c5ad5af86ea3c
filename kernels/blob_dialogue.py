"""A layout planned in a conversation with a language model: two passes, an answer with mistakes sent back once."""

from __future__ import annotations

import re
from collections.abc import Callable

from .blob_layout import Blob, BlobLayout, blobs_to_json, parse_blobs
from .blob_plan import Answer, read_descriptions, read_parameters, write_parameters
from .blob_prompts import Message, description_messages, parameter_messages, repair_messages

LONGEST_PROMPT = 10_000

Ask = Callable[[list[Message]], str]
"""Sends messages, returns the answer's text."""


def plan_by_model(prompt: str, width: int, height: int, angle_zero: str, ask: Ask) -> tuple[BlobLayout, list[str]]:
    """A layout of what a language model makes of a prompt (BlobGEN; the prompts are our own).

    Args:
        prompt: what is to be seen.
        width, height: of the picture.
        angle_zero: which convention it is asked for, one of ``blob_plan.ANGLE_ZEROS``.
        ask: at most four times.

    Returns:
        The layout, one frame, and the log.

    Raises:
        ValueError: a prompt that is too long, or two answers without any thing that could be used.
    """
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"the prompt has {len(prompt)} characters; at most {LONGEST_PROMPT} can be sent.")
    log: list[str] = []
    placed = _asked(
        "Places",
        parameter_messages(prompt, width, height, angle_zero),
        lambda text: read_parameters(text, width, height, angle_zero),
        ask,
        log,
    )
    things = list(placed.things)
    if not things:
        raise ValueError(
            f"the model answered twice without a thing that could be placed. {' '.join(placed.errors[:3])} Try "
            "again, another model, or the rules."
        )
    names = [thing.name for thing in things]
    described = _asked(
        "Descriptions",
        description_messages(prompt, write_parameters(things, width, height, angle_zero)),
        lambda text: read_descriptions(text, names),
        ask,
        log,
    )
    blobs = tuple(
        Blob(str(number + 1), caption, thing.ellipse)
        for number, (thing, (_, caption)) in enumerate(zip(things, described.things, strict=True))
    )
    # Read anew as the editor's text would be, so that nothing goes out that could not come back.
    layout = parse_blobs(blobs_to_json(BlobLayout(blobs, width, height)), width, height, 1, "the plan")
    log.append(f"{len(blobs)} blob{'s' * (len(blobs) != 1)} planned; the layout is valid.")
    return layout, log


def _asked(title: str, messages: list[Message], read: Callable[[str], Answer], ask: Ask, log: list[str]) -> Answer:
    """The answer, or after mistakes the second one unless it is worse."""
    text = without_thoughts(ask(messages))
    answer = read(text)
    if answer.errors:
        log += [f"{title}, sent back: {error}" for error in answer.errors]
        second = read(without_thoughts(ask(repair_messages(messages, text, answer.errors))))
        right = second.things and not second.errors
        if right or (len(second.things), -len(second.errors)) > (len(answer.things), -len(answer.errors)):
            answer = second
        if answer.errors:
            log += [f"{title}, still wrong: {error}" for error in answer.errors]
        else:
            log.append(f"{title}: the second answer is right.")
    log += [f"{title}: {note}" for note in answer.notes]
    return answer


def without_thoughts(text: str) -> str:
    """An answer without what a model wrote while it thought."""
    return re.sub(r"(?s)^.*</think(?:ing)?>", "", text)
