"""Helps the video model to learn where things are and how they move, and asks whether it has."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.diffusion import encode_text
from demo.training import autocast
from demo.training_data import rendered
from demo.video_data import opposite_motions
from demo.video_model import VideoForward, add_noise
from demo.video_vae import encode_clips
from demo.world.captions import captions
from demo.world.scene import draw_scenes
from demo.world_tokens import token_rows


class TokenPlaces(nn.Module):
    """Linear heads that read from a token's features when and where in the clip it lies.

    Attention with rotated queries and keys tells tokens their distances, not their places; in plain noise all of them
    look alike, so nothing says what is left or first. A model that knows places has a use for words that tell them
    (demo/layout.py: without that, the image model never learned left and right). The heads are no part of the model.

    Args:
        grid: tokens in time, height and width.
        blocks: how many features VideoForward gives.
        width: numbers in each.
        device: where.
    """

    def __init__(self, grid: tuple[int, int, int], blocks: int, width: int, device: torch.device):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(width, 3, device=device) for _ in range(blocks)])
        lines = [(torch.arange(size, device=device) + 0.5) * (2 / size) - 1 for size in grid]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, 2)
        self.register_buffer("places", places, persistent=False)

    def loss(self, features: list[Tensor]) -> Tensor:
        """Mean squared error of the places read, each coordinate in -1..1."""
        errors = []
        for head, tokens in zip(self.heads, features, strict=True):
            with torch.autocast(tokens.device.type, enabled=False):
                known = functional.layer_norm(tokens.float(), tokens.shape[-1:])
                errors.append((head(known) - self.places).square().mean())
        return torch.stack(errors).mean()


class MotionReading(nn.Module):
    """A linear head that reads from every token's state which way the last character named so far moves.

    Args:
        device: where the text encoder is.
    """

    WORDS = ("left", "right", "up", "down")

    def __init__(self, device: torch.device):
        super().__init__()
        self.head = nn.Linear(128, len(self.WORDS), device=device)
        rows = torch.from_numpy(token_rows([" ".join(("moves", *self.WORDS))])[0]).long().to(device)
        self.register_buffer("moves", rows[1], persistent=False)
        self.register_buffer("words", rows[2 : 2 + len(self.WORDS)], persistent=False)

    def loss(self, rows: Tensor, states: Tensor) -> Tensor:
        """Mean cross entropy over the tokens that have a motion before them, or are its word; free of syncs.

        Args:
            rows: int64 [B, 77].
            states: [B, 77, 128], what the text encoder makes of them.
        """
        after_moves = functional.pad(rows == self.moves, (1, 0))[:, :-1]
        named = (rows[..., None] == self.words) & after_moves[..., None]
        places = torch.arange(rows.shape[1], device=rows.device)
        last = torch.where(named.any(-1), places, -1).cummax(1).values
        target = named.int().argmax(-1).gather(1, last.clamp(min=0))
        with torch.autocast(states.device.type, enabled=False):
            guesses = self.head(states.float()).log_softmax(-1)
        errors = -guesses.gather(-1, target[..., None])[..., 0]
        there = (last >= 0).float()
        return (errors * there).sum() / there.sum().clamp(min=1)


class MotionProbe:
    """How much a caption's motion matters to the model: what the loss does not tell.

    Args:
        vae: encodes the clips.
        device: where the models are.
        size: of the pictures.
        frames: of every clip.
        count: how many scenes of one character are drawn; those that move along an axis are asked about.
    """

    SIGMA = 0.95  # the noise hides all but the largest things

    def __init__(self, vae, device: torch.device, size: int, frames: int, count: int = 512):
        scenes = draw_scenes(count, 23456, characters=1, frames=frames)
        sentences = captions(scenes, 1, full=True)
        self.groups = {}
        for names in (("left", "right"), ("up", "down")):
            turned = opposite_motions(sentences, names)
            chosen = [k for k, text in enumerate(turned) if text]
            parts = rendered(scenes.select(torch.tensor(chosen)), device, size, part=64)
            clean = torch.cat([encode_clips(vae, part.frames) for part in parts]).float()
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5)).to(device)
            texts = [sentences[k] for k in chosen], [turned[k] for k in chosen]
            rows = [torch.from_numpy(token_rows(some)).long().to(device) for some in texts]
            self.groups["/".join(names)] = (clean, noise, rows)

    @torch.no_grad()
    def __call__(self, forward: VideoForward, text: nn.Module) -> dict[str, float]:
        """Motion -> mean squared error of the clean latent with the opposite motion, less that with the right one.

        Near 0 where the word is not looked at.
        """
        found = {}
        for name, (clean, noise, rows) in self.groups.items():
            sigmas = torch.full((clean.shape[0],), self.SIGMA, device=clean.device)
            x = add_noise(clean, noise, sigmas)
            errors = []
            for some in rows:
                with autocast(clean.device):
                    working = torch.bfloat16 if clean.is_cuda else torch.float32
                    context = encode_text(text, some).to(working)
                    guess = forward(x.to(working), sigmas, context)[0]
                errors.append((guess.float() - (noise - clean)).square().mean() * self.SIGMA**2)
            found[name] = round(float(errors[1] - errors[0]), 4)
        return found
