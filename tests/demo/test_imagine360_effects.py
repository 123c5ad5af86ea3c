"""What Imagine360's demonstration does: bars of its report, and eight clips completed again."""

import hashlib
import json

import pytest
import torch

from demo.eval.image_models import CHECKPOINTS, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.imagine360_report import (
    ARMS,
    CFG,
    INSIDE_BAR,
    KIND,
    OTHER_WAY_BAR,
    RENDERED,
    WHOLE,
    Imagine360Models,
    clips_of,
    markdown,
    measured,
)
from demo.panorama_clips import MOVES

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
COUNT, SEED, STEPS = 8, 930_000_000, 8
LOWERED = 0.10
EXCHANGE, MOTION, NEVER = list(ARMS)[1:]


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "imagine360.json").read_text(encoding="ascii"))


@pytest.fixture(scope="module")
def table(report):
    return report["table"]


def test_the_report_is_of_the_shipped_files(report):
    path = CHECKPOINTS / f"{KIND}.safetensors"
    assert report["file"] == hashlib.sha256(path.read_bytes()).hexdigest() and report["checkpoints"] == file_hashes()
    assert report["seeds"] >= 3 and report["n"] * report["seeds"] >= 500
    assert report["steps"] == 20 and report["cfg"] == CFG
    assert report["table"].keys() == {RENDERED, *ARMS}
    assert all(row["behind"]["n"] == report["n"] * report["seeds"] for row in report["table"].values())
    assert (REPORTS / "imagine360.md").read_text(encoding="ascii") == markdown(report)


def test_what_was_given_is_kept(table):
    assert table[WHOLE]["inside"]["low"] > INSIDE_BAR
    # No better than the autoencoder, which is all that stands between.
    assert table[WHOLE]["inside"]["high"] < table[RENDERED]["inside"]["low"]


def test_what_lies_behind_moves_the_other_way(table):
    """Whichever way the viewer goes."""
    assert table[WHOLE]["behind"]["low"] > OTHER_WAY_BAR and table[RENDERED]["behind"]["low"] > 0.99
    assert all(table[WHOLE][f"behind, {move}"]["low"] > OTHER_WAY_BAR for move in MOVES)
    assert table[WHOLE]["ahead"]["low"] > 0.98 and 0.5 < table[WHOLE]["speed behind"] < 1


def test_edges_meet_as_in_rendered_panoramas(table):
    assert table[WHOLE]["seam"]["high"] < table[MOTION]["seam"]["low"]
    assert abs(table[WHOLE]["seam"]["value"] - table[RENDERED]["seam"]["value"]) < 0.1


@pytest.mark.parametrize("arm", (EXCHANGE, MOTION))
def test_both_parts_are_needed(table, arm):
    """Exchange blocks and motion modules. That masks are the opposite ones now and then when sampling makes no
    difference that can be told on this model: without them it is 94.9 % where it is 94.1 %.
    """
    assert table[arm]["inside"]["high"] < table[WHOLE]["inside"]["low"] - 1
    assert table[arm]["behind"]["share"] < 0.4
    assert abs(table[arm]["speed behind"]) < 0.1


def test_the_readme_and_the_help_tell_what_the_report_says(table):
    root = CHECKPOINTS.parent.parent
    section = (root / "README.md").read_text(encoding="utf-8").split("### Panoramas\n")[1].split("\n## ")[0]
    for name, row in table.items():
        words = "rendered, through the autoencoder" if name == RENDERED else name
        kept, behind = row["inside"], row["behind"]
        figures = (
            f"{kept['value']:.1f} ({kept['low']:.1f})",
            f"{behind['share'] * 100:.1f} % ({behind['low'] * 100:.1f})",
            f"{row['speed behind']:.2f}",
            f"{row['seam']['value']:.2f}",
        )
        assert f"| {words} | {' | '.join(figures)} |" in section.replace("**", "")
    whole, share = table[WHOLE], "{:.1f} %".format
    helped = (root / "web" / "docs" / "PaperNodes_Imagine360Loader.md").read_text(encoding="utf-8")
    assert f"{whole['inside']['value']:.1f} dB" in helped and f"{whole['speed behind']:.2f} of their" in helped
    assert all(share(table[arm]["behind"]["share"] * 100) in helped for arm in (WHOLE, EXCHANGE, MOTION))
    helped = (root / "web" / "docs" / "PaperNodes_Imagine360Conditioning.md").read_text(encoding="utf-8")
    assert all(share(table[arm]["behind"]["share"] * 100) in helped for arm in (WHOLE, NEVER))


def test_eight_clips():
    """Through the report's own functions: what was given is kept to the report's bar; that of what lies behind is
    lowered by ten points, so that two of eight may fail.

    When written it was 22.0 dB and seven of eight; with the exchange blocks off two of eight, with the motion modules
    off 15.8 dB and one.
    """
    models = Imagine360Models(CHECKPOINTS / f"{KIND}.safetensors", CPU)
    ((clips, prompts),) = clips_of(COUNT, SEED, CPU)
    rows = measured(models.draw(clips, prompts, SEED, cfg=CFG, steps=STEPS, batch=2), clips)
    found = {name: float(rows[name].float().mean()) for name in ("inside", "behind moves", "ahead moves")}
    assert found["inside"] > INSIDE_BAR and found["behind moves"] >= OTHER_WAY_BAR - LOWERED, found
    assert found["ahead moves"] == 1, found
