"""A story's CONDITIONING: one for each frame, made of one prompt that holds several frames.

Liu et al., "One-Prompt-One-Story", ICLR 2025, arXiv 2501.13554. The frame that a conditioning shows has its words
expressed and those of the other frames suppressed, by their singular values (kernels/singular_values.py); what comes
before a word in a prompt does not change with what comes after it, so the identity is the same in all frames.

The identity attention of the paper appends the identity's own keys and values to those of a frame. They are the begin
token and the identity's words of the frame's own prompt, so appending them equals attending twice as strongly to them:
a bias of ln 2 on their logits. Both forms are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.singular_values import Curve, reweight_story
from ..kernels.story_text import Prompt
from .regional import KeyBias, with_key_bias
from .rows import for_part
from .text_tokens import CLIP_ENCODERS, EncodedText, TextError, channels_of, fit_rows, read_text, tokens_of

PROMPT = "papernodes_prompt"
"""Under this name a CONDITIONING of this pack carries the prompt it was made of."""

APPENDED = "papernodes_appended"
"""And under this one how many tokens were appended to it, which are no part of the prompt."""


@dataclass(frozen=True)
class Reweighting:
    """Which texts of a prompt are suppressed and which one is expressed, and how."""

    mode: str
    suppress: Curve
    express: Curve


@dataclass(frozen=True)
class Places:
    """Where the texts of one prompt stand: for each encoder the rows of each text's words."""

    encoded: EncodedText
    identities: tuple[list[int], ...]
    texts: tuple[list[int], ...]


def place_texts(clip: object, prompt: Prompt) -> list[Places]:
    """Finds the parts of a prompt among its tokens, in order, for each encoder.

    Raises:
        TextError: a part whose tokens are not there as they are by themselves, because its neighbour or a bracket runs
            into it; an unknown CLIP.
    """
    parts = [*prompt.identities, *prompt.texts]
    alone = [tokens_of(clip, part) for part in parts]
    found = []
    for encoded in read_text(clip, prompt.text):
        start, rows = 0, []
        for part, tokens in zip(parts, alone, strict=True):
            wanted = tokens[encoded.encoder]
            first = encoded.find(wanted, start)
            if first < 0:
                raise TextError(
                    f"{part!r} cannot be found among the tokens of its prompt. Close every bracket of a prompt weight "
                    "within its own line, and write words, not only signs."
                )
            rows.append(encoded.words(first, len(wanted)))
            start = first + len(wanted)
        split = len(prompt.identities)
        found.append(Places(encoded, tuple(rows[:split]), tuple(rows[split:])))
    return found


def find_text(encoded: EncodedText, tokens: Sequence) -> list[int]:
    """Rows of a text's words where it stands first in a prompt; empty if it does not."""
    first = encoded.find(tokens)
    return [] if first < 0 else encoded.words(first, len(tokens))


def reweight(
    clip: object,
    states: Tensor,
    steps: Sequence[tuple[EncodedText, Sequence[list[list[int]]], Sequence[list[int]]]],
    how: Reweighting,
) -> Tensor:
    """Reweights the frames of one prompt.

    Args:
        clip: which the conditioning is from.
        states: the prompt's conditioning, ``[1, T, D]``.
        steps: for each encoder of the CLIP kind: the prompt as it reads it, for each of F frames the rows of the
            suppressed texts, in order, and for each frame the rows of the expressed text.
        how: mode and curves.

    Returns:
        ``[F, T, D]``, on the CPU.
    """
    frames = len(steps[0][2]) if steps else 1
    result = states.expand(frames, -1, -1).clone()
    for encoded, suppressed, expressed in steps:
        channels = channels_of(clip, encoded.encoder, states.shape[-1])
        rows = slice(encoded.rows.start, encoded.rows.stop)
        own = result[:, rows, channels].unflatten(1, (encoded.chunks, -1))
        longest = max((len(texts) for texts in suppressed), default=0)
        padded = [[*texts, *[[]] * (longest - len(texts))] for texts in suppressed]
        own = reweight_story(
            own,
            [torch.stack([encoded.mask(texts[step]) for texts in padded]) for step in range(longest)],
            torch.stack([encoded.mask(rows) for rows in expressed]),
            encoded.mask(encoded.ends),
            mode=how.mode,
            suppress=how.suppress,
            express=how.express,
        )
        result[:, rows, channels] = own.flatten(1, 2)
    return result.cpu()


