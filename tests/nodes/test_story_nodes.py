"""The story nodes as the host runs them, on the shipped demonstration models, and what they say of bad input."""

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.identity_attention import IdentityAttention
from papernodes.nodes.story import SingularValueReweight, StoryPrompts
from papernodes.nodes.story_pictures import StoryNoise, StorySheet

CURVES = {"express_alpha": -0.01, "express_beta": 1.0, "suppress_alpha": 0.01, "suppress_beta": 0.05}
FRAMES = "in a forest, lit from the left\non a beach, lit from above\nin the snow, lit from the right"
IDENTITY = "a red cat"


@pytest.fixture(scope="module")
def demo():
    model, clip, vae, *_ = DemoCheckpoint.execute("image").args
    return model, clip, vae


def prompts(clip, frames=FRAMES, identity=IDENTITY, window=10, mode="svr", keep_pooled=True, **curves):
    return StoryPrompts.execute(clip, identity, frames, window, mode, **(CURVES | curves), keep_pooled=keep_pooled).args


def attend(model, clip, conditioning, identity=IDENTITY, strength=1.0, dropout=0.0, start=0.0, end=1.0, method="bias"):
    lists = [[value] for value in (identity, strength, dropout, start, end, method)]
    return IdentityAttention.execute([model], [clip], conditioning, *lists).args


def draw(model, clip, positive, noise, steps=3, cfg=3.0):
    import nodes as host_nodes

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, host_nodes.CLIPTextEncode().encode(clip, "")[0])
    guider.set_cfg(cfg)
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise.generate_noise(latent), latent["samples"], sampler, sigmas, seed=noise.seed)


def test_a_whole_story(demo):
    model, clip, vae = demo
    conditionings, captions, report = prompts(clip)
    assert captions == FRAMES.splitlines() and len(conditionings) == 3
    assert "3 frames, 3 in each prompt, mode svr" in report and "rows 1 to 3" in report
    patched, marked = attend(model, clip, conditionings)
    noises = StoryNoise.execute(7, 3, 1.0).args[0]
    latents = [draw(patched, clip, one, noise) for one, noise in zip(marked, noises, strict=True)]
    again = [draw(patched, clip, one, noise) for one, noise in zip(marked, noises, strict=True)]
    without = [draw(model, clip, one, noise) for one, noise in zip(conditionings, noises, strict=True)]
    for latent, same, other in zip(latents, again, without, strict=True):
        assert torch.equal(latent, same) and (latent - other).abs().max() > 1e-3
    images = [vae.decode(latent) for latent in latents]
    (sheet,) = StorySheet.execute(images, captions, [0], [8]).args
    assert sheet.shape[2] == 3 * 136 + 8 and sheet.shape[1] > 136 + 16
    assert torch.equal(sheet[0, 8:136, 144:272], images[1][0].cpu().clamp(0, 1))


@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_both_methods_draw_the_same(demo, strength):
    model, clip, _ = demo
    conditionings = prompts(clip)[0]
    noise = StoryNoise.execute(7, 1, 1.0).args[0][0]
    bias, append = (
        draw(patched, clip, marked[1], noise)
        for patched, marked in (
            attend(model, clip, conditionings, strength=strength, method=method) for method in ("bias", "append")
        )
    )
    # Equal to 1e-5 in one attention (tests/patches/test_regional.py); guidance and steps make more of the rounding.
    assert (append - bias).abs().max() < 1e-4 * bias.abs().max()
    assert (bias - draw(model, clip, conditionings[1], noise)).abs().max() > 1e-2


def test_strength_0_is_off(demo):
    model, clip, _ = demo
    conditionings = prompts(clip)[0]
    patched, marked = attend(model, clip, conditionings, strength=0.0)
    assert patched is model and marked is conditionings


