"""The video models as the evaluation runs them, against ComfyUI's schedule, sampler and VAE and the node Warp Noise."""

import pytest
import torch
from flows import swirl
from papernodes.kernels.schedule import Schedule
from papernodes.networks import demo_video

from demo.eval import video_models
from demo.eval.video_models import SCHEDULERS, VideoModels, VideoNetworks, degraded, schedule, warped_noise

SMALL = (16, 2, 8, 8)


@pytest.fixture(scope="module")
def sampling():
    """ComfyUI's own noise levels of Wan 2.1."""
    from comfy import model_sampling, supported_models

    class Sampling(model_sampling.ModelSamplingDiscreteFlow, model_sampling.CONST):
        pass

    class Configuration:
        sampling_settings = supported_models.WAN21_T2V.sampling_settings

    return Sampling(Configuration)


def plain_models(velocity, steps=7, scheduler="simple", shift=video_models.SHIFT):
    """VideoModels round plain functions: words become their lengths, latents pictures of their first channels."""

    def encode_text(prompts):
        return torch.tensor([float(len(prompt)) for prompt in prompts]).view(-1, 1, 1).expand(-1, 77, 4096) / 10

    def decode(latents):
        return latents[:, :3].transpose(1, 2).sigmoid()

    def encode(frames):
        return frames.transpose(1, 2)

    networks = VideoNetworks(encode_text, velocity, decode, encode)
    return VideoModels(networks, torch.device("cpu"), steps=steps, scheduler=scheduler, shift=shift)


def curved(latents, times, context):
    """A plain function that depends on all three."""
    time = times.view(-1, 1, 1, 1, 1) / 1000
    return torch.tanh(latents * 1.3 + time - 0.2 + context[:, :1, :1, None, None] / 10)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [20, 7])
def test_sigmas_are_those_of_the_host(sampling, scheduler, steps):
    from comfy.samplers import calculate_sigmas

    torch.testing.assert_close(schedule(scheduler, steps), calculate_sigmas(sampling, scheduler, steps))


