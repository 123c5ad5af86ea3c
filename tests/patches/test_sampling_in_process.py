"""Tiny random models of every family sample with warped noise through the host's own nodes."""

import comfy.model_management
import comfy.nested_tensor
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from flows import swirl
from papernodes.kernels.noise_warp import warp_noise
from papernodes.kernels.schedule import Schedule
from papernodes.nodes.noise import NoiseToLatent
from papernodes.patches.latent_layout import item_seed
from papernodes.patches.warped_noise import WarpedNoise
from tiny_models import tiny_conditioning, tiny_model

# family: latent of one item without its batch axis, frames of the clip
CASES = {
    "wan": ((16, 5, 8, 8), 17),
    "hunyuan_video": ((16, 5, 8, 8), 17),
    "ltxv": ((128, 3, 4, 4), 17),
    "sd15": ((4, 8, 8), 4),
}
FLOW_MATCHING = ("wan", "hunyuan_video", "ltxv")


def make_noise(frames, seed=3, **settings):
    defaults = {"temporal": "nearest", "algorithm": "subpixel", "oversample": 2}
    return WarpedNoise(swirl(frames, 24, 24), seed=seed, degradation=Schedule.parse("0"), **(defaults | settings))


def make_latent(family, batch=1, fill=0.0, **extra):
    shape, frames = CASES[family]
    return {"samples": torch.full((frames if family == "sd15" else batch, *shape), fill), **extra}


def sigmas_of(model, steps=2):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)


def sample(family, noise, latent, sigmas=None, cfg=3.0):
    """Runs SamplerCustomAdvanced; returns its output tensor and the noise that reached the sampler."""
    model = tiny_model(family).clone()
    seen = []

    def spy(executor, noise, *args, **settings):
        seen.append(noise.clone())
        return executor(noise, *args, **settings)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "test", spy)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(tiny_conditioning(family, 0), tiny_conditioning(family, 1))
    guider.set_cfg(cfg)
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = sigmas_of(model) if sigmas is None else sigmas
    output = SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent)
    return output.args[0]["samples"], seen[0]


@pytest.mark.parametrize("family", CASES)
def test_every_family_samples_with_warped_noise(family):
    shape, frames = CASES[family]
    latent = make_latent(family)
    noise = make_noise(frames)
    result, received = sample(family, noise, latent)
    assert result.shape == latent["samples"].shape
    assert result.isfinite().all()

    channels, size = shape[0], shape[-2:]
    device = comfy.model_management.get_torch_device()
    clip = warp_noise(noise.flow.vectors, channels, size, seed=3, oversample=2, device=device).cpu()
    if family == "sd15":
        assert torch.equal(received, clip)
    else:
        step = (frames - 1) // (shape[1] - 1)
        assert torch.equal(received, clip[::step].transpose(0, 1)[None])

    again, _ = sample(family, make_noise(frames), latent)
    assert torch.equal(again, result)
    other, _ = sample(family, make_noise(frames, seed=4), latent)
    plain, _ = sample(family, Noise_RandomNoise(3), latent)
    for different in (other, plain):
        assert (different - result).abs().mean() > 1e-3


@pytest.mark.parametrize("family", FLOW_MATCHING)
def test_batch_of_two_clips(family):
    _, frames = CASES[family]
    result, received = sample(family, make_noise(frames), make_latent(family, batch=2))
    assert result.isfinite().all()
    assert torch.corrcoef(received.reshape(2, -1))[0, 1].abs() < 0.1
    assert (result[0] - result[1]).abs().mean() > 1e-3
    alone, first = sample(family, make_noise(frames), make_latent(family))
    assert torch.equal(received[:1], first)
    torch.testing.assert_close(result[:1], alone, rtol=1e-3, atol=1e-3)


def test_batch_of_pictures():
    noise = make_noise(5, batch_4d="pictures")
    _, received = sample("sd15", noise, {"samples": torch.zeros(2, 4, 8, 8)})
    device = comfy.model_management.get_torch_device()
    for item in range(2):
        clip = warp_noise(noise.flow.vectors, 4, (8, 8), seed=item_seed(3, item), oversample=2, device=device)
        assert torch.equal(received[item], clip[-1].cpu())


@pytest.mark.parametrize("family", ["wan", "sd15"])
def test_batch_index_of_a_batch_taken_apart(family):
    _, frames = CASES[family]
    settings = {"batch_4d": "pictures"} if family == "sd15" else {}
    whole = make_latent(family, batch=3)["samples"][:3]
    _, together = sample(family, make_noise(frames, **settings), {"samples": whole})
    _, alone = sample(family, make_noise(frames, **settings), {"samples": whole[2:], "batch_index": [2]})
    assert torch.equal(alone, together[2:])


