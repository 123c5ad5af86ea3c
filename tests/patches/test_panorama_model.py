"""Models that go round: laws on every way and family, closed forms, and what cannot be is said before sampling."""

import functools
import itertools

import comfy.samplers
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches import panorama_rotary, rows
from papernodes.patches.panorama_model import (
    AUTOMATIC,
    PADDING,
    ROLLING,
    ROTARY,
    Panorama,
    _shift,
    is_panorama,
    method_for,
    with_panorama,
)
from papernodes.patches.panorama_padding import OVER, beyond_poles, continued, wrapped
from papernodes.patches.panorama_rotary import EMBEDDERS, is_rotary
from papernodes.patches.regional import FAMILIES
from papernodes.patches.story import bias_identity
from tiny_models import tiny_conditioning, tiny_model

LATENTS = {
    "demo": (4, 8, 16),
    "sdxl": (4, 8, 16),
    "sd3": (16, 8, 16),
    "wan": (16, 2, 4, 16),
    "ltxv": (128, 2, 2, 8),
    "hunyuan_video": (16, 2, 4, 16),
}
WAYS = [("demo", PADDING), ("sdxl", PADDING), ("sd3", ROLLING), ("wan", ROTARY), ("ltxv", ROLLING)]
WAYS += [("hunyuan_video", ROTARY), ("wan", ROLLING)]
SEEDS = (0, 1, 2)


@functools.cache
def model_of(family):
    return load_model(FOLDER / "image_unet.safetensors") if family == "demo" else tiny_model(family)


