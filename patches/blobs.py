"""What a CONDITIONING says of blobs, and how the attention of a running model obeys it.

Captions of blobs stand behind the global prompt in the text of the CONDITIONING; each is seen by the part of the
picture that its ellipse covers, at the frames at which it holds. One softmax runs over all that a place sees, so blobs
that overlap compete (BlobGEN, Nie et al., ICML 2024, masked cross attention). A place in no blob sees the global
prompt, so no place is left without keys. Two rules say what a place in a blob sees:

    masked   its captions; of the global prompt 1 - strength.
    3dis     the same at the beginning, together with attention of the picture to its own region alone; afterwards the
             global prompt as well (3DIS-FLUX, Zhou et al., 2025).

With ``self_attention`` picture tokens attend only to those that share a blob with them, over all frames at once, the
background being one more region (BlobGEN-Vid's masked 3-D attention; Through-the-Mask has the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import comfy.patcher_extension
import torch
from torch import Tensor

from ..kernels.blob_layout import BlobLayout
from .blob_attention import BlobAttention
from .regional import UNET, family_of, options_with
from .rows import for_part, is_active, set_row_values, text_length

KEY = "papernodes_blobs"
"""Name of the BlobText in a CONDITIONING, of the wrappers and of the rows."""

ROWS = "papernodes_blob_rows"
"""Where an adapter finds the blobs of a call, in transformer_options."""

RULES = ("masked", "3dis", "none")


@dataclass(frozen=True)
class BlobSettings:
    """How blobs are obeyed."""

    rules: str = "masked"
    """One of RULES; "none" leaves the attention to text alone: blobs are only for an adapter."""

    strength: float = 1.0
    """How much captions count in their blobs, and by how much less the global prompt does there, 0 to 1."""

    self_attention: bool = False
    first_blocks: int = 10
    """In how many blocks, from the first that runs, the attention of the picture to itself is restricted; 0 = all."""

    self_end: float = 0.3
    """Until which part of the sampling it is, 0 to 1."""


@dataclass(frozen=True)
class Piece:
    """One caption's tokens."""

    blob: int
    rows: range
    """Where they stand in the text; empty where they are not in it."""

    weights: Tensor
    """float32 [F]: how much they count at each frame of the layout; 0 = not."""

    states: Tensor
    """float [n, d], what the text encoder says of them."""


@dataclass(frozen=True, eq=False)
class BlobText:
    """Where blobs stand, and which rows of a text are whose."""

    ellipses: Tensor
    """float32 [F, K, 5], as in ``kernels/ellipses.py``."""

    present: Tensor
    """bool [F, K]."""

    shared: int
    """Rows of the global prompt, which come first."""

    length: int
    """Rows in all; those that are nobody's are not seen."""

    pieces: tuple[Piece, ...]
    settings: BlobSettings

    @property
    def frames(self) -> int:
        """F, of the layout."""
        return self.ellipses.shape[0]


def anchored(anchors: Sequence[tuple[int, Tensor]], frames: int) -> list[Tensor]:
    """How much each of several captions counts at every frame, float32 [frames]: each from its frame to the next one's,
    the first before its frame as well.
    """
    ends = [frame for frame, _ in anchors[1:]] + [frames]
    starts = [0, *ends[:-1]]
    time = torch.arange(frames)
    return [((time >= start) & (time < end)).float() for start, end in zip(starts, ends, strict=True)]


