"""Imagine360's files: counts of the published layout, what is read of small ones, and what other files are told."""

import dataclasses
import json
import logging
import math

import folder_paths
import panorama_models as small
import pytest
import torch
from papernodes.benchmarks.imagine360 import PUBLISHED, published_sizes
from papernodes.networks import imagine360_files as files
from papernodes.networks.imagine360_files import Imagine360FileError, Source, read_network, training_of
from papernodes.networks.imagine360_layout import Training, branch_sizes, own_temporal_names, published_layout
from papernodes.nodes import imagine360_loader
from papernodes.nodes.imagine360_loader import Imagine360Loader
from papernodes.patches.imagine360 import is_imagine360
from safetensors.torch import save_file
from sam_files import sam_state

SMALL = Training(head_channels=-1, heads=2, groups=8)


@pytest.fixture(scope="module")
def network():
    return small.network(5)


@pytest.fixture(scope="module")
def published(network):
    return small.published(network)


def read(published, training=SMALL, **changes):
    """The network of files, some of which are replaced."""
    given = {**{role: Source(f"{role}.ckpt", state) for role, state in published.items()}, **changes}
    return read_network(given["exchange"], given["views"], given["panorama"], given.get("lora"),
                        given.get("strength", 1.0), training)  # fmt: skip


def lora_of(weights, scale=1.0):
    """A LoRA of two layers, by the published names; what it adds."""
    state, added, generator = {}, {}, torch.Generator().manual_seed(1)
    for name in ("down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight",
                 "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight"):  # fmt: skip
        layer, kind = name.removesuffix(".0.weight").removesuffix(".weight").rsplit(".", 1)
        rows, columns = weights[name].shape
        up, down = torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)
        for side, value in (("up", up * scale), ("down", down)):
            state[f"module.{layer}.processor.{kind}_lora.{side}.weight"] = value
        added[name] = up @ down
    return state, added


def test_the_published_counts():
    sizes = published_sizes(PUBLISHED)
    branch, exchange = published_layout(sizes)

    def numbers(layout):
        return sum(math.prod(shape) for name, shape in layout.items() if not name.endswith(".pe"))

    assert (len(branch), len(exchange), 2 * len(branch) + len(exchange)) == (1398, 189, 2985)
    assert round(numbers(branch) / 1e6, 1) == 1424.2 and round(numbers(exchange) / 1e6, 1) == 239.4
    counts = {"motion_modules": 588, "_ip.weight": 32, "fps_embedding": 4, "add_cond_embedding.": 4, "cond_rp_proj": 1,
              "add_cond_embedding2": 4, "temporal_proj": 28, "image_proj_model": 51}  # fmt: skip
    assert {part: sum(part in name for name in branch) for part in counts} == counts
    assert 1398 - sum(counts.values()) == 686  # SD2.1's own
    assert branch["conv_in.weight"] == (320, 9, 3, 3)
    # From full-sized weights without numbers: the same sizes, and a network that is whole.
    state = {name: torch.empty(shape, device="meta") for name, shape in branch.items()}
    found = branch_sizes(state, Training())
    assert found.unet | {"attn_precision": None} == PUBLISHED | {"attn_precision": None}
    assert (dict(found.motion), found.tokens) == (dict(sizes.motion), sizes.tokens)
    blocks = {name: torch.empty(shape, device="meta") for name, shape in exchange.items()}
    whole = {f"module.{prefix}{name}": value for prefix in ("unet.", "pano_unet.") for name, value in state.items()}
    whole |= {f"module.{name}": value for name, value in blocks.items()}
    made, report = read_network(Source("mv_model.ckpt", {"state_dict": whole}))
    assert report.used + report.dropped == 2985
    # Five motion modules in each, an attention beside each block, what the views have no use for.
    assert report.dropped == 2 * 5 * 28 + 7 * 13 + 9
    assert made.panorama.unet.input_blocks[1][1].transformer_blocks[0].attn1.heads == 5


