"""What the panorama nodes do on the shipped image model: the report's bars, and a few panoramas measured again."""

import json

import comfy.samplers
import pytest
import torch

from demo.eval import frozen, panorama_report
from demo.eval.image_models import CHECKPOINTS, ImageModels, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.network_reader import NetworkReader
from demo.eval.panorama_measures import seam_changes, shown_right
from demo.eval.panorama_models import UNIT, Arm, draw, look, rendered_views, ring_yaws, views_of
from demo.eval.panorama_report import (
    ARMS,
    CFG,
    ELEVATIONS,
    ENDLESS,
    FLAT,
    KEPT_BAR,
    KEPT_GAIN,
    LATENTS,
    PLAIN,
    ROUND,
    SEAMS,
    SMALL,
    VIEWS,
    VIEWS_HEIGHT,
    WANTED,
    WITH_BAR,
    WITHOUT_BAR,
    place_prompts,
    read_views,
    scene_prompts,
    scenes_of,
)
from demo.eval.reading import CHANCE
from demo.world.render import render

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
COUNT, SEED, STEPS = 32, 930_000_000, 8
LOWERED = 0.10
TOLD = {
    FLAT: "plain model",
    ENDLESS: "Panorama Model",
    VIEWS: "Panorama Views, views of 192 x 192",
    SMALL: "the same, views of 128 x 128",
    LATENTS: "the same, without the VAE",
    WANTED: "rendered: more cannot be read",
}
"""Row of the report -> what the README calls it."""


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "panorama.json").read_text(encoding="ascii"))


@pytest.fixture(scope="module")
def models():
    return ImageModels(CHECKPOINTS, CPU)


def test_the_report_is_of_the_shipped_files(report):
    assert report["checkpoints"] == file_hashes() and report["readers"] == frozen.current()
    assert report["seeds"] >= 3 and report["n"] * report["seeds"] >= 500
    assert report["panoramas"] * report["seeds"] * report["views_each"] >= 500
    assert report["steps"] == 20 and report["cfg"] == CFG
    assert report["table"]["seams"].keys() == SEAMS.keys() and report["table"]["views"].keys() >= ARMS.keys()
    assert (REPORTS / "panorama.md").read_text(encoding="ascii") == panorama_report.markdown(report)


def test_edges_meet(report):
    """The seam without the nodes was first measured on 510 panoramas: 2.11 (1.96 to 2.26), over its bar by the mean
    alone. The report's 1,200 were drawn after that, for a narrower interval.
    """
    table = report["table"]["seams"]
    assert table[PLAIN]["seam"]["low"] > WITHOUT_BAR and table[ROUND]["seam"]["high"] < WITH_BAR


def test_shapes_are_kept_above_and_below(report):
    table = report["table"]["views"]
    assert table[WANTED]["shape steep"]["low"] > 0.8, "what cannot be read cannot be measured"
    for name in (VIEWS, SMALL):
        assert table[name]["shape steep"]["low"] >= KEPT_BAR and table[name]["gain"]["low"] >= KEPT_GAIN
    assert table[VIEWS]["shape steep"]["low"] > table[SMALL]["shape steep"]["high"]
    assert table[LATENTS]["shape steep"]["high"] < CHANCE["shape"], "a blur"


def test_the_readme_and_the_help_tell_what_the_report_says(report):
    root = CHECKPOINTS.parent.parent
    section = (root / "README.md").read_text(encoding="utf-8").split("### Panoramas\n")[1].split("\n## ")[0]
    section = section.replace("**", "")
    helped = {
        name: (root / "web" / "docs" / f"PaperNodes_{name}.md").read_text(encoding="utf-8")
        for name in ("PanoramaModel", "PanoramaViews")
    }
    for name, row in report["table"]["seams"].items():
        value, low, high = (row["seam"][key] for key in ("value", "low", "high"))
        told = f"{value:.2f} ({low:.2f} to {high:.2f})"
        assert f"| {name} | {told} | {row['cells']['value']:.2f} |" in section and told in helped["PanoramaModel"]
    for name, words in TOLD.items():
        row = report["table"]["views"][name]
        shape, ahead, gain = row["shape steep"], row["shape 0"]["value"], row["gain"]
        right = f"{shape['value']:.1%} ({shape['low'] * 100:.1f})".replace("%", " %")
        more = "" if name == FLAT else f" {gain['value'] * 100:+.1f} ({gain['low'] * 100:+.1f})"
        colour = f"{(row['colour 60']['value'] + row['colour -60']['value']) * 50:.1f} %"
        assert f"| {words} | {right} | {ahead * 100:.1f} % |{more} | {colour} |" in section
        if name == ENDLESS:
            assert f"{right[:6]} of the shapes" in helped["PanoramaModel"]
        else:
            assert f"| {right} | {colour} |" in helped["PanoramaViews"]


