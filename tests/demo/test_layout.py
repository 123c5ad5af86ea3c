"""Scenes with blobs, and what is measured of layouts."""

import subprocess
import sys
from dataclasses import replace

import torch

from demo.blob_scenes import (
    LEVELS,
    WORDS,
    BlobSource,
    blob_captions,
    label_ellipses,
    level_masks,
    pick_level,
    seen_ellipses,
    shifted,
)
from demo.eval import layout_report
from demo.eval.layout_measures import (
    are_right,
    ellipse_overlaps,
    leaks,
    leaks_by_shape,
    per_object,
    read_overlaps,
)
from demo.eval.layout_report import ARMS, ELSEWHERE, KIND, WANTED, prompts_of, scenes_of
from demo.eval.reading import truth
from demo.world.attributes import HELD_OUT
from demo.world.scene import draw_scenes
from demo.world_tokens import token_rows
from kernels.ellipses import distances, token_masks
from networks.demo_format import load

SIZE = 128


class Arguments:
    tiny, workers = True, 1


def test_ellipses_are_of_what_is_seen():
    ellipse = torch.tensor([[[0.4, 0.55, 0.3, 0.15, 0.6], [0.8, 0.2, 0.1, 0.1, 0.0]]])
    inside = distances(ellipse, SIZE, SIZE) <= 1
    labels = torch.where(inside[:, 0], 0, torch.where(inside[:, 1], 1, -1))
    found, present = label_ellipses(labels, torch.tensor([[True, True, True]]))
    assert present.tolist() == [[True, True, False]]
    assert torch.allclose(found[0, 0], ellipse[0, 0], atol=0.01)
    assert float(ellipse_overlaps(found[0, 0], ellipse[0, 0])) > 0.97
    off = shifted(found, torch.Generator().manual_seed(0))
    assert not torch.equal(off, found) and float(ellipse_overlaps(off[0, 0], found[0, 0])) > 0.6


def test_level_masks_are_the_adapters():
    ellipses, present = seen_ellipses(draw_scenes(3, 1, characters=3), 64)
    masks = level_masks(ellipses, present, 64)
    assert masks.shape == (3, 4, sum((64 // level) ** 2 for level in LEVELS))
    for side in (8, 4, 2, 1):
        expected = token_masks(ellipses, present, side, side).flatten(2)
        assert torch.equal(pick_level(masks, side * side, 64), expected)


def test_the_source_tells_each_character():
    scenes, rows = BlobSource(Arguments(), 3, 1, phrasings=2, full=1, characters=(0.0, 1.0, 1.0, 1.0)).chunk()
    assert rows.shape == (scenes.size, 2 + 4, 77)
    own = blob_captions(scenes, 3 * 100_000 * 8 + 7)
    assert torch.equal(rows[:, 2], torch.from_numpy(token_rows([told[0] for told in own])))
    empty = torch.from_numpy(token_rows([""]))[0]
    assert torch.equal((rows[:, 2:] == empty).all(-1), ~scenes.present)
    assert max(len(words.split()) for told in own for words in told) + 2 <= WORDS


def test_a_perfect_picture_and_wrong_ones():
    scenes = scenes_of(12, 5)
    assert set(scenes.count.tolist()) == {2, 3, 4}
    assert HELD_OUT[scenes.shape, scenes.colour, scenes.pattern][scenes.present].all()
    ellipses, present = seen_ellipses(scenes, SIZE)
    perfect = truth(scenes)
    overlaps = read_overlaps(perfect, scenes, ellipses, present)
    assert (overlaps[present] > 0.99).all() and not overlaps[~present].any()
    assert torch.equal(are_right(perfect, scenes), scenes.present)
    assert not leaks(perfect, scenes).any() and not leaks_by_shape(perfect, scenes).any()
    assert abs(float(per_object(overlaps, present).mean() - overlaps[present].mean())) < 1e-6
    # The first one is not there; of the second one the size is wrong.
    gone = replace(perfect, present=perfect.present & (torch.arange(4) != 0), radius=perfect.radius * 0.7)
    found = read_overlaps(gone, scenes, ellipses, present)
    assert not found[:, 0].any() and 0.2 < float(found[:, 1].mean()) < 0.8
    # All in the colour of the first: the others have leaked, and are not what was asked for.
    painted = replace(perfect, colour=perfect.colour[:, :1].expand(-1, 4))
    other = scenes.present & (scenes.colour != scenes.colour[:, :1])
    assert torch.equal(leaks(painted, scenes), other) and torch.equal(leaks_by_shape(painted, scenes), other)
    assert not read_overlaps(painted, scenes, ellipses, present)[other].any()
    # Two that changed places keep their colours: by shape nothing leaked.
    swapped = replace(perfect, position=perfect.position[:, [1, 0, 2, 3]])
    assert not leaks_by_shape(swapped, scenes).any()


def test_what_the_report_draws():
    scenes = scenes_of(4, 5)
    prompts = prompts_of(scenes, 5)
    assert {arm.prompt for arm in ARMS.values()} <= prompts.keys()
    for whole, scene in zip(prompts["whole"], prompts["scene"], strict=True):
        assert whole.endswith(scene) and scene != whole


def test_training_and_the_report_from_end_to_end(repository, tmp_path):
    """A few steps on from the shipped file, then the report with it in all places."""
    shipped = repository / "demo" / "checkpoints" / f"{KIND}.safetensors"
    told = run(repository, "demo.train_blob_adapter", "--final", "--state", tmp_path, "--begin-with", shipped.parent)
    assert "3 steps in" in told and (tmp_path / "samples.png").is_file()
    before, after = (load(path, KIND)[0] for path in (shipped, tmp_path / shipped.name))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert float((after[name] - value).abs().max()) < 0.05, name
    assert any(not torch.equal(before[name], after[name]) for name in before)
    out = tmp_path / "report"
    given = ("--adapter", shipped, "--without-masks", tmp_path / shipped.name, "--without-geometry", shipped)
    told = run(repository, layout_report.__name__, "--out", out, *given)
    for arm in (*ARMS, WANTED, ELSEWHERE):
        assert told.count(f"| {arm} |") == 1
    assert not out.exists(), "a trial writes nothing"


def run(repository, module, *more):
    command = [sys.executable, "-m", module, "--tiny", *map(str, more)]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout
