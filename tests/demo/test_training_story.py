"""The LoRA for stories: captions that hold other pictures' words, what is scaled, and the same in ComfyUI."""

import argparse
import subprocess
import sys

import comfy.sd
import comfy.utils
import pytest
import torch

from demo import story_captions, train_story_lora
from demo.eval.image_models import CHECKPOINTS, ImageModels, story_lora_path
from demo.story_captions import END_KEPT, END_ROW, OTHER, PHRASINGS, WORD, frame_text, story_pictures
from demo.train_image import load_models
from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, HELD_OUT, PATTERNS, SHAPES
from demo.world.captions import words
from demo.world.scene import draw_scenes
from demo.world_tokens import END, table, token_rows, vocabulary
from networks import demo_format, demo_image, demo_story_lora

CPU = torch.device("cpu")
LOOKS = (COLOURS, PATTERNS, ACCESSORIES)
WORD_OF = {tuple(tokens): word for word, tokens in table().items()}


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    """A LoRA of random numbers."""
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(value.shape, generator=generator) * 0.05
        for name, value in demo_story_lora.initial_lora(0).items()
    }
    path = tmp_path_factory.mktemp("lora") / f"{demo_story_lora.KIND}.safetensors"
    demo_format.save(path, state, {"kind": demo_story_lora.KIND}, packed=False)
    return path


def told(line, role=None) -> list[str]:
    """The words of a row, those of one role if given; every word of the world is one or two tokens."""
    ids = [vocabulary()[row] for row, what in zip(*line.tolist(), strict=True) if role is None or what == role]
    found, k = [], 0
    while k < len(ids):
        step = next((n for n in (2, 1) if tuple(ids[k : k + n]) in WORD_OF), None)
        found += [WORD_OF[tuple(ids[k : k + step])]] if step else []
        k += step or 1
    return found


@pytest.fixture(scope="module")
def drawn():
    """Sixty scenes as they are drawn, what becomes of them, and their captions."""
    scenes = draw_scenes(60, 11, characters=(0.8, 0.2, 0.0, 0.0))
    changed, rows = story_pictures(scenes, 11)
    return scenes, changed, torch.from_numpy(rows)


def bound_rows(rows) -> list[bool]:
    return ((rows[:, :, 1] == END_KEPT).any(2).all(1)).tolist()


def test_a_storys_caption_marks_the_words_of_other_pictures(drawn):
    _, scenes, rows = drawn
    assert rows.shape == (60, PHRASINGS, 2, 77) and rows.dtype == torch.int16
    ends = (rows[:, :, 1] == END_ROW) | (rows[:, :, 1] == END_KEPT)
    assert torch.equal(rows[:, :, 0] == vocabulary().index(END), ends)
    assert (rows[:, :2, 1] != OTHER).all(), "the first captions hold one picture"
    counts = []
    for b, bound in enumerate(bound_rows(rows)):
        for line in rows[b, 2:]:
            if scenes.count[b] > 1 or bound:
                assert (line[1] != OTHER).all()
                continue
            own = words(frame_text(int(scenes.background[b]), int(scenes.light[b])))
            kept, others = told(line, WORD), told(line, OTHER)
            assert kept[-len(own) :] == own, kept
            assert SHAPES[scenes.shape[b, 0]] in kept
            counts.append(others.count("lit"))
            # No other frame is in the same place, so nothing that is scaled down is what the picture shows.
            assert " ".join(own[: own.index(",")]) not in " ".join(others)
    assert set(counts) == set(range(story_captions.MOST_FRAMES))


def test_what_a_bound_picture_leaves_open_is_typical_of_its_place(drawn):
    scenes, changed, rows = drawn
    bound, typical, named = bound_rows(rows), 0, 0
    assert 0.2 < sum(bound) / (scenes.count == 1).sum() < 0.6
    for b in range(scenes.size):
        look = (COLOURS[changed.colour[b, 0]], PATTERNS[changed.pattern[b, 0]], ACCESSORIES[changed.accessory[b, 0]])
        before = (COLOURS[scenes.colour[b, 0]], PATTERNS[scenes.pattern[b, 0]], ACCESSORIES[scenes.accessory[b, 0]])
        if scenes.count[b] > 1 or not bound[b]:
            assert look == before
            continue
        assert not HELD_OUT[changed.shape[b, 0], changed.colour[b, 0], changed.pattern[b, 0]]
        said, usual = told(rows[b, 0]), story_captions.TYPICAL[BACKGROUNDS[changed.background[b]]]
        assert all(told(line) == said for line in rows[b]), "all its captions leave the same open"
        for now, once, expected in zip(look, before, usual, strict=True):
            typical += now == expected and now not in said
            named += now == once and now in said
            assert now in (once, expected)
    assert typical > 10 and named > 10


def test_places_have_looks_of_their_own():
    assert set(story_captions.TYPICAL) == set(BACKGROUNDS)
    for names, all_of_them in zip(zip(*story_captions.TYPICAL.values(), strict=True), LOOKS, strict=True):
        assert set(names) <= set(all_of_them)
    assert len({look[0] for look in story_captions.TYPICAL.values()}) == len(BACKGROUNDS)


