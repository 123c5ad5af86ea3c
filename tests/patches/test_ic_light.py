"""IC-Light's offsets on an SD1.5 in miniature: the merged UNet, the laws of a patch, variants side by side, errors."""

import functools

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import pytest
import torch
from papernodes.kernels.pixel_coding import GREY, coded, on_grey
from papernodes.networks import demo_format, ic_light
from papernodes.networks.demo_image import build_unet, load_model
from papernodes.networks.ic_light import FIRST, ICLightFileError, read_offsets
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches.ic_light import ICLightModelError, apply_offsets, with_latents
from tiny_models import tiny_model

SEEDS = (0, 1, 2)
LATENT = (4, 16, 16)


@pytest.fixture(scope="module")
def model():
    return load_model(FOLDER / "image_unet.safetensors")


@functools.cache
def unet_weights() -> dict:
    """The UNet's as they are in the file; those of a loaded MODEL may have a variant's patches on them."""
    return demo_format.load(FOLDER / "image_unet.safetensors", "image_unet")[0]


def file_of(channels=8, seed=0, size=0.01) -> dict:
    """A file in ComfyUI's own layout: random offsets for every weight."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in unet_weights().items():
        shape = list(value.shape)
        if name == FIRST:
            shape[1] = channels
        state[name] = torch.randn(shape, generator=generator) * size
    return state


def in_diffusers_layout(model, state) -> dict:
    names = {own: other for other, own in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items()}
    return {names[name]: value for name, value in state.items()}


def offsets_of(model, channels=8, seed=0, size=0.01):
    return read_offsets("a.safetensors", file_of(channels, seed, size), *about(model))


def about(model):
    return unet_weights(), model.model.model_config.unet_config


def conditioning(seed, latents=None):
    text = torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(seed))
    plain = [[text, {}]]
    return plain if latents is None else with_latents(plain, latents)


def latents_of(channels=8, seed=5, batch=1):
    return torch.randn(batch, channels - 4, *LATENT[1:], generator=torch.Generator().manual_seed(seed))


def sample(model, latents=None, *, seed=0, batch=1, cfg=3.0):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning(seed, latents), conditioning(100 + seed, latents))
    guider.set_cfg(cfg)
    noise = torch.randn((batch, *LATENT), generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("channels", ic_light.KINDS)
@pytest.mark.parametrize("strength", (1.0, 0.5))
def test_it_is_the_merged_unet(model, channels, strength):
    """Every weight plus its offset, a first convolution padded with zeros, the latents behind the noisy one."""
    tuned = apply_offsets(model, offsets_of(model, channels), strength)
    weights, file = unet_weights(), file_of(channels)
    merged = {name: value.float() + strength * file[name] for name, value in weights.items() if name != FIRST}
    merged[FIRST] = strength * file[FIRST]
    merged[FIRST][:, :4] += weights[FIRST].float()
    unet = build_unet()
    unet.input_blocks[0][0] = torch.nn.Conv2d(channels, 48, 3, padding=1)
    unet.load_state_dict(merged)
    x = torch.randn(2, *LATENT, generator=torch.Generator().manual_seed(3))
    beside = latents_of(channels, batch=2)
    sigma = torch.full((2,), 3.0)
    text = conditioning(4)[0][0].expand(2, -1, -1)
    comfy.model_management.load_models_gpu([tuned])
    base = tuned.model
    with torch.no_grad():
        found = base.apply_model(
            x.to(tuned.load_device), sigma.to(tuned.load_device), c_concat=beside, c_crossattn=text,
            transformer_options=tuned.model_options["transformer_options"],
        ).cpu()  # fmt: skip
        scaled = torch.cat((base.model_sampling.calculate_input(sigma, x), beside), 1)
        expected = x - 3.0 * unet(scaled, base.model_sampling.timestep(sigma).float(), text)
    tuned.detach()
    assert apart(found, expected) < (1e-4 if tuned.load_device.type == "cpu" else 0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_strengths(model, seed):
    offsets, latents = offsets_of(model, seed=seed), latents_of(seed=50 + seed)
    off = sample(model, seed=seed)
    assert torch.equal(sample(apply_offsets(model, offsets, 0.0), latents, seed=seed), off)
    assert apart(sample(apply_offsets(model, offsets, 1e-6), latents, seed=seed), off) < 1e-3
    on = sample(apply_offsets(model, offsets, 1.0), latents, seed=seed)
    assert apart(on, off) > 0.01
    assert torch.equal(sample(apply_offsets(model, offsets, 1.0), latents, seed=seed), on)
    assert apart(sample(apply_offsets(model, offsets, 1.0), latents_of(seed=70), seed=seed), on) > 1e-3
    assert torch.equal(sample(model, seed=seed), off), "the MODEL that came in is as it was"


def test_two_variants_and_plain_sampling_from_one_loader(model):
    """Widening the shared base for one of them would break the others: the commonest fault of earlier packs."""
    few = apply_offsets(model, offsets_of(model, 8, 1), 1.0)
    many = apply_offsets(model, offsets_of(model, 12, 2), 1.0)
    first = [sample(few, latents_of(8)), sample(many, latents_of(12)), sample(model)]
    again = [sample(model), sample(many, latents_of(12)), sample(few, latents_of(8))]
    for one, other in zip(first, reversed(again), strict=True):
        assert torch.equal(one, other)
    assert model.model.model_config.unet_config["in_channels"] == 4
    comfy.model_management.load_models_gpu([model])
    assert model.model_state_dict()[f"diffusion_model.{FIRST}"].shape[1] == 4


@pytest.mark.parametrize("batch", (1, 2))
def test_rows_together_and_apart(model, batch, monkeypatch):
    tuned, calls = apply_offsets(model, offsets_of(model), 1.0), []

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    tuned.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", spy)
    latents = latents_of(batch=batch)
    together = sample(tuned, latents, batch=batch)
    alone = sample(tuned, latents[:1], batch=batch)
    assert calls == [2 * batch] * 4
    assert apart(alone[:1], together[:1]) < 1e-4
    if batch == 2:  # one latent is everybody's
        assert apart(alone[1:], together[1:]) > 1e-3
    calls.clear()
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert apart(sample(tuned, latents, batch=batch), together) < 1e-4
    assert calls == [batch] * 4


def test_it_lives_beside_a_patch_of_another_kind(model):
    lora = model.clone()
    lora.add_patches({"diffusion_model.out.2.weight": ("diff", (torch.full((4, 48, 3, 3), 0.01),))}, 1.0)
    both = apply_offsets(lora, offsets_of(model), 1.0)
    one, other = sample(both, latents_of()), sample(apply_offsets(model, offsets_of(model), 1.0), latents_of())
    assert torch.isfinite(one).all()
    assert apart(one, other) > 1e-4 and apart(one, sample(lora)) > 1e-4, "both are there"


def test_files_in_either_layout(model):
    state = file_of()
    own = read_offsets("a", state, *about(model))
    assert own.channels == 8 and own.weights.keys() == unet_weights().keys()
    for other in (
        in_diffusers_layout(model, state),
        {f"unet.{name}": value for name, value in in_diffusers_layout(model, state).items()},
        {f"model.diffusion_model.{name}": value for name, value in state.items()},
    ):
        found = read_offsets("a", other, *about(model))
        assert found.weights.keys() == own.weights.keys()
        assert all(found.weights[name] is value for name, value in own.weights.items())


def test_wrong_files(model):
    state = file_of()
    lost = {name: value for name, value in state.items() if name != "out.0.weight"}
    for broken, said in (
        ({"a.weight": torch.zeros(1)}, "no IC-Light file"),
        (file_of(4), "takes 4 channels; expected 8 .foreground. or 12 .*A plain SD1.5 UNet"),
        (file_of(9), "takes 9 channels"),
        (lost, "it lacks out.0.weight."),
        ({**state, "more.weight": torch.zeros(1)}, "it has more than that, more.weight"),
        ({**state, "out.0.weight": torch.zeros(7)}, r"out.0.weight has shape \[7\]; expected \[48\]"),
    ):
        with pytest.raises(ICLightFileError, match=said):
            read_offsets("light.safetensors", broken, *about(model))


def test_wrong_models(model):
    offsets = offsets_of(model)
    once = apply_offsets(model, offsets, 1.0)
    with pytest.raises(ICLightModelError, match="IC-Light already"):
        apply_offsets(once, offsets, 1.0)
    with pytest.raises(ICLightModelError, match="SDXL-class"):
        apply_offsets(tiny_model("sdxl"), offsets, 1.0)
    with pytest.raises(ICLightModelError, match=r"no SD1\.5 UNet"):
        apply_offsets(tiny_model("wan"), offsets, 1.0)
    patched = model.clone()
    patched.add_patches({f"diffusion_model.{FIRST}": ("diff", (torch.zeros(48, 4, 3, 3),))}, 1.0)
    with pytest.raises(ICLightModelError, match="a patch there already"):
        apply_offsets(patched, offsets, 1.0)


def test_latents_that_do_not_belong_to_the_file(model):
    few, many = (apply_offsets(model, offsets_of(model, channels), 1.0) for channels in (8, 12))
    with pytest.raises(ICLightModelError, match="foreground beside the noise, and a conditioning has none"):
        sample(few)
    with pytest.raises(
        ICLightModelError, match=r"has the latents of foreground and background\..*without a background"
    ):
        sample(few, latents_of(12))
    with pytest.raises(ICLightModelError, match=r"has the latents of foreground\. Connect.*with a background"):
        sample(many, latents_of(8))


def test_grey_and_pixels():
    pictures = torch.rand(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 4, 5)
    mask[:, :2] = 1
    found = on_grey(pictures, mask)
    assert torch.equal(found[:, :2], pictures[:, :2]) and (found[:, 2:] == GREY).all()
    assert on_grey(pictures, None) is pictures
    levels = torch.tensor([0.0, 127.0, 255.0]) / 255
    # The host's VAE computes 2 x - 1.
    torch.testing.assert_close(2 * coded(levels, "official") - 1, torch.tensor([0.0, 127.0, 255.0]) / 127 - 1)
    assert torch.equal(coded(levels, "comfy"), levels)
    assert float(2 * coded(torch.tensor(GREY), "official") - 1) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="coding is"):
        coded(levels, "other")
    with pytest.raises(ValueError, match=r"mask has shape \[3, 4, 5\]"):
        on_grey(pictures, torch.zeros(3, 4, 5))
