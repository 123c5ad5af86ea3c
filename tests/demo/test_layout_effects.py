"""What the layout demonstration does: bars of its report, and in small through the nodes."""

import hashlib
import json
import math

import comfy.samplers
import pytest
import torch
from node_helpers import conditioning_set_values

from demo.blob_scenes import seen_ellipses
from demo.eval import frozen, layout_report
from demo.eval.image_models import CHECKPOINTS, SIZE, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.layout_measures import per_object
from demo.eval.layout_models import Arm, LayoutModels
from demo.eval.layout_report import (
    ADAPTER,
    ADAPTER_BAR,
    ADAPTER_GAIN,
    ARMS,
    CFG,
    FREE_BAR,
    FREE_GAIN,
    KIND,
    LEAK_BAR,
    MASKED,
    MASKED_SCENE,
    PLAIN,
    SCENE_FIRST,
    WANTED,
    measured,
    padded_captions,
    prompts_of,
    scenes_of,
)
from demo.eval.network_reader import NetworkReader

pytestmark = pytest.mark.slow

MEGABYTES = 3.0
COUNT, SEED, STEPS = 32, 890_000_000, 8
LOWERED = 0.10


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "layout.json").read_text(encoding="ascii"))


def test_the_report_is_of_the_shipped_files(report):
    path = CHECKPOINTS / f"{KIND}.safetensors"
    assert report["files"][KIND] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size <= MEGABYTES * 1e6
    assert report["checkpoints"] == file_hashes() and report["readers"] == frozen.current()
    assert report["seeds"] >= 3 and report["n"] * report["seeds"] >= 510
    assert report["steps"] == 20 and report["cfg"] == CFG
    assert report["table"].keys() >= ARMS.keys()
    assert (REPORTS / "layout.md").read_text(encoding="ascii") == layout_report.markdown(report)


def test_what_is_asked_for_stands_where_it_is_asked_for(report):
    table = report["table"]
    assert table[WANTED]["overlap"]["low"] > 0.9, "what cannot be read cannot be measured"
    bars = (ADAPTER, ADAPTER_BAR, ADAPTER_GAIN), (MASKED_SCENE, FREE_BAR, FREE_GAIN), (SCENE_FIRST, FREE_BAR, FREE_GAIN)
    for name, bar, gain in bars:
        assert table[name]["overlap"]["low"] >= bar
        assert table[name]["gain"]["low"] >= gain
    assert table[MASKED]["gain"]["low"] >= FREE_GAIN
    for name in (ADAPTER, MASKED, MASKED_SCENE, SCENE_FIRST):
        assert table[name]["leak ratio"]["high"] <= LEAK_BAR
    assert table[ADAPTER]["leaks by shape"]["value"] <= LEAK_BAR * table[PLAIN]["leaks by shape"]["value"]


class Drawing:
    """Held-out scenes, drawn as a graph draws them."""

    def __init__(self):
        from papernodes.nodes.demo_checkpoint import DemoCheckpoint

        self.model, self.clip, self.vae, *_ = DemoCheckpoint.execute("image").args
        self.scenes = scenes_of(COUNT, SEED)
        self.ellipses, self.present = seen_ellipses(self.scenes, SIZE)
        self.prompts, self.captions = prompts_of(self.scenes, SEED), padded_captions(self.scenes)
        generator = torch.Generator().manual_seed(SEED)
        self.noise = torch.randn(COUNT, 4, SIZE // 8, SIZE // 8, generator=generator)

    def layout(self, row):
        """The BlobLayout of a scene."""
        from papernodes.kernels.blob_layout import Blob, BlobLayout, Ellipse

        blobs = []
        for k in range(4):
            if self.present[row, k]:
                *numbers, angle = self.ellipses[row, k].tolist()
                blobs.append(Blob(str(k), self.captions[row][k], Ellipse(*numbers, math.degrees(angle))))
        return BlobLayout(tuple(blobs), SIZE, SIZE)

    def told(self, prompt):
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    @torch.no_grad()
    def draw(self, row, arm, steps):
        """One picture [1, 3, H, W]."""
        from papernodes.nodes.apply_blobs import ApplyBlobs
        from papernodes.nodes.blob_adapter import BLOB_ADAPTERS, BlobAdapterNode

        model, positive = self.model, self.told(self.prompts[arm.prompt][row])
        if arm.adapter is not None:
            (model,) = BlobAdapterNode.execute(model, next(iter(BLOB_ADAPTERS)), 1.0).args
        if arm.rules is not None:
            settings = {"self_attention": False, "first_blocks": 10, "self_end": 0.3, **dict(arm.settings)}
            told, parts = [(self.prompts["scene"][row], 0.0, arm.scene_until)] if arm.scene_until else [], []
            for prompt, start, end in [*told, (self.prompts[arm.prompt][row], arm.scene_until, 1.0)]:
                part = conditioning_set_values(self.told(prompt), {"start_percent": start, "end_percent": end})
                given = (self.clip, part, self.layout(row), 1.0, 0.0, 1.0, arm.rules)
                model, part = ApplyBlobs.execute(model, *given, **settings).args
                parts += part
            positive = parts
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, self.told(""))
        guider.set_cfg(CFG)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
        noise, sampler = self.noise[row : row + 1], comfy.samplers.sampler_object("euler")
        found = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)
        return self.vae.decode(found).movedim(-1, 1)


@pytest.fixture(scope="module")
def drawing():
    return Drawing()


@pytest.fixture(scope="module")
def models():
    return LayoutModels(torch.device("cpu"), {"": CHECKPOINTS / f"{KIND}.safetensors"})


def test_the_report_draws_what_the_nodes_draw(drawing, models):
    for arm in (Arm("none", ""), Arm("masked", ""), ARMS[SCENE_FIRST]):
        given = (drawing.captions[:2], drawing.ellipses[:2], drawing.present[:2], SEED)
        # Four steps are so long that 0.3 of the steps and of the noise levels are not the same step.
        steps = 8 if arm.scene_until else 4
        whole = models.draw(
            drawing.prompts[arm.prompt][:2], *given, arm, CFG, steps=steps, scenes=drawing.prompts["scene"][:2]
        )
        for row in range(2):
            assert float((drawing.draw(row, arm, steps) - whole[row]).abs().mean()) < 6e-3, arm


def test_32_pictures(drawing, models):
    """The bars are lowered by ten points. The adapter through the nodes, the others as the report draws them."""
    reader, present = NetworkReader(), drawing.present
    given = (drawing.captions, drawing.ellipses, present, SEED)
    found = {}
    for name in (PLAIN, ADAPTER, SCENE_FIRST):
        if name == ADAPTER:
            pictures = torch.cat([drawing.draw(row, ARMS[name], STEPS) for row in range(COUNT)])
        else:
            pictures = models.draw(
                drawing.prompts["whole"], *given, ARMS[name], CFG, steps=STEPS, scenes=drawing.prompts["scene"]
            )
        values = measured(pictures, reader, drawing.scenes, drawing.ellipses, present)
        found[name] = {row: float(per_object(values[row], present).mean()) for row in ("overlap", "leaks")}
    plain = found[PLAIN]
    for name, bar, gain in ((ADAPTER, ADAPTER_BAR, ADAPTER_GAIN), (SCENE_FIRST, FREE_BAR, FREE_GAIN)):
        assert found[name]["overlap"] >= bar - LOWERED, found
        assert found[name]["overlap"] >= plain["overlap"] + gain - LOWERED, found
        assert found[name]["leaks"] <= (LEAK_BAR + LOWERED) * plain["leaks"], found
