"""The error of predicted latents as the autoencoder's decoder sees it.

Latents are 16 numbers of which some matter to a picture more than others, and errors that belong together more than
those that do not. Compared behind the decoder's first layers (Berrada et al. 2025, "Boosting Latent Diffusion with
Perceptual Objectives", arXiv 2411.04873, section 3, compare behind all of them), what breaks a shape counts more.
"""

import torch
from torch import Tensor

from demo.training import autocast
from demo.video_vae import VideoAutoencoder, run_layers

BELOW = 0.7
"""The sigma below which a prediction is a picture; above it is a mean of many, whose features mean nothing."""

LEAST_SIGMA = 0.1


def decoder_features(network: VideoAutoencoder, latents: Tensor) -> Tensor:
    """What the decoder makes of normalised latents [B, 16, T, h, w] at their resolution: float32 [B, C, T, h, w]."""
    with autocast(latents.device):
        x = network.vae.conv2(network.denormalise(latents))
        return run_layers(network.vae.decoder.middle, network.vae.decoder.conv1(x)).float()


def feature_error(network: VideoAutoencoder, found: Tensor, clean: Tensor, sigmas: Tensor) -> Tensor:
    """Mean squared error of the features over the sigma, in deviations of the true ones, of rows below BELOW.

    Over the sigma, because that makes of an error of the clean latent one of the velocity.

    Args:
        network: frozen.
        found: predicted clean latents float32 [B, 16, T, h, w]; gradients go there.
        clean: the true ones.
        sigmas: float32 [B], of the noise.
    """
    with torch.no_grad():
        wanted = decoder_features(network, clean)
        deviation = wanted.std((0, 2, 3, 4), keepdim=True).clamp_min(1e-3)
    rows = (sigmas < BELOW).float()
    error = ((decoder_features(network, found) - wanted) / deviation).square().flatten(1).mean(1)
    return (error * rows / sigmas.clamp_min(LEAST_SIGMA).square()).sum() / rows.sum().clamp_min(1)
