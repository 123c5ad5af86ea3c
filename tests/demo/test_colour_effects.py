"""What MangaNinja's demonstration does: bars of its report, and in small through the nodes."""

import hashlib
import json

import comfy.samplers
import pytest
import torch

from demo.colour_pairs import draw_pairs
from demo.eval import colour_report, frozen
from demo.eval.colour_measures import colour_errors, own_colours, read_colours, regions_of
from demo.eval.colour_models import ColourModels, dual_scales
from demo.eval.colour_report import (
    ALONE,
    ARMS,
    IMAGE_MODEL,
    PLACES,
    POINTS,
    POINTS_BAR,
    RATIO_BAR,
    REFERENCE,
    SCALES,
    scenes_of,
)
from demo.eval.image_models import CHECKPOINTS, SIZE, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.network_reader import NetworkReader
from networks.demo_manga_ninja import KINDS

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
MEGABYTES = 3.0
COUNT, SEED, STEPS = 32, 880_000_000, 10
LOWERED = 0.10


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "colour.json").read_text(encoding="ascii"))


def test_the_report_is_of_the_shipped_files(report):
    found = {kind: hashlib.sha256((CHECKPOINTS / f"{kind}.safetensors").read_bytes()).hexdigest() for kind in KINDS}
    assert report["files"] == found and report["checkpoints"] == file_hashes()
    assert report["readers"] == frozen.current()
    assert report["seeds"] >= 3 and report["n"] * report["seeds"] >= 500
    assert report["steps"] == 20 and report["scales"] == list(SCALES)
    assert (REPORTS / "colour.md").read_text(encoding="ascii") == colour_report.markdown(report)
    for table in report["table"].values():
        assert table["arms"].keys() >= ARMS.keys()


def test_the_files_are_small():
    paths = [path for path in CHECKPOINTS.iterdir() if path.name.startswith("manga_ninja_")]
    assert len(paths) == 4 and sum(path.stat().st_size for path in paths) <= MEGABYTES * 1e6


def test_the_reference_gives_its_colours(report):
    table = report["table"]["pairs"]
    errors = {name: arm["error"]["value"] for name, arm in table["arms"].items()}
    assert table["baseline"] == min((ALONE, IMAGE_MODEL), key=errors.__getitem__)
    assert table["arms"][REFERENCE]["ratio"]["high"] <= RATIO_BAR
    assert table["arms"][POINTS]["ratio"]["high"] <= RATIO_BAR


def test_points_tell_twins_apart(report):
    twins = report["table"]["twins"]["arms"]
    for row in ("own colours", "read"):
        assert twins[POINTS][row]["low"] >= POINTS_BAR
    without = twins[REFERENCE]["own colours"]
    assert 0.35 < without["share"] < 0.65, "nothing but points tells twins apart"


def test_the_readme_tells_what_the_report_says(report):
    text = (CHECKPOINTS.parent.parent / "README.md").read_text(encoding="utf-8")
    section = text.split("### Colour\n")[1].split("\n## ")[0].split("\n### ")[0]
    pairs, twins = (report["table"][what]["arms"] for what in ("pairs", "twins"))
    told = {
        IMAGE_MODEL: "the image model's line art ControlNet, no reference",
        ALONE: "no reference",
        REFERENCE: "reference",
        POINTS: "reference, one point on each character",
    }
    for name, words in told.items():
        error, ratio = pairs[name]["error"]["value"], pairs[name]["ratio"]["value"]
        shares = [twins[name][row]["share"] for row in ("own colours", "read")]
        row = [f"{error:.1f}", f"{ratio:.2f}", *(f"{share * 100:.0f} %" for share in shares)]
        assert f"| {words} | {' | '.join(row)} |" in section


def pairs_of(count, seed, twins):
    scenes, others = scenes_of(count, seed, twins)
    return scenes, draw_pairs(scenes, others, SIZE, seed, PLACES)


