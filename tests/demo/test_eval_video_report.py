"""The report on the video models, with plain functions in their place: rendered clips that follow or stand still."""

import argparse
import dataclasses
import functools
import itertools
import json

import pytest
import torch

from demo.eval import video_measures as measures
from demo.eval import video_optical, video_report, video_tables
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import Share
from demo.eval.video_by_hand import DRAG, HAND_KINDS, hand_scenes
from demo.eval.video_clips import Clips, ClipWriter, read_clips, to_grey
from demo.eval.video_report import flow_section, parse, render_bytes
from demo.eval.video_scenes import KINDS, flow_scenes, still_captions
from demo.eval.video_tables import (
    CONDITIONS,
    FOLLOWED,
    PLAIN,
    UNTUNED,
    VideoReport,
    conditions_of,
    contents,
    markdown,
    write,
)

CPU = torch.device("cpu")
N = 2
ALL_KINDS = (*KINDS, *HAND_KINDS)


@functools.cache
def rendered(prompts):
    """The clips whose captions these are."""
    for number, kind in enumerate(ALL_KINDS):
        scenes = hand_scenes(kind, N, 10 + number)
        if tuple(still_captions(scenes, 10 + number)) == prompts:
            return render_bytes(scenes, CPU)
    raise AssertionError(f"captions of no scene: {prompts}")


class Followers:
    """In the place of VideoModels: draws the very scenes whose captions it gets, following the noise in part.

    With tuning, noise that follows the flow moves the clip; the more of it is plain, the fewer frames are played.
    """

    def __init__(self, tuned: bool):
        self.tuned, self.device = tuned, CPU

    def generate(self, prompts, noise, cfg):
        frames = rendered(tuple(prompts))
        # Of noise that moves, neighbouring frames share what the mixture leaves of it.
        first, second = noise[:, :, 0].flatten(1), noise[:, :, 1].flatten(1)
        alike = float(
            torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(first, second, strict=True)]).mean()
        )
        share = max(0.0, min(1.0, 2 * alike)) if self.tuned else max(0.0, min(0.3, alike))
        steps = (torch.arange(17) * share).round().long()
        return frames[:, steps]


@pytest.fixture(scope="module")
def arguments():
    return argparse.Namespace(
        n=N, seeds=1, cfg=3.0, clips=2, scheduler="simple", shift=8.0, steps=20, tiny=True, models=None
    )


@pytest.fixture(scope="module")
def measured(arguments, tmp_path_factory):
    """Folder with the report and the clips of made-up models, measured by the reader."""
    folder = tmp_path_factory.mktemp("report")
    report, writer = VideoReport(), ClipWriter(folder)
    models = {tuned: Followers(tuned) for tuned in (False, True)}
    flow_section(models, NetworkReader(), report, writer, arguments, 0)
    report.add("one", {"identity": Share(95, 100, 0.0)})
    report.add_values("VAE PSNR, dB", torch.tensor([29.0, 31.0]))
    how = {name: getattr(arguments, name) for name in ("n", "cfg", "scheduler", "shift", "steps")}
    write(contents(report, how | {"device": "CPU", "checkpoints": {"video_unet": "hash"}}, 1, 1.0), folder)
    assert [path.name for path in writer.write()] == ["clips_0.safetensors"]
    return folder


def test_what_follows_beats_plain_noise_by_the_reader(measured):
    found = json.loads((measured / "video.json").read_text())
    rows = found["motion by reader"]
    for condition in CONDITIONS:
        assert rows[f"both, {condition.name}"]["n"] == 2 * N
    ratio = rows[f"both, {FOLLOWED} / plain noise"]
    still = rows["both, a clip that stands still"]["value"]
    assert ratio["value"] < 0.75 and ratio["low"] <= ratio["value"] <= ratio["high"] and "goal" in ratio["bar"]
    assert rows[f"both, {PLAIN}"]["value"] > 0.85 * still
    assert rows[f"both, {FOLLOWED}"]["value"] < rows[f"both, {UNTUNED[0]}"]["value"]
    assert rows["both, LoRA off - on"]["value"] > 0
    assert rows["both, rendered"]["value"] < 0.25 * still
    assert rows["both, rendered"]["n"] == 2 * N
    names = [f"both, {condition.name}" for condition in CONDITIONS if condition.tuned]
    errors = [rows[name]["value"] for name in names]
    assert errors == sorted(errors)
    rises = [row["value"] for name, row in rows.items() if "rise from" in name]
    assert rises == pytest.approx([b - a for a, b in itertools.pairwise(errors)], abs=2e-3)
    assert found["means"][f"frames right, object.{PLAIN}"]["chance"] > 0
    assert -0.3 <= found["quality"][f"both, {FOLLOWED} - plain noise"]["value"] <= 0.3