def encode_story(clip: object, prompts: Sequence[Prompt], how: Reweighting | None, keep_pooled: bool) -> list[list]:
    """A CONDITIONING for each prompt, on the CPU; prompts that are the same text are encoded once.

    Args:
        clip: a CLIP; for a reweighting all of its encoders are of the CLIP kind.
        prompts: one for each frame.
        how: the reweighting, or None to leave the embeddings as they are.
        keep_pooled: False puts zeros in place of the pooled output, which all frames of a prompt share.

    Raises:
        TextError: an unknown CLIP, or one that cannot be reweighted.
    """
    by_text: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_text.setdefault(prompt.text, []).append(number)
    found: list[list] = [[] for _ in prompts]
    for text, numbers in by_text.items():
        steps = []
        if how is not None:
            check_reweightable(clip)
            places = [place_texts(clip, prompts[number]) for number in numbers]
            for encoder in range(len(places[0])):
                own = [frame[encoder] for frame in places]
                pairs = list(zip(own, (prompts[number] for number in numbers), strict=True))
                suppressed = [[place.texts[k] for k in prompt.suppressed] for place, prompt in pairs]
                steps.append((own[0].encoded, suppressed, [place.texts[prompt.shown] for place, prompt in pairs]))
        for states, options in clip.encode_from_tokens_scheduled(clip.tokenize(text)):
            frames = [states.cpu()] * len(numbers) if how is None else reweight(clip, states, steps, how).split(1)
            options = {name: _on_cpu(value) for name, value in options.items()}
            if not keep_pooled and options.get("pooled_output") is not None:
                options["pooled_output"] = torch.zeros_like(options["pooled_output"])
            for number, frame in zip(numbers, frames, strict=True):
                # A copy of its own: a view would keep the whole batch alive.
                found[number].append([frame.clone(), {**options, PROMPT: text}])
    return found


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value


def check_reweightable(clip: object) -> None:
    """Raises TextError unless all of a CLIP's encoders are of the CLIP kind."""
    others = {encoded.encoder for encoded in read_text(clip, "a")} - set(CLIP_ENCODERS)
    if others:
        raise TextError(
            f"singular values are reweighted for CLIP text encoders, and this one has {', '.join(sorted(others))}. Set "
            "'mode' to off: the prompts are built all the same, and Identity Attention works with them."
        )


def identity_rows(clip: object, entry: list, identities: Sequence[str]) -> list[int]:
    """Rows of a conditioning that hold the identity: its words, and the begin token before them.

    Args:
        clip: which the conditioning is from.
        entry: ``[tensor, dict]`` of a CONDITIONING. From this pack's nodes it carries its prompt. Otherwise the
            identity has to be how the prompt begins, which CLIP's own answer to the identity tells.
        identities: texts of the characters; those that the prompt does not have are left out.

    Returns:
        The rows in order; empty if no identity is there.

    Raises:
        TextError: an unknown CLIP; a prompt of another length; a conditioning without its prompt from an encoder that
            reads in both directions.
    """
    states, options = entry
    rows: set[int] = set()
    if PROMPT in options:
        length = states.shape[1] - options.get(APPENDED, 0)
        for encoded in fit_rows(read_text(clip, options[PROMPT]), length):
            for text in identities:
                words = find_text(encoded, tokens_of(clip, text).get(encoded.encoder, ()))
                rows.update(words, encoded.begins_of(words))
        return sorted(rows)
    for text in identities:
        rows.update(_beginning(clip, states, text))
    return sorted(rows)


def _beginning(clip: object, states: Tensor, text: str) -> list[int]:
    """Rows of an identity that begins the prompt of an unknown conditioning; empty if another text does."""
    encoded = read_text(clip, text)
    if {one.encoder for one in encoded} - set(CLIP_ENCODERS):
        raise TextError(
            "this conditioning does not carry its prompt, and its text encoder reads in both directions, so the "
            "identity cannot be found in it. Connect the conditioning of Story Prompts."
        )
    one = encoded[0]
    rows = [*one.begins_of(one.places), *one.places]
    alone = clip.encode_from_tokens(clip.tokenize(text)).to(states)
    if not rows or max(rows) >= min(states.shape[1], alone.shape[1]) or alone.shape[-1] != states.shape[-1]:
        return []
    gap = (alone[0, rows] - states[0, rows]).abs().amax()
    return sorted(rows) if gap <= 1e-2 * alone[0, rows].abs().amax() else []


def bias_identity(entry: list, rows: Sequence[int], strength: float, dropout: float, start: float, end: float) -> list:
    """The entry with ``ln(1 + strength)`` on the logits of some rows, for a MODEL from ``regional.add_key_bias``."""
    length = entry[0].shape[1]
    chosen = torch.zeros(length)
    chosen[list(rows)] = strength
    return with_key_bias(entry, KeyBias(chosen, torch.ones(length), dropout, start, end))


def append_identity(
    entry: list, rows: Sequence[int], strength: float, dropout: float, start: float, end: float
) -> list[list]:
    """The paper's form: the rows once more at the end of the text, in cross attention equal to ``bias_identity``.

    Where only a part of the sampling is meant, there is an entry for that part and one for what comes before and after.
    A strength other than 1 and a dropout need a MODEL from ``regional.add_key_bias`` as well.
    """
    states, options = entry
    longer = torch.cat([states, states[:, list(rows)]], 1)
    kept = {**options, APPENDED: options.get(APPENDED, 0) + len(rows)}
    if (mask := options.get("attention_mask")) is not None:
        kept["attention_mask"] = torch.cat([mask, mask[:, list(rows)]], 1)
    appended = [longer, kept]
    if strength != 1 or dropout > 0:
        base, chosen = torch.ones(longer.shape[1]), torch.zeros(longer.shape[1])
        base[states.shape[1] :], chosen[states.shape[1] :] = 0.0, strength
        appended = with_key_bias(appended, KeyBias(chosen, base, dropout))
    return for_part(entry, appended, start, end)
