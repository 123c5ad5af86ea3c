"""Latents as the video network draws them, next to those of the clip that they should be: for training its decoder.

A decoder that has seen none but true latents takes a network's small errors at their word. Here a clip's latents are
given noise and drawn again by the network from its caption; from a middle level of noise that gives nearly the clip,
with the network's own errors.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from demo.diffusion import encode_text
from demo.train_video import load_models
from demo.training import autocast
from demo.video_model import VideoForward, add_noise, euler, guided
from demo.world_tokens import token_rows

LEVELS = (0.2, 0.65)
"""Sigmas to begin from. From 0.5 on a part of the clips becomes another, which a decoder could only answer by blur."""

STEPS, GUIDANCE = 4, 3.0  # the templates' guidance


def drawn_again(
    predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, levels: tuple[float, float] = LEVELS
) -> Tensor:
    """Latents float32 [B, 16, T, h, w], each noised to a level of its own and drawn by Euler's steps; free of syncs.

    Args:
        predict: (x, sigmas [B]) -> velocity, noise less clean latent.
        latents: of B clips.
        levels: lowest and highest sigma to begin from.
    """
    low, high = levels
    begin = low + (high - low) * torch.rand(latents.shape[0], device=latents.device)
    x = add_noise(latents, torch.randn_like(latents), begin)
    return euler(predict, x, torch.linspace(1, 0, STEPS + 1, device=x.device)[:, None] * begin)


def redrawing(folder: Path, shape: tuple[int, int, int], device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of latents and int16 [B, 77], tokens of their captions, that draws them again.

    Args:
        folder: with a video model's finished files.
        shape: of the latents: frames, height, width.
        device: where.
    """
    network, text = load_models(folder, device)
    forward = VideoForward(network, shape)
    empty = torch.from_numpy(token_rows([""])).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32

    @torch.no_grad()
    def redraw(latents: Tensor, rows: Tensor) -> Tensor:
        with autocast(device):
            context = encode_text(text, torch.cat((rows.long(), empty))).to(working)
            predict = guided(forward, context[:-1], context[-1:], GUIDANCE)
            return drawn_again(lambda x, sigmas: predict(x.to(working), sigmas), latents)

    return redraw
