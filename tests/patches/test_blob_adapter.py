"""The blob adapter: what a place sees, laws of a patch, files that do not fit."""

import functools
import math

import comfy.ops
import comfy.samplers
import pytest
import torch
from papernodes.kernels.blob_layout import Blob, BlobLayout, Ellipse
from papernodes.kernels.ellipses import token_masks
from papernodes.networks import demo_blob_adapter
from papernodes.networks.blob_adapter import (
    BlobAdapterError,
    BlobRows,
    Block,
    fourier_features,
    geometry,
    read_blob_adapter,
)
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches import rows
from papernodes.patches.blob_adapter import KEY, BlobAdapterModelError, add_blob_adapter, transformer_widths
from papernodes.patches.blobs import BlobSettings, add_blobs, with_blobs
from papernodes.patches.regional import UNET
from tiny_models import tiny_model

SEEDS = (0, 1, 2)
SHAPE = (4, 16, 24)


@functools.cache
def model_of():
    return load_model(FOLDER / "image_unet.safetensors")


@functools.cache
def weights(seed=0):
    state = demo_blob_adapter.initial(seed)
    return {name: torch.full((), 0.5) if name.endswith("gate") else value for name, value in state.items()}


def adapter(seed=0):
    return read_blob_adapter("a", weights(seed))


def rows_of(batch=1, blobs=3, words=5):
    generator = torch.Generator().manual_seed(batch)
    ellipses = torch.tensor([[0.3, 0.4, 0.3, 0.2, 0.5], [0.5, 0.5, 0.3, 0.3, 0.0], [0.8, 0.7, 0.1, 0.3, 1.0]])
    return BlobRows(
        torch.randn(batch, blobs, words, 128, generator=generator),
        (torch.arange(words) < torch.tensor([5, 3, 4])[:, None]).expand(batch, -1, -1),
        ellipses.expand(batch, -1, -1),
        torch.ones(batch, blobs, dtype=torch.bool),
    )