def test_files_are_read_whole(network, published):
    wanted = network.state_dict()
    renamed = {role: {f"module.{name}": value for name, value in state.items()} for role, state in published.items()}
    bare = small.published(network, unused=False)
    prefixes = {"views": "unet.", "panorama": "pano_unet.", "exchange": ""}
    single = {prefix + name: value for role, prefix in prefixes.items() for name, value in bare[role].items()}
    for made, report in (
        read(published),
        read(renamed),
        read(bare),
        read({"exchange": single}, views=None, panorama=None),
    ):
        found = made.state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert report.used == len(wanted) and not report.notes
    half, _ = read_network(Source("a", single), training=SMALL, dtype=torch.float16)
    assert {value.dtype for name, value in half.state_dict().items() if not name.endswith("bands")} == {torch.float16}
    assert half.exchange[0].bands.dtype == torch.float32 and half.dtype == torch.float16


def test_unets_inside_the_exchange_count_before_their_own_files(published):
    name = "conv_out.bias"
    exchange = {**published["exchange"], f"pano_unet.{name}": torch.full((4,), 7.0)}
    made, report = read(
        published, exchange=Source("mv.ckpt", exchange), lora=Source("l", lora_of(published["panorama"])[0])
    )
    assert torch.equal(made.panorama.unet.out[2].bias, torch.full((4,), 7.0))
    assert torch.equal(made.views.unet.out[2].bias, published["views"][name])
    assert report.notes == [
        "mv.ckpt holds 1 weights of the panorama UNet, which count in place of those of panorama.ckpt and of the LoRA."
    ]


def test_the_lora_is_merged(published):
    lora, added = lora_of(published["panorama"])
    for strength in (0.0, 1e-6, 1.0):
        merged = files.merge_lora(published["panorama"], Source("l", lora), strength)
        for name, value in published["panorama"].items():
            if name in added:
                assert torch.allclose(merged[name], value + strength * added[name], atol=1e-5)
            else:
                assert torch.equal(merged[name], value)
        assert strength or all(torch.equal(merged[name], published["panorama"][name]) for name in added)
    with pytest.raises(Imagine360FileError, match=r"l does not fit the panorama UNet: x.to_q.weight: the UNet has no"):
        files.merge_lora(
            published["panorama"], Source("l", {"x.processor.to_q_lora.up.weight": torch.zeros(1, 1)}), 1.0
        )
    short = {name: value[..., :3] for name, value in lora.items()}
    with pytest.raises(Imagine360FileError, match="the factors"):
        files.merge_lora(published["panorama"], Source("l", short), 1.0)
    with pytest.raises(Imagine360FileError, match=r"is no LoRA of Imagine360's UNets: it holds conv_in.bias"):
        files.merge_lora(published["panorama"], Source("l", {"conv_in.bias": torch.zeros(1)}), 1.0)


@pytest.mark.parametrize("names", ("transformer", "flat"))
def test_the_projection_over_time_by_what_its_weights_are(published, names):
    """Under other names of the same layers, whose order in the file says nothing."""
    block = {
        "transformer": (
            "blocks.{}.norm1",
            "blocks.{}.attn",
            "blocks.{}.norm2",
            "blocks.{}.ff.net.0.proj",
            "blocks.{}.ff.net.2",
        ),
        "flat": ("norm{}_1", "attn{}", "norm{}_2", "ff{}.0", "ff{}.2"),
    }[names]
    own = ("norm1", "attn", "norm2", "ff.net.0.0", "ff.net.2")
    # Both blocks' attention is narrower than its tokens in the published file; here it must be, to be told apart.
    sizes = dataclasses.replace(small.token_sizes(), attention=8)
    state = small.published(small.network(1, tokens=sizes))["panorama"]
    other = {}
    renamed = {
        f"temporal_proj.blocks.{number}.{mine}.": f"temporal_proj.{theirs.format(number + 1)}."
        for number in range(2)
        for mine, theirs in zip(own, block, strict=True)
    }
    for name, value in reversed(state.items()):
        prefix = next((prefix for prefix in renamed if name.startswith(prefix)), "")
        name = renamed.get(prefix, "") + name.removeprefix(prefix)
        other[name.replace("temporal_proj.conv.", "temporal_proj.down.conv.")] = value
    found = own_temporal_names(other)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


