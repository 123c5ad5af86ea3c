"""Motion LoRA as the host runs it: against weights merged by hand, in every layout, beside other clones; bad input."""

import folder_paths
import pytest
import torch
from motion_files import DEMO_WIDTHS, SD15_WIDTHS, block_places, random_file, zero_file
from motion_models import apart, sample
from papernodes.networks.demo_image import GROUPS
from papernodes.networks.motion import read_motion
from papernodes.networks.motion_lora import MotionLoraError, read_motion_lora
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.motion_lora import PUBLISHED, MotionLoRA, list_motion_loras
from papernodes.nodes.relight_video import MotionModules
from papernodes.patches.frames import MotionModelError, joined, with_motion
from papernodes.patches.linear_noise import with_linear_levels
from safetensors.torch import save_file

RANK, ALPHA = 3, 2.0
ATTENTIONS = [
    f"transformer_blocks.0.attention_blocks.{number}.{projection}"
    for number in range(2)
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
]
OTHERS = ["proj_in", "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2", "proj_out"]


def layers(mid=False):
    """(module, layer within it, the level whose width it has) of all that a LoRA may change."""
    return [(place, layer, level) for place, level in block_places(mid=mid) for layer in (*ATTENTIONS, *OTHERS)]


def official(place, layer):
    """Names of AnimateDiff's own files: processors, one layer at their end, no alpha."""
    block, attention, rest = layer.rpartition(".attention_blocks.")
    if attention:
        number, projection = rest.split(".", 1)
        layer = f"{block}{attention}{number}.processor.{projection.removesuffix('.0')}"
    return f"module.{place}.temporal_transformer.{layer}", "_lora.up.weight", "_lora.down.weight"


def plain(place, layer):
    return f"{place}.temporal_transformer.{layer}", ".lora_up.weight", ".lora_down.weight"


def diffusers(place, layer):
    for number in range(2):
        layer = layer.replace(f"attention_blocks.{number}.", f"attn{number + 1}.")
    return f"unet.{place}.{layer}", ".lora_B.weight", ".lora_A.weight"


def kohya(place, layer):
    return f"lora_unet_{place}.temporal_transformer.{layer}".replace(".", "_"), ".lora_up.weight", ".lora_down.weight"


def kohya_diffusers(place, layer):
    return "lora_unet_" + diffusers(place, layer)[0][5:].replace(".", "_"), ".lora_up.weight", ".lora_down.weight"


LAYOUTS = (official, plain, diffusers, kohya, kohya_diffusers)
WITH_ALPHA = (plain, kohya, kohya_diffusers)


def sizes(layer, width):
    """Rows and columns of a layer's weight."""
    return {OTHERS[1]: (8 * width, width), OTHERS[2]: (width, 4 * width)}.get(layer, (width, width))


def lora_file(layout, seed=0, widths=DEMO_WIDTHS):
    """A file of a layout, and what it adds to the weights at strength 1."""
    generator = torch.Generator().manual_seed(seed)
    state, added = {}, {}
    for place, layer, level in layers():
        rows, columns = sizes(layer, widths[level])
        up = torch.randn(rows, RANK, generator=generator) * RANK**-0.5
        down = torch.randn(RANK, columns, generator=generator) * columns**-0.5
        name, up_name, down_name = layout(place, layer)
        state |= {name + up_name: up, name + down_name: down}
        factor = 1.0
        if layout in WITH_ALPHA:
            state[f"{name}.alpha"], factor = torch.tensor(ALPHA), ALPHA / RANK
        added[f"{place}.temporal_transformer.{layer}.weight"] = factor * up @ down
    return state, added


@pytest.fixture(scope="module")
def base():
    return DemoCheckpoint.execute("image").args[0]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """models/animatediff_models with AnimateDiff's names, and an empty folder of motion LoRAs."""
    for name in ("animatediff_models", "animatediff_motion_lora"):
        (tmp_path / name).mkdir()
        known = ([str(tmp_path / name)], set(folder_paths.supported_pt_extensions))
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    save_file(motion_file(), tmp_path / "animatediff_models" / "mm.safetensors")
    return tmp_path / "animatediff_motion_lora"


def motion_file():
    return random_file(mid=False)


def moving(model):
    return MotionModules.execute(model, "mm.safetensors", 1.0, "as the file", 0, 0, "standard_static").args[0]


def tuned(model, name="lora.safetensors", strength=1.0):
    return MotionLoRA.execute(model, name, strength).args[0]


def merged(model, *changes):
    """Motion modules whose weights were changed by hand; changes are (what a LoRA adds, strength)."""
    state = motion_file()
    for added, strength in changes:
        state = {key: value + strength * added.get(key, 0) for key, value in state.items()}
    return with_linear_levels(with_motion(model, read_motion("a", state, GROUPS), joint_norm=False))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("strength", (1.0, -0.4))
