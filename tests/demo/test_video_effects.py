"""The shipped video models do what the report says: its bars, and motion control again in small, through ComfyUI.

Three scenes, each asked to go left and to go right by the noise alone, and one with plain noise beside them; the
report must belong to the shipped files.
"""

import dataclasses
import json
import time

import pytest
import torch

from demo.eval import frozen
from demo.eval import video_measures as measures
from demo.eval.network_reader import NetworkReader
from demo.eval.video_by_hand import HAND_KINDS
from demo.eval.video_models import CHECKPOINTS, FILES, LATENT, OVERSAMPLE, SCHEDULERS, SHIFT, STEPS, file_hashes
from demo.eval.video_report import CFG, REPORTS, render_bytes
from demo.eval.video_scenes import FIRST_SEED, FRAMES, KINDS, flows_of, still_captions
from demo.eval.video_tables import (
    CONDITIONS,
    FOLLOWED,
    OTHERS,
    PSNR_BAR,
    QUALITY_BAR,
    RATIO_BAR,
    RISING,
    SHARE_BARS,
)
from demo.world.attributes import MOTIONS
from demo.world.captions import MOVING
from demo.world.scene import Scenes, draw_scenes
from demo.world_tokens import token_ids

pytestmark = pytest.mark.slow

COUNT, SEED = 3, 990_000
REACH = 0.7
"""Stage units that a character is asked to go: 45 pixels of 128."""

CPU_SECONDS = 20.0
MEGABYTES = 12.0
MEASURES = ("motion by reader", "motion by optical flow")
BARRED = ("both", *HAND_KINDS)
"""Kinds of motion with bars of their own; "both" is object and camera."""

TEMPLATES = ("demo_camera_move", "demo_cut_and_drag", "demo_motion_transfer")


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "video.json").read_text(encoding="ascii"))


def test_the_report_is_of_the_shipped_files(report):
    assert report["checkpoints"] == file_hashes()
    assert report["readers"] == frozen.current()
    assert report["n"] * report["seeds"] >= 500 and report["seeds"] >= 3
    settings = {"cfg": CFG, "scheduler": SCHEDULERS[0], "shift": SHIFT, "steps": STEPS}
    assert {name: report[name] for name in settings} == settings


def test_the_shipped_files_are_small_and_no_others():
    others = ("image_", "ic_light_", "relight_", "manga_ninja_", "blob_adapter", "imagine360")
    paths = [path for path in CHECKPOINTS.rglob("*") if not path.name.startswith(others)]
    found = {path.relative_to(CHECKPOINTS).as_posix() for path in paths}
    lora, story = (f"loras/papernodes_demo_{name}.safetensors" for name in ("warped_noise", "story"))
    assert found == {"loras", lora, story, *(f"{kind}.safetensors" for kind in FILES if "lora" not in kind)}
    sizes = {name: (CHECKPOINTS / name).stat().st_size for name in found - {"loras", story}}
    assert sum(sizes.values()) <= MEGABYTES * 1e6 and sizes["video_unet.safetensors"] <= 6e6


MISSED = {"one.identity", *(f"{MEASURES[1]}: {kind}" for kind in ("both", "camera move"))}
"""Bars that the shipped models do not reach yet, as README and TRAINING.md say; one that is reached must leave here."""

FLOORS = {"one.identity": 0.65, MEASURES[1]: 0.65}
"""What holds all the same: most clips keep their identity, and noise that follows is well ahead of plain noise."""


def test_bars_are_cleared_but_for_those_that_are_known_to_be_missed(report):
    """The end of each 95 % interval that is on the wrong side must reach the bar."""
    reached = {row: report["shares"][row]["low"] >= bar for row, bar in SHARE_BARS.items()}
    reached["VAE PSNR"] = report["means"]["VAE PSNR, dB"]["low"] >= PSNR_BAR
    for measure in MEASURES:
        for kind in BARRED:
            reached[f"{measure}: {kind}"] = report[measure][f"{kind}, {FOLLOWED} / plain noise"]["high"] <= RATIO_BAR
    assert len(reached) == 9
    assert {name for name, clears in reached.items() if not clears} == MISSED


def test_missed_bars_are_not_missed_by_far(report):
    assert report["shares"]["one.identity"]["low"] >= FLOORS["one.identity"]
    for kind in BARRED:
        assert report[MEASURES[1]][f"{kind}, {FOLLOWED} / plain noise"]["high"] <= FLOORS[MEASURES[1]]


