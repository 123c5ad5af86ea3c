"""IC-Light's nodes as the host runs them, with files of random offsets on the demonstration's SD1.5, and bad input."""

import comfy.sample
import folder_paths
import pytest
import torch
from papernodes.kernels.pixel_coding import GREY
from papernodes.networks import demo_light
from papernodes.nodes.demo_adapters import LIGHTS
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.ic_light import (
    PUBLISHED,
    ICLightConditioning,
    ICLightHires,
    ICLightModel,
    ICLightSchedule,
    lanczos,
    larger,
    list_light_files,
)
from papernodes.nodes.light_source import FROM_THE_LEFT, LightSource
from papernodes.patches.ic_light import ICLightModelError
from safetensors.torch import save_file

SCALE = 0.18215


@pytest.fixture(scope="module")
def demo():
    model, clip, vae, *_ = DemoCheckpoint.execute("image").args
    return model, clip, vae


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """models/diffusion_models with the fc and the fbc file, of random offsets, under the published names."""
    known = ([str(tmp_path)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name, channels in ((PUBLISHED[0], 8), (PUBLISHED[2], 12)):
        generator = torch.Generator().manual_seed(channels)
        begun = demo_light.initial_light(channels, 0)
        state = {key: torch.randn(value.shape, generator=generator) * 0.05 for key, value in begun.items()}
        save_file(demo_light.expanded(state), tmp_path / name)
    return tmp_path


def words(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def pictures(batch=1, size=(64, 64), seed=0):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed))


def conditioned(demo, **more):
    _, clip, vae = demo
    given = {"foreground": pictures(), **more}
    return ICLightConditioning.execute(words(clip, "a red cat"), words(clip, ""), vae, **given).args


def drawn(model, positive, negative, latent, steps=2):
    samples = latent["samples"]
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(3))
    return comfy.sample.sample(
        model, noise, steps, 2.0, "euler", "normal", positive, negative, samples, disable_pbar=True, seed=3
    )


def test_a_picture_is_relit_through_the_nodes(demo, model_folder):
    """Foreground and background count, one variant beside the other and the plain model between them."""
    model, clip, _ = demo
    fc, fbc = (ICLightModel.execute(model, name, 1.0).args[0] for name in (PUBLISHED[0], PUBLISHED[2]))
    behind = pictures(seed=1)
    given = {name: conditioned(demo, **more) for name, more in {
        "fc": {}, "other": {"foreground": pictures(seed=7)}, "fbc": {"background": behind},
        "other ground": {"background": pictures(seed=2)},
    }.items()}  # fmt: skip
    plain = words(clip, "a red cat"), words(clip, ""), given["fc"][2]
    before = drawn(model, *plain)
    found = {name: drawn(fc if name in ("fc", "other") else fbc, *given[name]) for name in given}
    assert torch.equal(drawn(model, *plain), before), "the plain model is as it was"
    assert torch.equal(drawn(fc, *given["fc"]), found["fc"])
    for one, other in (("fc", "other"), ("fbc", "other ground"), ("fc", "fbc")):
        assert (found[one] - found[other]).abs().max() > 0.02 * found[one].abs().max(), (one, other)
    off = ICLightModel.execute(model, PUBLISHED[0], 0.0).args[0]
    assert torch.equal(drawn(off, *given["fc"]), before)


def test_the_wrong_variant_says_what_to_connect(demo, model_folder):
    model = demo[0]
    fc, fbc = (ICLightModel.execute(model, name, 1.0).args[0] for name in (PUBLISHED[0], PUBLISHED[2]))
    with pytest.raises(ICLightModelError, match="with a background"):
        drawn(fbc, *conditioned(demo))
    with pytest.raises(ICLightModelError, match="without a background"):
        drawn(fc, *conditioned(demo, background=pictures()))
    with pytest.raises(ICLightModelError, match="has IC-Light already"):
        ICLightModel.execute(fc, PUBLISHED[2], 1.0)


