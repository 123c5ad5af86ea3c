"""MangaNinja's files: counts of the published layout, what is read of small ones, and what other files are told."""

import logging

import comfy.utils
import folder_paths
import pytest
import torch
from manga_models import UNET, WIDTHS, apart, point_state, reference_state
from papernodes.networks import demo_format
from papernodes.networks.demo_image import UNET_CONFIG
from papernodes.networks.manga_ninja import (
    HEAD,
    SD15_CONFIG,
    MangaNinja,
    MangaNinjaFileError,
    diffusers_names,
    read_point_net,
    read_reference_unet,
    reference_weights,
)
from papernodes.networks.point_net import KEYS, PointNet
from papernodes.networks.point_net import WIDTHS as PUBLISHED_WIDTHS
from papernodes.nodes import manga_ninja
from papernodes.nodes.demo_adapters import MANGA_POINTS, MANGA_REFERENCES
from papernodes.nodes.manga_ninja import POINT_NET, REFERENCE_UNET, MangaNinjaLoader
from papernodes.patches.manga_ninja import places_of
from safetensors.torch import save_file


def unet_on_meta(config=SD15_CONFIG, head=False, **changes):
    """A whole UNet's names and shapes in the published layout, without numbers."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from papernodes.networks.demo_image import unet_operations

    operations = unet_operations(comfy.ops.disable_weight_init)
    own = UNetModel(**{**config, **changes}, device="meta", dtype=torch.float16, operations=operations).state_dict()
    table = comfy.utils.unet_to_diffusers({**config, **changes})
    return {name: own[key] for name, key in table.items() if key in own and (head or name not in HEAD)}


def points_on_meta():
    return PointNet(device="meta", dtype=torch.float16).state_dict()


def numbers(state):
    return sum(value.numel() for value in state.values())


def test_the_published_counts():
    """682 names and 859,508,800 numbers without the last layers, 686 with; the point net 12 and 25,811,840."""
    plain, whole, points = unet_on_meta(), unet_on_meta(head=True), points_on_meta()
    assert (len(plain), numbers(plain)) == (682, 859_508_800)
    assert (len(whole), numbers(whole)) == (686, 859_520_964)
    assert (len(points), numbers(points)) == (12, 25_811_840) and tuple(points) == KEYS
    for state in (plain, whole, {f"module.{name}": value for name, value in plain.items()}):
        config, weights = reference_weights("reference_unet.pth", state)
        assert config is SD15_CONFIG and len(weights) == 682 and numbers(weights) == 859_508_800
    assert weights["input_blocks.0.0.weight"] is plain["conv_in.weight"]
    assert set(diffusers_names(SD15_CONFIG).values()) == set(whole)
    groups = {name.split(".")[0] for name in plain}
    assert groups == {"conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks"}
    assert [sum(name.startswith(part) for name in plain) for part in ("down_blocks", "mid_block", "up_blocks")] == [
        246, 46, 384
    ]  # fmt: skip
    read = read_point_net("point_net.pth", {f"module.{name}": value for name, value in points.items()})
    assert [block[0].out_channels for block in read.blocks] == list(PUBLISHED_WIDTHS)


@pytest.mark.parametrize("head", (False, True))
@pytest.mark.parametrize("prefix", ("", "module."))
def test_a_reference_unet_is_the_files(head, prefix):
    state = reference_state(3, head)
    names = {other: own for own, other in diffusers_names(UNET_CONFIG).items()}
    held = read_reference_unet("a", {prefix + name: value for name, value in state.items()}).model.diffusion_model
    weights = held.state_dict()
    for name, value in state.items():
        if name not in HEAD:
            assert torch.equal(weights[names[name]].float(), value), name
    for name in HEAD:
        assert not weights[names[name]].any(), "nothing comes out"
    assert len(places_of(held)) == 16 and len(state) == (684 if head else 680)


def test_a_full_sized_reference_unet_goes_through_the_hosts_loader(monkeypatch, caplog):
    """What the host is handed is what it detects as SD1.5, whole, so that it has nothing to warn of."""
    import comfy.sd
    from comfy import model_detection

    handed = []
    monkeypatch.setattr(comfy.sd, "load_diffusion_model_state_dict", lambda state: handed.append(state) or "a MODEL")
    state = {name: torch.zeros(1, dtype=torch.float16).expand(value.shape) for name, value in unet_on_meta().items()}
    assert read_reference_unet("reference_unet.pth", state) == "a MODEL"
    (came,) = handed
    assert len(came) == 686 and {value.dtype for value in came.values()} == {torch.float16}
    config = model_detection.model_config_from_unet(came, "")
    assert type(config).__name__ == "SD15"
    assert all(config.unet_config[name] == SD15_CONFIG[name] for name in ("model_channels", "context_dim", "num_heads"))


def test_a_point_net_is_torchs_own():
    """Convolutions of stride 2 with SiLU; at sides that are no multiples of 64 it rounds up, as the UNet does."""
    state, network = point_state(), read_point_net("a", point_state())
    picture = torch.zeros(2, 1, 40, 72)
    picture[0, 0, 3, 5], picture[1, 0, 39, 71] = 1, 2
    expected, x = [], picture
    for number, key in enumerate(KEYS[::2]):
        x = torch.nn.functional.conv2d(x, state[key], state[key.replace("weight", "bias")], stride=2, padding=1)
        x = x * x.sigmoid()
        if number >= 2:
            expected.append(x.flatten(2).mT)
    found = network(picture)
    assert [tuple(one.shape) for one in found] == [(2, 45, 48), (2, 15, 96), (2, 6, 96), (2, 2, 96)]
    assert max(apart(*pair) for pair in zip(found, expected, strict=True)) < 1e-5
    assert all(one.abs().max() > 0 for one in network(torch.zeros(1, 1, 64, 64))), "maps of zeros have embeddings"


def controlnet():
    return {"controlnet_cond_embedding.conv_in.weight": torch.zeros(1), **unet_on_meta()}


WRONG_UNETS = {
    "point net": (points_on_meta, "it is MangaNinja's point net, which belongs to 'point_net'"),
    "controlnet": (controlnet, "it is a ControlNet, which Load ControlNet Model reads"),
    "comfy": (lambda: demo_format.load(UNET, "image_unet")[0], "is a UNet under ComfyUI's names"),
    "checkpoint": (lambda: {"model.diffusion_model.out.0.weight": torch.zeros(1)}, "it is a whole checkpoint"),
    "inpaint": (lambda: unet_on_meta(in_channels=9), "convolution takes 9 channels"),
    "sd2": (lambda: unet_on_meta(context_dim=1024), "an SD2 UNet"),
    "sdxl": (lambda: {**unet_on_meta(), "add_embedding.linear_1.weight": torch.zeros(1)}, "an SDXL UNet"),
    "narrow": (lambda: unet_on_meta(model_channels=64), "a UNet 64 channels wide at its first convolution"),
    "lora": (lambda: {"lora_unet_x.lora_up.weight": torch.zeros(1)}, "it is a LoRA"),
    "motion": (lambda: {"down_blocks.0.motion_modules.0.x": torch.zeros(1)}, "it is a file of motion modules"),
    "vision": (lambda: {"vision_model.x": torch.zeros(1)}, "it is a CLIP model"),
    "nothing": (dict, "it is empty"),
    "other": (lambda: {"x": torch.zeros(1)}, "it is something else, which holds x"),
}


@pytest.mark.parametrize("kind", WRONG_UNETS)
def test_other_files_in_place_of_the_reference_unet(kind):
    make, said = WRONG_UNETS[kind]
    with pytest.raises(MangaNinjaFileError, match=r"a\.pth is no reference UNet: .*" + said) as raised:
        read_reference_unet("a.pth", make())
    assert "Use reference_unet.pth of https://huggingface.co/Johanan0528/MangaNinjia." in str(raised.value)


def test_damaged_reference_unets():
    state = unet_on_meta()
    lost = {name: value for name, value in state.items() if "mid_block.resnets.1.conv2" not in name}
    wide = {**state, "mid_block.resnets.1.conv2.bias": torch.zeros(3)}
    for broken, said in (
        (lost, r"no complete reference UNet: it lacks mid_block\.resnets\.1\.conv2\.bias, .*weight\."),
        ({**state, "more.weight": torch.zeros(1)}, "it has more than that, more.weight"),
        (wide, r"mid_block\.resnets\.1\.conv2\.bias has shape \[3\]; expected \[1280\]"),
    ):
        with pytest.raises(MangaNinjaFileError, match=said):
            reference_weights("a.pth", broken)
    with pytest.raises(MangaNinjaFileError, match=r"MangaNinja's denoising UNet, by its name.*goes to 'model'"):
        reference_weights("denoising_unet.pth", unet_on_meta(head=True))


def test_wrong_point_nets():
    state = point_state()
    lost = {name: value for name, value in state.items() if name != "blocks.3.0.bias"}
    for broken, said in (
        (unet_on_meta(), "is no point net: it is a UNet 320 channels wide"),
        (lost, r"no complete point net: it lacks blocks\.3\.0\.bias"),
        ({**state, "more": torch.zeros(1)}, "it has more than that, more"),
        ({**state, "blocks.1.0.bias": torch.zeros(7)}, r"blocks\.1\.0\.bias has shape \[7\]; expected \[96\]"),
        ({**state, "blocks.1.0.weight": torch.zeros(7)}, "none of convolutions"),
    ):
        with pytest.raises(MangaNinjaFileError, match=said) as raised:
            read_point_net("point.pth", broken)
        assert "Use point_net.pth of https://" in str(raised.value)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """models/manganinja and models/diffusion_models, empty."""
    found = {}
    for name in ("manganinja", "diffusion_models"):
        found[name] = tmp_path / name
        found[name].mkdir()
        known = ([str(found[name])], set(folder_paths.supported_pt_extensions))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(manga_ninja, "_told", set())
    return found


def listed():
    # The host remembers by the folder's time, which two writes in one moment share.
    folder_paths.filename_list_cache.clear()
    inputs = MangaNinjaLoader.define_schema().inputs
    return inputs[0].options, inputs[1].options


def test_the_lists(folders):
    ours, own_points = list(MANGA_REFERENCES), list(MANGA_POINTS)
    assert listed() == ([REFERENCE_UNET, *ours], [POINT_NET, *own_points]), "a workflow can say what it lacks"
    save_file(point_state(), folders["manganinja"] / "my_points.safetensors")
    save_file({"x": torch.zeros(1)}, folders["diffusion_models"] / "reference_x.safetensors")
    assert listed() == (
        ["reference_x.safetensors", *ours, "my_points.safetensors"],
        ["my_points.safetensors", *own_points, "reference_x.safetensors"],
    )


def test_the_loader(folders, caplog):
    """A pickled and a safetensors file, in either folder; the licence is said once for each file."""
    torch.save(reference_state(), folders["diffusion_models"] / "reference_unet.pth")
    save_file(point_state(), folders["manganinja"] / "points.safetensors")
    listed()
    with caplog.at_level(logging.INFO):
        (first,), (_,) = (MangaNinjaLoader.execute("reference_unet.pth", "points.safetensors").args for _ in range(2))
    assert isinstance(first, MangaNinja)
    assert caplog.text.count("CC BY-NC 4.0") == 2, "two files"
    assert [block[0].out_channels for block in first.points.model.blocks] == list(WIDTHS)
    weights = first.reference.model.diffusion_model.state_dict()
    assert torch.equal(weights["input_blocks.0.0.weight"].float(), reference_state()["conv_in.weight"])


def test_wrong_choices(folders):
    save_file(point_state(), folders["manganinja"] / "points.safetensors")
    torch.save(reference_state(), folders["manganinja"] / "reference.pth")
    (folders["manganinja"] / "broken.safetensors").write_bytes(b"12345678")
    listed()
    points, missing = "points.safetensors", r"is not in .*manganinja or .*diffusion_models\. Get"
    for chosen, said in (
        (
            ("reference_unet.pth", points),
            rf"'reference_unet': reference_unet\.pth {missing} reference_unet\.pth",
        ),
        (("reference.pth", "point_net.pth"), rf"'point_net': point_net\.pth {missing} point_net\.pth"),
        ((points, points), r"'reference_unet': points\.safetensors is no reference UNet"),
        (("reference.pth", "reference.pth"), r"'point_net': reference\.pth is no point net"),
        (("broken.safetensors", points), r"'reference_unet': broken\.safetensors cannot be read as weights"),
        (("../x.pth", points), r"'reference_unet': \.\./x\.pth is not in"),
    ):
        with pytest.raises(ValueError, match=said):
            MangaNinjaLoader.execute(*chosen)
