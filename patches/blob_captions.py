"""What a text encoder says of blobs' captions, and captions that change from frame to frame.

BlobGEN-Vid interpolates the text of anchor frames with a trained module that is not public; here each token goes on a
straight line (lerp) or on the arc (slerp) from one caption's to the next one's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.blob_layout import BlobLayout
from ..kernels.schedule import travel
from .text_tokens import TextError, read_text

SCHEDULED = "papernodes_blob_captions"
"""Where a CONDITIONING of Blob Text Schedule holds the captions: for each blob (frame, states), ..."""

MOST_ROWS = 4096
"""Of a prompt with all captions."""

LERP, SLERP = "lerp", "slerp"
SMALLEST_ANGLE = 1e-3
"""Radians below which an arc is a line."""

Anchors = tuple[tuple[int, Tensor], ...]


def encode_captions(clip: object, layout: BlobLayout) -> list[Anchors]:
    """For each blob, from which frame on the text encoder says what: (frame, float [n, d]).

    Of a caption the begin token, its words and one end token are kept, without padding; of an encoder whose order is
    not known (``text_tokens.ARRANGEMENTS``) all that it gives. Empty captions give nothing.

    Args:
        clip: the host's CLIP.
        layout: with captions.
    """
    known: dict[str, Tensor] = {}

    def states(text: str) -> Tensor:
        if text not in known:
            encoded = _encode(clip, text)
            known[text] = encoded[_rows_of(clip, text, encoded.shape[0])]
        return known[text]

    return [tuple((key.frame, states(key.text)) for key in blob.anchors() if key.text.strip()) for blob in layout.blobs]


def _encode(clip: object, text: str) -> Tensor:
    """All that a text encoder says of a text, float [rows, d]."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0][0]


def _rows_of(clip: object, text: str, length: int) -> list[int]:
    """Rows of a caption that are not padding."""
    try:
        found = read_text(clip, text)
    except TextError:
        return list(range(length))
    # Encoders whose channels lie side by side share rows; the one that needs most of them counts.
    rows = {row for one in found for row in (*one.begins, *one.places, *_first_ends(one))}
    return sorted(row for row in rows if row < length)


def _first_ends(encoded: object) -> list[int]:
    """The row behind the words of each chunk that has words, which is its end token."""
    size = len(encoded.rows) // encoded.chunks
    last: dict[int, int] = {}
    for row in encoded.places:
        last[(row - encoded.rows.start) // size] = row
    return [row + 1 for row in last.values() if row + 1 in set(encoded.ends)]


def schedule_captions(
    clip: object, layout: BlobLayout, interpolation: str = SLERP, way: str = "linear", every: int = 4
) -> list[Anchors]:
    """Captions as they change over the frames: those of the anchors, and in between what lies between them.

    Args:
        clip: the host's CLIP.
        layout: with captions at anchor frames.
        interpolation: LERP or SLERP, of each token.
        way: how time bends between anchors, one of ``kernels.schedule.WAYS``.
        every: frames from one text to the next, at least 1; a video model's latent frame stands for 4 or 8.

    Returns:
        For each blob (frame, float [n, d]), ...; as many tokens in all of a blob's as its longest caption has.

    Raises:
        ValueError: another interpolation, or ``every`` below 1.
    """
    if interpolation not in (LERP, SLERP):
        raise ValueError(f"interpolation: got {interpolation!r}; expected {LERP} or {SLERP}.")
    if every < 1:
        raise ValueError(f"every: got {every}; expected 1 or more.")
    found = []
    for blob, own in zip(layout.blobs, encode_captions(clip, layout), strict=True):
        if len(own) > 1:
            aligned = _aligned(clip, [key for key in blob.anchors() if key.text.strip()])
            own = between_anchors(aligned, layout.frames, interpolation=interpolation, way=way, every=every)
        found.append(own)
    return found


def _aligned(clip: object, keys: Sequence) -> Anchors:
    """Anchors with as many tokens each; a shorter caption has the encoder's own padding behind it."""
    encoded = [_encode(clip, key.text) for key in keys]
    wanted = max(max(_rows_of(clip, key.text, len(one)), default=0) + 1 for key, one in zip(keys, encoded, strict=True))
    padded = []
    for one in encoded:
        short = wanted - one.shape[0]
        padded.append(one[:wanted] if short <= 0 else torch.cat((one, one[-1:].expand(short, -1))))
    return tuple((key.frame, one) for key, one in zip(keys, padded, strict=True))


def between_anchors(
    anchors: Anchors, frames: int, *, interpolation: str = SLERP, way: str = "linear", every: int = 1
) -> Anchors:
    """Texts every few frames between anchors, which all have as many tokens.

    Args:
        anchors: (frame, float [n, d]), frames increasing.
        frames: of the clip.
        interpolation, way, every: see schedule_captions.
    """
    mix = slerp if interpolation == SLERP else torch.lerp
    found = dict(anchors)
    for (start, before), (end, after) in itertools.pairwise(anchors):
        for frame in range(start + every, end, every):
            part = travel(torch.tensor((frame - start) / (end - start)), way)
            found[frame] = mix(before, after, part.to(before))
    return tuple((frame, states) for frame, states in sorted(found.items()) if frame < frames)


def slerp(start: Tensor, end: Tensor, part: Tensor) -> Tensor:
    """Between vectors, along the arc of the angle O between them: (sin((1-u)O) s + sin(uO) e) / sin O.

    Args:
        start, end: float [..., d].
        part: u, 0 to 1.

    Returns:
        [..., d]; where the angle is below SMALLEST_ANGLE, or nearly a half turn, on the straight line.
    """
    cosine = torch.cosine_similarity(start.float(), end.float(), dim=-1)[..., None].clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    straight = sine < SMALLEST_ANGLE
    sine = torch.where(straight, torch.ones_like(sine), sine)
    u = part.float()
    arc = (((1 - u) * angle).sin() * start.float() + (u * angle).sin() * end.float()) / sine
    return torch.where(straight, torch.lerp(start.float(), end.float(), u), arc).to(start.dtype)


def frame_texts(captions: Sequence[Anchors], frames: int) -> Tensor:
    """All captions one behind the other, as they are at each frame: float [frames, rows, d].

    Args:
        captions: for each blob; the texts of a blob may differ in length, shorter ones are filled up with their end.
        frames: of the clip.

    Raises:
        ValueError: there is no caption.
    """
    blobs = []
    for anchors in captions:
        if not anchors:
            continue
        longest = max(states.shape[0] for _, states in anchors)
        starts = torch.tensor([frame for frame, _ in anchors])
        texts = torch.stack(
            [torch.cat((states, states[-1:].expand(longest - states.shape[0], -1))) for _, states in anchors]
        )
        at = (starts[None] <= torch.arange(frames)[:, None]).sum(1).sub(1).clamp_min(0)
        blobs.append(texts[at])
    if not blobs:
        raise ValueError("captions: no blob has one.")
    return torch.cat(blobs, 1)