def text(seed=0):
    return [[torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def with_layout(seed=0, rules="none"):
    blobs = (Blob("1", "one", Ellipse(0.3, 0.4, 0.3, 0.2, 30)), Blob("2", "two", Ellipse(0.7, 0.6, 0.25, 0.25)))
    captions = [((0, torch.randn(3, 128, generator=torch.Generator().manual_seed(9 + k))),) for k in range(2)]
    (entry,) = text(seed)
    return with_blobs(entry, captions, BlobLayout(blobs, 96, 64), BlobSettings(rules), family=UNET)


def sample(model, positive, *, seed=0, batch=1, cfg=3.0, steps=2):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, text(100 + seed))
    guider.set_cfg(cfg)
    noise = torch.randn((batch, *SHAPE), generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


def test_one_ellipse_is_one_geometry():
    ellipse = torch.tensor([0.3, 0.6, 0.4, 0.1, 0.7])
    x, y, a, b, angle = ellipse
    same = [
        ellipse,
        torch.stack((x, y, a, b, angle + math.pi)),
        torch.stack((x, y, a, b, angle - 3 * math.pi)),
        torch.stack((x, y, b, a, angle + math.pi / 2)),
    ]
    found = geometry(torch.stack(same))
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)
    assert found.min() >= 0 and found.max() <= 1
    assert not torch.allclose(geometry(torch.stack((x, y, a, b, -angle))), found[0], atol=0.1)
    features = fourier_features(found[:1])
    assert features.shape == (1, 96)
    for step, name in ((3, "sin"), (5, "cos")):
        for number in range(6):
            scaled = found[0, number] * 100 ** (step / 8)
            assert float(features[0, step * 12 + (name == "cos") * 6 + number]) == pytest.approx(
                float(getattr(torch, name)(scaled)), abs=1e-5
            )


def test_a_place_sees_the_tokens_of_its_blobs_and_nothing_else():
    """Masked attention equals dense attention to the tokens of the blobs that cover a place, to 1e-5."""
    network, given = adapter(), rows_of(2)
    given.present[1, 0] = False
    call = network.begin(given, torch.float32)
    fuser = network.blocks["input_4_0"]
    bias, covered = call.mask(8, 12, 1.5)
    x = torch.randn(2, 96, 96)
    found = fuser.attend(x, call.tokens, bias, 3) * covered
    member = token_masks(given.ellipses, given.present, 8, 12, 1.5).flatten(2)
    assert member[0].sum(0).max() >= 2 and not member[:, :, 0].any()
    q, k, v = fuser.to_q(fuser.norm(x)), fuser.to_k(call.tokens), fuser.to_v(call.tokens)
    for row in range(2):
        for place in range(96):
            chosen = (member[row, :, place, None] & given.words[row]).flatten()
            if not chosen.any():
                assert not found[row, place].any()
                continue
            qs, ks, vs = (some.view(-1, 3, 32) for some in (q[row, place], k[row, chosen], v[row, chosen]))
            share = torch.einsum("qhd,khd->hk", qs, ks).div(math.sqrt(32)).softmax(-1)
            dense = fuser.to_out(torch.einsum("hk,khd->hd", share, vs).flatten())
            assert torch.allclose(found[row, place], dense, atol=1e-5)


def test_rows_without_blobs_stay_as_they_are():
    network, given = adapter(), rows_of(2)
    given.present[1] = False
    x = torch.randn(2, 96, 96)
    found = network.fuse(x, Block("input", 4, 0), network.begin(given, torch.float32), (8, 12), 1.5, 3, 1.0)
    assert torch.equal(found[1], x[1]) and not torch.equal(found[0], x[0]) and found.isfinite().all()
    call = network.begin(given, torch.float32)
    assert network.fuse(x, Block("input", 3, 0), call, (8, 12), 1.5, 3, 1.0) is x
    untrained = read_blob_adapter("a", demo_blob_adapter.initial(0))
    assert torch.equal(untrained.fuse(x, Block("input", 4, 0), call, (8, 12), 1.5, 3, 1.0), x)


@pytest.mark.parametrize("seed", SEEDS)
def test_laws(seed):
    model, network = add_blobs(model_of()), adapter(seed)
    before = {kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)
    blobs = with_layout(seed)
    off = sample(model, blobs, seed=seed)
    patched = add_blob_adapter(model, network)
    on = sample(patched, blobs, seed=seed)
    assert on.isfinite().all() and not torch.equal(on, off)
    assert torch.equal(sample(patched, blobs, seed=seed), on)
    assert torch.equal(sample(patched, text(seed), seed=seed), sample(model_of(), text(seed), seed=seed))
    assert torch.equal(sample(add_blob_adapter(model, network, 0.0), blobs, seed=seed), off)
    assert apart(sample(add_blob_adapter(model, network, 1e-6), blobs, seed=seed), off) < 1e-3
    assert torch.equal(sample(model, blobs, seed=seed), off)  # the input MODEL is as it was
    assert ({kind: dict(keys) for kind, keys in model.wrappers.items()}, repr(model.model_options)) == before
    # Whichever node comes first; and beside another patch.
    assert torch.equal(sample(add_blobs(add_blob_adapter(model_of(), network)), blobs, seed=seed), on)
    both = sample(patched, with_layout(seed, "masked"), seed=seed)
    assert both.isfinite().all() and not torch.equal(both, on)
    pair = sample(patched, blobs, seed=seed, batch=2)
    assert pair.isfinite().all() and pair.shape[0] == 2


def test_conditions_batched_and_split_agree(monkeypatch):
    patched, calls = add_blob_adapter(add_blobs(model_of()), adapter()), []

    def spy(executor, x, *arguments, **rest):
        calls.append(x.shape[0])
        return executor(x, *arguments, **rest)

    patched.add_wrapper_with_key(rows.USE, "spy", spy)
    together = sample(patched, with_layout(), batch=2)
    assert calls == [4, 4]
    calls.clear()
    monkeypatch.setattr(patched.model, "memory_required", lambda *_, **__: 1e30)
    assert apart(sample(patched, with_layout(), batch=2), together) < 2e-3
    assert calls == [2] * 4
    # The negative is left alone.
    assert apart(sample(patched, with_layout(), cfg=0.0), sample(model_of(), text(), cfg=0.0)) < 1e-4


def test_models_that_do_not_fit():
    with pytest.raises(BlobAdapterModelError, match=r"'model' is a .*, which is no UNet.*obey Apply Blobs alone"):
        add_blob_adapter(tiny_model("wan"), adapter())
    with pytest.raises(BlobAdapterModelError, match=r"the first, input_1_0, is 48 wide, in the model it is 320 wide"):
        add_blob_adapter(tiny_model("sd15"), adapter())
    some = {name: value for name, value in weights().items() if "blocks." not in name or "middle" in name}
    some["position_net.0.weight"] = torch.zeros(512, 96 + 64)
    with pytest.raises(BlobAdapterModelError, match="it takes text 64 wide, and the model's is 128 wide"):
        add_blob_adapter(model_of(), read_blob_adapter("a", some))
    patched = add_blob_adapter(model_of(), adapter())
    with pytest.raises(BlobAdapterModelError, match="has a blob adapter already"):
        add_blob_adapter(patched, adapter())
    assert patched.get_additional_models_with_key(KEY) and not model_of().get_additional_models_with_key(KEY)
    with pytest.raises(BlobAdapterError, match=r"captions have 64 numbers for each token.*trained with 128"):
        adapter().begin(BlobRows(torch.zeros(1, 1, 1, 64), *(None,) * 3), torch.float32)


def test_files_of_other_sizes_and_broken_ones():
    """An adapter for one of an SDXL-class model's blocks; and what is no adapter."""
    widths = transformer_widths(tiny_model("sdxl").get_model_object("diffusion_model"))
    block = Block("output", 0, 1)
    assert widths[block] == 320
    state = {name: value for name, value in weights().items() if name.startswith("position_net.")}
    state["position_net.0.weight"] = torch.zeros(512, 2048 + 96)
    for name, shape in {
        "norm.weight": (320,), "norm.bias": (320,), "to_q.weight": (320, 320), "to_k.weight": (320, 128),
        "to_v.weight": (320, 128), "to_out.weight": (320, 320), "to_out.bias": (320,), "gate": (),
        "ff_norm.weight": (320,), "ff_norm.bias": (320,), "ff_in.weight": (640, 320), "ff_in.bias": (640,),
        "ff_out.weight": (320, 320), "ff_out.bias": (320,), "ff_gate": (),
    }.items():  # fmt: skip
        state[f"blocks.{block.name}.{name}"] = torch.zeros(shape)
    network = read_blob_adapter("sdxl", state, comfy.ops.manual_cast)
    assert dict(network.sizes.blocks) == {block: (320, 320)}
    assert add_blob_adapter(tiny_model("sdxl"), network).get_additional_models_with_key(KEY)
    for wrong, message in (
        ({}, "x is no blob adapter: it holds nothing"),
        ({"lora_up.weight": torch.zeros(1)}, "it holds lora_up.weight; expected names such as position_net"),
        ({**state, "more": torch.zeros(1)}, "x holds no complete blob adapter: it has more than that, more"),
        ({k: v for k, v in state.items() if not k.endswith("_1.gate")}, r"it lacks blocks.output_0_1.gate"),
        ({**state, "position_net.2.bias": torch.zeros(3)}, r"position_net.2.bias has shape \[3\]; expected \[512\]"),
    ):
        with pytest.raises(BlobAdapterError, match=message):
            read_blob_adapter("x", wrong)