WRONG = {
    "swapped": (
        lambda p: {"views": Source("pano_unet.ckpt", p["panorama"])},
        "is, by its name, the UNet of the panorama",
    ),
    "exchange as UNet": (
        lambda p: {"views": Source("pers.ckpt", p["exchange"])},
        "is no UNet of Imagine360: it is what",
    ),
    "UNet as exchange": (
        lambda p: {"exchange": Source("mv.ckpt", p["views"])},
        "no exchange blocks .*one of the UNets",
    ),
    "SD2.1": (
        lambda p: {"views": Source("sd.bin", {"conv_in.weight": torch.zeros(320, 4, 3, 3)})},
        "a UNet of pictures, without motion modules, that takes 4 channels",
    ),
    "LoRA": (lambda p: {"panorama": Source("pano.ckpt", lora_of(p["panorama"])[0])}, "it is a LoRA"),
    "SAM": (lambda p: {"panorama": Source("sam.pth", sam_state())}, "it is SAM, which belongs to 'image_encoder'"),
    "checkpoint": (
        lambda p: {"exchange": Source("a", {"model.diffusion_model.x": torch.zeros(1)})},
        "a whole checkpoint",
    ),
    "nothing": (lambda p: {"exchange": Source("a", {})}, "it is empty"),
    "none": (lambda p: {"views": None}, "exchange.ckpt holds no UNet of the views. Choose pers_unet"),
    "lost": (
        lambda p: {"views": Source("pers.ckpt", {k: v for k, v in p["views"].items() if k != "conv_out.bias"})},
        "pers.ckpt is no complete part of Imagine360: it lacks conv_out.bias",
    ),
    "lost motion": (
        lambda p: {"views": Source("pers.ckpt", {k: v for k, v in p["views"].items() if "up_blocks.3.mo" not in k})},
        "it lacks up_blocks.3.motion_modules.0, up_blocks.3",
    ),
    "no tokens": (
        lambda p: {"views": Source("pers.ckpt", {k: v for k, v in p["views"].items() if "image_proj" not in k})},
        "it lacks image_proj_model.latents",
    ),
    "more": (
        lambda p: {"exchange": Source("mv.ckpt", {**p["exchange"], "cp_blocks_mid.x": torch.zeros(1)})},
        "it has more than that, cp_blocks_mid.x",
    ),
    "foreign": (
        lambda p: {"exchange": Source("mv.ckpt", {**p["exchange"], "y": torch.zeros(1)})},
        "no Imagine360 has: y",
    ),
    "shape": (
        lambda p: {"views": Source("pers.ckpt", {**p["views"], "conv_out.bias": torch.zeros(5)})},
        r"conv_out.bias has shape \[5\]; expected \[4\]",
    ),
    "narrow": (
        lambda p: {"exchange": Source("mv.ckpt", {**p["exchange"], "cp_blocks_mid.pe.freq_bands": torch.zeros(3)})},
        "exchange block 3 is 12 wide, and the UNets are 64",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_files(published, kind):
    make, said = WRONG[kind]
    with pytest.raises(Imagine360FileError, match=said) as raised:
        read(published, **make(published))
    assert "3DTopia/Imagine360" in str(raised.value) or "Use " in str(raised.value)


def test_what_a_small_network_says_of_itself():
    assert training_of({}) == Training() == Training(prediction="v", schedule="sqrt_linear", zero_terminal=True)
    told = training_of({"imagine360": json.dumps({"heads": 2, "without": ["motion", "fps"], "prediction": "eps"})})
    assert told == Training(heads=2, without=("motion", "fps"), prediction="eps")
    for wrong in ('{"x": 1}', "[", '{"prediction": "x"}', "3"):
        with pytest.raises(Imagine360FileError, match="the metadata of this Imagine360 cannot be used"):
            training_of({"imagine360": wrong})


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """models/imagine360, models/diffusion_models and models/sams, empty."""
    found = {}
    for name in ("imagine360", "diffusion_models", "sams"):
        found[name] = tmp_path / name
        found[name].mkdir()
        known = ([str(found[name])], set(folder_paths.supported_pt_extensions))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(imagine360_loader, "_told", set())
    return found


def test_the_loader(folders, network, published, caplog):
    caplog.set_level(logging.INFO)
    options = [one.options for one in Imagine360Loader.define_schema().inputs[:5]]
    assert [one[0] for one in options] == ["pers_unet_checkpoint-20000.ckpt", "pano_unet_checkpoint-20000.ckpt",
                                           "mv_model_checkpoint-20000.ckpt", "panolora_20000.ckpt",
                                           "sam_vit_b_01ec64.pth"]  # fmt: skip
    with pytest.raises(
        ValueError, match=r"'pers_unet': pers_unet_checkpoint-20000.ckpt is not in .*imagine360 or .*Get"
    ):
        Imagine360Loader.execute(*[one[0] for one in options])
    with pytest.raises(ValueError, match="'mv_model' is none"):
        Imagine360Loader.execute("none", "none", "none", "none", "none")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in published["views"].items()}}, folders["imagine360"] / "pers.ckpt"
    )
    torch.save({"state_dict": published["panorama"]}, folders["diffusion_models"] / "pano_unet.ckpt")
    torch.save({"state_dict": lora_of(published["panorama"])[0]}, folders["imagine360"] / "panolora.ckpt")
    told = {"imagine360": json.dumps({"head_channels": -1, "heads": 2, "groups": 8, "zero_terminal": False})}
    save_file(published["exchange"], folders["imagine360"] / "mv_model.safetensors", told)
    torch.save(sam_state(), folders["sams"] / "sam_tiny.pth")
    folder_paths.filename_list_cache.clear()
    chosen = [one.options[0] for one in Imagine360Loader.define_schema().inputs[:5]]
    assert chosen == ["pers.ckpt", "pano_unet.ckpt", "mv_model.safetensors", "panolora.ckpt", "sam_tiny.pth"]
    model, encoder = Imagine360Loader.execute(*chosen, lora_strength=0.0).args
    assert is_imagine360(model) and encoder.model.sizes.channels == 8
    assert "weights loaded" in caplog.text
    conditioning = small.conditioning()
    wanted = small.sample(small.model(5), conditioning, conditioning, cfg=1.0, steps=1)
    found = small.sample(model, conditioning, conditioning, cfg=1.0, steps=1)
    # Weights are held in the host's dtype for this machine.
    assert all(torch.allclose(a, b, atol=0.2, rtol=0.2) for a, b in zip(found, wanted, strict=True))
    strong = small.sample(Imagine360Loader.execute(*chosen).args[0], conditioning, conditioning, cfg=1.0, steps=1)
    assert not torch.allclose(strong[0], found[0], atol=1e-3)
    # A file that holds all needs no other; without SAM the second output says so where it is used.
    single = {**published["exchange"], **{f"unet.{k}": v for k, v in published["views"].items()},
              **{f"pano_unet.{k}": v for k, v in published["panorama"].items()}}  # fmt: skip
    save_file(single, folders["imagine360"] / "whole.safetensors", told)
    caplog.clear()
    model, encoder = Imagine360Loader.execute("pers.ckpt", "none", "whole.safetensors", "none", "none").args
    assert "whole.safetensors holds the UNets whole, so pers.ckpt are not used" in caplog.text
    again = small.sample(model, conditioning, conditioning, cfg=1.0, steps=1)
    assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))
    with pytest.raises(AttributeError, match="'image_encoder' of Imagine360 Loader is none"):
        encoder.model  # noqa: B018


def test_what_the_loader_refuses(folders, published):
    torch.save(published["exchange"], folders["imagine360"] / "mv_model.ckpt")
    (folders["imagine360"] / "bad_mv_model.ckpt").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"'mv_model': bad_mv_model.ckpt cannot be read as weights"):
        Imagine360Loader.execute("none", "none", "bad_mv_model.ckpt", "none", "none")
    with pytest.raises(ValueError, match=r"'mv_model' \(mv_model.ckpt\) holds no UNet of the views"):
        Imagine360Loader.execute("none", "none", "mv_model.ckpt", "none", "none")
    with pytest.raises(ValueError, match=r"'image_encoder': mv_model.ckpt is no SAM"):
        Imagine360Loader.execute("none", "none", "mv_model.ckpt", "none", "mv_model.ckpt")
    with pytest.raises(
        ValueError, match=r"'pers_unet' \(mv_model.ckpt\) is no UNet of Imagine360: it is what panorama"
    ):
        Imagine360Loader.execute("mv_model.ckpt", "none", "mv_model.ckpt", "none", "none")
    with pytest.raises(ValueError, match="'lora_strength' is 3"):
        Imagine360Loader.execute("none", "none", "mv_model.ckpt", "none", "none", 3.0)