def test_mode_off_is_the_plain_prompt(demo):
    import nodes as host_nodes

    clip = demo[1]
    conditionings = prompts(clip, mode="off")[0]
    whole = f"{IDENTITY} {' '.join(FRAMES.splitlines())}"
    plain = host_nodes.CLIPTextEncode().encode(clip, whole)[0]
    assert all(torch.equal(one[0][0], plain[0][0].cpu()) for one in conditionings)


def test_one_frame_is_only_expressed(demo):
    clip = demo[1]
    (one,), captions, report = prompts(clip, frames="in a forest")
    assert captions == ["in a forest"] and report.startswith("1 frame, 1 in each prompt")
    reweighted = SingularValueReweight.execute(
        clip,
        prompts(clip, frames="in a forest", mode="off")[0][0],
        "a red cat in a forest",
        "in a forest",
        "",
        **CURVES,
    ).args[0]
    assert torch.equal(one[0][0], reweighted[0][0])


def test_repeated_frames_are_alike(demo):
    clip = demo[1]
    first, second, third = prompts(clip, frames="in a forest\non a beach\nin a forest")[0]
    assert not torch.equal(first[0][0], second[0][0])
    # each repeat expresses its own words; neither suppresses the other
    assert (first[0][0] - third[0][0]).abs().max() > 0


def test_reweighting_by_itself_is_the_step_of_story_prompts(demo):
    clip = demo[1]
    plain, changed = prompts(clip, mode="off")[0][1], prompts(clip)[0][1]
    lines = FRAMES.splitlines()
    found = SingularValueReweight.execute(
        clip, plain, f"{IDENTITY} {' '.join(lines)}", lines[1], f"{lines[0]}\n\n{lines[2]}", **CURVES
    ).args[0]
    torch.testing.assert_close(found[0][0], changed[0][0], rtol=1e-5, atol=1e-5)
    assert plain[0][0] is not found[0][0]


def test_several_characters(demo):
    model, clip, _ = demo
    identity = "Anna: a red cat\nBob: a blue ball"
    conditionings, captions, report = prompts(
        clip, frames="Anna: in a forest\nAnna, Bob: on a beach\nin the snow", identity=identity
    )
    assert captions == ["in a forest", "on a beach", "in the snow"]
    assert "a red cat and a blue ball in a forest on a beach in the snow" in report
    _, marked = attend(model, clip, conditionings, identity=identity)
    counts = [int((one[0][1]["papernodes_key_bias"][0].strength > 0).sum()) for one in marked]
    assert counts == [4, 7, 7]


def test_a_long_story_stays_on_the_cpu_and_in_windows(demo):
    clip = demo[1]
    conditionings, _, report = prompts(
        clip, frames="\n".join(f"in a {'forest' * (k % 2) or 'city'}" for k in range(60))
    )
    assert len(conditionings) == 60 and "10 in each prompt (windows that go round)" in report
    assert all(one[0][0].device.type == "cpu" and one[0][0].shape == (1, 77, 128) for one in conditionings)
    # no conditioning is a view that keeps others alive
    assert all(one[0][0].untyped_storage().nbytes() == one[0][0].nbytes for one in conditionings)


@pytest.mark.parametrize("same", [0.0, 0.5, 1.0])
def test_noise(same):
    noises = StoryNoise.execute(5, 4, same).args[0]
    latent = {"samples": torch.zeros(1, 4, 64, 64)}
    drawn = [noise.generate_noise(latent) for noise in noises]
    assert torch.equal(drawn[0], Noise_RandomNoise(5).generate_noise(latent))
    alike = torch.corrcoef(torch.stack([one.flatten() for one in drawn]))
    expected = {0.0: 0.0, 0.5: 0.5**0.5, 1.0: 1.0}[same]
    assert all(abs(alike[0, k] - expected) < 0.03 for k in (1, 2, 3))
    assert all(abs(one.std() - 1) < 0.03 for one in drawn)
    assert all(torch.equal(a.generate_noise(latent), b) for a, b in zip(noises, drawn, strict=True))
    assert torch.equal(drawn[1], drawn[2]) == (same == 1.0)


