"""The report on the video models in parts that several processes measure."""

import dataclasses

import pytest
import torch

from demo.eval import video_report
from demo.eval.reading import Share
from demo.eval.video_parts import Part, merge, read_part, write_part
from demo.eval.video_tables import VideoReport

HOW = {"n": 2, "cfg": 3.0, "scheduler": "simple", "shift": 8.0, "steps": 20, "device": "CPU", "checkpoints": {}}


def captions_of(seed: int) -> VideoReport:
    report = VideoReport()
    report.add("one", {"identity": Share(seed, 10, 0.1)})
    report.add("cfg 1.5, one", {"identity": Share(1, 4, 0.1)})
    report.add_values("one.frames right", torch.tensor([seed / 10, float("nan")]), 0.25)
    return report


def flows_of(seed: int) -> VideoReport:
    report = VideoReport()
    report.add_values("reader, object.plain noise", torch.tensor([10.0 * seed, 1.0]))
    return report


def parts() -> list[Part]:
    found = [Part(captions_of(seed), HOW, ("captions",), (seed,), 2.0) for seed in (2, 0, 1)]
    return found + [Part(flows_of(seed), HOW, ("flows",), (seed,), 3.0) for seed in (1, 2, 0)]


def test_parts_survive_their_files(tmp_path):
    part = parts()[0]
    write_part(part, tmp_path / "new" / "part.json")
    again = read_part(tmp_path / "new" / "part.json")
    assert (again.how, again.sections, again.seeds, again.seconds) == (HOW, ("captions",), (2,), 2.0)
    assert again.report.shares == part.report.shares and again.report.chance == part.report.chance
    for name, column in part.report.values.items():
        torch.testing.assert_close(again.report.column(name), torch.cat(column), equal_nan=True)


def test_parts_are_put_together_seed_after_seed():
    whole = merge(parts())
    assert whole.seeds == (0, 1, 2) and whole.seconds == 15.0 and set(whole.sections) == {"captions", "flows"}
    assert whole.report.shares["one.identity"] == Share(3, 30, 0.1)
    assert whole.report.shares["cfg 1.5, one.identity"] == Share(3, 12, 0.1)
    assert whole.report.column("reader, object.plain noise").tolist() == [0.0, 1.0, 10.0, 1.0, 20.0, 1.0]
    assert whole.report.chance == {"one.frames right": 0.25}


def test_parts_that_do_not_fit():
    some = parts()
    with pytest.raises(ValueError, match="captions was measured twice for seed 1"):
        merge([*some, some[2]])
    with pytest.raises(ValueError, match="different seeds"):
        merge(some[:-1])
    with pytest.raises(ValueError, match="same settings"):
        merge([*some[:-1], dataclasses.replace(some[-1], how=HOW | {"cfg": 2.0})])
    some = [dataclasses.replace(part, how=HOW | {"checkpoints": {"unet": "1"}}) for part in some]
    some[-1] = dataclasses.replace(some[-1], how=HOW | {"checkpoints": {"unet": "1", "lora": "2"}})
    assert merge(some).how["checkpoints"] == {"unet": "1", "lora": "2"}
    some[0] = dataclasses.replace(some[0], how=HOW | {"checkpoints": {"unet": "3"}})
    with pytest.raises(ValueError, match="same settings"):
        merge(some)


def test_the_command_line_measures_parts_and_merges_them(tmp_path, monkeypatch, capsys):
    seen = []

    def measure(arguments):
        seen.append((arguments.sections, arguments.first_seed))
        section = arguments.sections[0]
        report = (captions_of if section == "captions" else VideoReport)(arguments.first_seed or 0)
        return Part(report, HOW, tuple(arguments.sections), (arguments.first_seed,), 1.0), None

    monkeypatch.setattr(video_report, "measure", measure)
    files = [str(tmp_path / f"{seed}.json") for seed in (0, 1)]
    for seed, file in enumerate(files):
        words = ["report", "--sections", "captions", "--first-seed", str(seed), "--part", file]
        monkeypatch.setattr("sys.argv", words)
        video_report.main()
    monkeypatch.setattr("sys.argv", ["report", "--merge", *files, "--out", str(tmp_path / "out")])
    video_report.main()
    assert seen == [(["captions"], 0), (["captions"], 1)]
    assert "2 seeds" in capsys.readouterr().out
    assert (tmp_path / "out" / "video.json").is_file()
