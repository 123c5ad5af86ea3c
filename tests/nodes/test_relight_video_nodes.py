"""Motion Modules, RelightVid Conditioning and DDPM Sigmas as the host runs them, and what they say of bad input."""

import logging

import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler, DualCFGGuider
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from motion_files import random_file
from papernodes.networks import demo_light
from papernodes.networks.ic_light import read_offsets
from papernodes.networks.motion import read_motion
from papernodes.nodes import relight_video
from papernodes.nodes.demo_adapters import MOTIONS
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.relight_video import DDPMSigmas, MotionModules, RelightVidConditioning, list_motion_files
from papernodes.patches.frames import MotionModelError, with_motion
from papernodes.patches.ic_light import apply_offsets
from safetensors.torch import save_file

FRAMES = 4
SETTINGS = ("as the file", 0, 0, "standard_static", "the model's")


@pytest.fixture(scope="module")
def demo():
    model, clip, vae, *_ = DemoCheckpoint.execute("image").args
    return model, clip, vae


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """models/animatediff_models: AnimateDiff's names, and the same weights with RelightVid's prefix."""
    known = ([str(tmp_path)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "animatediff_models", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(relight_video, "_told", set())
    state = {name: value * 0.7 for name, value in random_file(mid=False).items()}
    save_file(state, tmp_path / "mm.safetensors")
    save_file({f"unet.{name}": value for name, value in state.items()}, tmp_path / "relvid.safetensors")
    return tmp_path


def words(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def noise_of(frames=FRAMES, seed=0):
    return torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def drawn(model, clip, frames=FRAMES):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(words(clip, "a red cat"), words(clip, ""))
    guider.set_cfg(3.0)
    noise = noise_of(frames)
    sigmas = DDPMSigmas.execute(model, 2).args[0]
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)


def moving(model, name="mm.safetensors", scale=1.0, settings=SETTINGS):
    return MotionModules.execute(model, name, scale, *settings).args[0]


def test_frames_know_of_each_other(demo, model_folder):
    model, clip, _ = demo
    before = drawn(model, clip)
    found = drawn(moving(model), clip)
    network = read_motion("x", random_file_of(model_folder), groups=8)
    assert torch.equal(found, drawn(with_motion(model, network, 1.0, joint_norm=False), clip))
    assert (found - before).abs().max() > 0.05 * before.abs().max()
    assert torch.equal(drawn(moving(model, scale=0.0), clip), before)
    assert torch.equal(drawn(model, clip), before)


def random_file_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "mm.safetensors")


def test_relightvids_file_has_joint_norms_and_says_its_licence_once(demo, model_folder, caplog):
    model, clip, _ = demo
    with caplog.at_level(logging.INFO):
        relit = moving(model, "relvid.safetensors")
        moving(model, "relvid.safetensors")
        moving(model)
    assert caplog.text.count("CC BY-NC-SA 4.0") == 1
    found = drawn(relit, clip)
    joint = drawn(moving(model, settings=("joint", *SETTINGS[1:])), clip)
    assert torch.equal(found, joint)
    apart = drawn(moving(model, "relvid.safetensors", settings=("per frame", *SETTINGS[1:])), clip)
    assert (found - apart).abs().max() > 0.01 * found.abs().max()


def test_long_clips_run_in_windows(demo, model_folder):
    model, clip, _ = demo
    whole = drawn(moving(model), clip)
    windows = ("as the file", FRAMES, 2, "standard_static", "the model's")
    assert torch.equal(drawn(moving(model, settings=windows), clip), whole)
    longer = drawn(moving(model, settings=windows), clip, 7)
    assert longer.shape[0] == 7 and bool(longer.isfinite().all())
    with pytest.raises(MotionModelError, match="32 positions"):
        drawn(moving(model), clip, 33)


@pytest.mark.parametrize(
    ("name", "choice", "highest"),
    [
        ("mm.safetensors", (), 25.1),  # as graphs have it that were saved before there was a choice
        ("mm.safetensors", ("as the file",), 25.1),
        ("mm.safetensors", ("linear",), 25.1),
        ("mm.safetensors", ("the model's",), 14.6),
        ("relvid.safetensors", (), 14.6),
        ("relvid.safetensors", ("linear",), 25.1),
    ],
)
def test_noise_levels(demo, model_folder, name, choice, highest):
    """Any scheduler of the host steps through them."""
    found = moving(demo[0], name, settings=(*SETTINGS[:-1], *choice))
    (sigmas,) = BasicScheduler.execute(found, "normal", 5, 1.0).args
    assert round(float(sigmas[0]), 1) == highest
    assert round(float(demo[0].get_model_object("model_sampling").sigma_max), 1) == 14.6


def test_the_choice_of_noise_levels_is_the_last_widget():
    """Widgets are saved by their place."""
    last = MotionModules.define_schema().inputs[-1]
    assert (last.id, last.optional, last.default) == ("noise_levels", True, "as the file")


def test_levels_that_are_no_table(demo, model_folder):
    (flowing,) = ModelSamplingSD3().patch(demo[0], 3.0)
    with pytest.raises(ValueError, match=r"'noise_levels': the model samples by .*table.* Choose \"the model's\""):
        moving(flowing, settings=SETTINGS[:-1])
    moving(flowing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mm.safetensors", 3.0, *SETTINGS), r"'scale' is 3.0"),
        (("mm.safetensors", 1.0, *SETTINGS[:-1], "x"), r"'noise_levels' is 'x'"),
        (("mm.safetensors", 1.0, "some", *SETTINGS[1:]), r"'group_norm' is 'some'"),
        (("mm.safetensors", 1.0, "joint", 8, 8, "standard_static"), r"'context_overlap': .* less than the length"),
        (("mm.safetensors", 1.0, "joint", 8, 2, "x"), r"'context_schedule' is 'x'"),
        (("absent.ckpt", 1.0, *SETTINGS), r"'motion_file': absent\.ckpt is not in .*huggingface"),
        (("broken.safetensors", 1.0, *SETTINGS), r"'motion_file': broken\.safetensors cannot be read as weights"),
        (("other.safetensors", 1.0, *SETTINGS), r"'motion_file': other\.safetensors is no motion file"),
    ],
)
def test_bad_input_of_motion_modules(demo, model_folder, arguments, message):
    (model_folder / "broken.safetensors").write_bytes(b"12345678")
    save_file({"x": torch.zeros(1)}, model_folder / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        MotionModules.execute(demo[0], *arguments)


def test_modules_twice_and_windows_too_long(demo, model_folder):
    with pytest.raises(MotionModelError, match="motion modules already"):
        moving(moving(demo[0]))
    with pytest.raises(MotionModelError, match="at most 32"):
        moving(demo[0], settings=("joint", 40, 4, "standard_static"))
    assert list_motion_files() == ["mm.safetensors", "relvid.safetensors", *MOTIONS]


def clips(frames=FRAMES, size=(64, 64), seed=0):
    return torch.rand(frames, *size, 3, generator=torch.Generator().manual_seed(seed))


def conditioned(demo, **more):
    _, clip, vae = demo
    given = {"frames": clips(), "background": clips(seed=1), **more}
    return RelightVidConditioning.execute(words(clip, "a red cat"), words(clip, "a cat"), vae, **given).args


def test_three_conditionings(demo):
    """Text and pictures; pictures with the negative text; the negative text with latents of 0 (spec 4.1, 6)."""
    vae = demo[2]
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48] = 1
    first, second, negative, latent = conditioned(demo, mask=mask)
    beside = first[0][1]["noise_concat"]
    assert beside.shape == (FRAMES, 8, 8, 8) and torch.equal(second[0][1]["noise_concat"], beside)
    assert not negative[0][1]["noise_concat"].any() and negative[0][1]["noise_concat"].shape == beside.shape
    assert torch.equal(second[0][0], negative[0][0]) and not torch.equal(first[0][0], second[0][0])
    shown = 128 / 255 + (clips() - 128 / 255) * mask[..., None]
    torch.testing.assert_close(beside[:, :4], vae.encode(shown) * 0.18215)
    torch.testing.assert_close(beside[:, 4:], vae.encode(clips(seed=1)) * 0.18215)
    assert latent["samples"].shape == (FRAMES, 4, 8, 8)
    one = conditioned(demo, background=clips(1, seed=1))[0][0][1]["noise_concat"]
    assert torch.equal(one[0, 4:], one[3, 4:])