@pytest.mark.parametrize("family", CASES)
def test_noise_mask_keeps_its_region_and_leaves_the_noise_alone(family):
    shape, frames = CASES[family]
    mask = torch.zeros(1, 1, *shape[-2:])
    mask[..., shape[-1] // 2 :] = 1.0  # sample the right half only
    masked_latent = make_latent(family, fill=0.25, noise_mask=mask)
    result, received = sample(family, make_noise(frames), masked_latent)
    free, received_free = sample(family, make_noise(frames), make_latent(family, fill=0.25))
    assert torch.equal(received, received_free)
    left, right = result[..., : shape[-1] // 2], result[..., shape[-1] // 2 :]
    torch.testing.assert_close(left, torch.full_like(left, 0.25), rtol=1e-3, atol=1e-3)
    assert (right - 0.25).abs().mean() > 1e-2
    assert (free[..., : shape[-1] // 2] - 0.25).abs().mean() > 1e-2


def test_picture_latent_for_a_video_model():
    # the host gives the latent its channels and a time axis before it asks for noise
    result, received = sample("wan", make_noise(17), {"samples": torch.zeros(2, 4, 8, 8)})
    assert received.shape == result.shape == (2, 16, 1, 8, 8)
    assert result.isfinite().all()


def test_packed_latent_reaches_the_sampler_part_by_part():
    """The guider packs the parts into one row; what it packs is the warped video and plain noise for the rest."""
    video, sound = torch.zeros(1, 16, 5, 8, 8), torch.zeros(1, 8, 12)
    received = []

    class Guider:
        model_patcher = tiny_model("wan")

        def sample(self, noise, latent, *args, **settings):
            received.append(comfy.utils.pack_latents(noise.unbind()))
            return latent

    noise = make_noise(17)
    packed = {"samples": comfy.nested_tensor.NestedTensor([video, sound])}
    SamplerCustomAdvanced.execute(noise, Guider(), None, sigmas_of(Guider.model_patcher), packed)
    ((row, shapes),) = received
    assert [list(shape) for shape in shapes] == [list(video.shape), list(sound.shape)]
    parts = comfy.utils.unpack_latents(row, shapes)
    assert torch.equal(parts[0], noise.generate_noise({"samples": video}))
    assert parts[1].std() > 0.8


@pytest.mark.parametrize("family", CASES)
def test_the_latent_and_the_model_are_left_as_they_were(family):
    _, frames = CASES[family]
    latent = make_latent(family, fill=0.1)
    before, _ = sample(family, Noise_RandomNoise(1), latent)
    sample(family, make_noise(frames), latent)
    assert set(latent) == {"samples"}
    assert torch.equal(latent["samples"], make_latent(family, fill=0.1)["samples"])
    after, _ = sample(family, Noise_RandomNoise(1), latent)
    assert torch.equal(before, after)


def advanced(family, latent, steps, start=0):
    """Runs the host's KSamplerAdvanced with add_noise disabled."""
    import nodes as host_nodes

    return host_nodes.KSamplerAdvanced().sample(
        tiny_model(family), "disable", 3, steps, 3.0, "euler", "simple", tiny_conditioning(family, 0),
        tiny_conditioning(family, 1), latent, start, steps, "disable",
    )[0]["samples"]  # fmt: skip


@pytest.mark.parametrize("fill", [0.0, 0.25])
@pytest.mark.parametrize("start", [0, 2])
def test_noise_carried_in_the_latent_samples_like_the_noise_object(fill, start):
    steps = 4
    model = tiny_model("sd15")
    sigmas = sigmas_of(model, steps)[start:]
    latent = make_latent("sd15", fill=fill)
    carried = NoiseToLatent.execute(make_noise(4), latent, model, sigmas).args[0]
    through_latent = advanced("sd15", carried, steps, start)
    through_noise, _ = sample("sd15", make_noise(4), latent, sigmas)
    torch.testing.assert_close(through_latent, through_noise, rtol=1e-3, atol=1e-3)
    assert torch.equal(latent["samples"], make_latent("sd15", fill=fill)["samples"])


@pytest.mark.parametrize("family", FLOW_MATCHING)
def test_flow_matching_families_refuse_noise_in_the_latent(family):
    model = tiny_model(family)
    _, frames = CASES[family]
    with pytest.raises(ValueError, match=r"flow-matching.*multiplied by 0.*SamplerCustomAdvanced"):
        NoiseToLatent.execute(make_noise(frames), make_latent(family), model, sigmas_of(model))
