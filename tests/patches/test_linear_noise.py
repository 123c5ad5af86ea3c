"""The noise levels of IC-Light's and RelightVid's own programs, against their formulas."""

import comfy.k_diffusion.sampling
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches.linear_noise import ddpm_sigmas, karras_sigmas, planned_steps, with_linear_levels
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def model():
    return load_model(FOLDER / "image_unet.safetensors")


def levels(betas):
    kept = (1 - betas).cumprod(0)
    return ((1 - kept) / kept).sqrt()


LINEAR = levels(torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64))
SCALED = levels(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2)


def test_levels(model):
    changed = with_linear_levels(model)
    found = changed.get_model_object("model_sampling")
    torch.testing.assert_close(found.sigmas.double(), LINEAR, rtol=1e-5, atol=0)
    assert (round(float(found.sigma_max), 1), round(float(found.sigma_min), 3)) == (25.1, 0.029)
    torch.testing.assert_close(model.get_model_object("model_sampling").sigmas.double(), SCALED, rtol=1e-5, atol=0)
    assert float(found.timestep(found.sigma_max)) == 999
    noisy = torch.randn(1, 4, 2, 2)
    # It still predicts noise, at the new levels.
    assert torch.equal(found.calculate_denoised(torch.tensor([3.0]), noisy, noisy), noisy - 3 * noisy)


@pytest.mark.parametrize("kind", ("eps", "v_prediction", "lcm", "x0"))
def test_what_is_predicted_stays(model, kind):
    """A ModelSamplingDiscrete before it keeps its say, LCM's included."""
    (before,) = ModelSamplingDiscrete().patch(model, kind, False)
    given = before.get_model_object("model_sampling")
    found = with_linear_levels(before).get_model_object("model_sampling")
    torch.testing.assert_close(found.sigmas.double(), LINEAR, rtol=1e-5, atol=0)
    noisy, predicted = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for at in (torch.tensor([14.0]), torch.tensor([3.5])):
        expected = given.calculate_denoised(at, predicted, noisy)
        if kind == "lcm":  # which asks for the time of a level
            time = found.timestep(at) * 10
            kept = predicted * -at + noisy
            expected = (kept * time / (time**2 + 0.25) ** 0.5) + noisy * 0.25 / (time**2 + 0.25)
        torch.testing.assert_close(found.calculate_denoised(at, predicted, noisy), expected)


def test_karras_spacing(model):
    sampling = with_linear_levels(model).get_model_object("model_sampling")
    sigmas = karras_sigmas(sampling, 25)
    low, high = LINEAR[0] ** (1 / 7), LINEAR[-1] ** (1 / 7)
    expected = (high + torch.arange(25, dtype=torch.float64) / 24 * (low - high)) ** 7
    torch.testing.assert_close(sigmas[:-1].double(), expected, rtol=1e-5, atol=0)
    times = [round(float(sampling.timestep(sigma))) for sigma in sigmas[:3]]
    assert times == [999, 968, 936]


@pytest.mark.parametrize(("denoise", "planned"), [(1.0, 25), (0.9, 28), (0.5, 50)])
def test_so_many_steps_are_done_at_any_denoise(model, denoise, planned):
    sampling = model.get_model_object("model_sampling")
    assert planned_steps(25, denoise) == planned
    sigmas = karras_sigmas(sampling, 25, denoise)
    assert sigmas.shape == (26,) and sigmas[-1] == 0
    assert torch.equal(sigmas, karras_sigmas(sampling, planned)[planned - 25 :])


def test_ddpm_times(model):
    sigmas = ddpm_sigmas(model.get_model_object("model_sampling"), 20)
    times = list(range(950, -1, -50))
    torch.testing.assert_close(sigmas.double(), torch.cat((SCALED[times], torch.zeros(1))), rtol=1e-5, atol=0)


def test_a_ddpm_step_is_ho_and_others(model):
    """Ho et al., arXiv 2006.11239, equations 6 and 7 (mean and variance), of latents scaled by sqrt(alpha-bar)."""
    sigmas = ddpm_sigmas(model.get_model_object("model_sampling"), 20).double()
    kept = 1 / (1 + sigmas**2)
    generator = torch.Generator().manual_seed(0)
    x, error, fresh = torch.randn(3, 1, 4, 8, 8, generator=generator, dtype=torch.float64)

    class Predicts:
        """A model whose noise is always ``error``."""

        def __call__(self, x, sigma, **rest):
            return x - error * sigma

    now = 5
    steps = comfy.k_diffusion.sampling.sample_ddpm(
        Predicts(), x * (1 + sigmas[now] ** 2).sqrt(), sigmas[[now, now + 1]], disable=True,
        noise_sampler=lambda *_: fresh,
    )  # fmt: skip
    beta = 1 - kept[now] / kept[now + 1]
    mean = (x - beta / (1 - kept[now]).sqrt() * error) / (1 - beta).sqrt()
    variance = (1 - kept[now + 1]) / (1 - kept[now]) * beta
    expected = mean + variance.sqrt() * fresh
    torch.testing.assert_close(steps / (1 + sigmas[now + 1] ** 2).sqrt(), expected, rtol=1e-6, atol=1e-6)


def test_wrong_values(model):
    sampling = model.get_model_object("model_sampling")
    for steps, denoise in ((0, 1.0), (5, 0.0), (5, 1.5)):
        with pytest.raises(ValueError, match="steps is"):
            karras_sigmas(sampling, steps, denoise)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="expected 1 to 1000"):
            ddpm_sigmas(sampling, steps)
    with pytest.raises(ValueError, match="expected a table of noise levels"):
        with_linear_levels(tiny_model("wan"))