def test_what_is_scaled():
    torch.manual_seed(0)
    roles = torch.tensor([WORD, END_KEPT, OTHER, END_ROW]).expand(400, 4)
    empty = (torch.arange(400) < 100)[:, None]
    scales = train_story_lora.row_scales(roles, empty)[..., 0]
    assert (scales[:100] == 1).all()
    scales = scales[100:]
    assert (scales[:, :2] == 1).all()
    assert (scales[:, 2] <= train_story_lora.OTHERS_MOST).all() and scales[:, 2].std() > 0.02
    assert abs((scales[:, 3] == 0).float().mean() - train_story_lora.END_ZERO) < 0.1
    assert scales[:, 3].max() <= train_story_lora.END_MOST and scales[:, 3].std() > 0.05


def test_its_loss_reaches_all_that_is_trained():
    unet, text = load_models(CHECKPOINTS, CPU)
    state = {name: value.requires_grad_() for name, value in demo_story_lora.initial_lora(0).items()}
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator).half()
    tokens = torch.from_numpy(story_pictures(draw_scenes(2, 3, characters=1), 3)[1])
    settings = argparse.Namespace(
        batch=3, snr_limit=5.0, layout=0.4, layout_weight=1.0, layout_from=400, layout_limit=20.0
    )
    words_of = train_story_lora.Words(text)
    loss = train_story_lora.make_loss(unet, words_of, state, latents, tokens, settings)
    loss().backward()
    reached = {name for name, value in state.items() if value.grad is not None and value.grad.any()}
    assert reached == {name for name in state if ".lora_B." in name}
    with torch.no_grad():
        for name in reached:
            state[name].normal_(std=0.02, generator=generator)
    loss().backward()
    assert all(value.grad.any() for value in state.values())


def test_the_script_writes_a_lora_that_loads(repository, tmp_path):
    command = [sys.executable, "-m", "demo.train_story_lora", "--tiny", "--final", "--state", str(tmp_path)]
    command += ["--begin-with", str(story_lora_path())]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    path = tmp_path / f"{demo_story_lora.KIND}.safetensors"
    shipped, found = (demo_story_lora.load_lora(file) for file in (story_lora_path(), path))
    assert all((found[name] - value).abs().max() < 0.01 for name, value in shipped.items()), "it goes on from there"
    assert len(demo_story_lora.load_lora(path)) == 176
    assert demo_format.read_metadata(path, demo_story_lora.KIND)["steps"] == "3"
    assert (tmp_path / "samples.png").is_file()


def test_a_lora_that_changes_nothing_yet():
    unet, text = load_models(CHECKPOINTS, CPU)
    merged = demo_story_lora.apply_lora(demo_story_lora.initial_lora(0), unet.state_dict(), text.state_dict())
    for found, model in zip(merged, (unet, text), strict=True):
        assert found and all(torch.equal(value, model.state_dict()[name]) for name, value in found.items())


def test_the_stock_loaders_lora_is_the_one_that_was_trained(lora_file, caplog):
    """UNet and text encoder as the host patches them against what training and the evaluation use."""
    model = demo_image.load_model(CHECKPOINTS / "image_unet.safetensors")
    clip = demo_image.load_clip(CHECKPOINTS / "image_text_encoder.safetensors")
    stock = comfy.utils.load_torch_file(str(lora_file))
    on, clip_on = comfy.sd.load_lora_for_models(model, clip, stock, 1.0, 1.0)
    assert "lora key not loaded" not in caplog.text
    assert (len(on.patches), len(clip_on.patcher.patches)) == (64, 24)

    models = ImageModels(CHECKPOINTS, CPU, lora=lora_file)
    plain = ImageModels(CHECKPOINTS, CPU)
    text = "a red cat in a forest, lit from above"
    states = clip_on.encode_from_tokens(clip_on.tokenize(text))
    torch.testing.assert_close(states.float(), models.encode_prompts([text]), atol=1e-2, rtol=0)
    assert (states.float() - plain.encode_prompts([text])).abs().max() > 0.1
    on.patch_model()
    try:
        for name, value in models.unet.state_dict().items():
            found = comfy.utils.get_attr(on.model, f"diffusion_model.{name}").float()
            torch.testing.assert_close(found, value, atol=2e-3, rtol=2e-3)
    finally:
        on.unpatch_model()


def test_where_the_lora_lies(lora_file, tmp_path):
    assert story_lora_path(tmp_path) == tmp_path / "loras" / demo_story_lora.FILE_NAME
    assert story_lora_path(lora_file.parent) == lora_file


def test_a_damaged_file(lora_file, tmp_path):
    state = demo_story_lora.load_lora(lora_file)
    del state[next(iter(state))]
    path = tmp_path / lora_file.name
    demo_format.save(path, state, {"kind": demo_story_lora.KIND}, packed=False)
    with pytest.raises(demo_format.DemoFileError, match="image_lora_story"):
        demo_story_lora.load_lora(path)
    with pytest.raises(demo_format.DemoFileError, match="missing"):
        demo_story_lora.load_lora(tmp_path / "none.safetensors")


def test_rows_are_those_of_the_tokenizer_table():
    scenes = draw_scenes(4, 5, characters=1)
    _, rows = story_pictures(scenes, 5)
    for b in range(4):
        for k in range(PHRASINGS):
            again = token_rows([" ".join(told(torch.from_numpy(rows[b, k])))])[0]
            assert (again == rows[b, k, 0]).all()
