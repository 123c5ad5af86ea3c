"""Helps the video model to learn what is where: reads from a token's features which character it shows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.world.attributes import ACCESSORIES, COLOURS, PATTERNS, SHAPES
from demo.world.render import Render
from demo.world.scene import Scenes

PATCH = 16
"""Pixels that a token is wide and high."""

LEAST_SHARE = 0.25
"""Of a token's pixels that a character must fill to be what the token shows."""

CLASSES = (len(SHAPES), len(COLOURS), len(PATTERNS), len(ACCESSORIES))

CLEAR = 0.85
"""The sigma below which a noisy clip shows where its characters are."""


@dataclass(frozen=True)
class Contents:
    """What the tokens of N clips show.

    Args:
        classes: int8 [N, tokens, 4]: shape, colour, pattern and accessory, each from 1 on; 0 where no character is.
        local: float16 [N, tokens, 2]: where on the character that is, in its own coordinates; 0 where none is.
    """

    classes: Tensor
    local: Tensor


def latent_times(frames: int) -> Tensor:
    """int64: a frame from the middle of those that each latent frame stands for; of the first one, the first."""
    return torch.cat((torch.zeros(1, dtype=torch.int64), torch.arange(2, max(frames, 2), 4)))


def contents(scenes: Scenes, render: Render) -> Contents:
    """What the tokens of clips show.

    Args:
        scenes: N scenes of 4 k + 1 frames.
        render: theirs, with the layers "labels" and "local".
    """
    device = render.labels.device
    times = latent_times(scenes.frames).to(device)
    labels = render.labels[:, times]
    characters = scenes.shape.shape[1]
    shown = labels[:, :, None] == torch.arange(characters, device=device)[:, None, None]  # [N, T, K, H, W]
    shares = functional.avg_pool2d(shown.flatten(0, 2).half()[:, None], PATCH)[:, 0].view(*shown.shape[:3], -1)
    share, who = shares.max(2)  # [N, T, tokens of a frame]
    there = (share >= LEAST_SHARE).flatten(1)
    who = who.flatten(1)
    attributes = (scenes.shape, scenes.colour, scenes.pattern, scenes.accessory)
    classes = torch.stack([values.to(device).gather(1, who) + 1 for values in attributes], -1) * there[..., None]
    # Pixels of other characters are left out of the mean.
    mine = labels == who.view(*labels.shape[:2], labels.shape[2] // PATCH, -1).repeat_interleave(
        PATCH, 2
    ).repeat_interleave(PATCH, 3)
    sums = functional.avg_pool2d((render.local[:, times] * mine[:, :, None]).flatten(0, 1), PATCH)
    local = (sums / functional.avg_pool2d(mine.flatten(0, 1)[:, None].float(), PATCH).clamp_min(1e-6)).clamp(-3, 3)
    local = local.unflatten(0, labels.shape[:2]).flatten(3).permute(0, 1, 3, 2).flatten(1, 2)
    return Contents(classes.to(torch.int8), (local * there[..., None]).half())


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
        self.sizes = [number + 1 for number in CLASSES]
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width, device=device),
            nn.SiLU(),
            nn.Linear(2 * width, sum(self.sizes) + 2, device=device),
        )

    def loss(self, features: Tensor, shown: Contents) -> Tensor:
        """Mean cross entropy of the four readings, and the squared error of the place where a character is.

        Args:
            features: [B, tokens, width].
            shown: what those tokens show.
        """
        guesses = self.head(functional.layer_norm(features, features.shape[-1:])).float()
        *read, local = guesses.split([*self.sizes, 2], -1)
        errors = [
            functional.cross_entropy(guess.flatten(0, 1), shown.classes[..., k].flatten().long())
            for k, guess in enumerate(read)
        ]
        there = (shown.classes[..., :1] > 0).float()
        place = ((local - shown.local.float()).square() * there).mean()
        return torch.stack(errors).mean() + place