def test_what_lies_beside_the_noise(demo):
    """Mode of the VAE times 0.18215, of the foreground on grey and of the background, in both conditionings."""
    vae = demo[2]
    foreground, behind = pictures(), pictures(seed=4)
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    positive, negative, latent = conditioned(demo, foreground=foreground, mask=mask, background=behind)
    held = positive[0][1]["noise_concat"]
    assert torch.equal(held, negative[0][1]["noise_concat"]) and held.shape == (1, 8, 8, 8)
    shown = GREY + (foreground - GREY) * mask[..., None]
    for part, picture in zip(held.split(4, 1), (shown, behind), strict=True):
        torch.testing.assert_close(part, vae.encode(picture * 255 / 254) * SCALE)
    assert latent["samples"].shape == (1, 4, 8, 8) and not latent["samples"].any()
    plain = conditioned(demo, foreground=foreground, mask=mask, pixel_coding="comfy")[0][0][1]["noise_concat"]
    torch.testing.assert_close(plain, vae.encode(shown) * SCALE)


def test_batches_and_single_pictures(demo):
    three = pictures(3)
    for given in (
        {"foreground": three, "background": pictures(seed=1)},
        {"foreground": three[:1], "background": pictures(3, seed=1)},
        {"foreground": three, "background": pictures(3, seed=1), "mask": torch.ones(64, 64)},
        {"foreground": three, "mask": torch.ones(3, 64, 64)},
    ):
        positive, _, latent = conditioned(demo, **given)
        assert positive[0][1]["noise_concat"].shape[0] == latent["samples"].shape[0] == 3
    with_alpha = torch.cat((three, torch.zeros(3, 64, 64, 1)), -1)
    expected = conditioned(demo, foreground=three)[0][0][1]["noise_concat"]
    assert torch.equal(conditioned(demo, foreground=with_alpha)[0][0][1]["noise_concat"], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foreground": pictures(size=(60, 64))}, r"'foreground' is 64x60 pixels; .* multiples of 8.*64x56"),
        ({"mask": torch.ones(1, 32, 32)}, r"'mask' is 32x32 pixels and 'foreground' 64x64.*Put Upscale Image between"),
        ({"background": pictures(size=(32, 64))}, r"'background' is 64x32 pixels and 'foreground' 64x64"),
        ({"foreground": pictures(3), "background": pictures(2)}, r"'background' holds 2 pictures and 'foreground' 3"),
        ({"pixel_coding": "half"}, r"'pixel_coding' is 'half'; expected one of: official, comfy"),
        ({"foreground": torch.zeros(64, 64, 3)}, r"'foreground' has shape \[64, 64, 3\]"),
    ],
)
def test_bad_pictures(demo, changes, message):
    with pytest.raises(ValueError, match=message):
        conditioned(demo, **changes)


def test_files(demo, model_folder):
    assert list_light_files()[:2] == [PUBLISHED[2], PUBLISHED[0]]
    save_file({"x": torch.zeros(1)}, model_folder / "other.safetensors")
    (model_folder / "broken.safetensors").write_bytes(b"12345678")
    folder_paths.filename_list_cache.clear()
    assert list_light_files()[2:] == [*LIGHTS, "broken.safetensors", "other.safetensors"]
    for name, message in (
        (
            PUBLISHED[1],
            r"'ic_light_file': iclight_sd15_fcon\.safetensors is not in .*huggingface\.co/lllyasviel/ic-light",
        ),
        ("broken.safetensors", r"'ic_light_file': broken\.safetensors cannot be read as weights; get it again"),
        ("other.safetensors", r"'ic_light_file': other\.safetensors is no IC-Light file"),
        ("../x.safetensors", r"'ic_light_file': \.\./x\.safetensors is not in"),
    ):
        with pytest.raises(ValueError, match=message):
            ICLightModel.execute(demo[0], name, 1.0)
    for file in model_folder.iterdir():
        file.unlink()
    folder_paths.filename_list_cache.clear()
    assert list_light_files() == [*PUBLISHED, *LIGHTS], "a workflow can say what it lacks"


