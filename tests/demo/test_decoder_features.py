"""Errors of latents as the decoder sees them."""

import pytest
import torch

from demo.decoder_features import BELOW, decoder_features, feature_error
from demo.video_vae import VideoAutoencoder


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return VideoAutoencoder().requires_grad_(False)


def latents(seed: int) -> torch.Tensor:
    return torch.randn(3, 16, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_features_are_what_the_decoder_works_on(network):
    seen = []
    hook = network.vae.decoder.upsamples[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.decode(latents(0))
    hook.remove()
    torch.testing.assert_close(decoder_features(network, latents(0)), seen[0])


def test_only_errors_of_pictures_count(network):
    clean = latents(0)
    wrong = clean + 0.1 * latents(1)
    low, high = torch.tensor([0.3, 0.5, 0.6]), torch.full((3,), BELOW + 0.01)
    assert float(feature_error(network, clean, clean, low)) == 0
    assert float(feature_error(network, wrong, clean, high)) == 0
    error = float(feature_error(network, wrong, clean, low))
    assert error > 0
    mixed = torch.cat((low[:2], high[:1]))
    first = float(feature_error(network, torch.cat((clean[:2], wrong[2:])), clean, mixed))
    assert first == 0 < float(feature_error(network, torch.cat((wrong[:2], clean[2:])), clean, mixed))


def test_an_error_counts_as_one_of_the_velocity(network):
    """Twice the error of the clean latent at twice the sigma is the same error of the velocity."""
    clean, off = latents(0), 1e-3 * latents(1)
    found = [float(feature_error(network, clean + k * off, clean, torch.full((3,), 0.2 * k))) for k in (1, 2)]
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_gradients_reach_what_was_found(network):
    found = latents(1).requires_grad_()
    feature_error(network, found, latents(0), torch.full((3,), 0.4)).backward()
    assert found.grad.flatten(1).norm(dim=1).min() > 0
    assert all(value.grad is None for value in network.parameters())
