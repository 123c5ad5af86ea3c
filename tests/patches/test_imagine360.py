"""Imagine360 as a MODEL under the host's own guider and samplers."""

import comfy.conds
import comfy.samplers
import panorama_models as small
import pytest
import torch
from papernodes.networks.imagine360 import kept_channels
from papernodes.networks.imagine360_layout import Training
from papernodes.patches import imagine360
from papernodes.patches.imagine360 import Draws, Imagine360ModelError

DRAWS = Draws(7)


@pytest.fixture(scope="module")
def model():
    return small.model()


def conditionings(seed: int = 0, draws=DRAWS):
    return small.conditioning(seed, draws=draws), small.conditioning(seed, text_seed=1, draws=draws)


def gap(found, wanted) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_laws(model, seed, monkeypatch):
    positive, negative = conditionings(seed, Draws(seed))
    wanted = small.sample(model, positive, negative, seed)
    assert [list(part.shape) for part in wanted] == [[1, 4, 2, 16, 32], [1, 4, 6, 8, 8]]
    assert all(bool(part.isfinite().all()) for part in wanted)
    # A second patch, of another kind, sees the blocks of both branches; the MODEL that came in is as it was.
    seen = set()

    def damp(n, options):
        seen.add((options["papernodes_branch"], options["block"][0]))
        return 0.5 * n

    patched = model.clone()
    patched.set_model_attn1_output_patch(damp)
    assert gap(small.sample(patched, positive, negative, seed), wanted) > 1e-3
    assert seen == {(branch, side) for branch in ("panorama", "views") for side in ("input", "middle", "output")}
    # Rows in calls of their own, where memory is short: the same draws, the same result. And so in a second run.
    monkeypatch.setattr(type(model.model), "memory_required", lambda *_, **__: 1e15)
    assert gap(small.sample(model, positive, negative, seed), wanted) < 1e-4


def test_two_runs_and_two_panoramas(model):
    positive, negative = conditionings()
    wanted = small.sample(model, positive, negative, steps=1)
    assert gap(small.sample(model, positive, negative, steps=1), wanted) == 0
    two = small.sample(model, positive, negative, rows=2, steps=1)
    assert [part.shape[0] for part in two] == [2, 2]
    assert gap(small.sample(model, *conditionings(draws=Draws(8)), steps=1), wanted) > 1e-4
    still = small.sample(model, *conditionings(draws=Draws(7, 0.0, 0.0)), steps=1)
    assert gap(small.sample(model, *conditionings(draws=None), steps=1), still) == 0


def test_panoramas_of_a_batch_do_not_know_each_other(model):
    generator = torch.Generator().manual_seed(0)
    shapes = [part.shape for part in small.packed().unbind()]
    x = torch.cat([torch.randn(2, 1, shape.numel(), generator=generator) for shape in shapes], 2)
    held = {name: one.cond for name, one in conditionings()[0][0][1]["model_conds"].items()}
    text = torch.randn(1, 7, small.CONTEXT, generator=generator)

    def call(rows: slice):
        count = len(x[rows])
        told = {
            name: value.expand(count, *value.shape[1:]) if torch.is_tensor(value) else value
            for name, value in held.items()
        }
        return model.model.apply_model(
            x[rows], torch.full((count,), 3.0), c_crossattn=text.expand(count, -1, -1), latent_shapes=shapes, **told
        )

    both = call(slice(None))
    assert gap([torch.cat([call(slice(0, 1)), call(slice(1, 2))])], [both]) < 2e-5


def test_samplers_schedules_and_steps(model):
    sampling = small.model(training=Training()).get_model_object("model_sampling")
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    share = (1 - betas).cumprod(0).sqrt()
    share = (share - share[-1]) * share[0] / (share[0] - share[-1])  # zero terminal signal
    wanted = ((1 - share**2) / share**2).sqrt()[:-1]
    assert torch.allclose(sampling.sigmas[:-1].double(), wanted, rtol=1e-3)
    assert sampling.sigmas[-1] > 4000
    # v prediction: at a sigma s the denoised is x / (1 + s^2) - v s / sqrt(1 + s^2).
    x, v, sigma = torch.ones(1, 1, 3), torch.full((1, 1, 3), 0.5), torch.tensor([2.0])
    assert torch.allclose(sampling.calculate_denoised(sigma, v, x), x / 5 - v * 2 / 5**0.5)
    # In one part or in two, a step draws the same.
    positive, negative = conditionings()
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    latent, euler = small.packed(), comfy.samplers.sampler_object("euler")
    noise = small.packed() + 1.0
    nothing = small.packed()
    whole = guider.sample(noise, latent, euler, sigmas, disable_pbar=True).unbind()
    first = guider.sample(noise, latent, euler, sigmas[:2], disable_pbar=True)
    second = guider.sample(nothing, first, euler, sigmas[1:], disable_pbar=True).unbind()
    assert gap(second, whole) < 1e-4