def blob_text(
    shared: Tensor,
    captions: Sequence[Sequence[tuple[int, Tensor]]],
    layout: BlobLayout | tuple[Tensor, Tensor],
    settings: BlobSettings,
    pad_to: int | None = None,
) -> tuple[Tensor, BlobText]:
    """The text of a prompt with blobs.

    Args:
        shared: float [L0, d], what the text encoder says of the global prompt.
        captions: for each blob, what it says of its captions, each from a frame on: (frame, float [n, d]); none for a
            blob without a caption, which is then only a region.
        layout: a layout; or ellipses [F, K, 5] and present [F, K].
        settings: how it is obeyed.
        pad_to: rows in the end, at least as many as there are; None = as many as there are.

    Returns:
        float [L, d], and what is what in it.

    Raises:
        ValueError: an unknown rule; another number of captions than of blobs; too many rows for ``pad_to``.
    """
    if settings.rules not in RULES:
        raise ValueError(f"rules: got {settings.rules!r}; expected one of {', '.join(RULES)}.")
    if isinstance(layout, BlobLayout):
        weights = [blob.weight for blob in layout.blobs]
        ellipses, present = layout.geometry(), layout.presence()
    else:
        (ellipses, present), weights = layout, [1.0] * len(captions)
    if len(captions) != ellipses.shape[1]:
        raise ValueError(f"captions: got those of {len(captions)} blobs; the layout has {ellipses.shape[1]}.")
    parts, pieces, length = [shared], [], shared.shape[0]
    for number, (anchors, weight) in enumerate(zip(captions, weights, strict=True)):
        if weight == 0 or not anchors:
            continue
        for (_, states), held in zip(anchors, anchored(anchors, ellipses.shape[0]), strict=True):
            rows = range(0)
            if settings.rules != "none":
                rows = range(length, length + states.shape[0])
                parts.append(states.to(shared))
                length = rows.stop
            pieces.append(Piece(number, rows, weight * held, states))
    total = length if pad_to is None else pad_to
    if total < length:
        raise ValueError(f"pad_to: got {pad_to}; the text has {length} rows.")
    if total > length:
        parts.append(shared.new_zeros(total - length, shared.shape[1]))
    text = BlobText(ellipses.float(), present, shared.shape[0], total, tuple(pieces), settings)
    return torch.cat(parts), text


