"""Warp Noise, Noise To Latent, Latent To Noise, Mix Noise as a person at the graph meets them."""

import comfy.nested_tensor
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from flows import swirl
from papernodes.kernels.flow import Flow
from papernodes.nodes.noise import LatentToNoise, MixNoise, NoiseToLatent
from papernodes.nodes.warped_noise import WarpNoise
from tiny_models import tiny_model

SETTINGS = {"seed": 1, "degradation": "0", "temporal": "nearest", "algorithm": "subpixel", "oversample": 2}


def warp(flow=None, **settings):
    return WarpNoise.execute(swirl(5) if flow is None else flow, **(SETTINGS | settings)).args[0]


def latent(*shape, **extra):
    return {"samples": torch.zeros(shape), **extra}


def test_warp_noise_gives_a_noise():
    noise = warp(seed=9)
    assert noise.seed == 9
    assert noise.generate_noise(latent(5, 4, 8, 8)).shape == (5, 4, 8, 8)


@pytest.mark.parametrize("algorithm", ["subpixel", "nearest", "particle"])
def test_every_algorithm(algorithm):
    result = warp(algorithm=algorithm).generate_noise(latent(1, 16, 2, 8, 8))
    assert result.shape == (1, 16, 2, 8, 8)
    assert 0.8 < result.var() < 1.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temporal": "mean"}, "'temporal' is 'mean'; expected one of: nearest"),
        ({"algorithm": "magic"}, "'algorithm' is 'magic'"),
        ({"oversample": 0}, "'oversample' is 0; expected a number from 1 to 32"),
        ({"oversample": 33}, "'oversample' is 33"),
        ({"batch_4d": "clips"}, "'batch_4d' is 'clips'"),
        ({"layout_5d": "T,B,C,H,W"}, "'layout_5d' is"),
        ({"degradation": ""}, "degradation"),
        ({"degradation": "much"}, "degradation.*much"),
        ({"degradation": "1.5"}, "degradation.*1.5"),
        ({"degradation": "0:0, 4:-0.1"}, "degradation.*-0.1"),
        ({"degradation": "3:0, 50%:1"}, "degradation.*5 frames"),
        ({"degradation": "nan"}, "degradation"),
    ],
)
def test_bad_settings_are_named_when_the_node_runs(settings, message):
    with pytest.raises(ValueError, match=message):
        warp(**settings)


