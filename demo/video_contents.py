"""Helps the video model to learn what is where: reads from a token's features which character it shows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.world.attributes import ACCESSORIES, COLOURS, FACES, PATTERNS, SHAPES
from demo.world.render import Render
from demo.world.scene import Scenes

PATCH = 16
"""Pixels that a token is wide and high."""

FRAMES = 4
"""That a latent frame stands for; the first one, of a single frame, is taken for four that are alike."""

MIDDLE = 1
"""Which of them, from 0, says whom a token shows."""

LEAST_SHARE = 0.25
"""Of a token's pixels that a character must fill to be what the token shows."""

CLASSES = (len(SHAPES), len(COLOURS), len(PATTERNS), len(ACCESSORIES), len(FACES))

PLACE_WEIGHT = 4.0
"""Of the places that features tell, whose error is soon a hundredth of that of the names."""

CLEAR = 0.85
"""The sigma below which a noisy clip shows where its characters are."""


@dataclass(frozen=True)
class Contents:
    """What the tokens of N clips show, or other cells.

    Args:
        classes: int8 [N, tokens, 5]: shape, colour, pattern, accessory and face, each from 1 on; 0 where nobody is.
        local: float16 [N, tokens, 4, 2]: where on the character that is in each of the four frames, in the character's
            own coordinates; 0 where none is.
        seen: bool [N, tokens, 4]: in which of the frames a character is.
    """

    classes: Tensor
    local: Tensor
    seen: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three, as the arguments are."""
        return self.classes, self.local, self.seen

    def select(self, rows: Tensor | slice) -> "Contents":
        """Those of some of the clips."""
        return Contents(*(value[rows] for value in self.tensors()))


def frames_of_latents(frames: int) -> Tensor:
    """int64 [k + 1, 4]: the frames that each latent frame of a clip of 4 k + 1 stands for."""
    return torch.cat((torch.zeros(FRAMES - 1, dtype=torch.int64), torch.arange(frames))).view(-1, FRAMES)


def cell_contents(scenes: Scenes, render: Render, patch: int) -> tuple[Tensor, Tensor]:
    """What square cells of every frame show: int8 [N, T, rows, columns, 5] and float16 [N, T, rows, columns, 2].

    Args:
        scenes: N scenes.
        render: theirs, with the layers "labels" and "local".
        patch: pixels that a cell is wide and high, a divisor of the picture's width and height.
    """
    labels, device = render.labels, render.labels.device
    cells = (labels.shape[2] // patch, labels.shape[3] // patch)
    characters = scenes.shape.shape[1]
    shown = labels[:, :, None] == torch.arange(characters, device=device)[:, None, None]  # [N, T, K, H, W]
    shares = functional.avg_pool2d(shown.flatten(0, 2).half()[:, None], patch)[:, 0].view(*shown.shape[:3], -1)
    share, who = shares.max(2)  # [N, T, cells]
    there = (share >= LEAST_SHARE).unflatten(2, cells)[..., None]
    attributes = (scenes.shape, scenes.colour, scenes.pattern, scenes.accessory, scenes.face)
    looks = [values.to(device).gather(1, who.flatten(1)).view(*who.shape[:2], *cells) + 1 for values in attributes]
    # Pixels of other characters are left out of the mean.
    mine = labels == who.unflatten(2, cells).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    sums = functional.avg_pool2d((render.local * mine[:, :, None]).flatten(0, 1), patch)
    local = sums / functional.avg_pool2d(mine.flatten(0, 1)[:, None].float(), patch).clamp_min(1e-6)
    local = local.clamp(-3, 3).unflatten(0, labels.shape[:2]).permute(0, 1, 3, 4, 2)
    return (torch.stack(looks, -1) * there).to(torch.int8), (local * there).half()


def contents(scenes: Scenes, render: Render, patch: int = PATCH) -> Contents:
    """What the tokens of clips show.

    Args:
        scenes: N scenes of 4 k + 1 frames.
        render: theirs, with the layers "labels" and "local".
        patch: pixels that a token is wide and high.
    """
    frames = frames_of_latents(scenes.frames).to(render.labels.device)
    classes, local = cell_contents(scenes, render, patch)
    places = local[:, frames].movedim(2, -2)  # [N, k + 1, rows, columns, 4, 2]
    seen = (classes[:, frames][..., 0] > 0).movedim(2, -1)
    return Contents(classes[:, frames[:, MIDDLE]].flatten(1, 3), places.flatten(1, 3), seen.flatten(1, 3))


def reading_errors(
    names: Tensor, places: Tensor, shown: Contents, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of the five names, and the mean squared error of the places where a character is.

    Args:
        names: float32 [B, tokens, sum of all classes and of one more each, for nobody].
        places: float32 [B, tokens, 8], x and y for each frame.
        shown: what is to be read.
        weights: float32 [B, tokens] of the names, of mean 1; all alike if None.
    """
    errors = []
    sizes = [number + 1 for number in CLASSES]
    for guess, known in zip(names.split(sizes, -1), shown.classes.unbind(-1), strict=True):
        error = functional.cross_entropy(guess.flatten(0, 1), known.flatten().long(), reduction="none")
        errors.append((error if weights is None else error * weights.flatten()).mean())
    off = (places.unflatten(-1, (FRAMES, 2)) - shown.local.float()).square().mean(-1)
    return torch.stack(errors).mean(), (off * shown.seen).sum() / shown.seen.sum().clamp_min(1)


def error_weights(shown: Contents, sigmas: Tensor, shape: tuple[int, ...], weight: float) -> Tensor:
    """How much the velocity's error counts: more where a character is; float32 [N, 1, T, H, W], of mean about 1.

    Three quarters of a clip are background, whose finest grain no network can guess. With much noise (from CLEAR on)
    all counts alike: where a character is cannot be told yet, and a weight that depends on it would make the network
    draw more of it than there is.

    Args:
        shown: what the tokens show, each of two by two latent pixels.
        sigmas: float32 [N], 0..1.
        shape: of the latents, [N, channels, T, H, W].
        weight: 1 or more.
    """
    frames, height, width = shape[2:]
    there = (shown.classes[..., 0] > 0).view(-1, 1, frames, height // 2, width // 2)
    there = (there & (sigmas < CLEAR).view(-1, 1, 1, 1, 1)).float()
    weights = 1 + (weight - 1) * there
    return (weights / weights.mean()).repeat_interleave(2, 3).repeat_interleave(2, 4)


class ContentReading(nn.Module):
    """A head that reads from a token's features which character it shows, and which place on it.

    A denoiser that has to say what it sees learns what there is to see sooner (Yu et al., "Representation Alignment
    for Generation", arXiv 2410.06940, take a pretrained encoder's features for what to say; here the renderer knows).
    The head is no part of the model.

    Args:
        width: numbers in a feature.
        device: where.
    """

    def __init__(self, width: int, device: torch.device):
        super().__init__()
        self.names = sum(CLASSES) + len(CLASSES)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width, device=device),
            nn.SiLU(),
            nn.Linear(2 * width, self.names + 2 * FRAMES, device=device),
        )

    def loss(self, features: Tensor, shown: Contents) -> Tensor:
        """``reading_errors`` of what the head reads, in one.

        Args:
            features: [B, tokens, width].
            shown: what those tokens show.
        """
        found = self.head(functional.layer_norm(features, features.shape[-1:])).float()
        names, places = reading_errors(found[..., : self.names], found[..., self.names :], shown)
        return names + PLACE_WEIGHT * places
