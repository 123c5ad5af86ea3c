"""Latents that tell which character they show and which place on it, for training the video autoencoder.

A latent has to tell 8 x 8 pixels of four frames in 16 numbers. An autoencoder that is asked for the pixels alone mixes
what is seen, where it is and how it moves, and the network that is to draw latents has to be a renderer. Here latents
are read while they are made: which character, by a small head, and by a linear one the place on it in each of the four
frames, which is a plane over the picture however a thing turns. Yao et al. 2025 ("Reconstruction vs. Generation", arXiv
2501.01423) have latents near the features of a pretrained encoder; here the renderer knows.
"""

from torch import Tensor, nn

from demo.video_contents import CLASSES, FRAMES, Contents, contents, reading_errors
from demo.world.render import Render
from demo.world.scene import Scenes

PIXELS = 8
"""Wide and high that a latent is."""


def latent_contents(scenes: Scenes, render: Render) -> Contents:
    """What the latents of clips show; a latent frame's row by row."""
    return contents(scenes, render, PIXELS)


class LatentReading(nn.Module):
    """Heads that read latents; no part of the model.

    Args:
        channels: of the latents.
        width: of the head that names.
    """

    def __init__(self, channels: int = 16, width: int = 64):
        super().__init__()
        self.places = nn.Linear(channels, 2 * FRAMES)
        self.names = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, sum(CLASSES) + len(CLASSES)))

    def errors(self, latents: Tensor, shown: Contents) -> tuple[Tensor, Tensor]:
        """``reading_errors`` of what is read; half of the names' error is that where characters are.

        Args:
            latents: float32 [B, C, k + 1, h, w].
            shown: what they show.
        """
        values = latents.flatten(2).transpose(1, 2)
        there = (shown.classes[..., 0] > 0).float()
        share = there.mean().clamp(1e-3, 1 - 1e-3)
        weights = there / (2 * share) + (1 - there) / (2 * (1 - share))
        return reading_errors(self.names(values), self.places(values), shown, weights)
