"""How characters move in a video: each frame read for itself, the same character linked from frame to frame.

Places, sizes and angles are those that the camera shows, so where it pans or zooms its own movement is in them.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.eval.reading import UNSURE, Reading, Share, match, share_of
from demo.world.attributes import MOTIONS

LEAST_WAY, LEAST_GROWTH, LEAST_TURN = 0.2, 0.4, math.pi / 2
"""From how many stage units, logarithms of the radius and radians on something moves, grows or spins."""

LEAST_SEEN = 0.5
"""A character found in a smaller share of the frames has an unsure motion."""


@dataclass(frozen=True)
class Movements:
    """B videos with up to K characters, in the order of ``first``."""

    first: Reading  # the first frame
    way: Tensor  # float32 [B, K, 2], stage units from the first frame to the last
    growth: Tensor  # float32 [B, K], logarithm of last radius over first
    turn: Tensor  # float32 [B, K], radians, positive clockwise, whole turns counted
    seen: Tensor  # float32 [B, K], share of the frames in which the character was found
    motion: Tensor  # int64 [B, K], MOTIONS, -1 where unsure


def read_video(reader, frames: Tensor, every: int = 1) -> Movements:
    """Follow the characters of the first frame.

    Args:
        reader: anything with ``read(pictures) -> Reading``.
        frames: float32 [B, T, 3, H, W] in 0..1, T at least 2.
        every: only each ``every``-th frame and the last are read.

    Raises:
        ValueError: fewer than two frames.
    """
    batch, count = frames.shape[:2]
    if count < 2:
        raise ValueError(f"frames has {count} frame; a movement needs at least two.")
    times = sorted({*range(0, count, every), count - 1})
    whole = reader.read(frames[:, times].flatten(0, 1))
    readings = [whole.select(torch.arange(k, batch * len(times), len(times))) for k in range(len(times))]
    first = now = readings[0]
    turn, seen = torch.zeros_like(first.angle), first.present.float()
    for reading in readings[1:]:
        found = reading.pick(match(now, reading))
        there = found.present & now.present
        step = torch.remainder(found.angle - now.angle + math.pi, 2 * math.pi) - math.pi
        turn = turn + torch.where(there, step.nan_to_num(0.0), 0.0)
        seen = seen + there
        # Who is hidden for a while is looked for where it was last seen.
        now = dataclasses.replace(
            now,
            position=torch.where(there[..., None], found.position, now.position),
            radius=torch.where(there, found.radius, now.radius),
            angle=torch.where(there, found.angle, now.angle),
        )
    way, growth = now.position - first.position, (now.radius / first.radius).log()
    seen = seen / len(times)
    motion = torch.where(first.present & (seen >= LEAST_SEEN), classify(way, growth, turn), UNSURE)
    return Movements(first, way, growth, turn, seen, motion)


def classify(way: Tensor, growth: Tensor, turn: Tensor) -> Tensor:
    """int64 [...]: the motion, MOTIONS, of ways [..., 2], growths and turns."""
    sideways = way[..., 0].abs() > way[..., 1].abs()
    name = {name: torch.tensor(index) for index, name in enumerate(MOTIONS)}
    along_x = torch.where(way[..., 0] > 0, name["right"], name["left"])
    along_y = torch.where(way[..., 1] > 0, name["down"], name["up"])
    found = torch.where(sideways, along_x, along_y)
    found = torch.where(way.norm(dim=-1) >= LEAST_WAY, found, name["still"])
    size = torch.where(growth > 0, name["grows"], name["shrinks"])
    found = torch.where(growth.abs() >= LEAST_GROWTH, size, found)
    return torch.where(turn.abs() >= LEAST_TURN, name["spins"], found)


def motion_score(asked: Reading, motion: Tensor, found: Movements) -> Share:
    """Of the characters asked for (in the first frame), how many were found with the motion int64 [B, K]."""
    order = match(asked, found.first)
    right = (found.motion.gather(1, order.clamp(min=0)) == motion) & (order >= 0)
    return share_of(right[asked.present], 1 / len(MOTIONS))