def test_what_is_no_flow():
    with pytest.raises(ValueError, match="'flow' holds a Tensor; connect the flow output"):
        warp(flow=torch.zeros(4, 2, 8, 8))
    with pytest.raises(ValueError, match="fewer than 2 frames"):
        Flow(torch.zeros(0, 2, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        Flow(torch.full((1, 2, 8, 8), float("nan")))


@pytest.mark.parametrize(
    ("shape", "frames"),
    [((5, 4, 8, 8), 5), ((2, 16, 3, 8, 8), 3), ((2, 3, 16, 8, 8), 3), ((1, 1, 1, 1), 1), ((2, 2, 30, 20), 2)],
)
def test_noise_to_latent(shape, frames):
    given = latent(*shape, noise_mask=torch.ones(1, 8, 8), batch_index=list(range(shape[0])))
    result, preview = NoiseToLatent.execute(warp(), given).args
    assert torch.equal(result["samples"], warp().generate_noise(given))
    assert set(result) == set(given)
    assert given["samples"].count_nonzero() == 0
    assert preview.ndim == 4
    assert preview.shape[0] == frames
    assert preview.shape[-1] == 3
    assert min(preview.shape[1:3]) >= 256
    assert preview.shape[1] * shape[-1] == preview.shape[2] * shape[-2]
    assert 0 <= preview.min() <= preview.max() <= 1


def test_preview_moves_with_the_clip():
    (noise,) = WarpNoise.execute(swirl(9, angle=0.0), **SETTINGS).args
    _, still = NoiseToLatent.execute(noise, latent(9, 4, 8, 8)).args
    assert (still[0] - still[8]).abs().max() < 1e-4
    _, moving = NoiseToLatent.execute(warp(swirl(9, angle=0.3)), latent(9, 4, 8, 8)).args
    assert (moving[0] - moving[8]).abs().mean() > 0.05
    assert still[0].std() > 0.1


def test_noise_to_latent_packed():
    parts = [torch.zeros(1, 8, 40), torch.zeros(1, 16, 2, 8, 8)]
    result, preview = NoiseToLatent.execute(warp(), {"samples": comfy.nested_tensor.NestedTensor(parts)}).args
    assert [part.shape for part in result["samples"].unbind()] == [part.shape for part in parts]
    assert preview.shape[0] == 2


def test_noise_to_latent_of_the_hosts_own_noise():
    result, _ = NoiseToLatent.execute(Noise_RandomNoise(3), latent(2, 4, 8, 8)).args
    assert torch.equal(result["samples"], Noise_RandomNoise(3).generate_noise(latent(2, 4, 8, 8)))


@pytest.mark.parametrize("given", ["model", "sigmas"])
def test_only_one_of_model_and_sigmas(given):
    value = tiny_model("sd15") if given == "model" else torch.tensor([14.6, 0.0])
    with pytest.raises(ValueError, match=rf"'{given}' is connected but"):
        NoiseToLatent.execute(warp(), latent(5, 4, 8, 8), **{given: value})


@pytest.mark.parametrize(("sigmas", "message"), [([], "none at all"), ([0.0], "first sigma of 0")])
def test_sigmas_that_cannot_start(sigmas, message):
    with pytest.raises(ValueError, match=message):
        NoiseToLatent.execute(warp(), latent(5, 4, 8, 8), tiny_model("sd15"), torch.tensor(sigmas))


def test_noise_to_latent_scales_by_the_first_sigma():
    model = tiny_model("sd15")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4)[1:]
    result, _ = NoiseToLatent.execute(warp(), latent(5, 4, 8, 8), model, sigmas).args
    plain = warp().generate_noise(latent(5, 4, 8, 8))
    scale = model.get_model_object("latent_format").scale_factor
    torch.testing.assert_close(result["samples"] * scale, plain * sigmas[0])


def test_there_and_back():
    result, _ = NoiseToLatent.execute(warp(), latent(1, 16, 2, 8, 8)).args
    (noise,) = LatentToNoise.execute(result, 4, "as is").args
    assert noise.seed == 4
    assert torch.equal(noise.generate_noise(latent(1, 16, 2, 8, 8)), warp().generate_noise(latent(1, 16, 2, 8, 8)))


def test_latent_to_noise_normalises():
    scaled = {"samples": torch.randn(2, 16, 3, 8, 8) * 7 + 1}
    (noise,) = LatentToNoise.execute(scaled, 0, "unit variance per frame").args
    result = noise.generate_noise(latent(2, 16, 3, 8, 8))
    for frame in result.transpose(1, 2).flatten(0, 1):
        assert abs(frame.mean()) < 1e-4
        assert abs(frame.std() - 1) < 1e-2
    with pytest.raises(ValueError, match="constant"):
        LatentToNoise.execute(latent(1, 4, 8, 8), 0, "unit variance per frame")
    with pytest.raises(ValueError, match="'normalise' is 'yes'"):
        LatentToNoise.execute(latent(1, 4, 8, 8), 0, "yes")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_with_nan(bad):
    broken = {"samples": torch.full((1, 4, 8, 8), bad)}
    with pytest.raises(ValueError, match="'latent' holds NaN"):
        LatentToNoise.execute(broken, 0, "as is")
    with pytest.raises(ValueError, match="'latent' holds NaN"):
        NoiseToLatent.execute(warp(), broken)
    with pytest.raises(ValueError, match="connect a LATENT"):
        LatentToNoise.execute({}, 0, "as is")


def test_mix_noise():
    (noise,) = MixNoise.execute(warp(), Noise_RandomNoise(2), "0:0, 100%:1").args
    assert noise.seed == 1
    given = latent(1, 16, 3, 8, 8)
    result = noise.generate_noise(given)
    assert torch.equal(result[:, :, 0], warp().generate_noise(given)[:, :, 0])
    assert torch.equal(result[:, :, 2], Noise_RandomNoise(2).generate_noise(given)[:, :, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((object(), Noise_RandomNoise(1), "0"), "'noise_a' holds a object"),
        ((Noise_RandomNoise(1), None, "0"), "'noise_b' holds a NoneType"),
        ((Noise_RandomNoise(1), Noise_RandomNoise(2), "2"), "weight.*2"),
        ((Noise_RandomNoise(1), Noise_RandomNoise(2), ""), "weight"),
    ],
)
def test_bad_mixes(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixNoise.execute(*arguments)
