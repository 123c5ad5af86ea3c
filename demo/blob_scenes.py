"""Scenes with blobs for the blob adapter's training: pictures, ellipses of what is seen of each character, captions."""

import random
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from demo.diffusion import encode_text
from demo.training_data import encode_pictures
from demo.video_data import ClipChoice, ClipSource
from demo.world.captions import Identity, captions, plain_lists
from demo.world.render import render
from demo.world.scene import MAXIMUM_CHARACTERS, Scenes, draw_scenes
from demo.world.truth import ellipses
from demo.world_tokens import END, token_rows, vocabulary
from kernels.ellipses import token_masks

WORDS = 16
"""Tokens of a blob's caption that are kept; the longest has 11."""

FULL_SHARE = 0.5
"""Of the blobs' captions, those that name everything."""

SMALLEST = 0.002
"""Part of the picture below which what is seen of a character is no blob."""

SHIFTED_SHARE = 0.25
"""Of the pictures, those whose ellipses are a little off, as drawn by hand."""

LEVELS = (8, 16, 32, 64)
"""Pixels of a picture for one place, at the UNet's levels."""


def blob_captions(scenes: Scenes, seed: int) -> list[list[str]]:
    """A caption for each place where a scene may have a character; "" where there is none."""
    lists, chance = plain_lists(scenes), random.Random(seed)
    found = []
    for b in range(scenes.size):
        count = lists["count"][b]
        own = [
            Identity(lists, b, k).phrase(chance, full=chance.random() < FULL_SHARE, moving=False) for k in range(count)
        ]
        found.append(own + [""] * (MAXIMUM_CHARACTERS - count))
    return found


def _draw_blobs(count: int, seed: int, frames: int, choice: ClipChoice):
    """One chunk: the arrays of its Scenes, and rows of tokens [count, phrasings + K, 77]: of its captions, and of each
    character's.
    """
    scenes = draw_scenes(count, seed, characters=choice.characters, frames=frames)
    rows = [token_rows(captions(scenes, seed * 8 + k, full=k < choice.full)) for k in range(choice.phrasings)]
    rows += [token_rows(own) for own in zip(*blob_captions(scenes, seed * 8 + 7), strict=True)]
    return {item.name: getattr(scenes, item.name).numpy() for item in fields(Scenes)}, np.stack(rows, axis=1)


class BlobSource(ClipSource):
    """Scenes of one frame and tokens [n, phrasings + K, 77], the last K those of each character's caption."""

    draw = staticmethod(_draw_blobs)


def seen_ellipses(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    """The ellipse of what is seen of each character.

    Args:
        scenes: of one frame.
        size: pixels that are looked at.

    Returns:
        float32 [B, K, 5] as kernels/ellipses.py has them, a circle where there is none; and bool [B, K], which there
        are: a character that hardly shows is none.
    """
    return label_ellipses(render(scenes, size, size, layers=("labels",)).labels[:, 0], scenes.present)


def label_ellipses(labels: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """The same of labels [B, H, W] and of which characters there are, bool [B, K]."""
    masks = (labels[:, None] == torch.arange(there.shape[1], device=labels.device)[:, None, None]).float()
    found = ellipses(masks)
    present = there & (masks.mean((2, 3)) >= SMALLEST) & (found[..., 3] > 0.01)
    nowhere = found.new_tensor([0.5, 0.5, 0.1, 0.1, 0.0])
    return torch.where(present[..., None], found, nowhere), present


def shifted(found: Tensor, generator: torch.Generator) -> Tensor:
    """Ellipses [B, K, 5] that are a little off: moved by 2 %, longer or shorter by 10 %, turned by 6 degrees or so."""
    noise = torch.randn(found.shape, generator=generator).to(found.device)
    place = found[..., :2] + 0.02 * noise[..., :2]
    return torch.cat(
        (place, found[..., 2:4] * (0.1 * noise[..., 2:4]).exp(), found[..., 4:] + 0.1 * noise[..., 4:]), -1
    )


def word_states(text: torch.nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What the text encoder says of captions, and which tokens those are: up to the first end, which is among them.

    Args:
        text: the image model's text encoder.
        rows: int64 [N, 77] of the small vocabulary.

    Returns:
        float [N, WORDS, 128], bool [N, WORDS].
    """
    end = vocabulary().index(END)
    words = ((rows == end).cumsum(1) - (rows == end).int() == 0)[:, :WORDS]
    return encode_text(text, rows)[:, :WORDS], words


def level_masks(found: Tensor, present: Tensor, size: int) -> Tensor:
    """Which places of each of the UNet's levels each blob covers, bool [B, K, P]: all levels one after the other."""
    sides = [size // level for level in LEVELS]
    return torch.cat([token_masks(found, present, side, side).flatten(2) for side in sides if side], -1)


def blob_maker(vae, text, device: torch.device, size: int, seed: int) -> Callable[[Scenes, Tensor], tuple[Tensor, ...]]:
    """A function of scenes and BlobSource's rows that makes what is learned from.

    That is latents float16 [N, 4, size/8, size/8], rows of the captions int16 [N, phrasings, 77], of the blobs
    states float16 [N, K, WORDS, 128] and words bool [N, K, WORDS], ellipses float32 [N, K, 5], present bool [N, K] and
    level_masks.

    Args:
        vae: encodes the pictures.
        text: encodes the blobs' captions.
        device: where.
        size: of the pictures.
        seed: of all that is drawn here.
    """
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def make(scenes: Scenes, rows: Tensor) -> tuple[Tensor, ...]:
        scenes, rows = scenes.to(device), rows.to(device)
        drawn = render(scenes, size, size, layers=("frames", "labels"))
        found, present = label_ellipses(drawn.labels[:, 0], scenes.present)
        off = (torch.rand(scenes.size, generator=generator) < SHIFTED_SHARE).to(device)
        found = torch.where(off[:, None, None], shifted(found, generator), found)
        own = rows[:, -MAXIMUM_CHARACTERS:].flatten(0, 1).long()
        states, words = (some.unflatten(0, (-1, MAXIMUM_CHARACTERS)) for some in word_states(text, own))
        return (
            encode_pictures(vae, drawn.frames[:, 0]),
            rows[:, :-MAXIMUM_CHARACTERS],
            states.half(),
            words,
            found,
            present,
            level_masks(found, present, size),
        )

    return make


def pick_level(masks: Tensor, places: int, size: int) -> Tensor:
    """Of level_masks [B, K, P] those of the level with so many places, bool [B, K, places]."""
    start = 0
    for side in (size // level for level in LEVELS):
        if side * side == places:
            return masks[..., start : start + places]
        start += side * side
    raise ValueError(f"no level of a picture of {size} pixels has {places} places.")