def padded_rows(shared: int, rows: int, family: str) -> int:
    """How many rows a text of ``rows`` rows gets, where the global prompt has ``shared``.

    For UNets a multiple of the prompt's, up to four times as many: then the host still puts it and the negative into
    one batch. Of other models' texts it batches only those of one length, and a multiple of 8 is what attention likes.
    """
    if family == UNET and shared < rows <= 4 * shared:
        return -(-rows // shared) * shared
    return rows if rows == shared else -(-rows // 8) * 8


def with_blobs(
    entry: list,
    captions: Sequence[Sequence[tuple[int, Tensor]]],
    layout: BlobLayout,
    settings: BlobSettings,
    start: float = 0.0,
    end: float = 1.0,
    *,
    family: str = UNET,
) -> list[list]:
    """An entry of a CONDITIONING with blobs.

    Args:
        entry: ``[tensor [1, L0, d], dict]``; it stays as it is.
        captions, layout, settings: see blob_text.
        start, end: the part of the sampling in which they hold, 0 to 1.
        family: of the model, see ``regional.family_of``.

    Returns:
        The entry with blobs for that part of the sampling, and the plain one for what comes before and after.
    """
    states, options = entry
    _, bare = blob_text(states[0], captions, layout, settings)
    longer, text = blob_text(states[0], captions, layout, settings, padded_rows(states.shape[1], bare.length, family))
    kept = {**options, KEY: text}
    if (mask := options.get("attention_mask")) is not None:
        extra = mask.new_zeros(mask.shape[0], text.length - text.shared)
        for piece in text.pieces:
            extra[:, [row - text.shared for row in piece.rows]] = 1
        kept["attention_mask"] = torch.cat([mask, extra], 1)
    return for_part(entry, [longer[None], kept], start, end)


@dataclass
class _Run:
    """What one sampling remembers from step to step; forgotten at its end, as masks lie on the GPU."""

    texts: list[BlobText] = field(default_factory=list)
    masks: dict = field(default_factory=dict)
    size: torch.Size | None = None

    def number(self, text: BlobText) -> int:
        """From 1 on."""
        for number, known in enumerate(self.texts, 1):
            if known is text:
                return number
        self.texts.append(text)
        return len(self.texts)


def add_blobs(model: object) -> object:
    """A clone of a MODEL that obeys the BlobText of the CONDITIONING it is sampled with.

    Raises:
        ValueError: a network of a family that is not known.
    """
    family_of(model)
    model = model.clone()
    run = _Run()

    def read(condition: dict, base_model: object, timestep: Tensor) -> Tensor | None:
        text = condition.get(KEY)
        if text is None:
            return None
        length = text_length(condition)
        if length != text.length:
            raise ValueError(
                f"Apply Blobs: the conditioning had {text.length} tokens when blobs were applied, but {length} reach "
                "the model. Put nodes that combine or shorten conditionings before Apply Blobs."
            )
        early = is_active(0.0, text.settings.self_end, base_model, timestep) and text.settings.self_end > 0
        return torch.full((1, 1, length), run.number(text) * (1.0 if early else -1.0))

    def use(rows: Tensor, options: dict, base_model: object, latents: Tensor) -> dict:
        numbers = [int(number) for number in rows[:, 0, 0].tolist()]
        texts = [run.texts[abs(number) - 1] if number else None for number in numbers]
        early = [number > 0 for number in numbers]
        each = latents.shape[0] // max(len(options.get("cond_or_uncond", ())), 1)
        places, total = _places(latents, options, each, run.size)
        network, length = base_model.diffusion_model, rows.shape[-1]
        return _options(texts, early, options, network, latents.shape, places, total, length, run.masks, latents.device)

    def sample(executor, noise, *arguments, **rest):
        conditions = getattr(executor.class_obj, "conds", None) or {}
        for kind in conditions.values():
            for condition in kind or ():
                if isinstance(condition.get(KEY), BlobText):
                    check_frames(condition[KEY].frames, noise.shape)
        run.size = noise.shape
        try:
            return executor(noise, *arguments, **rest)
        finally:
            run.texts.clear()
            run.masks.clear()
            run.size = None

    set_row_values(model, KEY, read, use)
    outer = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    model.remove_wrappers_with_key(outer, KEY)
    model.add_wrapper_with_key(outer, KEY, sample)
    return model


def check_frames(frames: int, shape: Sequence[int]) -> None:
    """Raises ValueError where the frames of a layout cannot be the pictures of a batch (on an image model)."""
    if frames > 1 and len(shape) == 4 and shape[0] % frames:
        raise ValueError(
            f"Apply Blobs: the layout has {frames} frames and the latent {shape[0]} pictures. On an image model every "
            "picture of the batch is a frame: set the batch to as many, or 'frames' of Blob Layout to 1."
        )


def _places(latents: Tensor, options: dict, each: int, size: Sequence[int] | None) -> tuple[list[int], int]:
    """Which frames a call has, of how many: pictures of a row, or a video's latent frames; a window may have some."""
    video = latents.ndim == 5
    here = latents.shape[2] if video else each
    window = options.get("context_window")
    indices = getattr(window, "index_list", None)
    if indices is not None and len(indices) == here:
        total = here if size is None else (size[2] if video else size[0])
        return [int(index) for index in indices], max(total, max(indices) + 1)
    return list(range(here)), here


def options_with_blobs(
    texts: Sequence[BlobText | None],
    options: dict,
    network: torch.nn.Module,
    latents_shape: Sequence[int],
    *,
    progress: float = 0.0,
    frames: int = 1,
    cache: dict | None = None,
) -> dict:
    """The options of one call of a network with blobs, for those who call it without a MODEL.

    Args:
        texts: of each row of the batch, or None; all texts of the call are as long as the longest.
        options: transformer_options; not changed.
        network: one of ``regional.FAMILIES``.
        latents_shape: [B, C, H, W], or [B, C, T, H, W] of a video model.
        progress: 0..1, how much of the sampling is over.
        frames: pictures of a clip that follow one another in the batch of an image model.
        cache: keeps masks for the next call; None = they are made anew.
    """
    length = max(text.length for text in texts if text is not None)
    early = [text is not None and progress < text.settings.self_end for text in texts]
    here = latents_shape[2] if len(latents_shape) == 5 else frames
    places, cache, device = list(range(here)), {} if cache is None else cache, next(network.parameters()).device
    return _options(texts, early, options, network, latents_shape, places, here, length, cache, device)


def _options(texts, early, options, network, shape, places, total, length, cache, device) -> dict:
    attention = BlobAttention(texts, early, network, shape, places, total, length, cache)
    if (rows := attention.rows_for_adapter(device)) is not None:
        options = {**options, ROWS: rows}
    if not attention.changes_attention:
        return options
    return options_with(attention, options, network)