def test_the_readme_tells_what_the_report_says(report):
    text = (CHECKPOINTS.parent.parent / "README.md").read_text(encoding="utf-8").split("### The video model")[1]
    reader, flow = (report[measure] for measure in MEASURES)
    for kind in BARRED:
        ratio, untuned = (
            reader[f"{kind}, {name} / plain noise"]["value"] for name in (FOLLOWED, f"LoRA off, {FOLLOWED}")
        )
        row = next(
            line
            for line in text.splitlines()
            if f"**{ratio:.2f}** ({reader[f'{kind}, {FOLLOWED}']['value']:.0f} of" in line
        )
        assert f"{reader[f'{kind}, plain noise']['value']:.0f}" in row
        assert row.endswith(f"| {untuned:.2f} | {flow[f'{kind}, {FOLLOWED} / plain noise']['value']:.2f} |")
    shares = {name: f"{report['shares'][name]['share'] * 100:.0f} %" for name in ("one.identity", "one.direction")}
    assert f"in {shares['one.identity']} of the clips" in text and f"by {shares['one.direction']} of single" in text


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", (*KINDS, *HAND_KINDS))
def test_it_is_the_asked_motion_and_no_other(report, measure, kind):
    rows = report[measure]
    assert rows[f"{kind}, {FOLLOWED} / plain noise"]["high"] < 1
    assert rows[f"{kind}, {FOLLOWED}"]["high"] < rows[f"{kind}, {OTHERS}"]["low"]


@pytest.mark.parametrize("measure", MEASURES)
def test_the_error_rises_with_degradation(report, measure):
    rises = {name: row["low"] for name, row in report[measure].items() if name.startswith("both, rise from ")}
    assert len(rises) == len(RISING) - 1 == 3
    assert {name: low for name, low in rises.items() if low <= 0} == {}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", BARRED)
def test_the_effect_is_smaller_without_the_lora(report, measure, kind):
    assert report[measure][f"{kind}, LoRA off - on"]["low"] > 0


@pytest.mark.parametrize("kind", BARRED)
def test_pictures_are_as_good_as_with_plain_noise(report, kind):
    assert report["quality"][f"{kind}, {FOLLOWED} - plain noise"]["low"] >= QUALITY_BAR


def test_every_condition_was_measured_on_enough_clips(report):
    clips = report["n"] * report["seeds"]
    for condition in CONDITIONS:
        assert report[MEASURES[0]][f"both, {condition.name}"]["n"] >= 0.9 * len(KINDS) * clips
        assert report[MEASURES[1]][f"both, {condition.name}"]["n"] >= 100
    for kind in HAND_KINDS:
        assert report[MEASURES[0]][f"{kind}, {FOLLOWED}"]["n"] >= 0.9 * clips
        assert report[MEASURES[1]][f"{kind}, {FOLLOWED}"]["n"] >= 25


def scenes_that_go(direction: str) -> Scenes:
    """COUNT scenes of one character, the same ones for every direction, that crosses the middle of the picture."""
    drawn = draw_scenes(COUNT, FIRST_SEED + SEED, characters=1)
    along = torch.linspace(0, 1, FRAMES)
    way = (along * along * (3 - 2 * along) - 0.5) * REACH * {"left": -1, "right": 1}[direction]
    timed = {
        name: getattr(drawn, name).expand(-1, FRAMES, *getattr(drawn, name).shape[2:]).clone()
        for name in ("position", "radius", "angle", "camera")
    }
    timed["position"][..., 0] = way[:, None]
    motion = torch.where(drawn.present, MOTIONS.index(direction), 0)
    return dataclasses.replace(drawn, motion=motion, **timed)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What COUNT clips do, in pixels: how far their characters go to the right, and how far from where they should."""

    way: torch.Tensor
    error: torch.Tensor
    still: torch.Tensor  # the error of a clip that stands still


def judge(reader, scenes: Scenes, frames: torch.Tensor) -> Judged:
    """Measures clips [B, T, 3, 128, 128]; who is not found counts as standing still."""
    found = measures.movements(measures.read_frames(reader, frames))
    order, _ = measures.of_asked(scenes, found.first)
    seen = (order[:, 0] >= 0) & (found.motion.gather(1, order[:, :1].clamp(min=0))[:, 0] >= 0)
    way = found.way[torch.arange(scenes.size), order[:, 0].clamp(min=0), 0].nan_to_num(0.0)
    ends = measures.end_points(scenes, found)
    return Judged(torch.where(seen, way, 0.0) * measures.HALF, ends.error, ends.asked)


def problems(reader, clips: dict[str, torch.Tensor], plain: torch.Tensor) -> list[str]:
    """What keeps clips from following.

    Args:
        clips: direction -> clips of scenes_that_go there, [COUNT, T, 3, 128, 128].
        plain: the first scene's clip from plain noise, [1, T, 3, 128, 128].
    """
    found = {name: judge(reader, scenes_that_go(name), frames) for name, frames in clips.items()}
    apart = (found["right"].way - found["left"].way) / (2 * REACH * measures.HALF)
    error = torch.cat([some.error for some in found.values()]).mean()
    still = torch.cat([some.still for some in found.values()]).mean()
    aimless = torch.cat([judge(reader, scenes_that_go(name).select(slice(0, 1)), plain).error for name in clips]).mean()
    wrong = []
    if apart.mean() < 0.5:
        wrong.append(f"left and right differ by {apart.tolist()} of what was asked")
    if error > 0.7 * still:
        wrong.append(f"{error:.1f} pixels away; standing still would be {still:.1f}")
    if error > 0.7 * aimless:
        wrong.append(f"{error:.1f} pixels away; with plain noise {aimless:.1f}")
    return wrong


@pytest.fixture(scope="module")
def reader():
    frozen.check()
    return NetworkReader()


def test_the_judgement_can_fail(reader):
    clips = {name: render_bytes(scenes_that_go(name), torch.device("cpu")) for name in ("left", "right")}
    still = clips["right"][:, :1].expand_as(clips["right"])
    assert problems(reader, clips, still[:1]) == []
    assert len(problems(reader, {"left": clips["right"], "right": clips["left"]}, still[:1])) == 3
    assert len(problems(reader, {"left": still, "right": still}, still[:1])) == 3
    assert problems(reader, {"left": clips["right"], "right": clips["right"]}, still[:1])


class Host:
    """The shipped models in ComfyUI's own nodes, as the templates connect them."""

    def __init__(self):
        import folder_paths
        from papernodes.networks.demo_video_lora import FILE_NAME
        from papernodes.nodes.demo_checkpoint import DemoCheckpoint

        import nodes as host_nodes

        folder_paths.add_model_folder_path("loras", str(CHECKPOINTS / "loras"))
        model, self.clip, self.vae, *_ = DemoCheckpoint.execute("video").args
        self.nodes = host_nodes
        (self.model,) = host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, FILE_NAME, 1.0)

    def encode(self, texts: list[str]) -> list:
        """One conditioning with a row for each text."""
        rows = [self.nodes.CLIPTextEncode().encode(self.clip, text)[0][0][0] for text in texts]
        return [[torch.cat(rows), {}]]

    @torch.inference_mode()  # as the server does
    def generate(self, sentences: list[str], noise: torch.Tensor) -> torch.Tensor:
        """Clips uint8 [B, 17, 3, 128, 128] from noise float32 [B, 16, 5, 16, 16]."""
        import comfy.sample

        latents = comfy.sample.sample(
            self.model, noise, STEPS, CFG, "euler", SCHEDULERS[0], self.encode(sentences),
            self.encode([""] * len(sentences)), torch.zeros_like(noise), force_full_denoise=True, disable_pbar=True,
        )  # fmt: skip
        clips = [self.nodes.VAEDecode().decode(self.vae, {"samples": latent})[0] for latent in latents.split(1)]
        return (torch.stack(clips) * 255).round().byte().permute(0, 1, 4, 2, 3)