def conditioning_of(family, seed=0):
    if family != "demo":
        return tiny_conditioning(family, seed)
    return [[torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def sample(family, model, *, seed=0, batch=1, steps=2, noise=None, positive=None):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(
        conditioning_of(family, seed) if positive is None else positive, conditioning_of(family, 50 + seed)
    )
    guider.set_cfg(2.0)
    if noise is None:
        noise = torch.randn(batch, *LATENTS[family], generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("family", "method"), WAYS)
def test_laws(family, method):
    model = model_of(family)
    before = {kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)
    draw = functools.partial(sample, family, steps=1 if method == PADDING else 2)
    for seed in SEEDS if family != "sdxl" else SEEDS[:1]:
        off = draw(model, seed=seed)
        assert torch.equal(draw(with_panorama(model, Panorama(method, strength=0)), seed=seed), off)
        found = draw(with_panorama(model, Panorama(method)), seed=seed)
        assert found.isfinite().all() and not torch.equal(found, off)
        nearly = draw(with_panorama(model, Panorama(method, strength=1e-6)), seed=seed)
        assert apart(nearly, off) < 1e-4 and apart(nearly, off) < 0.1 * apart(found, off)
        assert torch.equal(draw(with_panorama(model, Panorama(method)), seed=seed), found)
        assert torch.equal(draw(model, seed=seed), off)  # the input MODEL is as it was
    assert ({kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)) == before


@pytest.mark.parametrize(("family", "method"), [("demo", PADDING), ("wan", ROTARY), ("sd3", ROLLING)])
def test_batched_split_in_part_and_with_another_patch(family, method, monkeypatch):
    model, patched = model_of(family), with_panorama(model_of(family), Panorama(method))
    calls = []

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    patched.add_wrapper_with_key(rows.USE, "spy", spy)
    together = sample(family, patched, batch=2)
    assert calls == [4] * 2
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(patched.model, "memory_required", lambda *_, **__: 1e30)
        assert apart(sample(family, patched, batch=2), together) < 2e-3
    assert calls == [2] * 4
    # The first of rolling's steps is turned by nothing, so that is where it makes no difference whether it is left out.
    part = Panorama(method, start=0.5) if method != ROLLING else Panorama(method, end=0.6)
    part = sample(family, with_panorama(model, part), steps=3)
    assert not torch.equal(part, sample(family, model, steps=3)) and not torch.equal(
        part, sample(family, patched, steps=3)
    )
    assert torch.equal(
        sample(family, with_panorama(model, Panorama(method, start=1.0)), steps=1), sample(family, model, steps=1)
    )
    # A patch of another kind in one conditioning, whichever comes first.
    from papernodes.patches.regional import add_key_bias

    marked = [bias_identity(entry, [0, 1], 4.0, 0.0, 0.0, 1.0) for entry in conditioning_of(family)]
    either = sample(family, add_key_bias(patched), positive=marked)
    assert not torch.equal(either, sample(family, patched, positive=marked))
    assert apart(either, sample(family, with_panorama(add_key_bias(model), Panorama(method)), positive=marked)) < 1e-5


def test_a_turned_latent_gives_a_turned_picture():
    """Within rounding, where nothing but the edges knew the place: by a UNet's coarsest column, by a group of Wan's."""
    for family, method, turn in (("demo", PADDING, 8), ("wan", ROTARY, 2)):
        model, noise = model_of(family), torch.randn(1, *LATENTS[family], generator=torch.Generator().manual_seed(4))
        patched = with_panorama(model, Panorama(method))
        found = sample(family, patched, noise=noise)
        off = apart(sample(family, patched, noise=noise.roll(turn, -1)), found.roll(turn, -1))
        plain = sample(family, model, noise=noise)
        assert off < 2e-5 < 1e-4 < apart(sample(family, model, noise=noise.roll(turn, -1)), plain.roll(turn, -1))


@pytest.mark.parametrize("kernel", ((3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 3, 2)))
def test_every_convolution_is_that_of_the_endless_picture(kernel):
    size, stride, padding = kernel
    x = torch.randn(2, 3, 12, 24)
    layer = torch.nn.Conv2d(3, 4, size, stride, padding)
    endless = layer(torch.cat([x] * 3, -1))  # the middle of three
    with torch.no_grad(), wrapped(layer):
        found = layer(x)
    width = layer(x).shape[-1]
    assert found.shape == layer(x).shape
    if 24 % stride == 0:
        assert torch.allclose(found, endless[..., 24 // stride :][..., :width], atol=1e-5)
    # Over the pole: the sphere's own continuation, so that a turn by half and a mirror picture change nothing.
    with torch.no_grad(), wrapped(layer, poles=OVER):
        over = layer(x)
    by_hand = beyond_poles(x, 12)
    by_hand = torch.nn.functional.conv2d(continued(by_hand, 24), layer.weight, layer.bias, stride, padding)
    rows, columns = over.shape[-2:]
    assert torch.allclose(over, by_hand[..., 12 // stride :, 24 // stride :][..., :rows, :columns], atol=1e-5)
    assert not layer._forward_hooks and not layer._forward_pre_hooks


def test_other_layers_and_sizes():
    frames = torch.nn.Conv3d(2, 2, (3, 1, 1), padding=(1, 0, 0))
    point, x = torch.nn.Conv2d(2, 2, 1), torch.randn(1, 2, 3, 3)
    with torch.no_grad(), wrapped(torch.nn.ModuleList([frames, point])):
        assert not frames._forward_hooks and not point._forward_hooks
    assert torch.equal(continued(x, 5)[0, 0, 0], x[0, 0, 0][torch.arange(-5, 8) % 3])
    space = torch.nn.Conv3d(2, 2, 3, padding=1)
    with torch.no_grad(), wrapped(space):
        assert space(torch.randn(1, 2, 2, 4, 5)).shape == (1, 2, 2, 4, 5)
    with pytest.raises(RuntimeError), wrapped(space):
        space(torch.randn(1))
    assert not space._forward_hooks and not space._forward_pre_hooks


@pytest.mark.parametrize("skip", (False, True))
def test_rotary_keys_are_met_where_they_are_nearest(skip):
    """Against attention whose every logit is turned by the shorter way from the group's middle, by brute force."""
    network = model_of("wan").model.diffusion_model
    heads, size, tokens = 2, network.rope_embedder.axes_dim[-1], 16
    length = 2 * tokens  # two rows of tokens
    dim = sum(network.rope_embedder.axes_dim)
    ids = torch.zeros(1, length, 3)
    ids[0, :, 2] = torch.arange(length) % tokens
    q, k, v = torch.randn(3, 1, heads, length, dim, dtype=torch.float64).unbind(0)
    omega = network.rope_embedder.theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)

    def turn(x, columns):
        angle = columns[:, None] * omega
        a, b = x[..., dim - size :].unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1).flatten(-2)
        return torch.cat((x[..., : dim - size], turned), -1)

    columns = ids[0, :, 2].double()
    group = columns // (tokens / panorama_rotary.GROUPS)
    expected = torch.empty(1, heads, length, dim, dtype=torch.float64)
    for number in range(panorama_rotary.GROUPS):
        middle = float(number * 2 + 0.5)
        moved = columns + tokens * (
            (columns - middle < -tokens / 2).double() - (columns - middle >= tokens / 2).double()
        )
        rows_ = group == number
        expected[:, :, rows_] = torch.nn.functional.scaled_dot_product_attention(
            turn(q, columns)[:, :, rows_], turn(k, moved), v
        )
    given = [turn(q, columns), turn(k, columns), v]
    if not skip:
        given = [x.transpose(1, 2).flatten(2) for x in given]
    with panorama_rotary.periodic(network, {}, tokens, length, 0) as options:
        network.rope_embedder(ids)
        function = options["optimized_attention_override"]
        found = function(attention_pytorch, *given, heads=heads, skip_reshape=skip, skip_output_reshape=skip)
    found = found if skip else found.unflatten(-1, (heads, -1)).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not network.rope_embedder._forward_hooks


def test_rolling_turns_evenly_and_by_the_noise_level_alone():
    sigmas = torch.linspace(10, 0, 21)
    shifts = [_shift(64, 2, {"sample_sigmas": sigmas}, sigma[None], 1.0) for sigma in sigmas[:-1]]
    assert shifts[0] == 0 and all(shift % 2 == 0 for shift in shifts)
    turned = sorted({*shifts, 64})
    assert len(turned) == 21 and max(b - a for a, b in itertools.pairwise(turned)) <= 8
    between = _shift(64, 2, {"sample_sigmas": sigmas}, torch.tensor([9.75]), 1.0)
    assert 0 <= between < 64 and _shift(64, 2, {"sample_sigmas": sigmas}, sigmas[3:4], 0.0) == 0


def test_areas_are_left_alone():
    """A condition for a part of the picture does not go round; the whole one beside it does."""
    part = [[conditioning_of("demo")[0][0], {"area": (8, 8, 0, 4), "strength": 1.0}]]
    model = model_of("demo")
    patched, widths = with_panorama(model, Panorama()), []
    convolution = model.model.diffusion_model.input_blocks[0][0]
    hook = convolution.register_forward_hook(
        lambda module, given, _: widths.append((given[0].shape[-1], len(module._forward_hooks)))
    )
    try:
        sample("demo", patched, positive=part, steps=1)
    finally:
        hook.remove()
    assert sorted(widths) == [(8, 1), (18, 2)]


def test_ways_and_errors():
    assert set(EMBEDDERS) <= set(FAMILIES)
    networks = {family: model_of(family).model.diffusion_model for family in LATENTS}
    assert [method_for(networks[family]) for family in LATENTS] == [*[PADDING] * 2, ROLLING, ROTARY, ROLLING, ROTARY]
    assert [family for family in LATENTS if is_rotary(networks[family])] == ["wan", "hunyuan_video"]
    with pytest.raises(ValueError, match=r"'model' \(OpenAISignatureMMDITWrapper\) has no rotary positions"):
        with_panorama(model_of("sd3"), Panorama(ROTARY))
    with pytest.raises(ValueError, match=r"'model' \(WanModel\) is no UNet"):
        with_panorama(model_of("wan"), Panorama(PADDING))
    for wrong in ({"method": "round"}, {"poles": "flat"}, {"strength": 2.0}, {"start": -1.0}):
        with pytest.raises(ValueError, match="expected"):
            Panorama(**wrong)
    patched = with_panorama(with_panorama(model_of("sd3"), Panorama(AUTOMATIC)), Panorama(ROLLING))
    assert is_panorama(patched) and not is_panorama(model_of("sd3"))
    masked = [[tiny_conditioning("sd3")[0][0], {**tiny_conditioning("sd3")[0][1], "mask": torch.ones(1, 8, 16)}]]
    with pytest.raises(ValueError, match="has 'mask', which belongs to places"):
        sample("sd3", patched, positive=masked)
    with pytest.raises(ValueError, match="expected a picture's or a video's"):
        sample("demo", with_panorama(model_of("demo"), Panorama()), noise=torch.randn(1, 4, 8))