@pytest.mark.parametrize("kind", HAND_KINDS)
def test_motion_made_by_hand_has_rows_of_its_own(measured, kind):
    found = json.loads((measured / "video.json").read_text())
    rows, text = found["motion by reader"], (measured / "video.md").read_text()
    ratio, still = rows[f"{kind}, {FOLLOWED} / plain noise"], rows[f"{kind}, a clip that stands still"]["value"]
    assert ratio["value"] < 0.75 and ratio["n"] == N and ratio["bar"] == "at most 0.5 (goal 0.35)"
    assert rows[f"{kind}, LoRA off - on"]["value"] > 0 and rows[f"{kind}, LoRA off - on"]["bar"] == "above 0"
    assert rows[f"{kind}, {PLAIN}"]["value"] > 0.85 * still > 10
    assert rows[f"{kind}, rendered"]["value"] < 0.25 * still
    assert rows[f"{kind}, another scene's motion"]["value"] > rows[f"{kind}, {FOLLOWED}"]["value"]
    assert f"{kind}, degradation 0.3" not in rows and found["means"][f"lost, {kind}.{FOLLOWED}"]["n"] == N
    assert found["quality"][f"{kind}, {FOLLOWED} - plain noise"]["bar"] == "at least -0.05"
    assert f"| {kind}, {FOLLOWED} / plain noise | {N} |" in text and "the nodes Cut And Drag and Camera Flow" in text


def test_optical_flow_of_the_kept_clips_agrees(measured, monkeypatch, capsys):
    words = ["video_optical", "--clips", str(measured), "--out", str(measured)]
    monkeypatch.setattr("sys.argv", words)
    video_optical.main()
    capsys.readouterr()
    found = json.loads((measured / "video.json").read_text())
    rows = found["motion by optical flow"]
    assert "motion by reader" in found  # nothing is lost
    still = rows["both, a clip that stands still"]["value"]
    assert rows["both, rendered"]["value"] < 0.45 * still
    assert rows[f"both, {FOLLOWED}"]["value"] < rows[f"both, {PLAIN}"]["value"]
    assert rows[f"both, {PLAIN}"]["value"] == pytest.approx(still, rel=0.15)
    assert rows["both, another scene's motion"]["value"] > rows[f"both, {FOLLOWED}"]["value"]
    for kind in HAND_KINDS:
        assert rows[f"{kind}, rendered"]["value"] < 0.6 * rows[f"{kind}, a clip that stands still"]["value"]
        assert rows[f"{kind}, {FOLLOWED} / plain noise"]["value"] < 1 and "bar" in rows[f"{kind}, LoRA off - on"]
    text = (measured / "video.md").read_text()
    assert "by optical flow (DIS)" in text and "by the reader" in text


def test_optical_flow_needs_clips(measured, tmp_path, monkeypatch):
    (tmp_path / "video.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["video_optical", "--clips", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no clips_0"):
        video_optical.main()


def test_the_kept_clips_are_the_generated_ones(measured):
    found = read_clips(measured / "clips_0.safetensors")
    kept = {(about.kind, about.condition): (about, frames) for about, frames in found}
    assert set(kept) == {(kind, condition.name) for kind in ALL_KINDS for condition in conditions_of(kind)}
    assert kept[DRAG, PLAIN][0].count == 1  # half as many
    about, frames = kept["object", PLAIN]
    assert (about.count, about.frames, about.step, about.scenes) == (2, 9, 2, N)
    wanted = to_grey(render_bytes(flow_scenes("object", N, 10), CPU)[:2, :1])
    difference = (frames[:, :1].float() - wanted.float()).abs()
    assert difference.mean() < 2.5 and frames.shape == (2, 9, 128, 128)


def test_table_and_bars(measured):
    found = json.loads((measured / "video.json").read_text())
    assert found["shares"]["one.identity"]["bar"] == 0.90
    assert found["means"]["VAE PSNR, dB"] == {"n": 2, "value": 30, "low": 29, "high": 31, "bar": "at least 28"}
    assert found["checkpoints"] == {"video_unet": "hash"} and set(found["readers"])
    text = markdown(found)
    assert "| one.identity | 100 | 95.0 % | 88.8 % | 90 % |" in text
    assert all(line.count("|") in (0, 7, 8) for line in text.splitlines()), "a row has another number of cells"
    text.encode("ascii")


