"""Measures the motion of generated clips by optical flow: ``python -m demo.eval.video_optical --clips FOLDER``.

The second half of demo.eval.video_report, for a machine with OpenCV and no GPU: takes the clips that it kept, and
completes video.json and video.md beside them. Asked flows are the scenes' own, rendered again from their seeds.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import video_measures as measures
from demo.eval.video_by_hand import hand_scenes
from demo.eval.video_clips import Clips, read_clips, to_grey
from demo.eval.video_report import render_bytes
from demo.eval.video_scenes import FRAMES, every, flows_of
from demo.eval.video_tables import FOLLOWED, OTHERS, RENDERED, REPORTS, STILL, motion_rows, write
from kernels.optical_flow import dis_flow


def clip_flows(frames: Tensor) -> Tensor:
    """DIS flows float32 [B, T-1, 2, H, W] of brightness uint8 [B, T, H, W]."""
    return torch.stack([dis_flow(clip[..., None].float() / 255) for clip in frames])


class Errors:
    """Mean end-point errors of clips, by kind of motion and condition."""

    def __init__(self) -> None:
        self.columns: dict[tuple[str, str], list[Tensor]] = {}
        self.asked: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def put(self, kind: str, condition: str, errors: Tensor) -> None:
        """Add some clips' errors."""
        self.columns.setdefault((kind, condition), []).append(errors)

    def flows(self, about: Clips) -> tuple[Tensor, Tensor]:
        """The asked flows of some clips; what any condition shares is measured where they are first asked for."""
        key = (about.kind, about.seed)
        if key not in self.asked:
            whole = hand_scenes(about.kind, about.scenes, about.seed, frames=FRAMES)
            scenes = whole.select(slice(0, about.count))
            seen = every(scenes, about.step)
            wanted, hidden = self.asked[key] = flows_of(seen)
            self.put(about.kind, STILL, measures.flow_errors(wanted, hidden, None, about.step))
            rendered = clip_flows(to_grey(render_bytes(seen, torch.device("cpu"))))
            self.put(about.kind, RENDERED, measures.flow_errors(wanted, hidden, rendered, about.step))
        return self.asked[key]

    def add(self, about: Clips, frames: Tensor) -> None:
        """Measure a group of clips, brightness uint8 [B, T, H, W]."""
        wanted, hidden = self.flows(about)
        found = clip_flows(frames)
        self.put(about.kind, about.condition, measures.flow_errors(wanted, hidden, found, about.step))
        if about.condition == FOLLOWED:
            order = torch.arange(about.count).roll(1)
            errors = measures.flow_errors(wanted[order], hidden[order], found, about.step)
            self.put(about.kind, OTHERS, errors)

    def rows(self) -> dict[str, dict]:
        """For the report."""
        return motion_rows(lambda kind, name: torch.cat(self.columns[kind, name]), (STILL, OTHERS, RENDERED))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with clips_0.safetensors, ...")
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder with video.json")
    arguments = parser.parse_args()
    content = json.loads((arguments.out / "video.json").read_text(encoding="ascii"))
    paths = sorted(arguments.clips.glob("clips_*.safetensors"))
    if not paths:
        raise SystemExit(f"{arguments.clips} holds no clips_0.safetensors: run demo.eval.video_report first.")
    begin, errors = time.monotonic(), Errors()
    for path in paths:
        for about, frames in read_clips(path):
            errors.add(about, frames)
            print(f"[{time.monotonic() - begin:6.1f} s] {about.kind}, {about.condition}: {about.count}", flush=True)
    content["motion by optical flow"] = errors.rows()
    write(content, arguments.out)
    print((arguments.out / "video.md").read_text(encoding="ascii"))


if __name__ == "__main__":
    main()
