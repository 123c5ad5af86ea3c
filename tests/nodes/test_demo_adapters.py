"""The pack's own light and motion files in IC-Light Model and Motion Modules: the door that published files take."""

import comfy.samplers
import folder_paths
import pytest
import torch
from papernodes.networks import checkpoints, demo_light, demo_motion
from papernodes.nodes import weight_files
from papernodes.nodes.demo_adapters import LIGHTS, MOTIONS
from papernodes.nodes.demo_checkpoint import FOLDER, DemoCheckpoint
from papernodes.nodes.ic_light import PUBLISHED, ICLightConditioning, ICLightModel
from papernodes.nodes.relight_video import MotionModules
from safetensors.torch import save_file
from tiny_models import tiny_model

FBC = next(name for name, kind in LIGHTS.items() if kind == "ic_light_fbc")
(MOTION,) = MOTIONS
WINDOWS = (0, 0, "standard_static")


@pytest.fixture(scope="module")
def demo():
    return DemoCheckpoint.execute("image").args[:3]


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """An empty folder for diffusion models and for motion modules."""
    known = ([str(tmp_path)], set(folder_paths.supported_pt_extensions))
    for name in ("diffusion_models", "animatediff_models"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def conditioned(demo, frames=1):
    _, clip, vae = demo
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("in the snow", "")]
    generator = torch.Generator().manual_seed(1)
    foreground, background = (torch.rand(frames, 64, 64, 3, generator=generator) for _ in range(2))
    return ICLightConditioning.execute(*texts, vae, foreground, background=background).args


def drawn(model, conditions):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*conditions[:2])
    guider.set_cfg(2.0)
    noise = torch.randn(conditions[2]["samples"].shape, generator=torch.Generator().manual_seed(3))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)


def test_a_small_file_is_the_published_layout_made_large(demo, model_folder):
    """Through the node as listed, as a copy under another name, and written out as published files are."""
    model, conditions = demo[0], conditioned(demo)
    small = FOLDER / "ic_light_fbc.safetensors"
    (model_folder / "copied.safetensors").write_bytes(small.read_bytes())
    large = demo_light.load_light(small, "ic_light_fbc")
    assert set(large) == set(model.model.diffusion_model.state_dict())
    save_file(large, model_folder / "large.safetensors")
    found = [drawn(ICLightModel.execute(model, name, 1.0).args[0], conditions) for name in (FBC, "large.safetensors")]
    copied = drawn(ICLightModel.execute(model, "copied.safetensors", 1.0).args[0], conditions)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], copied)
    off = drawn(ICLightModel.execute(model, FBC, 0.0).args[0], conditions)
    assert (found[0] - off).abs().max() > 0.1, "the file changes the picture"


def test_the_motion_file_goes_with_relightvids_norms_and_levels(demo, model_folder):
    model, conditions = ICLightModel.execute(demo[0], FBC, 1.0).args[0], conditioned(demo, 3)
    listed = MotionModules.execute(model, MOTION, 1.0, "as the file", *WINDOWS).args[0]
    save_file(demo_motion.load_motion(FOLDER / f"{demo_motion.KIND}.safetensors"), model_folder / "large.safetensors")
    joint = MotionModules.execute(model, "large.safetensors", 1.0, "joint", *WINDOWS, "the model's").args[0]
    found = drawn(listed, conditions)
    assert torch.equal(found, drawn(joint, conditions))
    assert (found - drawn(model, conditions)).abs().max() > 0.01


def test_files_of_another_size_of_model_say_what_fits(demo, model_folder):
    large = tiny_model("sd15")
    with pytest.raises(ValueError, match=f"{FBC} fits Demo Checkpoint's image model alone; for this model use iclight"):
        ICLightModel.execute(large, FBC, 1.0)
    with pytest.raises(ValueError, match=f"48 wide; expected .*{MOTION} fits Demo Checkpoint's image model alone"):
        MotionModules.execute(large, MOTION, 1.0, "joint", *WINDOWS)
    weights = demo_light.load_light(FOLDER / "ic_light_fbc.safetensors", "ic_light_fbc")
    save_file(weights | {"out.0.weight": torch.zeros(320)}, model_folder / PUBLISHED[2])
    with pytest.raises(ValueError, match="'model' is as small as Demo Checkpoint's; for that use papernodes_demo_ic_"):
        ICLightModel.execute(demo[0], PUBLISHED[2], 1.0)


def test_a_missing_and_a_damaged_file(demo, monkeypatch, tmp_path):
    monkeypatch.setattr(weight_files, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"'ic_light_file': The demonstration model ic_light_fbc.* is missing"):
        ICLightModel.execute(demo[0], FBC, 1.0)
    whole = (FOLDER / "relight_motion.safetensors").read_bytes()
    (tmp_path / "relight_motion.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"'motion_file': .*relight_motion"):
        MotionModules.execute(demo[0], MOTION, 1.0, "joint", *WINDOWS)


def test_other_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path)
    assert torch.equal(checkpoints.read_weights(path)["a"], torch.ones(2))
    torch.save({"state_dict": {"b": torch.zeros(1)}}, tmp_path / "x.ckpt")
    assert list(checkpoints.read_weights(tmp_path / "x.ckpt")) == ["b"]
    assert checkpoints.difference("ab", "ab") == ""
    assert checkpoints.difference("abc", "cd") == " it lacks a, b. it has more than that, d."