def test_seeds_add_up():
    report = VideoReport()
    for right in (90, 96):
        report.add("one", {"identity": Share(right, 100, 0.0)})
        report.add_values("some", torch.tensor([float(right)]), chance=0.01)
    assert report.shares["one.identity"] == Share(186, 200, 0.0)
    assert report.column("some").tolist() == [90, 96] and report.chance["some"] == 0.01


ABOUT = Clips("plain noise", "object", 1, 4, 2, 3, 2)


def test_clips_survive_their_files(tmp_path):
    smooth = torch.linspace(0, 255, 32).expand(2, 5, 3, 32, 32).byte().clone()
    smooth[1] = smooth[1].flip(-1)
    writer = ClipWriter(tmp_path)
    assert writer.write() == []
    writer.add(ABOUT, smooth)
    writer.add(dataclasses.replace(ABOUT, condition="other"), 255 - smooth)
    (path,) = writer.write()
    (first, one), (second, two) = read_clips(path)
    assert first == ABOUT and second.condition == "other"
    assert one.shape == (2, 3, 32, 32) and one.dtype == torch.uint8
    assert (one.float() - to_grey(smooth)[:, ::2].float()).abs().max() <= 3
    assert (two.float() + one.float() - 255).abs().max() <= 6
    with pytest.raises(ValueError, match=r"\(2, 2\); expected \(2, 3\)"):
        writer.add(ABOUT, smooth[:, :4])


def test_clips_are_spread_over_files_and_thinned_where_too_large(tmp_path, monkeypatch):
    from demo.eval import video_clips

    noise = torch.randint(0, 256, (2, 5, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()
    writer = ClipWriter(tmp_path, files=2)
    for name in ("a", "b", "c", "d"):
        writer.add(dataclasses.replace(ABOUT, condition=name), noise)
    own = sum(len(content) + 8 for content in writer.groups[0][1])
    first = sum(len(content) + 8 for content in writer.groups[0][1][: ABOUT.frames])
    for room, count in ((2 * own, 2), (2 * own - 1, 1), (2 * first, 1)):
        monkeypatch.setattr(video_clips, "MAXIMUM_BYTES", video_clips.ROOM + room)
        paths = writer.write()
        assert [path.name for path in paths] == ["clips_0.safetensors", "clips_1.safetensors"][: len(paths)]
        assert all(path.stat().st_size <= video_clips.MAXIMUM_BYTES for path in paths)
        found = [(about, frames) for path in paths for about, frames in read_clips(path)]
        assert [about.condition for about, _ in found] == ["a", "b", "c", "d"]
        assert {about.count for about, _ in found} == {frames.shape[0] for _, frames in found} == {count}
    monkeypatch.setattr(video_clips, "MAXIMUM_BYTES", video_clips.ROOM + first)
    with pytest.raises(ValueError, match="one clip of each of 4 groups"):
        writer.write()


def test_grey_is_what_optical_flow_takes():
    from papernodes.kernels.optical_flow import _gray

    frames = torch.randint(0, 256, (1, 1, 3, 40, 40), generator=torch.Generator().manual_seed(1)).byte()
    wanted = torch.from_numpy(_gray(frames[0].permute(0, 2, 3, 1).float() / 255, 0, (40, 40)))
    assert (to_grey(frames)[0, 0].int() - wanted.int()).abs().max() <= 1


def test_text_rows_of_rendered_clips_and_the_command_line():
    scenes, _ = video_report.text_scenes(3, 1, 1)
    report = VideoReport()
    video_report.text_rows(NetworkReader(), report, "one", scenes, render_bytes(scenes, CPU))
    assert report.shares["one.identity"].value == 1 and report.shares["one.all"].value >= 0.6
    assert measures.mean_interval(report.column("one.frames right")).value > 0.9
    assert report.chance["one.frames right"] == pytest.approx(0.01)
    arguments = parse(["--tiny"])
    assert (arguments.n, arguments.seeds, arguments.steps) == (2, 1, 2)
    assert parse([]).n * parse([]).seeds >= 500
    assert video_tables.RISING == (FOLLOWED, "degradation 0.3", "degradation 0.6", PLAIN)