def test_draws(model):
    network = model.model.diffusion_model
    one, same, later = DRAWS.at(500, network), DRAWS.at(500, network), DRAWS.at(501, network)
    assert one.antipodal == same.antipodal and torch.equal(one.token_noise[0], same.token_noise[0])
    assert not torch.equal(one.token_noise[0], later.token_noise[0])
    assert not torch.equal(one.token_noise[0], one.token_noise[1])
    assert torch.equal(Draws(7, 1.0).at(500, network).token_noise[0], one.token_noise[0])
    assert Draws(7, 1.0).at(500, network).antipodal == (True,) * 7
    assert Draws(7, 0.0).at(500, network).antipodal == (False,) * 7
    assert Draws(7, token_noise=0.0).at(500, network).token_noise is None
    drawn = [DRAWS.at(step, network) for step in range(300)]
    assert abs(sum(sum(each.antipodal) for each in drawn) / 2100 - 0.4) < 0.04
    assert abs(float(torch.stack([each.token_noise[1] for each in drawn]).std()) - 0.1) < 0.002
    assert len({Draws(2**64 - 1).at(3, network).antipodal for _ in range(2)}) == 1


def test_memory_is_bounded_by_parts(model):
    base = model.model
    shape = [1, 1, 4 * (2 * 16 * 32 + 6 * 64)]
    one, two = base.memory_required(shape), base.memory_required([2, *shape[1:]], cond_shapes={})
    assert 0 < one < two <= 2 * one
    # At the published size the largest level's three skips, and twice the upsampler's result beside what it came from.
    kept = kept_channels({"model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2]})
    assert kept == 3 * 320 + 2 * 640 + 640 / 4
    # A part is bounded: twice the frames need less than twice the memory, as soon as layers are taken in parts.
    held, network = base.diffusion_model.limit, base.diffusion_model
    network.limit = 1000
    assert base.memory_required(shape) < one
    network.limit = held


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ("latent", "Connect the latent of Imagine360 Conditioning"),
        ("plain", "says nothing of the panorama"),
        ("text", "text that is 5 wide; expected 24"),
        ("area", "know no packed latents"),
        ("sizes", "of the same Imagine360 Conditioning"),
        ("cameras", "made for other sizes"),
        ("features", "features of 3 channels"),
        ("odd", "multiples of 8, which is 64 pixels"),
        ("frames", "the network knows 8"),
        ("mask", "noise mask"),
    ),
)
def test_what_cannot_be_sampled_is_said_before(model, change, message, monkeypatch):
    positive, negative = conditionings()
    latent, mask = small.packed(), None
    held, options = negative[0][1]["model_conds"], negative[0][1]

    def resized(**sizes):
        """Of both parts and of both conditionings."""
        for one in (positive, negative):
            for name in (imagine360.PANORAMA, imagine360.VIEWS):
                conds = one[0][1]["model_conds"]
                shape = [1, 5, *change_of(conds[name].cond.shape[2:], name, **sizes)]
                conds[name] = comfy.conds.CONDRegular(torch.zeros(shape))
        latent.tensors = [
            torch.zeros(1, 4, *held[name].cond.shape[2:]) for name in (imagine360.PANORAMA, imagine360.VIEWS)
        ]

    def change_of(shape, name, frames=None, width=None):
        count = len(small.CAMERAS) if name == imagine360.VIEWS else 1
        wide = width if width and name == imagine360.PANORAMA else shape[2]
        return [frames * count if frames else shape[0], shape[1], wide]

    if change == "latent":
        latent.tensors = latent.tensors[:1] * 3
    elif change == "plain":
        options["model_conds"] = {}
    elif change == "text":
        negative[0][0] = torch.zeros(1, 7, 5)
    elif change == "area":
        options["area"] = (8, 8, 0, 0)
    elif change == "sizes":
        held[imagine360.PANORAMA] = comfy.conds.CONDRegular(torch.zeros(1, 5, 2, 8, 16))
    elif change == "cameras":
        held[imagine360.CAMERAS] = comfy.conds.CONDConstant(small.CAMERAS[:2])
    elif change == "features":
        held[imagine360.ANCHOR_FEATURES] = comfy.conds.CONDRegular(torch.zeros(1, 2, 3, 8, 8))
    elif change == "odd":
        resized(width=30)
    elif change == "frames":
        resized(frames=9)
    else:
        mask = torch.ones(1, 1, 8, 8)
    monkeypatch.setattr(type(model.model.diffusion_model), "forward", lambda *_, **__: pytest.fail("was called"))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    euler = comfy.samplers.sampler_object("euler")
    with pytest.raises(Imagine360ModelError, match=message):
        guider.sample(latent + 0.0, latent, euler, torch.tensor([5.0, 0.0]), denoise_mask=mask, disable_pbar=True)
