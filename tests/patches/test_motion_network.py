"""Motion modules: agreement with diffusers', files of every layout, files that are something else."""

import comfy.ops
import pytest
import torch
from motion_files import SD15_WIDTHS, PerFrame, module_shapes, random_file, zero_file
from papernodes.kernels.frames import clips_of, frames_of
from papernodes.networks.motion import MotionFileError, Place, read_motion

PLACE = "up_blocks.1.motion_modules.2"


def one_module(width=64, positions=32, seed=0, groups=32, operations=comfy.ops.manual_cast):
    """A file of one module, and the module."""
    shapes = {f"{PLACE}.{name}": shape for name, shape in module_shapes(width, positions).items()}
    state = random_file(seed=seed, shapes=shapes)
    return state, read_motion("a", state, groups, operations).by_place()[Place("up", 1, 2)]


def in_diffusers_layout(state):
    """Diffusers' names; one table of positions for a block there."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("temporal_transformer.", "").replace(".ff_norm.", ".norm3.")
        for number in range(2):
            key = key.replace(f"attention_blocks.{number}.pos_encoder.pe", "pos_embed.pe")
            key = key.replace(f"attention_blocks.{number}.", f"attn{number + 1}.")
            key = key.replace(f".norms.{number}.", f".norm{number + 1}.")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("per_frame", (True, False))
@pytest.mark.parametrize(("width", "groups"), ((32, 32), (64, 8), (320, 32)))
@pytest.mark.parametrize("frames", (1, 5, 24))
def test_it_is_diffusers_module(width, groups, frames, per_frame):
    """As it is in diffusers but for the norm; and with ours over all frames too, exactly so."""
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    oracle = AnimateDiffTransformer3D(
        num_attention_heads=8, attention_head_dim=width // 8, in_channels=width, norm_num_groups=groups,
        attention_bias=False, activation_fn="geglu", positional_embeddings="sinusoidal", num_positional_embeddings=24,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in oracle.parameters():
            wide = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1
            offset = 0.0 if parameter.ndim == 2 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * wide + offset)
    state = {f"{PLACE}.{name}": value for name, value in oracle.state_dict().items()}
    module = read_motion("a", state, groups).by_place()[Place("up", 1, 2)]
    assert module.sizes.positions == 24
    if per_frame:
        oracle.norm = PerFrame(oracle.norm)
    else:
        module.norm.register_forward_pre_hook(lambda _, given: (clips_of(given[0], frames),))
        module.norm.register_forward_hook(lambda _, given, result: frames_of(result))
    # As small as this, the norm's epsilon counts.
    x = torch.randn(2 * frames, width, 3, 4, generator=generator) * 0.01
    with torch.no_grad():
        expected = oracle(x, num_frames=frames)
        found = module(x, frames)
    assert float((found - x).abs().mean()) > 0.1, "it does something"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module(x, frames, 0.5) - x, (found - x) / 2, rtol=1e-4, atol=1e-4)


def test_frames_know_of_each_other_and_of_their_order():
    _, module = one_module()
    x = torch.randn(6, 64, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = module(x, 3)
        x[2] += torch.randn_like(x[2])
        after = module(x, 3)
        assert float((after[:2] - before[:2]).abs().max()) > 1e-3, "a frame is seen by the others of its clip"
        assert torch.equal(after[3:], before[3:]), "and by no other clip"
        turned = module(x.view(2, 3, 64, 2, 2).flip(1).reshape(6, 64, 2, 2), 3).view(2, 3, 64, 2, 2).flip(1)
    assert float((turned.reshape(6, 64, 2, 2) - after).abs().max()) > 1e-3, "positions tell first from last"


def test_more_frames_than_positions():
    _, module = one_module(positions=4)
    with torch.no_grad():
        assert module(torch.zeros(4, 64, 2, 2), 4).shape == (4, 64, 2, 2)
    with pytest.raises(ValueError, match=r"clip of 5 frames, and the motion modules know 4 positions.*context length"):
        module(torch.zeros(5, 64, 2, 2), 5)


@pytest.mark.parametrize("stored", (torch.float16, torch.bfloat16))
def test_weights_stay_in_the_files_type(stored):
    state, full = one_module()
    network = read_motion("a", {key: value.to(stored) for key, value in state.items()})
    assert {weight.dtype for weight in network.state_dict().values()} == {stored}
    x = torch.randn(3, 64, 2, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = network.by_place()[Place("up", 1, 2)](x, 3)
        assert found.dtype == torch.float32
        assert float((found - full(x, 3)).abs().max()) < 0.1


def test_full_layouts():
    """Names, shapes and counts of the published files (specs: RelightVid 4.2); no memory behind the weights."""
    relightvid = {f"unet.{name}": value for name, value in zero_file(mid=False).items()}
    assert len(relightvid) == 560 and sum(name.endswith(".pe") for name in relightvid) == 40
    network = read_motion("relvid_mm_sd15_fbc.pth", relightvid)
    assert sum(value.numel() for value in network.parameters()) == 417_137_600
    assert network.positions == 32 and len(network.by_place()) == 20
    for positions, mid, modules in ((24, False, 20), (32, True, 21), (64, True, 21)):
        network = read_motion("mm.ckpt", zero_file(positions=positions, mid=mid))
        assert network.positions == positions and len(network.by_place()) == modules
        assert [place.side for place in network.by_place()] == ["down"] * 8 + ["mid"] * mid + ["up"] * 12
    widths = [module.sizes.width for module in network.by_place().values()]
    assert widths[:8:2] == list(SD15_WIDTHS) and widths[9::3] == [1280, 1280, 640, 320]


def test_the_same_file_in_every_layout():
    state = random_file()
    own = read_motion("a", state, 8).state_dict()
    assert own.keys() == state.keys()
    # One table of positions serves both attentions of diffusers' blocks.
    for name in state:
        if name.endswith("0.pos_encoder.pe"):
            state[name.replace("blocks.0.pos", "blocks.1.pos")] = state[name]
    for other in (
        {f"unet.{name}": value for name, value in state.items()},
        {f"module.{name}": value for name, value in state.items()},
        in_diffusers_layout(state),
    ):
        found = read_motion("a", other, 8).state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())


def test_deeper_modules():
    """The counts come from the file."""
    shapes = {f"{PLACE}.{name}": shape for name, shape in module_shapes(32, 16).items()}
    second_block = {
        name.replace("transformer_blocks.0", "transformer_blocks.1"): shape
        for name, shape in shapes.items()
        if "transformer_blocks" in name
    }
    third_attention = {
        name.replace("attention_blocks.1", "attention_blocks.2").replace("norms.1", "norms.2"): shape
        for name, shape in shapes.items()
        if "attention_blocks.1" in name or "norms.1" in name
    }
    for more, counts in (({}, (1, 2)), (second_block, (2, 2)), (third_attention, (1, 3))):
        module = read_motion("a", random_file(shapes={**shapes, **more})).by_place()[Place("up", 1, 2)]
        assert (module.sizes.blocks, module.sizes.attentions) == counts
        with torch.no_grad():
            assert module(torch.zeros(4, 32, 2, 2), 4).shape == (4, 32, 2, 2)
    with pytest.raises(MotionFileError, match="it lacks"):  # a second block with fewer attentions than the first
        read_motion("a", random_file(shapes={**shapes, **second_block, **third_attention}))


def test_wrong_files():
    state = zero_file(widths=(32, 64), positions=8)
    place = "down_blocks.0.motion_modules.1.temporal_transformer"
    lost = {name: value for name, value in state.items() if name != f"{place}.proj_out.bias"}
    table = f"{place}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    for broken, said in (
        ({}, "is no motion file: it holds nothing; expected names such as down_blocks.0.motion_modules.0"),
        ({"conv_in.weight": torch.zeros(1)}, "is no motion file: it holds conv_in.weight; expected"),
        ({**state, "conv_in.weight": torch.zeros(1)}, "holds more than motion modules: conv_in.weight. Use mm_sd"),
        ({f"{place}.to_q_lora.down.weight": torch.zeros(1)}, "is a LoRA .*which changes motion modules and holds none"),
        (lost, f"no complete motion modules: it lacks {place}.proj_out.bias"),
        ({**state, f"{place}.more": torch.zeros(1)}, f"it has more than that, {place}.more"),
        ({**state, f"{place}.proj_out.bias": torch.zeros(7)}, r"proj_out.bias has shape \[7\]; expected \[32\]"),
        ({name: value for name, value in state.items() if name != table}, "lacks temporal attention with positions"),
        ({**state, table: torch.zeros(())}, "lacks temporal attention with positions"),
        ({**state, table: torch.zeros(1, 9, 32)}, r"pos_encoder.pe has shape \[1, 8, 32\]; expected \[1, 9, 32\]"),
        (zero_file(widths=(36,)), "is 36 wide; expected a multiple of 8 heads and of 32 groups"),
    ):
        with pytest.raises(MotionFileError, match=said):
            read_motion("motion.ckpt", broken)
