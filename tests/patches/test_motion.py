"""Clips on an SD1.5 in miniature: diffusers' whole network, the laws of a patch, clones, windows, errors."""

import gc

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import pytest
import torch
from motion_files import DEMO_WIDTHS, PerFrame, module_shapes, random_file, zero_file
from motion_models import UNET, apart, ic_light, lit, motion, noise_of, sample, text_of
from papernodes.kernels.frames import clips_of, frames_of
from papernodes.networks.demo_image import GROUPS, UNET_CONFIG, load_model
from papernodes.networks.motion import read_motion
from papernodes.patches.frame_windows import Windows
from papernodes.patches.frames import MotionModelError, joined, with_frames, with_motion
from tiny_models import tiny_conditioning, tiny_model

SEEDS = (0, 1, 2)
CALL = comfy.patcher_extension.WrappersMP.APPLY_MODEL


@pytest.fixture(scope="module")
def model():
    return load_model(UNET)


def hooks_of(model):
    return [
        hook
        for module in model.model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


class OverClips(torch.nn.Module):
    """A group norm over all frames of a clip, by its definition."""

    def __init__(self, norm, frames):
        super().__init__()
        self.norm, self.frames = norm, frames

    def forward(self, x):
        clips = clips_of(x, self.frames)
        return frames_of(
            torch.nn.functional.group_norm(clips, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        )


@pytest.mark.parametrize("joint_norm", (True, False))
def test_the_whole_network_is_diffusers(model, joint_norm):
    """Every module in its place, the middle included: an AnimateDiff of equal weights, two clips of three frames."""
    from diffusers import UNetMotionModel

    blocks = ["CrossAttnDownBlockMotion"] * 3 + ["DownBlockMotion"]
    oracle = UNetMotionModel(
        block_out_channels=DEMO_WIDTHS, cross_attention_dim=128, num_attention_heads=3, norm_num_groups=GROUPS,
        down_block_types=blocks, up_block_types=[name.replace("Down", "Up") for name in reversed(blocks)],
        motion_num_attention_heads=8, use_motion_mid_block=True,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in oracle.parameters():
            kept = parameter.ndim == 1
            parameter.copy_(
                parameter * kept + torch.randn(parameter.shape, generator=generator) * (0.1 if kept else 0.05)
            )
    state = oracle.state_dict()
    names = comfy.utils.unet_to_diffusers(UNET_CONFIG)
    own = {names[key]: value for key, value in state.items() if key in names}
    unet = type(model.model.diffusion_model)(
        **UNET_CONFIG, device="cpu", dtype=torch.float32, operations=model.model.model_config.custom_operations
    )
    unet.load_state_dict(own)
    network = read_motion("a", {key: value for key, value in state.items() if "motion_modules" in key}, GROUPS)
    assert len(network.by_place()) == 21
    for name, module in list(oracle.named_modules()):
        if name.endswith(("norm1", "norm2", "conv_norm_out")) and isinstance(module, torch.nn.GroupNorm) and joint_norm:
            oracle.set_submodule(name, OverClips(module, 3))
        if "motion_modules" in name and isinstance(module, torch.nn.GroupNorm):
            oracle.set_submodule(name, PerFrame(module))
    x, text = noise_of(1, 6), text_of(2, 2)[0][0].repeat_interleave(3, 0)
    with torch.no_grad():
        expected = frames_of(oracle(clips_of(x, 3), 500, text).sample)
        arguments = (x, torch.full((6,), 500.0), text)
        with joined(unet, 3, network, joint_norm=joint_norm):
            found = unet(*arguments)
        with joined(unet, 3, network, joint_norm=not joint_norm):
            other = unet(*arguments)
        plain = unet(*arguments)
    assert apart(found, expected) < 1e-4
    assert apart(other, expected) > 1e-3 and apart(plain, expected) > 1e-2


@pytest.mark.parametrize("joint_norm", (True, False))
@pytest.mark.parametrize("seed", SEEDS)
def test_scales(model, seed, joint_norm):
    plain = sample(model, seed)
    # The norms do not depend on the scale, so without modules they are what is left of it.
    off = sample(with_motion(model, None, joint_norm=joint_norm), seed)
    assert (apart(off, plain) > 1e-3) if joint_norm else torch.equal(off, plain)
    network = motion(seed)
    assert torch.equal(sample(with_motion(model, network, 0.0, joint_norm), seed), off)
    assert 0 < apart(sample(with_motion(model, network, 1e-6, joint_norm), seed), off) < 1e-3
    on = with_motion(model, network, 1.0, joint_norm)
    first = sample(on, seed)
    assert torch.isfinite(first).all() and apart(first, off) > 0.01
    assert torch.equal(sample(on, seed), first)
    assert torch.equal(sample(model, seed), plain), "the MODEL that came in is as it was"
    assert not hooks_of(model)


def test_without_scale_the_modules_are_not_run(model):
    network = motion()
    for weight in network.parameters():
        weight.fill_(float("nan"))
    off = sample(with_motion(model, None))
    assert torch.equal(sample(with_motion(model, network, 0.0)), off)
    assert not torch.isfinite(sample(with_motion(model, network, 1.0))).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_scales_on_a_stock_checkpoint(seed):
    """320 wide with 32 groups, one block a level, no middle; the file in half precision."""
    places = ("down_blocks.0.motion_modules.0", "up_blocks.0.motion_modules.0", "up_blocks.0.motion_modules.1")
    shapes = {f"{place}.{name}": shape for place in places for name, shape in module_shapes(320, 16).items()}
    network = read_motion("a", {k: v.half() for k, v in random_file(seed=seed, shapes=shapes).items()})
    base, conditions = tiny_model("sd15"), (tiny_conditioning("sd15", seed), tiny_conditioning("sd15", 9 + seed))
    off = sample(base, seed, 3, conditions=conditions)
    assert torch.equal(sample(with_motion(base, network, 0.0, False), seed, 3, conditions=conditions), off)
    assert apart(sample(with_motion(base, network, 1e-6, False), seed, 3, conditions=conditions), off) < 1e-3
    on = sample(with_motion(base, network), seed, 3, conditions=conditions)
    assert torch.isfinite(on).all() and apart(on, off) > 1e-2
    assert torch.equal(sample(base, seed, 3, conditions=conditions), off)


def test_frames_see_each_other(model):
    """Through the norms, and through the modules; without either they do not."""
    noise = noise_of(0, 4)
    changed = noise.clone()
    changed[-1] = noise_of(1, 1)[0]
    for tuned, sees in (
        (with_motion(model, motion(), 0.0, False), False),
        (with_motion(model, None, joint_norm=True), True),
        (with_motion(model, motion(), 1.0, False), True),
    ):
        one, other = sample(tuned, noise=noise), sample(tuned, noise=changed)
        assert (apart(other[0], one[0]) > 1e-3) if sees else torch.equal(other[0], one[0])
    # The norm of a picture is that of a clip of one.
    assert torch.equal(sample(with_motion(model, None), frames=1), sample(model, frames=1))


def test_rows_together_and_apart(model, monkeypatch):
    tuned, calls = with_motion(model, motion()), []

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    tuned.add_wrapper_with_key(CALL, "spy", spy)
    together = sample(tuned)
    assert calls == [8] * 2
    calls.clear()
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert apart(sample(tuned), together) < 1e-4
    assert calls == [4] * 4


def test_several_clips_in_a_batch(model):
    """A tag in the conditioning says where one ends; without it the batch is one clip."""
    tuned, noise = with_motion(model, motion()), noise_of(0, 6)
    tagged = tuple(with_frames(text_of(seed), 3) for seed in (0, 100))
    alone = torch.cat([sample(tuned, noise=noise[:3]), sample(tuned, noise=noise[3:])])
    assert apart(sample(tuned, noise=noise, conditions=tagged), alone) < 1e-4
    assert apart(sample(tuned, noise=noise), alone) > 1e-3


def test_it_lives_beside_patches_of_other_kinds(model):
    network = motion()
    lora = model.clone()
    patch = torch.randn(48, 48, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.05
    lora.add_patches({"diffusion_model.input_blocks.1.0.out_layers.3.weight": ("diff", (patch,))}, 1.0)
    both = sample(with_motion(lora, network))
    assert apart(both, sample(with_motion(model, network))) > 1e-3 and apart(both, sample(lora)) > 1e-3
    lights = lit(0, 1, noise_of(3, 4))
    one = sample(with_motion(ic_light(lora), network), conditions=lights)
    other = sample(ic_light(with_motion(lora, network)), conditions=lights)
    assert torch.equal(one, other), "in either order"
    assert apart(one, sample(ic_light(lora), conditions=lights)) > 1e-3


def test_clones_of_one_loader(model):
    """One after the other, in any order, a clone forgotten while its like is loaded."""
    network = motion()
    moving, light = with_motion(model, network), lit(0, 1, noise_of(3, 4))
    runs = (
        (model, None),
        (moving, None),
        (with_motion(model, network, 0.5, False), None),
        (ic_light(moving), light),
        (ic_light(model), light),
        (moving.clone(), None),
    )
    first = [sample(one, conditions=conditions) for one, conditions in runs]
    assert torch.equal(first[5], first[1])
    forgotten = moving.clone()
    del forgotten
    gc.collect()
    for number in (1, 3, 5, 0, 4, 2, 1, 0):
        one, conditions = runs[number]
        assert torch.equal(sample(one, conditions=conditions), first[number])
    assert not hooks_of(model)


def test_the_weights_are_the_hosts_to_manage(model):
    network = motion()
    tuned = with_motion(model, network)
    names = set(model.model.state_dict())
    sample(tuned)
    assert network in [loaded.model for loaded in comfy.model_management.loaded_models()]
    assert set(model.model.state_dict()) == names, "no part of the UNet"
    (beside,) = tuned.clone().get_additional_models()
    assert beside.model is network
    # Loaded in part, layers fetch their weights when they are called.
    whole = sample(tuned)
    beside.detach()
    beside.load(beside.load_device, lowvram_model_memory=beside.model_size() // 2)
    assert 0 < beside.loaded_size() < beside.model_size()
    with joined(model.model.diffusion_model, 4, network), torch.no_grad():
        found = sample(model)
    beside.detach()
    assert apart(found, whole) < 1e-5


def test_nothing_is_left_after_an_error(model):
    tuned = with_motion(model, motion())

    def fail(executor, *arguments, **rest):
        assert hooks_of(model)
        raise RuntimeError("in the middle of a call")

    tuned.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "fail", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        sample(tuned)
    assert not hooks_of(model)


def test_wrong_models(model):
    network = motion()
    for other, said in (
        (with_motion(model, network), "has motion modules already. Connect the MODEL from before them"),
        (tiny_model("sdxl"), "SDXL-class UNet"),
        (tiny_model("wan"), r"is a WAN21, which is no SD1\.5 UNet"),
        (tiny_model("sd15"), r"down_blocks\.0\.motion_modules\.0 is 48 wide, the UNet's block 320"),
    ):
        with pytest.raises(MotionModelError, match=said):
            with_motion(other, network)
    with pytest.raises(MotionModelError, match=r"down_blocks\.0\.motion_modules\.0 is 320 wide, the UNet's block 48"):
        with_motion(model, read_motion("a", zero_file(), GROUPS))
    with pytest.raises(MotionModelError, match=r"has down_blocks\.4\.motion_modules\.0, and 'model' has no such block"):
        with_motion(model, read_motion("a", zero_file((*DEMO_WIDTHS, 96), mid=False), GROUPS))


def test_wrong_clips_are_refused_before_sampling(model):
    network, calls = motion(positions=4), []

    def refused(said, *arguments, frames=6, tag=None, **rest):
        tuned = with_motion(model, *arguments, **rest)
        tuned.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, "spy", calls.append)
        conditions = None if tag is None else (with_frames(text_of(0), tag), text_of(1))
        with pytest.raises(MotionModelError, match=said):
            sample(tuned, frames=frames, conditions=conditions)

    refused("A clip of 6 frames: the motion modules know 4 positions. Set a context length of at most 4", network)
    refused("clip has 4 frames, and the latent holds 6, which is no multiple", None, tag=4)
    refused("clip has 0 frames", None, tag=0)
    refused("2 clips of 3 frames, and context windows cut one clip", network, windows=Windows(4, 2), tag=3)
    assert not calls
    with pytest.raises(MotionModelError, match="context length is 5 frames, and the motion modules know 4 positions"):
        with_motion(model, network, windows=Windows(5, 2))


def test_wrong_calls(model):
    tuned = with_motion(model, motion())
    join = tuned.get_wrappers(CALL, "papernodes_motion")[0]
    x = noise_of(0, 5)
    for options, said in (({}, "5 pictures for 0 rows"), ({"cond_or_uncond": [0, 1]}, "5 pictures for 2 rows")):
        with pytest.raises(MotionModelError, match=said):
            join(None, x, None, transformer_options=options)
    with pytest.raises(MotionModelError, match="row of 5 pictures does not divide into clips of 2"):
        join(None, x, None, transformer_options={"cond_or_uncond": [0]}, papernodes_frames=2)
