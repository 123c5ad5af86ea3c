"""Imagine360's demonstration: its clips and what is measured of them, training, and the report against the nodes."""

import subprocess
import sys

import comfy.samplers
import pytest
import torch
from papernodes.networks import demo_format, demo_imagine360
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.imagine360_conditioning import Imagine360Conditioning, Imagine360Unpack
from papernodes.nodes.imagine360_inputs import view_cameras
from papernodes.nodes.imagine360_loader import Imagine360Loader
from papernodes.nodes.panorama_vae import PanoramaVAEDecode
from papernodes.patches.imagine360_conditioning import outpainting
from papernodes.patches.panorama_latent import PanoramaNoise, pack

from demo.eval.image_models import CHECKPOINTS
from demo.eval.imagine360_measures import AHEAD, BEHIND, inside, motion, moved, seam
from demo.eval.imagine360_report import KIND, WHOLE, Imagine360Models, markdown, measured, scenes_of, summary
from demo.panorama_clips import (
    FOV,
    HEIGHT,
    MOVES,
    PanoramaClips,
    conditions,
    cube_cameras,
    draw_clips,
    noise_index,
    shared_noise,
    views_of,
)

CPU = torch.device("cpu")
OTHER_WAY = {"left": -1, "right": 1, "ahead": -1, "back": 1}
"""How what lies behind moves: to the right, or growing."""


@pytest.fixture(scope="module")
def clips():
    """Eight clips; among them every way."""
    found = draw_clips(scenes_of(8, 3), torch.Generator().manual_seed(2))
    assert set(found.moves.tolist()) == set(range(len(MOVES)))
    return found


@pytest.fixture(scope="module")
def models():
    return Imagine360Models(CHECKPOINTS / f"{KIND}.safetensors", CPU)


def few(clips, count, frames):
    """Some of the clips, some of their frames."""
    return PanoramaClips(
        clips.panoramas[:count, :frames], clips.videos[:count, :frames], clips.moves[:count], clips.pitch
    )


def test_what_lies_behind_moves_the_other_way(clips):
    for view, sign in ((AHEAD, -1), (BEHIND, 1)):
        found = motion(clips.panoramas, clips.moves, view)
        wanted = torch.tensor([sign * OTHER_WAY[list(MOVES)[move]] for move in clips.moves])
        assert bool((found.sign() == wanted).all())
    true = motion(clips.panoramas, clips.moves, BEHIND)
    assert (
        bool(moved(true, true).all()) and not bool(moved(-true, true).any()) and not bool(moved(0 * true, true).any())
    )
    # As the camera saw it; and the edges meet.
    assert inside(clips.panoramas, clips.videos, clips.pitch).min() > 28
    assert inside(clips.panoramas.roll(8, -1), clips.videos, clips.pitch).max() < 22
    assert seam(clips.panoramas).mean() < 1.5


def test_a_summary_of_truth_meets_every_bar(clips):
    table = summary({WHOLE: measured(clips.panoramas, clips)})
    assert table[WHOLE]["behind"]["share"] == 1 and table[WHOLE]["speed behind"] == 1
    content = {"n": 8, "seeds": 1, "steps": 20, "cfg": 2.0, "device": "CPU", "date": "", "table": table}
    assert "100.0 %" in markdown(content)


def test_clips_are_told_as_the_node_tells_them(clips, models):
    some = few(clips, 2, 2)
    told = conditions(some.videos, some.pitch, HEIGHT, lambda pictures: models.image.vae.encode(pictures))
    assert view_cameras("cube 6", FOV) == cube_cameras()
    vae = DemoCheckpoint.execute("image").args[2]
    for row in range(2):
        frames = some.videos[row].movedim(1, -1)
        angle = torch.full((2,), some.pitch)
        node = outpainting(frames, angle, 0 * angle, FOV, cube_cameras(), HEIGHT, vae.encode)
        for ours, theirs in zip(told, (node.panorama, node.views), strict=True):
            assert torch.equal(ours[row, 0], theirs[0, 0]), "what is to be generated"
            assert float((ours[row] - theirs[0]).abs().mean()) < 0.01
    noise = PanoramaNoise(5, cube_cameras()).generate_noise(
        pack(torch.zeros(1, 4, 2, 16, 32), torch.zeros(1, 4, 12, 8, 8))
    )
    panorama, views = noise.unbind()
    assert torch.equal(shared_noise(panorama, noise_index()), views)
    assert views_of(some.panoramas[0], 64).shape == (2, 6, 3, 64, 64)


@torch.no_grad()
def test_the_report_draws_what_the_nodes_draw(clips, models):
    some, prompt, steps = few(clips, 1, 2), "a red cat in the snow", 2
    drawn = models.draw(some, [prompt], 7, ("opposite",), 2.0, steps)
    clip, vae = DemoCheckpoint.execute("image").args[1:3]
    (model, _) = Imagine360Loader.execute("none", "none", f"papernodes_demo_{KIND}.safetensors", "none", "none").args

    def told(text):
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    positive, negative, latent, noise = Imagine360Conditioning.execute(
        told(prompt), told(""), vae, some.videos[0].movedim(1, -1), str(some.pitch), 2, HEIGHT, FOV, "cube 6", FOV, 8.0,
        7, 0.0, 0.0, 0,
    ).args  # fmt: skip
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    sampler = comfy.samplers.sampler_object("euler")
    found = guider.sample(noise.generate_noise(latent), latent["samples"], sampler, sigmas, disable_pbar=True, seed=7)
    (panorama, _) = Imagine360Unpack.execute({"samples": found}).args
    (pictures,) = PanoramaVAEDecode.execute(panorama, vae, 4, 512, 64).args
    # Noise of one size is the same numbers in both.
    assert float((pictures.movedim(-1, 1) - drawn[0]).abs().mean()) < 6e-3


def test_the_file_is_what_training_writes(tmp_path):
    command = [sys.executable, "-m", "demo.train_imagine360", "--tiny", "--steps", "1", "--state", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr[-2000:]
    for path in (tmp_path / f"{KIND}.safetensors", CHECKPOINTS / f"{KIND}.safetensors"):
        state, metadata = demo_format.load(path, KIND)
        assert path.stat().st_size <= 3.0e6 and metadata["imagine360"] == demo_imagine360.metadata()["imagine360"]
        shapes = {name: value.shape for name, value in demo_imagine360.initial_imagine360(0).items()}
        assert {name: value.shape for name, value in state.items()} == shapes