def test_sheet_of_batches_and_of_other_sizes():
    images = [torch.rand(2, 40, 60, 3), torch.rand(1, 80, 60, 4), torch.zeros(1, 20, 20, 3)]
    (sheet,) = StorySheet.execute(images, [""], [2], [4]).args
    assert sheet.shape == (1, 2 * 44 + 4, 2 * 64 + 4, 3) and sheet.min() >= 0 and sheet.max() <= 1
    (captioned,) = StorySheet.execute(images, ["one\ntwo words " + "long " * 60], [0], [4]).args
    assert captioned.shape[1] > 48
    ink = captioned[0, 44:]
    assert (ink[:, 4:64] < 0.5).any() and not (ink[:, -60:] < 0.5).any()  # the last has no caption


def fails(message, call, *arguments, **options):
    with pytest.raises(ValueError, match=message):
        call(*arguments, **options)


def test_what_story_prompts_refuses(demo):
    clip = demo[1]
    fails("'identity': it is empty", prompts, clip, identity="  ")
    fails("'frames': it is empty; write one line for each frame", prompts, clip, frames="\n")
    fails("'window' is 0", prompts, clip, window=0)
    fails("'mode' is 'x'; expected one of: svr, svr-eot, off", prompts, clip, mode="x")
    fails("'suppress_beta' is nan", prompts, clip, suppress_beta=float("nan"))
    fails("'express_alpha' is -2", prompts, clip, express_alpha=-2.0)
    fails(r"Story Prompts: 'in a \(forest' cannot be found", prompts, clip, frames="in a (forest\non a beach)")


def test_what_singular_value_reweight_refuses(demo):
    clip, plain = demo[1], prompts(demo[1], mode="off")[0][0]
    text = f"{IDENTITY} {' '.join(FRAMES.splitlines())}"

    def run(prompt=text, express="in a forest", suppress=""):
        return SingularValueReweight.execute(clip, plain, prompt, express, suppress, **CURVES)

    fails("'express' says 'in a city', which is not in the prompt", run, express="in a city")
    fails("'suppress' says 'in a fores'", run, suppress="in a fores")
    fails("conditioning has 77 tokens, but this prompt has 154", run, prompt="cat " * 90 + "in a forest")
    run(express="IN A FOREST", suppress="")


def test_what_identity_attention_refuses(demo):
    model, clip, _ = demo
    conditionings = prompts(clip)[0]
    fails(
        "identity 'a red ca' was not found in the prompt of conditioning 1",
        attend,
        model,
        clip,
        conditionings,
        "a red ca",
    )
    fails("'a red, cat' was not found", attend, model, clip, conditionings, "a red, cat")
    attend(model, clip, conditionings, "A Red CAT")
    fails("'identity': it is empty", attend, model, clip, conditionings, "")
    fails("the end must come later", attend, model, clip, conditionings, start=0.5, end=0.5)
    fails("'strength' is -1", attend, model, clip, conditionings, strength=-1.0)
    fails("'method' is 'x'", attend, model, clip, conditionings, method="x")
    plain = [[clip.encode_from_tokens(clip.tokenize("in a forest a red cat")), {}]]
    fails("not found at the beginning of its prompt in conditioning 1", attend, model, clip, [plain])
    cut = [[conditionings[0][0][0][:, :40], conditionings[0][0][1]]]
    fails("conditioning has 40 tokens, but this prompt has 77", attend, model, clip, [cut])


def test_families_and_methods(demo):
    from tiny_models import tiny_model

    clip, conditionings = demo[1], prompts(demo[1])[0]
    fails("text and picture share one attention", attend, tiny_model("sd3"), clip, conditionings, method="append")


def test_captions_that_are_too_many():
    image = torch.zeros(1, 32, 32, 3)
    fails("'captions' holds 3 texts for 2 images", StorySheet.execute, [image, image], ["a", "b", "c"], [0], [8])
    fails("expected \\[batch, height, width, 3\\]", StorySheet.execute, [image[0]], ["a"], [0], [8])