@pytest.fixture(scope="module")
def demo():
    from papernodes.nodes.demo_adapters import MANGA_POINTS, MANGA_REFERENCES
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint
    from papernodes.nodes.manga_ninja import MangaNinjaLoader

    (reference,), (points,) = MANGA_REFERENCES, MANGA_POINTS
    return *DemoCheckpoint.execute("manganinja").args, MangaNinjaLoader.execute(reference, points).args[0]


def matched(pairs, row, each):
    """The first places of each character that are in sight, as Match Points gives them."""
    from papernodes.kernels.matched_points import MatchedPoints, Pairs

    chosen = pairs.visible[row] & (pairs.visible[row].cumsum(-1) <= each)
    target, reference = (
        (some[row][chosen] + 0.5).clamp(0, SIZE - 0.5) / SIZE for some in (pairs.wanted_points, pairs.reference_points)
    )
    return MatchedPoints((Pairs(reference, target),))


def through_the_nodes(demo, pairs, row, points, noise, steps):
    """One picture [1, 3, H, W], drawn as a graph draws it."""
    from papernodes.kernels.line_art import control_hint, without_faint
    from papernodes.nodes.manga_ninja import MangaNinjaApply, MangaNinjaGuider

    model, clip, vae, vision, control, network = demo
    reference = pairs.reference[row : row + 1].movedim(1, -1)
    hint = control_hint(without_faint(pairs.lines[row : row + 1, 0]))
    told = vision.encode_image(reference)
    given = {"points": points, "control_net": control, "control_hint": hint}
    colouring = MangaNinjaApply.execute(model, network, vae, reference, told, clip, **given).args
    scales = 2 * SCALES[0] - 1, 2 * SCALES[1]
    assert dual_scales(*scales) == SCALES
    guider = MangaNinjaGuider.execute(*colouring, *scales).args[0]
    sigmas = comfy.samplers.calculate_sigmas(colouring[0].get_model_object("model_sampling"), "normal", steps)
    sampler = comfy.samplers.sampler_object("euler")
    found = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)
    return vae.decode(found).movedim(-1, 1)


def test_the_report_draws_what_the_nodes_draw(demo):
    _, pairs = pairs_of(2, SEED + 7, twins=True)
    shape = (2, 4, SIZE // 8, SIZE // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    models = ColourModels(CPU)
    # No points on the one side are maps of zeros on the other.
    drawn = models.draw(pairs.reference, pairs.lines, None, 3, SCALES, steps=4)
    for row in range(2):
        some = through_the_nodes(demo, pairs, row, None, noise[row : row + 1], 4)
        assert float((some - drawn[row]).abs().mean()) < 4e-3


def test_32_pictures_through_the_nodes(demo):
    """Twins with a point on each: the bars are lowered by ten points."""
    scenes, pairs = pairs_of(COUNT, SEED, twins=True)
    noise = torch.randn(COUNT, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(SEED))
    drawn = torch.cat(
        [
            through_the_nodes(demo, pairs, row, matched(pairs, row, 1), noise[row : row + 1], STEPS)
            for row in range(COUNT)
        ]
    )
    regions = regions_of(scenes, SIZE)
    read, there = read_colours(NetworkReader().read(drawn), scenes)
    shares = {
        "own colours": float(own_colours(drawn, pairs.wanted, regions).float().mean()),
        "read": float((read | ~there).all(1).float().mean()),
    }
    assert min(shares.values()) >= POINTS_BAR - LOWERED > 0.5, shares
    alone = ColourModels(CPU).draw(pairs.reference[:8], pairs.lines[:8], None, SEED, (0.0, 0.0), steps=STEPS)
    some = regions_of(scenes.select(slice(0, 8)), SIZE)
    errors = [float(colour_errors(what, pairs.wanted[:8], some).nanmean()) for what in (drawn[:8], alone)]
    assert errors[0] <= (RATIO_BAR + LOWERED) * errors[1], errors
