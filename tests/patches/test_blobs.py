"""Blobs in the attention of every family: each region sees what its rule says, off is off, others live beside them."""

import functools
import math

import comfy.samplers
import pytest
import torch
from comfy.ldm.modules import attention
from papernodes.kernels.blob_layout import Blob, BlobKey, BlobLayout, CaptionKey, Ellipse
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches import blob_attention, region_attention, rows
from papernodes.patches.blob_attention import BlobAttention, layout_frame
from papernodes.patches.blobs import KEY, BlobSettings, add_blobs, anchored, blob_text, options_with_blobs, with_blobs
from papernodes.patches.regional import FAMILIES, UNET, family_of, unet_attention_order
from papernodes.patches.story import bias_identity
from tiny_models import tiny_conditioning, tiny_model

LATENTS = {
    "demo": (4, 16, 16),
    "sd3": (16, 8, 12),
    "wan": (16, 3, 8, 12),
    "ltxv": (128, 3, 4, 4),
    "hunyuan_video": (16, 3, 8, 8),
}
SEEDS = (0, 1, 2)
SETTINGS = {
    "masked": BlobSettings(),
    "half": BlobSettings(strength=0.5),
    "apart": BlobSettings(self_attention=True, first_blocks=0, self_end=1.0),
    "3dis": BlobSettings("3dis", first_blocks=0, self_end=0.6),
}


@functools.cache
def model_of(family):
    return load_model(FOLDER / "image_unet.safetensors") if family == "demo" else tiny_model(family)