def test_32_seams(models):
    """The bars are lowered by a tenth."""
    found = {}
    for name in (PLAIN, ROUND):
        given = (place_prompts(COUNT), SEED, SEAMS[name], 16, CFG)
        across, inside = seam_changes(draw(models, *given, steps=STEPS, batch=8))
        found[name] = float(across.mean() / inside.mean())
    assert found[PLAIN] > WITHOUT_BAR * (1 - LOWERED) and found[ROUND] < WITH_BAR * (1 + LOWERED), found


def test_three_panoramas_of_views(models):
    """In four steps, by the report's own bars. When written 15 of 18 shapes were right, and 9 of the plain model's,
    whose own panoramas would fail.
    """
    scenes, reader = scenes_of(3, SEED), NetworkReader()
    right = {}
    for name in (FLAT, VIEWS):
        panoramas = draw(models, scene_prompts(scenes), SEED, ARMS[name], VIEWS_HEIGHT, CFG, steps=4, batch=3)
        right[name] = float(read_views(panoramas, scenes, reader, ARMS[VIEWS], CPU)["shape steep"].mean())
    assert right[VIEWS] >= max(KEPT_BAR, right[FLAT] + KEPT_GAIN), right


def test_what_lies_where_a_view_looks_is_read_there():
    """Flat pictures laid where views look, also 60 degrees up and down, are read as what they are."""
    scenes, arm = scenes_of(2, SEED), ARMS[VIEWS]
    edge = UNIT * arm.columns
    pictures = render(scenes, edge, edge).frames[:, 0].repeat_interleave(len(views_of(arm).yaw), 0)
    panoramas = rendered_views(pictures, arm, VIEWS_HEIGHT)
    for pitch in ELEVATIONS:
        yaws = ring_yaws(arm, pitch)
        found = NetworkReader().read(look(panoramas, yaws, pitch))
        assert shown_right(found, scenes.shape[:, 0].repeat_interleave(len(yaws))).float().mean() > 0.8


def told(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


@torch.no_grad()
@pytest.mark.parametrize("name", ("round", "views"))
def test_the_report_draws_what_the_nodes_draw(models, name):
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint
    from papernodes.nodes.panorama_model import PanoramaModel, PanoramaViews
    from papernodes.nodes.panorama_vae import PanoramaVAEDecode

    model, clip, vae = DemoCheckpoint.execute("image").args[:3]
    prompt, arm = "a red cat in the snow", Arm(name, "tiles", columns=8)
    height, steps = 8, 3
    whole = draw(models, [prompt], SEED, arm, height, CFG, steps=steps)
    texts = (told(clip, prompt), told(clip, ""))
    if name == "round":
        (model,) = PanoramaModel.execute(model, "automatic", "as trained", 1.0, 0.0, 1.0).args
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*texts)
        guider.set_cfg(CFG)
    else:
        (guider,) = PanoramaViews.execute(model, *texts, CFG, 3, 100.0, 0.25, "50, 0, -50", 8, 9, vae).args
    noise = torch.randn(1, 4, height, 2 * height, generator=torch.Generator().manual_seed(SEED))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    euler = comfy.samplers.sampler_object("euler")
    latent = guider.sample(noise, torch.zeros_like(noise), euler, sigmas, disable_pbar=True, seed=SEED)
    found = PanoramaVAEDecode.execute({"samples": latent}, vae, 4, 128, 32).args[0].movedim(-1, 1)
    assert float((found - whole).abs().mean()) < 6e-3