def test_the_stock_guider_adds_them_up_as_the_paper_does(demo, model_folder):
    """e1 + 1.2 (e2 - e1) + 7.5 (e3 - e2): DualCFGGuider's own algebra on the three."""
    model = demo[0]
    generator = torch.Generator().manual_seed(2)
    begun = demo_light.initial_light(12, 0)
    state = {name: torch.randn(value.shape, generator=generator) * 0.03 for name, value in begun.items()}
    about = model.model.diffusion_model.state_dict(), model.model.model_config.unet_config
    relight = apply_offsets(model, read_offsets("x", demo_light.expanded(state), *about), 1.0)
    relit = moving(relight, "relvid.safetensors")
    first, second, negative, latent = conditioned(demo)
    sigmas = torch.tensor([5.0, 0.0])
    sampler, noise = comfy.samplers.sampler_object("euler"), noise_of()

    def predicted(guider):
        return guider.sample(noise, latent["samples"], sampler, sigmas, seed=0)

    (guider,) = DualCFGGuider().get_guider(relit, first, second, negative, 7.5, 1.2, "regular")
    found = predicted(guider)
    rows = []
    for condition in (negative, second, first):
        alone = comfy.samplers.CFGGuider(relit)
        alone.set_conds(condition, condition)
        alone.set_cfg(1.0)
        rows.append(predicted(alone))
    expected = rows[0] + 1.2 * (rows[1] - rows[0]) + 7.5 * (rows[2] - rows[1])
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": clips(3)}, r"'background' holds 3 pictures and 'frames' 4; expected one, or as many"),
        ({"background": clips(size=(32, 64))}, r"'background' is 64x32 pixels and 'frames' 64x64"),
        ({"mask": torch.ones(2, 64, 64)}, r"'mask' holds 2 pictures and 'frames' 4"),
        ({"frames": clips(size=(60, 60)), "background": clips(size=(60, 60))}, r"'frames' is 60x60 .*56x56"),
    ],
)
def test_bad_clips(demo, changes, message):
    with pytest.raises(ValueError, match=message):
        conditioned(demo, **changes)


def test_ddpm_levels(demo):
    sigmas = DDPMSigmas.execute(demo[0], 20).args[0]
    table = demo[0].get_model_object("model_sampling").sigmas
    torch.testing.assert_close(sigmas[:-1], table[torch.arange(950, -1, -50)])
    assert len(sigmas) == 21 and sigmas[-1] == 0
    with pytest.raises(ValueError, match="'steps' is 0"):
        DDPMSigmas.execute(demo[0], 0)
    video = DemoCheckpoint.execute("video").args[0]
    with pytest.raises(ValueError, match="'model' is a WAN21, which has no table of noise levels"):
        DDPMSigmas.execute(video, 20)
