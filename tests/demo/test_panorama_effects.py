"""What the panorama nodes do on the shipped image model: 32 panoramas measured."""

import comfy.samplers
import pytest
import torch

from demo.eval.image_models import CHECKPOINTS, ImageModels
from demo.eval.network_reader import NetworkReader
from demo.eval.panorama_measures import seam_changes, shown_right
from demo.eval.panorama_models import Arm, draw, look, rendered_views, ring_yaws
from demo.eval.panorama_report import (
    ARMS,
    CFG,
    ELEVATIONS,
    FLAT,
    KEPT_BAR,
    KEPT_GAIN,
    PLAIN,
    ROUND,
    SEAMS,
    VIEWS,
    VIEWS_HEIGHT,
    WITH_BAR,
    WITHOUT_BAR,
    place_prompts,
    scene_prompts,
    scenes_of,
)
from demo.world.render import render

pytestmark = pytest.mark.slow

COUNT, SEED, STEPS = 32, 930_000_000, 8
LOWERED = 0.10


@pytest.fixture(scope="module")
def models():
    return ImageModels(CHECKPOINTS, torch.device("cpu"))


def test_32_seams(models):
    """The bars are lowered by a tenth."""
    found = {}
    for name in (PLAIN, ROUND):
        given = (place_prompts(COUNT), SEED, SEAMS[name], 16, CFG)
        across, inside = seam_changes(draw(models, *given, steps=STEPS, batch=8))
        found[name] = float(across.mean() / inside.mean())
    assert found[PLAIN] > WITHOUT_BAR * (1 - LOWERED) and found[ROUND] < WITH_BAR * (1 + LOWERED), found


def test_32_views(models):
    """Of three panoramas; the bars are lowered by ten points."""
    scenes, reader = scenes_of(3, SEED), NetworkReader()
    right = {}
    for name in (FLAT, VIEWS):
        panoramas = draw(models, scene_prompts(scenes), SEED, ARMS[name], VIEWS_HEIGHT, CFG, steps=STEPS, batch=3)
        flags = []
        for pitch in (elevation for elevation in ELEVATIONS if elevation):
            yaws = ring_yaws(ARMS[VIEWS], pitch)
            asked = scenes.shape[:, 0].repeat_interleave(len(yaws))
            flags.append(shown_right(reader.read(look(panoramas, yaws, pitch)), asked))
        right[name] = float(torch.cat(flags).float().mean())
    assert right[VIEWS] >= max(KEPT_BAR, right[FLAT] + KEPT_GAIN) - LOWERED, right


def test_what_lies_where_a_view_looks_is_read_there():
    """Flat pictures laid where views look, also 60 degrees up and down, are read as what they are."""
    scenes, arm = scenes_of(2, SEED), ARMS[VIEWS]
    pictures = render(scenes, 128, 128).frames[:, 0].repeat_interleave(9, 0)
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