def test_sigmas_with_another_shift_are_those_of_the_host(sampling):
    from comfy.samplers import calculate_sigmas

    sampling.set_parameters(shift=3.0)
    try:
        torch.testing.assert_close(schedule("simple", 9, 3.0), calculate_sigmas(sampling, "simple", 9))
    finally:
        sampling.set_parameters(shift=video_models.SHIFT)
    with pytest.raises(ValueError, match="'karras'"):
        schedule("karras")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_the_sampler_is_the_hosts(sampling, scheduler, cfg):
    """On a network that is a plain function, ours and the host's Euler end at the same latents."""
    from comfy.k_diffusion.sampling import sample_euler
    from comfy.samplers import cfg_function

    models = plain_models(curved, scheduler=scheduler)
    noise = torch.randn(2, 16, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    context = {name: models.networks.encode_text([name] * 2) for name in ("a cat that moves left", "")}
    positive, negative = context.values()
    ours = models.sample(noise, positive, None if cfg == 1 else negative, cfg)

    def predict(x, sigma, **_):
        found = [
            sampling.calculate_denoised(sigma, curved(x, sampling.timestep(sigma).float(), words), x)
            for words in (positive, negative)
        ]
        return cfg_function(None, *found, cfg, x, sigma)

    sigmas = models.sigmas
    x = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), True)
    theirs = sampling.inverse_noise_scaling(sigmas[-1], sample_euler(predict, x, sigmas, disable=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_batches_do_not_matter_and_cfg_does():
    noise = torch.randn(5, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    prompts = ["one", "three", "five or so", "a", "b"]
    models = plain_models(curved)
    whole = models.generate(prompts, noise, 3.0)
    models.batch = 2
    assert torch.equal(models.generate(prompts, noise, 3.0), whole)
    assert whole.dtype == torch.uint8 and whole.shape == (5, 2, 3, 4, 4)
    assert not torch.equal(models.generate(prompts, noise, 1.0), whole)


@pytest.mark.parametrize("degradation", [0.0, 0.3, 1.0])
def test_noise_is_that_of_the_node(degradation):
    """For a Wan latent, bit for bit; the second clip of a batch is what it would be alone."""
    from papernodes.patches.warped_noise import WarpedNoise

    flow, seeds = swirl(17), [7, 2**40 + 1]
    other = swirl(17, 24, 40)
    moving, fresh = zip(
        *(warped_noise(one.vectors[None], [seed]) for one, seed in zip((flow, other), seeds, strict=True)),
        strict=True,
    )
    ours = degraded(torch.cat(moving), torch.cat(fresh), degradation)
    assert ours.shape == (2, *video_models.LATENT)
    for one, seed, noise in zip((flow, other), seeds, ours, strict=True):
        node = WarpedNoise(
            one,
            seed=seed,
            degradation=Schedule.parse(degradation),
            temporal="nearest",
            algorithm="subpixel",
            oversample=video_models.OVERSAMPLE,
        )
        wanted = node.generate_noise({"samples": torch.zeros(1, *video_models.LATENT)})
        assert torch.equal(noise, wanted[0])


def test_two_clips_at_once_are_two_clips():
    vectors = torch.stack([swirl(5).vectors, -swirl(5).vectors])
    both = warped_noise(vectors, [3, 4], latent=SMALL, oversample=2)
    alone = warped_noise(vectors[1:], [4], latent=SMALL, oversample=2)
    assert torch.equal(both[0][1:], alone[0]) and torch.equal(both[1][1:], alone[1])
    assert not torch.equal(both[0][0], both[0][1])


@pytest.fixture(scope="module")
def states():
    """Random weights of every file, in float32 with the values that half precision has."""
    return {
        kind: {name: value.half().float() for name, value in state.items()}
        for kind, state in video_models.random_states().items()
    }


def test_networks_sample_as_the_host_does(states):
    """The whole way, words left out: KSampler's function on the MODEL against VideoModels on the bare network."""
    import comfy.sample
    import comfy.sd

    models = VideoModels(video_models.networks_of(states, torch.device("cpu")), torch.device("cpu"), steps=3)
    words = models.networks.encode_text(["a red cat moves left", ""])
    assert words.shape == (2, 77, 4096) and words[..., 128:].abs().max() == 0 < words[..., :128].std()
    noise = torch.randn(1, *SMALL, generator=torch.Generator().manual_seed(2))
    ours = models.sample(noise, words[:1], words[1:], 3.0)

    half = {name: value.half() for name, value in states["video_unet"].items()}
    model = comfy.sd.load_diffusion_model_state_dict(half)
    empty = torch.zeros(1, *SMALL)
    positive, negative = ([[row, {}]] for row in words.split(1))
    theirs = comfy.sample.sample(
        model, noise, 3, 3.0, "euler", "simple", positive, negative, empty, force_full_denoise=True, disable_pbar=True
    )
    theirs = model.model.process_latent_in(theirs)
    assert (ours - noise).abs().mean() > 0.05  # the network did something
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_pictures_are_those_of_the_hosts_vae(states):
    import comfy.latent_formats
    import comfy.sd

    networks = video_models.networks_of(states, torch.device("cpu"))
    latents = torch.randn(1, *SMALL, generator=torch.Generator().manual_seed(2))
    ours = networks.decode(latents)
    assert ours.shape == (1, 5, 3, 64, 64)
    stock = comfy.sd.VAE(sd={name: value.clone() for name, value in states["video_vae"].items()})
    scale = comfy.latent_formats.Wan21()
    theirs = stock.decode(scale.process_out(latents))
    torch.testing.assert_close(ours.permute(0, 1, 3, 4, 2), theirs.view(1, 5, 64, 64, 3).float(), rtol=0, atol=0.01)
    frames = torch.rand(1, 5, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    encoded = scale.process_in(stock.encode(frames[0].permute(0, 2, 3, 1)))
    torch.testing.assert_close(networks.encode(frames), encoded.float(), rtol=0.02, atol=0.02)


def test_files_with_and_without_the_lora(states, tmp_path):
    from papernodes.networks import demo_format, demo_video_lora

    from demo.world_tokens import vocabulary

    for kind in ("video_unet", "video_vae"):
        demo_video.save_for_stock(tmp_path / f"{kind}.safetensors", states[kind], {"kind": kind})
    words = states["video_text_encoder"] | {"vocabulary": torch.tensor(vocabulary())}
    demo_format.save(tmp_path / "video_text_encoder.safetensors", words, {"kind": "video_text_encoder"})
    lora = demo_video_lora.initial_lora(1)
    changed = {name: value + 0.05 for name, value in lora.items()}
    noise = torch.randn(1, *SMALL, generator=torch.Generator().manual_seed(2))
    path = tmp_path / "video_lora_warped_noise.safetensors"
    found = []
    for state in (lora, changed):
        demo_format.save(path, state, {"kind": demo_video_lora.KIND}, packed=False)
        pair = video_models.load_networks(tmp_path, torch.device("cpu"))
        times, context = torch.full((1,), 800.0), pair[0].encode_text(["a cat"])
        found.append([networks.velocity(noise, times, context) for networks in pair])
    assert torch.equal(found[0][0], found[0][1])  # a LoRA that changes nothing
    assert torch.equal(found[0][0], found[1][0]) and not torch.equal(*found[1])
    assert set(video_models.file_hashes(tmp_path)) == set(video_models.FILES)
    (tmp_path / "video_vae.safetensors").unlink()
    with pytest.raises(Exception, match="video_vae"):
        video_models.load_networks(tmp_path, torch.device("cpu"))


def test_where_the_lora_lies(tmp_path):
    """Shipped in a folder of its own; one that was just trained, beside the others, goes first."""
    from papernodes.networks.demo_video_lora import FILE_NAME, KIND

    assert video_models.file_path(tmp_path, KIND) == tmp_path / "loras" / FILE_NAME
    (tmp_path / f"{KIND}.safetensors").touch()
    assert video_models.file_path(tmp_path, KIND) == tmp_path / f"{KIND}.safetensors"
    assert video_models.file_path(tmp_path, "video_vae") == tmp_path / "video_vae.safetensors"