def warped(scenes: Scenes, degradation: str = "0") -> torch.Tensor:
    """What the node Warp Noise gives for each scene's own flow."""
    from papernodes.kernels.flow import Flow
    from papernodes.nodes.warped_noise import WarpNoise

    found = []
    for number, vectors in enumerate(flows_of(scenes)[0]):
        settings = ("nearest", "subpixel", OVERSAMPLE)
        (noise,) = WarpNoise.execute(Flow(vectors), SEED + number, degradation, *settings).args
        found.append(noise.generate_noise({"samples": torch.zeros(1, *LATENT)}))
    return torch.cat(found)


def test_a_video_follows_left_and_right(reader):
    """Captions and seeds are the same in both directions: only the noise tells them apart. Also counts CPU seconds."""
    scenes = {name: scenes_that_go(name) for name in ("left", "right")}
    # Of the frame in the middle, where no caption says on which side the character stands.
    sentences = still_captions(scenes["left"].at(slice(FRAMES // 2, None)), SEED)
    assert not any("on the" in sentence.split(" in ")[0] and "left" in sentence.split(",")[0] for sentence in sentences)
    assert not any(words in sentence for sentence in sentences for words in MOVING.values() if words)
    host = Host()
    noise = warped(scenes["right"].select(slice(0, 1)), "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting for another one counts as well
    begin = time.process_time()
    plain = host.generate(sentences[:1], noise)
    seconds = time.process_time() - begin
    torch.set_num_threads(threads)
    clips = {name: host.generate(sentences, warped(some)) for name, some in scenes.items()}
    assert problems(reader, clips, plain) == []
    assert seconds < CPU_SECONDS


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_samples_as_the_report_does(name):
    from papernodes.host import templates

    graph = templates.read_twin(name)

    def one(kind: str) -> dict:
        (inputs,) = (node["inputs"] for node in graph.values() if node["class_type"] == kind)
        return inputs

    assert one("KSamplerSelect")["sampler_name"] == "euler"
    sigmas = one("BasicScheduler")
    assert (sigmas["scheduler"], sigmas["steps"], sigmas["denoise"]) == (SCHEDULERS[0], STEPS, 1)
    assert (one("ModelSamplingSD3")["shift"], one("CFGGuider")["cfg"]) == (SHIFT, CFG)
    latent = one("EmptyHunyuanLatentVideo")
    assert (latent["length"], latent["height"], latent["width"]) == (FRAMES, LATENT[2] * 8, LATENT[3] * 8)
    noise, lora = one("PaperNodes_WarpNoise"), one("LoraLoaderModelOnly")
    assert (noise["temporal"], noise["oversample"], lora["strength_model"]) == ("nearest", OVERSAMPLE, 1)
    for text in (node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode"):
        assert len(token_ids(text)) == 77  # of the world's words only
        assert not any(words in text for words in MOVING.values() if words)