def test_it_is_a_merge(base, folders, layout, strength):
    state, added = lora_file(layout)
    save_file(state, folders / "lora.safetensors")
    found = sample(tuned(moving(base), strength=strength))
    assert apart(found, sample(merged(base, (added, strength)))) < 1e-5
    assert apart(found, sample(merged(base, (added, 0.9 * strength)))) > 1e-3, "and of this strength"
    without = dict(added)
    without.popitem()
    assert apart(found, sample(merged(base, (without, strength)))) > 1e-5, "the last layer counts, too"


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_strengths(base, folders, seed):
    save_file(lora_file(official, seed)[0], folders / "lora.safetensors")
    before = moving(base)
    plain_picture = sample(before, seed)
    assert torch.equal(sample(tuned(before, strength=0.0), seed), plain_picture)
    assert 0 < apart(sample(tuned(before, strength=1e-6), seed), plain_picture) < 1e-3
    on = tuned(before)
    first = sample(on, seed)
    assert torch.isfinite(first).all() and apart(first, plain_picture) > 0.01
    assert torch.equal(sample(on, seed), first)
    assert torch.equal(sample(before, seed), plain_picture), "the MODEL that came in is as it was"


def test_two_add_up_in_either_order(base, folders):
    changes = []
    for seed, layout in enumerate((official, kohya)):
        state, added = lora_file(layout, seed)
        save_file(state, folders / f"{seed}.safetensors")
        changes.append((added, 0.8 - 0.5 * seed))
    before = moving(base)
    both = sample(tuned(tuned(before, "0.safetensors", 0.8), "1.safetensors", 0.3))
    assert apart(both, sample(merged(base, *changes))) < 1e-5
    assert apart(sample(tuned(tuned(before, "1.safetensors", 0.3), "0.safetensors", 0.8)), both) < 1e-5
    assert apart(sample(tuned(before, "0.safetensors", 0.8)), both) > 1e-3


def test_clones_of_one_loader_do_not_disturb_each_other(base, folders):
    save_file(lora_file(official)[0], folders / "lora.safetensors")
    before = moving(base)
    runs = (base, before, tuned(before), tuned(before, strength=-0.5), tuned(before, strength=0.0))
    first = [sample(one) for one in runs]
    assert torch.equal(first[4], first[1])
    assert apart(first[2], first[1]) > 0.01 and apart(first[3], first[2]) > 0.01
    for number in (2, 0, 3, 2, 4, 3, 1, 2, 1, 0):
        assert torch.equal(sample(runs[number]), first[number])


def test_longer_clips_and_several_rows(base, folders):
    state, added = lora_file(official)
    save_file(state, folders / "lora.safetensors")
    on = tuned(MotionModules.execute(base, "mm.safetensors", 1.0, "per frame", 4, 2, "standard_static").args[0])
    assert apart(sample(on, frames=4), sample(merged(base, (added, 1.0)), frames=4)) < 1e-5
    longer = sample(on, frames=7)
    assert longer.shape[0] == 7 and bool(longer.isfinite().all())