def conditioning_of(family, seed=0, tokens=8):
    if family != "demo":
        return tiny_conditioning(family, seed, tokens)
    return [[torch.randn(1, tokens, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def layout_of(frames=1):
    """Two that overlap, one thin one, one outside; the first one moves."""
    keys = () if frames == 1 else (BlobKey(0, Ellipse(0.2, 0.4)), BlobKey(frames - 1, Ellipse(0.8, 0.4, 0.3)))
    blobs = (
        Blob("1", "one", Ellipse(0.35, 0.4, 0.3, 0.2, 30), keys=keys),
        Blob("2", "two", Ellipse(0.6, 0.5, 0.25, 0.25)),
        Blob("3", "three", Ellipse(0.9, 0.9, 0.4, 0.01, 90)),
        Blob("4", "four", Ellipse(3.0, 0.5)),
    )
    return BlobLayout(blobs, 96, 64, frames)


def captions_of(width, seed=0, count=4):
    generator = torch.Generator().manual_seed(1000 + seed)
    return [((0, torch.randn(3, width, generator=generator)),) for _ in range(count)]


def with_layout(family, settings, *, seed=0, frames=1, tokens=8, start=0.0, end=1.0):
    made = []
    for entry in conditioning_of(family, seed, tokens):
        captions = captions_of(entry[0].shape[2], seed)
        made += with_blobs(entry, captions, layout_of(frames), settings, start, end, family=family_of(model_of(family)))
    return made


def sample(family, model, positive, *, seed=0, batch=1, cfg=3.0, steps=2):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, conditioning_of(family, 100 + seed))
    guider.set_cfg(cfg)
    shape = (batch, *LATENTS[family])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    return guider.sample(noise, torch.zeros(shape), comfy.samplers.sampler_object("euler"), sigmas, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", LATENTS)
def test_laws(family, seed):
    model, plain = model_of(family), conditioning_of(family, seed)
    patched = add_blobs(model)
    off = sample(family, model, plain, seed=seed)
    assert torch.equal(sample(family, patched, plain, seed=seed), off)
    found = {
        name: sample(family, patched, with_layout(family, how, seed=seed), seed=seed) for name, how in SETTINGS.items()
    }
    for name, one in found.items():
        assert one.isfinite().all(), name
        assert not torch.equal(one, off), name
    assert not torch.equal(found["masked"], found["half"]) and not torch.equal(found["masked"], found["apart"])
    assert not torch.equal(found["masked"], found["3dis"])
    nearly = sample(family, patched, with_layout(family, BlobSettings(strength=1e-6), seed=seed), seed=seed)
    assert apart(nearly, off) < 1e-2  # random words: some are e^8 times as loud as the prompt's
    assert apart(nearly, off) < 0.1 * apart(found["half"], off)
    assert torch.equal(
        sample(family, patched, with_layout(family, SETTINGS["apart"], seed=seed), seed=seed), found["apart"]
    )
    assert torch.equal(sample(family, model, plain, seed=seed), off)  # the input MODEL is as it was


@pytest.mark.parametrize("family", LATENTS)
def test_the_clone_shares_nothing_that_changes(family):
    model = model_of(family)
    before = {kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)
    patched = add_blobs(add_blobs(model))
    sample(family, patched, with_layout(family, SETTINGS["apart"]))
    assert ({kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)) == before


@pytest.mark.parametrize("family", LATENTS)
def test_conditions_batched_and_split_agree(family, monkeypatch):
    """Also: the negative is left alone, and a UNet's prompt with blobs is still batched with it."""
    model, patched = model_of(family), add_blobs(model_of(family))
    positive, calls = with_layout(family, SETTINGS["apart"]), []
    assert positive[0][0].shape[1] == 24  # 8 + 4 x 3 rows, a multiple of 8

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    patched.add_wrapper_with_key(rows.USE, "spy", spy)
    together = sample(family, patched, positive, batch=2)
    assert together.isfinite().all()
    assert calls == ([4] * 2 if family_of(model) == UNET else [2] * 4)
    calls.clear()
    monkeypatch.setattr(patched.model, "memory_required", lambda *_, **__: 1e30)
    apart_ = sample(family, patched, positive, batch=2)
    assert calls == [2] * 4
    assert apart(apart_, together) < 2e-3
    plain = sample(family, model, conditioning_of(family), cfg=0.0)
    assert apart(sample(family, patched, positive, cfg=0.0), plain) < 1e-4


@pytest.mark.parametrize("family", ("demo", "wan", "sd3"))
def test_part_of_the_sampling_and_another_patch(family):
    model, plain = model_of(family), conditioning_of(family)
    patched = add_blobs(model)
    late = with_layout(family, BlobSettings(), start=0.9, end=1.0)
    assert [(one[1].get("start_percent"), one[1].get("end_percent"), KEY in one[1]) for one in late] == [
        (0.9, 1.0, True),
        (0.0, 0.9, False),
    ]
    first = with_layout(family, BlobSettings(), end=0.5)
    both = sample(family, patched, first, steps=2)
    assert not torch.equal(both, sample(family, patched, plain, steps=2))
    assert not torch.equal(both, sample(family, patched, with_layout(family, BlobSettings()), steps=2))
    # An identity and blobs in one conditioning.
    from papernodes.patches.regional import add_key_bias

    marked = [bias_identity(entry, [0, 1], 4.0, 0.0, 0.0, 1.0) for entry in with_layout(family, BlobSettings())]
    either = sample(family, add_key_bias(patched), marked)
    other = sample(family, add_blobs(add_key_bias(model)), marked)
    assert either.isfinite().all() and not torch.equal(either, sample(family, patched, marked))
    assert apart(either, other) < 0.05  # both are in force, whichever node comes first


def attention_of(family, settings, *, frames=1, early=True, shape=None):
    network = model_of(family).get_model_object("diffusion_model")
    shape = (1, *LATENTS[family]) if shape is None else shape
    states, text = blob_text(torch.randn(8, 16), captions_of(16), layout_of(frames), settings)
    places = list(range(shape[2])) if len(shape) == 5 else [0]
    return BlobAttention([text], [early], network, shape, places, len(places), text.length, {}), text, states


def inside(text, frame, height, width, aspect):
    """bool [K, height * width] by the formula, at 8 x 8 points a token."""
    found = []
    for number in range(text.ellipses.shape[1]):
        x, y, a, b, angle = text.ellipses[frame, number].tolist()
        share = torch.zeros(height, width)
        for row in range(height * 8):
            for column in range(width * 8):
                dx = ((column + 0.5) / (width * 8) - x) * aspect
                dy = (row + 0.5) / (height * 8) - y
                u = (dx * math.cos(angle) + dy * math.sin(angle)) / a
                v = (dy * math.cos(angle) - dx * math.sin(angle)) / b
                share[row // 8, column // 8] += float(u * u + v * v <= 1) / 64
        covered = share > 0.5 if bool((share > 0.5).any()) else (share == share.max()) & (share > 0)
        found.append(covered.flatten())
    return torch.stack(found)


def test_a_region_sees_its_captions_and_nothing_else():
    """Attention to text equals dense attention to the tokens that a place may see, 1e-5; half the strength by hand."""
    for how, early in ((BlobSettings(), True), (BlobSettings(strength=0.5), True), (SETTINGS["3dis"], False)):
        found, text, _ = attention_of("demo", how, early=early, shape=(1, 4, 16, 24))
        q, k, v = torch.randn(1, 2, 96, 8), torch.randn(1, 2, text.length, 8), torch.randn(1, 2, text.length, 8)
        mask = found.mask(q, 96, text.length, {})
        result = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        member = inside(text, 0, 8, 12, 1.5)
        assert [bool(row.any()) for row in member] == [True, True, True, False]
        for place in range(96):
            mine = [number for number in range(4) if member[number, place]]
            scores = (q[0, :, place, None] * k[0]).sum(-1) / math.sqrt(8)
            weight = torch.zeros(text.length)
            shared_weight = 1.0 if not mine or how.rules == "3dis" else 1 - how.strength
            weight[:8] = shared_weight
            for number in mine:
                weight[text.pieces[number].rows.start : text.pieces[number].rows.stop] = how.strength
            chosen = weight > 0
            share = scores[:, chosen].exp() * weight[chosen]
            share = share / share.sum(-1, keepdim=True)
            assert torch.allclose(result[0, :, place], (share[..., None] * v[0, :, chosen]).sum(1), atol=1e-5)


@pytest.mark.parametrize("family", ("sd3", "hunyuan_video"))
@pytest.mark.parametrize("early", (True, False))
def test_3dis_masks_by_brute_force(family, early):
    """The whole square of text and picture, token by token."""
    found, text, _ = attention_of(family, SETTINGS["3dis"], frames=9, early=early)
    height, width = found.grid(0)
    frames = found.frames_of(0, 9)
    places = [(frame, place) for frame in range(len(frames)) for place in range(height * width)]
    member = [inside(text, frame, height, width, LATENTS[family][-1] / LATENTS[family][-2]) for frame in frames]
    total, first = len(places) + text.length, family == "sd3"
    words = slice(0, text.length) if first else slice(len(places), total)
    picture_from = text.length if first else 0
    masks = []

    def keep(q, k, v, heads, mask=None, **how):
        masks.append(mask)
        return q

    q = torch.randn(1, 1, total, 8)
    found.attend_shared(keep, q, q, q, 1, {"skip_reshape": True, "mask": None}, words, 0)
    seen = masks[0][0, 0] == 0
    owner = [-1] * text.shared + [None] * (text.length - text.shared)
    for piece in text.pieces:
        for row in piece.rows:
            owner[row] = piece.blob
    expected = torch.zeros(total, total, dtype=torch.bool)
    regions = [{k for k in range(4) if member[frame][k, place]} for frame, place in places]
    for i in range(total):
        for j in range(total):
            text_i, text_j = words.start <= i < words.stop, words.start <= j < words.stop
            mine = owner[i - words.start] if text_i else regions[i - picture_from]
            theirs = owner[j - words.start] if text_j else regions[j - picture_from]
            if text_i and mine == -1:
                expected[i, j] = True
            elif text_i:
                expected[i, j] = theirs == mine if text_j else mine in theirs
            elif text_j:
                expected[i, j] = theirs in mine if theirs != -1 else (not mine or not early)
            else:
                expected[i, j] = not mine or not early or bool(mine & theirs)
    assert torch.equal(seen, expected)


def test_picture_attends_within_blobs_over_all_frames():
    """Masked 3-D attention: equal to dense attention to the tokens that share a blob, or the background."""
    found, text, _ = attention_of("wan", SETTINGS["apart"], frames=9)
    frames = found.frames_of(0, 9)
    assert frames == [0, 2, 6]
    member = torch.cat([inside(text, frame, 4, 6, 1.5) for frame in frames], 1)
    member = torch.cat((member, ~member.any(0, keepdim=True)))
    q, k, v = torch.randn(3, 1, 72, 16).unbind(0)
    result = found.attend_within(attention.attention_pytorch, q, k, v, 2, {})
    for place in range(72):
        chosen = (member & member[:, place, None]).any(0)
        qs, ks, vs = q[0, place].view(2, 8), k[0, chosen].view(-1, 2, 8), v[0, chosen].view(-1, 2, 8)
        share = torch.einsum("hd,lhd->hl", qs, ks).div(math.sqrt(8)).softmax(-1)
        assert torch.allclose(result[0, place].view(2, 8), torch.einsum("hl,lhd->hd", share, vs), atol=1e-5)
    assert found.within(0) and not BlobAttention([None], [True], *_rest(found)).within(0)
    assert not attention_of("wan", BlobSettings(self_attention=True, first_blocks=1))[0].within(1)


def _rest(found):
    network = model_of("wan").get_model_object("diffusion_model")
    return network, (1, *LATENTS["wan"]), found.places, found.total, found.length, {}


@pytest.mark.parametrize("family", ["demo", "wan"])
def test_many_tokens_are_attended_by_the_kernel_to_the_same_effect(family, monkeypatch):
    patched, calls, kernel = add_blobs(model_of(family)), [], region_attention.regional_attention
    monkeypatch.setattr(region_attention, "regional_attention", lambda *given: calls.append(1) or kernel(*given))
    for rules in ("apart", "3dis", "masked")[: 3 if family == "wan" else 2]:  # a UNet's text goes by its mask
        positive, found = with_layout(family, SETTINGS[rules]), []
        for most in (6144, 0):
            monkeypatch.setattr(blob_attention, "LARGEST_DENSE", most)
            assert not calls
            found.append(sample(family, patched, positive, batch=2))
        assert apart(*found) < 1e-4
        assert calls
        calls.clear()


def test_frames():
    assert [layout_frame(place, 5, 17) for place in range(5)] == [0, 2, 6, 10, 14]
    assert [layout_frame(place, 3, 17) for place in range(3)] == [0, 4, 12]
    assert [layout_frame(place, 4, 4) for place in range(4)] == [0, 1, 2, 3]
    assert [layout_frame(place, 3, 6) for place in range(3)] == [0, 2, 5]
    assert layout_frame(2, 5, 1) == 0 and layout_frame(0, 1, 17) == 0
    first, second = anchored([(2, torch.zeros(1, 1)), (4, torch.zeros(1, 1))], 6)
    assert first.tolist() == [1, 1, 1, 1, 0, 0] and second.tolist() == [0, 0, 0, 0, 1, 1]


def test_pictures_of_a_batch_are_frames():
    """On an image model: each picture is as if drawn alone with the ellipses of its frame."""
    model, settings = add_blobs(model_of("demo")), BlobSettings(self_attention=True, first_blocks=0, self_end=1.0)
    clip = sample("demo", model, with_layout("demo", settings, frames=3), batch=3)
    noise = torch.randn((3, *LATENTS["demo"]), generator=torch.Generator().manual_seed(0))
    moving = layout_of(3)
    for frame in range(3):
        ellipse = moving.blobs[0].geometry(3)[frame].tolist()
        still = Ellipse(*ellipse[:4], math.degrees(ellipse[4]))
        layout = BlobLayout((Blob("1", "one", still), *moving.blobs[1:]), 96, 64)
        (entry,) = conditioning_of("demo")
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(with_blobs(entry, captions_of(128), layout, settings), conditioning_of("demo", 100))
        guider.set_cfg(3.0)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
        euler = comfy.samplers.sampler_object("euler")
        alone = guider.sample(noise[frame : frame + 1], torch.zeros(1, 4, 16, 16), euler, sigmas, seed=0)
        assert apart(clip[frame : frame + 1], alone) < 1e-3
    with pytest.raises(ValueError, match="the layout has 3 frames and the latent 2 pictures"):
        sample("demo", model, with_layout("demo", settings, frames=3), batch=2)


def test_captions_that_change_are_seen_at_their_frames():
    shared, captions = torch.randn(8, 16), [((0, torch.randn(3, 16)), (5, torch.randn(2, 16)))]
    layout = BlobLayout((Blob("1", "one", captions=(CaptionKey(0, "one"), CaptionKey(5, "two"))),), 96, 64, 9)
    _, text = blob_text(shared, captions, layout, BlobSettings())
    network = model_of("wan").get_model_object("diffusion_model")
    found = BlobAttention([text], [True], network, (1, 16, 3, 8, 12), [0, 1, 2], 3, text.length, {})
    mask = found.mask(torch.zeros(1, 1, 1), 72, text.length, {})[0, 0].view(3, 24, -1) > -math.inf
    assert mask[:2, :, 8:11].any() and not mask[2, :, 8:11].any()
    assert mask[2, :, 11:13].any() and not mask[:2, :, 11:13].any()


def test_any_layout_gives_numbers():
    """All in one place, far outside, tiny, no captions, weight 0, not there."""
    model, (entry,) = add_blobs(model_of("demo")), conditioning_of("demo")
    many = tuple(Blob(str(k), "x", Ellipse(0.5, 0.5, 0.9, 0.9)) for k in range(40))
    odd = (
        Blob("1", "x", Ellipse(0.5, 0.5, 0.001, 0.001)),
        Blob("2", "x", Ellipse(-9, 9, 0.1, 0.1)),
        Blob("3", "x", Ellipse(0.5, 0.5, 5, 5), weight=0.0),
        Blob("4", "x", Ellipse(0.5, 0.5, 5, 5), there=False),
    )
    for blobs, captions in ((many, captions_of(128, count=40)), (odd, captions_of(128)), (odd, [()] * 4)):
        for settings in SETTINGS.values():
            made = with_blobs(entry, captions, BlobLayout(blobs, 64, 64), settings)
            assert sample("demo", model, made, steps=1).isfinite().all()


def test_errors():
    (entry,) = conditioning_of("demo")
    with pytest.raises(ValueError, match="rules: got 'boxes'"):
        blob_text(entry[0][0], captions_of(128), layout_of(), BlobSettings("boxes"))
    with pytest.raises(ValueError, match="captions: got those of 2 blobs; the layout has 4"):
        with_blobs(entry, captions_of(128, count=2), layout_of(), BlobSettings())
    with pytest.raises(ValueError, match="pad_to: got 9; the text has 20 rows"):
        blob_text(entry[0][0], captions_of(128), layout_of(), BlobSettings(), 9)
    made = with_layout("demo", BlobSettings())
    made[0][0] = made[0][0][:, :11]
    with pytest.raises(ValueError, match="had 24 tokens when blobs were applied, but 11 reach"):
        sample("demo", add_blobs(model_of("demo")), made)
    found, text, _ = attention_of("demo", BlobSettings())
    with pytest.raises(ValueError, match="no size of this 16x16 latent"):
        found.mask(torch.zeros(1, 1, 1), 70, text.length, {})


def test_qwen_image_and_calls_without_a_model(monkeypatch):
    """A network of Qwen-Image's class, called with options; the host knows it only at full size."""
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
    from tiny_models import ON_CPU, _random_weights

    network = QwenImageTransformer2DModel(
        patch_size=2, in_channels=64, out_channels=16, num_layers=2, attention_head_dim=128, num_attention_heads=1,
        joint_attention_dim=48, axes_dims_rope=(16, 56, 56), **ON_CPU,
    )  # fmt: skip
    network.load_state_dict(_random_weights(network))
    states, text = blob_text(torch.randn(8, 48), captions_of(48), layout_of(), SETTINGS["3dis"])
    x, time = torch.randn(1, 16, 1, 8, 12), torch.tensor([0.5])
    calls, how = [], {"transformer_options": {}}
    plain = network(x, time, states[None], **how)
    dense = BlobAttention._attend

    def spy(self, *arguments):
        calls.append(1)
        return dense(self, *arguments)

    monkeypatch.setattr(blob_attention.BlobAttention, "_attend", spy)
    options = options_with_blobs([text], {}, network, x.shape, progress=0.1)
    changed = network(x, time, states[None], transformer_options=options)
    assert len(calls) == 2 and changed.isfinite().all() and not torch.equal(changed, plain)
    assert set(FAMILIES) >= {"QwenImageTransformer2DModel"}


def test_order_of_a_unet():
    order = unet_attention_order(model_of("demo").get_model_object("diffusion_model"))
    assert list(order.values()) == list(range(16)) and next(iter(order)) == ("input", 1, 0)
    assert order["middle", 0, 0] == 6


def test_a_shared_attention_of_many_tokens_needs_no_mask(monkeypatch):
    """All or nothing: through the kernel, the same numbers; what is in between is refused where a mask is too large."""
    for settings in (SETTINGS["3dis"], BlobSettings()):
        found, text, _ = attention_of("hunyuan_video", settings, frames=9)
        total = 3 * 4 * 4 + text.length
        q, k, v = torch.randn(3, 1, 2, total, 8).unbind(0)
        how = {"skip_reshape": True, "mask": None}
        words = slice(total - text.length, total)
        dense = found.attend_shared(attention.attention_pytorch, q, k, v, 2, how, words, 0)
        monkeypatch.setattr(blob_attention, "LARGEST_DENSE", 16)
        sparse = found.attend_shared(None, q, k, v, 2, how, words, 0)
        assert torch.allclose(sparse, dense, atol=1e-5)
        monkeypatch.undo()
    found, text, _ = attention_of("hunyuan_video", SETTINGS["half"], frames=9)
    monkeypatch.setattr(blob_attention, "LARGEST_DENSE", 16)
    monkeypatch.setattr(blob_attention, "LARGEST_MASK", 32)
    with pytest.raises(ValueError, match="is too much for a mask"):
        found.attend_shared(None, q, k, v, 2, how, words, 0)
