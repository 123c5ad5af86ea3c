"""Layouts that move: the report's measures on clips whose truth is known, and its sampling against the nodes'."""

import json
import math

import comfy.sample
import torch

from demo.eval import frozen
from demo.eval.image_report import REPORTS
from demo.eval.layout_report import prompts_of
from demo.eval.layout_video import (
    APART,
    ARMS,
    FILES,
    MASKED,
    PLAIN,
    RENDERED,
    THREE_DIS,
    LayoutVideo,
    clip_ellipses,
    colour_change,
    markdown,
    measured,
    scenes_of,
    summary,
)
from demo.eval.reading import truth
from demo.eval.video_models import CHECKPOINTS, LATENT, file_hashes
from demo.world.captions import object_captions
from demo.world.render import render

CPU = torch.device("cpu")


class Knows:
    """A reader that is told what it reads: frame after frame of the same scenes."""

    def __init__(self, scenes):
        self.readings = iter([truth(scenes, frame) for frame in range(scenes.frames)])

    def read(self, _):
        return next(self.readings)


def test_rendered_clips_follow_their_layouts():
    scenes = scenes_of(2, 5)
    assert scenes.size == 2 and bool((scenes.camera == torch.tensor([0.0, 0.0, 1.0])).all())
    ellipses, present = clip_ellipses(scenes, CPU, part=1)
    assert ellipses.shape == (2, 17, scenes.shape.shape[1], 5)
    assert torch.equal(ellipses, clip_ellipses(scenes, CPU)[0]) and bool(present[:, 0, :2].all())
    clips = (render(scenes, 128, 128).frames * 255).round().byte()
    rows = measured(clips, Knows(scenes), scenes, ellipses, present)
    here = scenes.present
    assert rows["overlap"][here].min() > 0.8 and rows["away"][here].max() < 10 and rows["read"][here].min() == 1
    way = rows["same way"][here]
    assert way.isfinite().any() and way[way.isfinite()].min() > 0.9
    assert rows["colour change"][here].max() < 12
    # The first clip's layout and the second one's picture do not go together.
    other = measured(clips.flip(0), Knows(scenes.select(torch.tensor([1, 0]))), scenes, ellipses, present)
    assert other["overlap"][here].max() < rows["overlap"][here].min()
    table = {
        name: {row: torch.where(here, some, torch.nan) for row, some in rows.items()}
        for name in (RENDERED, PLAIN, MASKED)
    }
    found = summary(table)
    assert found[PLAIN]["gain"]["value"] == 0 and found[MASKED]["colour change, ratio"]["value"] == 1


def test_colours_that_change():
    ellipses = torch.tensor([[0.25, 0.5, 0.2, 0.2, 0.0], [0.75, 0.5, 0.2, 0.2, 0.0]]).expand(1, 4, 2, 5)
    clips = torch.full((1, 4, 3, 128, 128), 100, dtype=torch.uint8)
    clips[:, 1::2, :, :, 64:] = 120  # the right half flickers by 20 levels
    known = torch.ones(1, 4, 2, dtype=torch.bool)
    assert colour_change(clips, ellipses, known)[0].tolist() == [0.0, 10.0]
    known[:, 2:] = False
    assert colour_change(clips, ellipses, known).isnan().all()


def test_the_report_draws_what_the_nodes_draw():
    from papernodes.kernels.blob_layout import Blob, BlobKey, BlobLayout, Ellipse
    from papernodes.nodes.apply_blobs import ApplyBlobs
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint

    scenes = scenes_of(1, 7)
    ellipses, present = clip_ellipses(scenes, CPU)
    still = scenes.at(slice(0, 1))
    told, own = prompts_of(still, 7), object_captions(still)
    prompts, places = told["whole"], told["scene"]
    assert prompts[0].endswith(places[0])
    noise = torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(7))
    model = LayoutVideo(CHECKPOINTS, CPU, steps=4)
    drawn = model._sample(noise, prompts, places, own, ellipses, present, ARMS[APART], 3.0)

    unet, clip, _ = DemoCheckpoint.execute("video").args[:3]
    blobs = []
    for k, text in enumerate(own[0]):
        rows = ellipses[0, :, k].tolist()
        keys = [
            BlobKey(frame, Ellipse(*numbers, math.degrees(angle)), there=bool(present[0, frame, k]))
            for frame, (*numbers, angle) in enumerate(rows)
        ]
        blobs.append(Blob(str(k), text, keys=tuple(keys)))

    def encode(text, start, end):
        given = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        return [[text, {**options, "start_percent": start, "end_percent": end}] for text, options in given]

    given = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rules": "masked", "self_attention": True}
    patched, at_first = ApplyBlobs.execute(
        unet, clip, encode(places[0], 0.0, 0.49), BlobLayout(tuple(blobs), 128, 128, 17), **given,
        first_blocks=0, self_end=0.5,
    ).args  # fmt: skip
    positive = [*at_first, *encode(prompts[0], 0.49, 1.0)]
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    latents = comfy.sample.sample(
        patched, noise, 4, 3.0, "euler", "simple", positive, empty, torch.zeros(1, *LATENT), seed=0
    )
    latents = unet.get_model_object("latent_format").process_in(latents)
    assert float((latents - drawn).abs().max() / drawn.abs().max()) < 0.02


def test_the_report_is_of_these_files_and_says_that_layouts_are_followed():
    content = json.loads((REPORTS / "layout_video.json").read_text(encoding="ascii"))
    assert content["checkpoints"] == file_hashes(CHECKPOINTS, FILES) and content["readers"] == frozen.current()
    assert markdown(content) == (REPORTS / "layout_video.md").read_text(encoding="ascii")
    table = content["table"]
    assert set(table) == {RENDERED, *ARMS} and content["seeds"] >= 3 and content["n"] * content["seeds"] >= 255
    for name in (APART, THREE_DIS):
        assert table[name]["gain"]["low"] > 0.1 and table[name]["same way"]["low"] > 0.5
        assert table[name]["overlap"]["low"] > table[MASKED]["overlap"]["high"]
        assert table[name]["colour change, ratio"]["high"] < 1
