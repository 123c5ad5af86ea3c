"""The bias on text tokens in every family: off is off, more is more, and it lives beside other patches."""

import functools
import math

import comfy.samplers
import pytest
import torch
from comfy.ldm.modules import attention
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches import regional, rows
from papernodes.patches.regional import KeyBias, add_key_bias, with_key_bias
from papernodes.patches.story import append_identity, bias_identity
from tiny_models import tiny_conditioning, tiny_model

# family -> latent [1, ...]; "demo" is an SD1.5 in miniature, with its shipped weights
LATENTS = {
    "demo": (4, 16, 16),
    "sd3": (16, 8, 8),
    "wan": (16, 3, 8, 8),
    "ltxv": (128, 3, 4, 4),
    "hunyuan_video": (16, 3, 8, 8),
}
CROSS = ("demo", "wan", "ltxv")
SEEDS = (0, 1, 2)
ROWS = [0, 1, 2, 5]


@functools.cache
def model_of(family):
    return load_model(FOLDER / "image_unet.safetensors") if family == "demo" else tiny_model(family)


def conditioning_of(family, seed=0, tokens=8):
    if family != "demo":
        return tiny_conditioning(family, seed, tokens)
    return [[torch.randn(1, tokens, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def sample(family, model, positive, *, seed=0, batch=1, cfg=3.0, steps=2, negative_tokens=8):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, conditioning_of(family, 100 + seed, negative_tokens))
    guider.set_cfg(cfg)
    shape = (batch, *LATENTS.get(family, (4, 8, 8)))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    return guider.sample(noise, torch.zeros(shape), comfy.samplers.sampler_object("euler"), sigmas, seed=seed)


def biased(family, strength=1.0, *, seed=0, rows=ROWS, dropout=0.0, start=0.0, end=1.0):
    return [bias_identity(entry, rows, strength, dropout, start, end) for entry in conditioning_of(family, seed)]


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", LATENTS)
def test_strengths(family, seed):
    model, plain = model_of(family), conditioning_of(family, seed)
    patched = add_key_bias(model)
    off = sample(family, model, plain, seed=seed)
    assert torch.equal(sample(family, patched, plain, seed=seed), off)
    assert torch.equal(sample(family, patched, biased(family, 0.0, seed=seed), seed=seed), off)
    assert apart(sample(family, patched, biased(family, 1e-6, seed=seed), seed=seed), off) < 1e-3
    on = sample(family, patched, biased(family, 1.0, seed=seed), seed=seed)
    strong = sample(family, patched, biased(family, 15.0, seed=seed), seed=seed)
    assert not torch.equal(on, off)
    assert not torch.equal(strong, on)
    if family != "demo":  # with random weights more is more; what a trained network draws may turn out otherwise
        assert apart(strong, off) > 1.5 * apart(on, off)
    assert torch.equal(sample(family, patched, biased(family, 1.0, seed=seed), seed=seed), on)  # twice in a row
    assert torch.equal(sample(family, model, plain, seed=seed), off)  # the input MODEL is as it was
    assert torch.equal(
        sample(family, model, biased(family, 1.0, seed=seed), seed=seed), off
    )  # the bias needs its MODEL


@pytest.mark.parametrize("family", LATENTS)
def test_the_clone_shares_nothing_that_changes(family):
    model = model_of(family)
    before = {kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)
    add_key_bias(add_key_bias(model))
    assert ({kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)) == before


@pytest.mark.parametrize("family", LATENTS)
def test_batches(family):
    patched = add_key_bias(model_of(family))
    result = sample(family, patched, biased(family), batch=2)
    noise = torch.randn((2, *LATENTS[family]), generator=torch.Generator().manual_seed(0))
    assert result.isfinite().all() and (result[0] - result[1]).abs().max() > 1e-3 * noise.abs().max()
    swapped = sample(family, patched, biased(family), batch=1)
    assert swapped.shape[1:] == result.shape[1:]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("family", LATENTS)
def test_conditions_batched_and_split_agree(family, dropout, monkeypatch):
    patched, positive = add_key_bias(model_of(family)), biased(family, 5.0, dropout=dropout)
    calls = []

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    patched.add_wrapper_with_key(rows.USE, "spy", spy)
    together = sample(family, patched, positive)
    batched = list(calls)
    calls.clear()
    monkeypatch.setattr(patched.model, "memory_required", lambda *_, **__: 1e30)
    apart_ = sample(family, patched, positive)
    assert calls == [1] * 4
    if dropout == 0:  # a negative without a dropout is of another kind
        assert batched == [2] * 2
    assert apart(apart_, together) < 2e-3


@pytest.mark.parametrize("family", LATENTS)
def test_the_negative_is_left_alone(family):
    """At cfg 0 only the negative counts, at cfg 1 only the positive is asked."""
    model, plain = model_of(family), conditioning_of(family)
    patched = add_key_bias(model)
    assert apart(sample(family, patched, biased(family, 9.0), cfg=0.0), sample(family, model, plain, cfg=0.0)) < 1e-4
    assert not torch.equal(sample(family, patched, biased(family, 9.0), cfg=1.0), sample(family, model, plain, cfg=1.0))


@pytest.mark.parametrize("strength", [1.0, 2.5])
@pytest.mark.parametrize("family", CROSS)
def test_bias_equals_append(family, strength):
    model, plain = model_of(family), conditioning_of(family)
    patched = add_key_bias(model)
    bias = sample(family, patched, biased(family, strength))
    appended = [one for entry in plain for one in append_identity(entry, ROWS, strength, 0.0, 0.0, 1.0)]
    assert appended[0][0].shape[1] == 8 + len(ROWS)
    with_append = sample(family, model if strength == 1 else patched, appended)
    off = sample(family, model, plain)
    # The tiny models' weights are halves; what is equal in float32 stays so.
    assert apart(with_append, bias) < max(1e-5, 0.02 * apart(bias, off))
    if strength != 1:
        assert not torch.equal(sample(family, model, appended), with_append)


@pytest.mark.parametrize("family", LATENTS)
def test_the_part_of_the_sampling(family):
    patched, model = add_key_bias(model_of(family)), model_of(family)
    off, whole = (
        sample(family, model, conditioning_of(family), steps=4),
        sample(family, patched, biased(family), steps=4),
    )
    late, early = (
        sample(family, patched, biased(family, start=start, end=end), steps=4) for start, end in ((0.5, 1), (0, 0.5))
    )
    assert not any(torch.equal(one, other) for one in (late, early) for other in (off, whole))
    never = sample(family, patched, biased(family, start=0.999999, end=1.0), steps=1)
    assert torch.equal(never, sample(family, model, conditioning_of(family), steps=1))


@pytest.mark.parametrize("family", CROSS)
def test_append_in_a_part_of_the_sampling(family):
    model = model_of(family)
    parts = append_identity(conditioning_of(family)[0], ROWS, 1.0, 0.0, 0.3, 0.7)
    assert [(part[1]["start_percent"], part[1]["end_percent"]) for part in parts] == [
        (0.3, 0.7),
        (0.0, 0.3),
        (0.7, 1.0),
    ]
    result = sample(family, model, parts, steps=4)
    same = sample(family, add_key_bias(model), biased(family, start=0.3, end=0.7), steps=4)
    assert apart(result, same) < 1e-4


@pytest.mark.parametrize("family", LATENTS)
def test_biases_stack(family):
    patched = add_key_bias(add_key_bias(model_of(family)))
    twice = [
        bias_identity(bias_identity(entry, [1], 1.0, 0, 0, 1), [1], 1.0, 0, 0, 1) for entry in conditioning_of(family)
    ]
    once = biased(family, 3.0, rows=[1])  # ln 2 + ln 2 = ln 4
    assert apart(sample(family, patched, twice), sample(family, patched, once)) < 1e-5


@pytest.mark.parametrize("family", LATENTS)
def test_dropout(family):
    patched = add_key_bias(model_of(family))
    off, whole = sample(family, patched, conditioning_of(family)), sample(family, patched, biased(family, 9.0))
    half = sample(family, patched, biased(family, 9.0, dropout=0.5))
    assert torch.equal(half, sample(family, patched, biased(family, 9.0, dropout=0.5)))
    assert apart(half, whole) > 1e-6 and apart(half, off) > 1e-6
    assert apart(sample(family, patched, biased(family, 9.0, dropout=1.0)), off) < 1e-4


@pytest.mark.parametrize("family", ["demo"])
def test_beside_another_replacement_of_the_same_attention(family):
    """As IP-Adapter does: it replaces the attention, computes the plain one and adds to it."""
    seen = []

    def other(q, k, v, options):
        seen.append(k.shape[1])
        return attention.optimized_attention(q, k, v, options["n_heads"]) + 0.1

    def patch(model):
        model = model.clone()
        for block in (("input", 1), ("output", 0), ("output", 5), ("input", 4, 0)):
            model.set_model_attn2_replace(other, *block)
        return model

    model = model_of(family)
    results = [
        sample(family, patched, biased(family, 9.0))
        for patched in (patch(add_key_bias(model)), add_key_bias(patch(model)))
    ]
    assert seen and torch.equal(*results)
    ours, theirs = (
        sample(family, add_key_bias(model), biased(family, 9.0)),
        sample(family, patch(model), conditioning_of(family)),
    )
    assert apart(results[0], ours) > 1e-3 and apart(results[0], theirs) > 1e-6


@pytest.mark.parametrize("family", ["sd3", "wan", "ltxv", "hunyuan_video"])
def test_beside_other_patches_of_a_transformer(family):
    model, seen = model_of(family).clone(), []

    def block(args, extra):
        seen.append("block")
        out = extra["original_block"](args)
        return {**out, "img": out["img"] * 1.01}

    def override(function, *arguments, **rest):
        seen.append("attention")
        return function(*arguments, **rest)

    model.set_model_patch_replace(block, "dit", "double_block", 0)
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    theirs = sample(family, model, conditioning_of(family))
    count = len(seen)
    both = sample(family, add_key_bias(model), biased(family, 9.0))
    assert seen.count("block") and seen.count("attention") and len(seen) >= 2 * count
    assert not torch.equal(both, theirs)
    ours = sample(family, add_key_bias(model_of(family)), biased(family, 9.0))
    assert not torch.equal(both, ours)


def test_a_negative_of_another_length_shares_the_batch():
    """The host repeats the shorter text; the bias is repeated with it."""
    model = model_of("demo")
    patched = add_key_bias(model)
    short = sample("demo", patched, biased("demo", 4.0), negative_tokens=16)
    positive = biased("demo", 4.0)
    alone = sample("demo", patched, positive, negative_tokens=8, cfg=1.0)
    assert short.isfinite().all() and alone.isfinite().all()
    long = sample("demo", patched, [[entry[0].repeat(1, 2, 1), {}] for entry in positive], negative_tokens=16, cfg=1.0)
    plain = sample("demo", model, conditioning_of("demo"), negative_tokens=16, cfg=1.0)
    assert apart(long, plain) < 1e-5  # repeating a text changes nothing; a bias does not survive on another dict


def test_closed_form():
    """softmax(logits + ln(1 + s)) is attention with keys that count 1 + s times."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, 16, generator=generator) for n in (5, 6, 6))
    rows = torch.zeros(1, 1, 6)
    rows[0, 0, [1, 4]] = math.log(1 + 2.0)  # each of them three times
    result = regional._CrossAttention(regional._Bias(rows), None)(q, k, v, {"n_heads": 2})
    again = [0, 1, 2, 3, 4, 5, 1, 1, 4, 4]
    expected = attention.optimized_attention(q, k[:, again], v[:, again], 2)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_another_family_is_refused():
    class Other:
        def get_model_object(self, name):
            return torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match=r"this model \(Linear\).*Known are UNets"):
        add_key_bias(Other())


def test_a_conditioning_that_was_cut():
    entry = conditioning_of("demo")[0]
    longer = with_key_bias(entry, KeyBias(torch.ones(12), torch.ones(12)))
    with pytest.raises(ValueError, match="12 tokens when its identity was marked, but 8 reach"):
        sample("demo", add_key_bias(model_of("demo")), [longer])


def test_sdxl():
    """Its block ids and several transformers in a block; the laws above in one."""
    model, plain = tiny_model("sdxl"), tiny_conditioning("sdxl")
    patched = add_key_bias(model)
    off, on = sample("sdxl", model, plain), sample("sdxl", patched, biased("sdxl"))
    assert torch.equal(sample("sdxl", patched, biased("sdxl", 0.0)), off) and not torch.equal(on, off)
    appended = sample("sdxl", model, append_identity(plain[0], ROWS, 1.0, 0.0, 0.0, 1.0))
    assert apart(appended, on) < max(1e-5, 0.02 * apart(on, off))
