"""What One-Prompt-One-Story does on the shipped image models: its report's bars, and a story through the nodes."""

import hashlib
import json

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch

from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, file_hashes, story_lora_path
from demo.eval.image_report import CFG, REPORTS, SAMPLER, SCHEDULER
from demo.eval.network_reader import NetworkReader
from demo.eval.story_models import BASELINE, FULL, Story, arms_of
from demo.eval.story_report import GAIN_BAR, LOSS_BAR, markdown, measure
from demo.world.attributes import COLOURS, SHAPES

pytestmark = pytest.mark.slow

STORY = Story(SHAPES.index("ghost"), (0, 1, 3, 4, 6), (0, 2, 1, 0, 2), "colour", COLOURS.index("green"))


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "story.json").read_text(encoding="ascii"))


def mean(report, arm, row="agreement"):
    return report["arms"][arm][row]["mean"]


def test_the_report_is_of_the_shipped_files(report):
    assert report["checkpoints"] == file_hashes()
    assert report["lora"] == hashlib.sha256(story_lora_path().read_bytes()).hexdigest()
    assert report["readers"] == frozen.current()
    assert report["stories"] * report["seeds"] >= 400 and report["arms"].keys() == arms_of().keys()
    settings = {"cfg": CFG, "sampler": SAMPLER, "scheduler": SCHEDULER, "steps": 20, "strength": 1.0}
    assert {name: report[name] for name in settings} == settings
    assert (REPORTS / "story.md").read_text(encoding="ascii") == markdown(report)


def test_places_and_lights_stay_right(report):
    assert report["arms"][FULL]["frames right"]["gain"]["low"] >= -LOSS_BAR
    assert min(mean(report, FULL, row) for row in ("background", "light", "shape right", "named right")) > 0.9


def test_frames_agree_more_than_those_prompted_one_by_one(report):
    assert report["arms"][FULL]["agreement"]["gain"]["low"] >= GAIN_BAR
    assert all(mean(report, FULL, row) >= mean(report, BASELINE, row) for row in ("colour", "pattern", "accessory"))


def test_what_each_part_does(report):
    """Reweighting makes the places right, identity attention and the same noise make frames agree."""
    assert mean(report, FULL, "background") > 0.9 > 0.4 > mean(report, "story, no reweighting", "background")
    for with_it, without in (
        (FULL, "story, no identity attention"),
        ("one by one, identity attention", BASELINE),
        (FULL, "story, other noise for each frame"),
    ):
        assert mean(report, with_it) > mean(report, without) + 0.01
    # One by one, what the place makes of a character outweighs its noise.
    assert abs(mean(report, BASELINE) - mean(report, "one by one, other noise for each frame")) < 0.05


def test_the_readme_tells_what_the_report_says(report):
    text = (CHECKPOINTS.parent.parent / "README.md").read_text(encoding="utf-8")
    table = text.split("### A story")[1].split("###")[0].split("## ")[0]
    told = {
        BASELINE: "frames prompted one by one",
        FULL: "one prompt, reweighting and identity attention (the paper)",
        "story, no identity attention": "the same without identity attention",
        "story, no reweighting": "the same without reweighting",
        "story, neither": "one prompt and nothing else",
        "one by one, identity attention": "one by one, with identity attention",
        "story, other noise for each frame": "the paper's, other noise for each frame",
        "one by one, other noise for each frame": "one by one, other noise for each frame",
    }
    for arm, words in told.items():
        values = [f"{mean(report, arm, row) * 100:.0f} %" for row in ("agreement", "background", "light")]
        assert f"| {words} | {' | '.join(values)} |" in table.splitlines(), (arm, values)
    gain = report["arms"][FULL]["agreement"]["gain"]
    points = [f"{gain[name] * 100:.1f}" for name in ("mean", "low", "high")]
    assert f"({points[0]} points, 95 %: {points[1]} to {points[2]}; the aim was 10)" in " ".join(table.split())


def test_a_story_through_the_nodes():
    """One prompt, five frames, the stock LoRA loader: with the LoRA each frame is in its place, without it few are."""
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint
    from papernodes.nodes.identity_attention import IdentityAttention
    from papernodes.nodes.story import StoryPrompts

    model, clip, vae = DemoCheckpoint.execute("image").args[:3]
    factors = comfy.utils.load_torch_file(str(story_lora_path()))
    tuned = comfy.sd.load_lora_for_models(model, clip, factors, 1.0, 1.0)
    reader, right = NetworkReader(device=torch.device("cpu")), {}
    for name, (unet, words) in {"with": tuned, "without": (model, clip)}.items():
        empty = words.encode_from_tokens_scheduled(words.tokenize(""))
        curves = (-0.01, 1.0, 0.01, 0.05)
        story = StoryPrompts.execute(words, STORY.identity, "\n".join(STORY.texts), 10, "svr", *curves, True).args[0]
        inputs = ([unet], [words], story, [STORY.identity], [1.0], [0.0], [0.0], [1.0], ["bias"])
        attending, story = IdentityAttention.execute(*inputs).args
        noise, pictures = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)), []
        for conditioning in story:
            latent = torch.zeros(1, 4, 16, 16)
            found = comfy.sample.sample(
                attending, noise, 20, CFG, SAMPLER, SCHEDULER, conditioning, empty, latent, disable_pbar=True, seed=3
            )
            pictures.append(vae.decode(found)[0].movedim(-1, 0))
        right[name] = measure([STORY], reader.read(torch.stack(pictures)))
    assert float(right["with"]["frames right"]) == float(right["with"]["named right"]) == 1
    assert float(right["without"]["background"]) < 0.7