def test_loaded_in_part(base, folders):
    """With little memory the host patches a layer when it is called."""
    save_file(lora_file(official)[0], folders / "lora.safetensors")
    on = tuned(moving(base))
    whole = sample(on)
    (beside,) = on.get_additional_models()
    beside.detach()
    beside.load(beside.load_device, lowvram_model_memory=beside.model_size() // 2)
    assert 0 < beside.loaded_size() < beside.model_size()
    with joined(base.model.diffusion_model, 4, beside.model, joint_norm=False), torch.no_grad():
        found = sample(with_linear_levels(base))
    beside.detach()
    assert apart(found, whole) < 1e-5


def test_pickled_files(base, folders):
    """As AnimateDiff's own are, the weights one level down."""
    state, _ = lora_file(official)
    save_file(state, folders / "lora.safetensors")
    torch.save({"global_step": 1, "state_dict": state}, folders / "lora.ckpt")
    before = moving(base)
    assert torch.equal(sample(tuned(before, "lora.ckpt")), sample(tuned(before)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layer_of_every_module(layout):
    """Those of the middle, too, which v2 has; no memory behind the weights."""
    network = read_motion("mm_sd_v15_v2.ckpt", zero_file())
    state = {}
    for place, layer, level in layers(mid=True):
        (rows, columns), (name, up, down) = sizes(layer, SD15_WIDTHS[level]), layout(place, layer)
        state[name + up] = torch.zeros(()).expand(rows, RANK)
        state[name + down] = torch.zeros(()).expand(RANK, columns)
    linear = {key for key, weight in network.state_dict().items() if weight.ndim == 2}
    assert set(read_motion_lora("a", state, network)) == linear and len(linear) == 21 * 12


def test_the_published_size():
    """Rank 128 on the attentions of v3's 20 modules in float32 is the community file's 144 MB; no memory behind it."""
    network = read_motion("v3_sd15_mm.ckpt", zero_file(mid=False))
    state = {}
    for place, level in block_places(mid=False):
        for layer in ATTENTIONS:
            name, up, down = official(place, layer)
            state[name + up] = torch.zeros(()).expand(SD15_WIDTHS[level], 128)
            state[name + down] = torch.zeros(()).expand(128, SD15_WIDTHS[level])
    assert round(sum(value.numel() for value in state.values()) * 4 / 1e6) == 144
    assert len(read_motion_lora("a", state, network)) == 160


def test_the_list(folders):
    assert list_motion_loras() == list(PUBLISHED)
    save_file({"x": torch.zeros(1)}, folders / "mine.safetensors")
    folder_paths.filename_list_cache.clear()
    assert list_motion_loras() == ["mine.safetensors"]


def test_models_without_motion_modules(base, folders):
    save_file(lora_file(official)[0], folders / "lora.safetensors")
    with pytest.raises(MotionModelError, match=r"no motion modules\. Connect Motion Modules before it"):
        tuned(base)


def changed(**changes):
    """A file in which a tensor is another or (None) missing; {up} and {down} name those of the first layer."""
    state, _ = lora_file(official)
    name, up, down = official(*layers()[0][:2])
    for key, value in changes.items():
        key = {"up": name + up, "down": name + down}.get(key, key)
        state.pop(key, None) if value is None else state.__setitem__(key, value)
    return state


NAMED = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
MIDDLE = official("mid_block.motion_modules.0", ATTENTIONS[0])
FITTING = {
    # what is wrong -> what the file holds, what is said of it
    "unet": (
        lambda: {f"lora_unet_down_blocks_0_attentions_0_proj_in.lora_{one}.weight": torch.zeros(2, 2) for one in "up"},
        "is a LoRA of another part, such as the UNet .*stock Load LoRA",
    ),
    "other": (lambda: {"x": torch.zeros(1)}, "is no motion LoRA: it holds x"),
    "modules": (motion_file, "holds motion modules themselves .*choose it in Motion Modules"),
    "more": (lambda: changed(x=torch.zeros(1)), "holds more than a motion LoRA: x"),
    "other_modules": (
        lambda: changed(**{MIDDLE[0] + part: torch.zeros(2, 2) for part in MIDDLE[1:]}),
        r"made for other motion modules: .*mid_block.*v2_lora_ZoomIn\.ckpt .* with mm_sd_v15_v2\.ckpt",
    ),
    "shape": (
        lambda: changed(up=torch.zeros(320, 3)),
        rf"does not fit .*{NAMED}\.to_q\.weight, of shape \[48, 48\], .*\[320, 3\] and \[3, 48\]; expected \[48, r",
    ),
    "rank": (lambda: changed(up=torch.zeros(48, 4)), r"matrices \[48, 4\] and \[3, 48\]"),
    "half": (lambda: changed(down=None), rf"is incomplete: it lacks {NAMED}\.to_q_lora\.down\.weight"),
    "other_half": (lambda: changed(up=None), rf"is incomplete: {NAMED}\.to_q_lora\.down\.weight stands alone"),
    "kind": (
        lambda: {
            f"{NAMED}.to_q.{part}": torch.zeros(48, 48) for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        },
        "in another way than a LoRA does",
    ),
    "twice": (
        lambda: changed(**{key.replace("module.", "unet."): value for key, value in lora_file(official)[0].items()}),
        "the same layers twice",
    ),
}


@pytest.mark.parametrize("case", FITTING)
def test_files_that_do_not_fit(base, folders, case):
    state, message = FITTING[case][0](), FITTING[case][1]
    save_file(state, folders / "bad.safetensors")
    with pytest.raises(ValueError, match=rf"'motion_lora': bad\.safetensors .*{message}"):
        tuned(moving(base), "bad.safetensors")


def test_files_that_cannot_be_read(base, folders):
    (folders / "broken.safetensors").write_bytes(b"12345678")
    for name, message in (
        ("absent.ckpt", r"'motion_lora': absent\.ckpt is not in .*animatediff_motion_lora.*spacepxl"),
        ("broken.safetensors", r"'motion_lora': broken\.safetensors cannot be read as weights"),
    ):
        with pytest.raises(ValueError, match=message):
            tuned(moving(base), name)
    with pytest.raises(ValueError, match=r"'strength' is 3\.0"):
        tuned(moving(base), strength=3.0)
    with pytest.raises(MotionLoraError, match="it holds nothing"):
        read_motion_lora("a", {}, read_motion("a", motion_file(), GROUPS))