def test_the_second_pass(demo):
    """Sides of round(side * scale / 64) * 64; the relit picture in 8 bit through Lanczos; the foreground cut anew."""
    vae = demo[2]
    first = conditioned(demo)
    relit, foreground = pictures(seed=5), pictures(size=(128, 160), seed=6)
    mask = torch.ones(1, 128, 160)
    positive, negative, latent = ICLightHires.execute(*first[:2], vae, relit, foreground, 2.0, mask).args
    assert latent["samples"].shape == (1, 4, 16, 16)
    beside = positive[0][1]["noise_concat"]
    assert beside.shape == (1, 4, 16, 16) and torch.equal(beside, negative[0][1]["noise_concat"])
    assert first[0][0][1]["noise_concat"].shape[-1] == 8, "the conditioning that came in stays"
    middle = (foreground[:, :, 16:-16] * 255).floor() / 255
    torch.testing.assert_close(beside, vae.encode(middle * 255 / 254) * SCALE, atol=1e-4, rtol=1e-3)
    start = lanczos(relit, (128, 128))
    torch.testing.assert_close(latent["samples"], vae.encode(start), atol=1e-4, rtol=1e-3)
    with_ground = ICLightHires.execute(*first[:2], vae, relit, foreground, 2.0, mask, foreground).args[0]
    assert with_ground[0][1]["noise_concat"].shape == (1, 8, 16, 16)
    with pytest.raises(ValueError, match="'foreground' holds 3 pictures and 'relit' 2"):
        ICLightHires.execute(*first[:2], vae, pictures(2), pictures(3), 1.5)
    with pytest.raises(ValueError, match=r"'scale' is 9.0"):
        ICLightHires.execute(*first[:2], vae, relit, foreground, 9.0)


def test_sizes_of_the_second_pass():
    assert larger(640, 512, 1.5) == (960, 768)
    assert larger(64, 96, 1.5) == (128, 128)  # 1.5 and 2.25 times 64
    assert larger(16, 16, 1.0) == (64, 64)
    ramp = torch.linspace(0, 1, 64).view(1, 1, 64, 1).expand(1, 64, 64, 3)
    found = lanczos(ramp, (64, 64))
    assert ((ramp - found >= 0) & (ramp - found < 1.001 / 255)).all(), "8-bit levels are cut off"
    assert lanczos(torch.ones(2, 8, 8), (16, 16)).shape == (2, 16, 16)


def test_noise_levels(demo):
    model = demo[0]
    same, native = ICLightSchedule.execute(model, 25, 1.0, "native").args
    assert same is model and len(native) == 26 and native[-1] == 0
    assert float(native[0]) == pytest.approx(14.61, abs=0.01)
    linear, exact = ICLightSchedule.execute(model, 25, 1.0, "demo-exact").args
    assert float(exact[0]) == pytest.approx(25.1, abs=0.05) and linear is not model
    sampling = linear.get_model_object("model_sampling")
    assert [round(float(sampling.timestep(level))) for level in exact[:3]] == [999, 968, 936]
    _, late = ICLightSchedule.execute(model, 25, 0.9, "native").args
    assert len(late) == 26 and late[0] < native[0]
    assert float(model.get_model_object("model_sampling").sigma_max) == pytest.approx(14.61, abs=0.01)
    for bad, message in (
        ((0, 1.0, "native"), "'steps'"),
        ((5, 0.0, "native"), "'denoise'"),
        ((5, 1.0, "x"), "'levels'"),
    ):
        with pytest.raises(ValueError, match=message):
            ICLightSchedule.execute(model, *bad)


def test_the_authors_flow(demo, model_folder):
    """A map of light, denoise 0.9, then the second pass at 0.5, all with the host's own sampler."""
    model, _, vae = demo
    relight = ICLightModel.execute(model, PUBLISHED[0], 1.0).args[0]
    positive, negative, _ = conditioned(demo)
    _, light = LightSource.execute(FROM_THE_LEFT, 64, 64, 1, "fc", vae=vae).args
    one, other, start, first = positive, negative, light, None
    for denoise in (0.9, 0.5):
        if first is not None:
            relit = vae.decode(first).detach()  # the host runs nodes without gradients
            one, other, start = ICLightHires.execute(positive, negative, vae, relit, pictures(), 2.0).args
        levels, sigmas = ICLightSchedule.execute(relight, 3, denoise, "demo-exact").args
        noise = torch.randn(start["samples"].shape, generator=torch.Generator().manual_seed(1))
        sampler = comfy.samplers.sampler_object("dpmpp_2m_sde")
        first = comfy.sample.sample_custom(
            levels, noise, 2.0, sampler, sigmas, one, other, start["samples"], disable_pbar=True, seed=1
        )
    assert first.shape == (1, 4, 16, 16) and bool(first.isfinite().all())
