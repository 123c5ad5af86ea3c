"""What is counted about generated videos: pure functions of what was asked for and of what was found.

The two ways to measure motion. By the reader: where the characters that were asked for end, as pixels of the first
frame carried along by the place, size and angle read in the first and the last frame. By optical flow: every pixel
that was asked to move, from frame to frame. Both in pixels of a picture of 128 x 128.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.eval.image_measures import asked, look_chance
from demo.eval.reading import Reading, Share, concatenate, match, share_of, truth
from demo.eval.video import Movements, motion_score, read_video
from demo.world.attributes import COLOURS, MOTIONS, SHAPES
from demo.world.render import render
from demo.world.scene import Scenes

HALF = 64.0
"""Pixels in one stage unit, of a picture of 128 x 128."""

MOVING_WAY = 4.0
"""Pixels that a pixel must be asked to travel in the whole clip to count as moving, for the reader."""

MOVING_STEP = 0.5
"""Pixels a frame from which a pixel counts as moving, for optical flow."""

DIRECTIONS = ("left", "right", "up", "down")
DRAWS = 2000
"""Of the bootstrap."""

GRID = 64
"""Pixels each way on which the characters' pixels are taken: each of them stands for four."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval, and of how many clips it is."""

    value: float
    low: float
    high: float
    count: int

    def row(self) -> dict[str, float]:
        """For a report."""
        names = {"value": self.value, "low": self.low, "high": self.high}
        return {"n": self.count} | {name: round(value, 4) for name, value in names.items()}


def _interval(statistic, columns: list[Tensor]) -> Interval:
    """Percentile bootstrap over clips: ``statistic`` maps the columns' means [D] to [D]. Clips with a NaN are out."""
    kept = torch.stack([column.double().cpu() for column in columns], -1)
    kept = kept[kept.isfinite().all(-1)]
    count = kept.shape[0]
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    generator = torch.Generator().manual_seed(20_260_000 + count)
    means = torch.stack(
        [kept[torch.randint(count, (count,), generator=generator)].mean(0) for _ in range(DRAWS)]
    )  # [DRAWS, columns]
    low, high = torch.quantile(statistic(*means.unbind(-1)), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(statistic(*kept.mean(0).unbind(-1))), low, high, count)


def mean_interval(values: Tensor) -> Interval:
    """The mean of values [N]; NaN is left out."""
    return _interval(lambda mean: mean, [values])


def difference_interval(one: Tensor, other: Tensor) -> Interval:
    """Mean of ``one`` less that of ``other``, both [N] of the same clips in the same order."""
    return _interval(lambda a, b: a - b, [one, other])


def ratio_interval(one: Tensor, other: Tensor) -> Interval:
    """Mean of ``one`` over that of ``other``, both [N] of the same clips in the same order."""
    return _interval(lambda a, b: a / b.clamp(min=1e-9), [one, other])


def rises(columns: list[Tensor]) -> list[Interval]:
    """How much the mean rises from each column [N] to the next; it surely does where ``low`` is above 0."""
    return [difference_interval(after, before) for before, after in itertools.pairwise(columns)]


class _Recorded:
    """A reader for ``read_video`` that says again what was read already."""

    def __init__(self, readings: list[Reading]):
        self.readings = readings

    def read(self, pictures: Tensor) -> Reading:
        """All frames' readings in the order of the pictures: clip by clip."""
        whole = concatenate(self.readings)
        clips = self.readings[0].size
        order = torch.arange(whole.size).view(len(self.readings), clips).T.flatten()
        return whole.select(order)


def read_frames(reader, frames: Tensor) -> list[Reading]:
    """A Reading of each frame, frames float or uint8 [B, T, 3, H, W]."""
    found = []
    for pictures in frames.unbind(1):
        found.append(reader.read(pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures))
    return found


def movements(readings: list[Reading]) -> Movements:
    """``read_video`` of readings that are there already."""
    shape = (readings[0].size, len(readings), 3, 1, 1)
    return read_video(_Recorded(readings), torch.empty(shape))


def follow(readings: list[Reading]) -> list[Reading]:
    """Each frame's characters in the order of the first frame's, ``present`` where they were found again."""
    now, found = readings[0], [readings[0]]
    for reading in readings[1:]:
        same = reading.pick(match(now, reading))
        there = same.present & now.present
        found.append(dataclasses.replace(same, present=there))
        now = dataclasses.replace(now, position=torch.where(there[..., None], same.position, now.position))
    return found


def of_asked(scenes: Scenes, first: Reading) -> tuple[Tensor, Tensor]:
    """Which character of the first frame each one asked for is: int64 [B, K], -1 where missing; and who is asked for.

    By the look alone: where a character stands is up to the model.
    """
    wanted = asked(scenes)
    return match(wanted, first), wanted.present


def identities(scenes: Scenes, readings: list[Reading]) -> tuple[Tensor, Tensor]:
    """Whether each character keeps the first frame's shape and colour in all frames, and who is asked for.

    "Unsure" or missing in one frame is wrong.

    Returns:
        Two bool [B, K].
    """
    frames = follow(readings)
    first = frames[0]
    same = first.present & (first.shape >= 0) & (first.colour >= 0)
    for frame in frames[1:]:
        same = same & frame.present & (frame.shape == first.shape) & (frame.colour == first.colour)
    order, wanted = of_asked(scenes, first)
    return same.gather(1, order.clamp(min=0)) & (order >= 0), wanted


def identity_kept(scenes: Scenes, readings: list[Reading]) -> Share:
    """Of the characters asked for, how many keep their identity."""
    kept, wanted = identities(scenes, readings)
    return share_of(kept[wanted], identity_chance(len(readings)))


def identity_by_motion(scenes: Scenes, readings: list[Reading]) -> dict[str, Share]:
    """The same apart for each of MOTIONS that some character has, as "identity, spins"."""
    kept, wanted = identities(scenes, readings)
    found = {}
    for number, name in enumerate(MOTIONS):
        rows = wanted & (scenes.motion.to(wanted.device) == number)
        if rows.any():
            found[f"identity, {name}"] = share_of(kept[rows], identity_chance(len(readings)))
    return found


def identity_chance(frames: int) -> float:
    """Of keeping shape and colour by guessing anew in every frame."""
    return (len(SHAPES) * len(COLOURS)) ** -(frames - 1.0)


def looks_right(scenes: Scenes, readings: list[Reading]) -> Tensor:
    """float32 [B]: the share of a clip's frames that show the characters asked for, and no other.

    Each with its shape and colour; where it stands does not matter.
    """
    wanted, flags = asked(scenes), []
    for frame in readings:
        same = frame.pick(match(wanted, frame))
        right = (same.shape == wanted.shape) & (same.colour == wanted.colour) & same.present
        flags.append((right | ~wanted.present).all(1) & (frame.present.sum(1) == wanted.present.sum(1)))
    return torch.stack(flags).float().mean(0)


def looks_chance(scenes: Scenes) -> float:
    """How often a blind guess would have a frame right."""
    return sum(look_chance(count) for count in scenes.count.tolist()) / scenes.size


def words_followed(scenes: Scenes, found: Movements) -> dict[str, Share]:
    """Of the characters asked for, how many move as their words say: ``direction`` (left, right, up, down), ``all``."""
    wanted = asked(scenes)
    motion = scenes.motion.cpu()
    directed = torch.isin(motion, torch.tensor([MOTIONS.index(name) for name in DIRECTIONS]))
    named = dataclasses.replace(wanted, present=wanted.present & directed)
    # Matched once with everybody, so that a character left out here is not taken for another.
    order = match(wanted, found.first)
    right = (found.motion.gather(1, order.clamp(min=0)) == motion) & (order >= 0)
    return {
        "direction": share_of(right[named.present], 1 / len(MOTIONS)),
        "all": motion_score(wanted, motion, found),
    }


@dataclass(frozen=True)
class EndPoints:
    """Where the moving pixels of B clips' characters end, by the reader; NaN in a clip that has none."""

    error: Tensor  # float32 [B], mean distance from where they were asked to end, pixels
    asked: Tensor  # float32 [B], mean way that they were asked to travel, pixels: the error of a clip that stands still
    missing: Tensor  # float32 [B], share of those pixels whose character was not found


def carried(offset: Tensor, way: Tensor, growth: Tensor, turn: Tensor) -> Tensor:
    """How far points move that a character carries along.

    Args:
        offset: float32 [..., N, 2], from the character's middle, any unit.
        way: float32 [..., 2] of the middle, the same unit; growth, turn: float32 [...], as in Movements.
    """
    scale = growth.exp()
    cos, sin = (turn.cos() * scale)[..., None], (turn.sin() * scale)[..., None]
    x, y = offset.unbind(-1)
    return torch.stack((x * cos - y * sin - x, x * sin + y * cos - y), -1) + way[..., None, :]


def asked_movement(scenes: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """The true way [B, K, 2], growth [B, K] and turn [B, K] from the first frame to the last, as the camera shows."""
    first, last = truth(scenes), truth(scenes, scenes.frames - 1)
    return last.position - first.position, (last.radius / first.radius).log(), last.angle - first.angle


def first_labels(scenes: Scenes, device: torch.device | str = "cpu", part: int = 256) -> Tensor:
    """int64 [B, GRID * GRID] on the CPU: which character each pixel of the first frame shows, -1 for none."""
    first = scenes.at(slice(0, 1))
    rows = torch.arange(scenes.size).split(part)
    parts = [render(first.select(some).to(device), GRID, GRID, ("labels",)).labels[:, 0] for some in rows]
    return torch.cat(parts).flatten(1).cpu()


def end_points(scenes: Scenes, found: Movements, labels: Tensor | None = None, part: int = 64) -> EndPoints:
    """Compare where the characters' pixels were asked to end with where the reader saw them end.

    A character that is missing, or was lost for half of the clip, counts as standing still. With moving cameras the
    background moves, too; of that the reader says nothing.

    Args:
        scenes: what was asked for.
        found: how the characters of the same clips move.
        labels: ``first_labels`` of the scenes, where they are there already.
        part: clips at a time.
    """
    scenes = scenes.to("cpu")
    labels = first_labels(scenes) if labels is None else labels
    order, _ = of_asked(scenes, found.first)
    seen = (order >= 0) & (found.motion >= 0).gather(1, order.clamp(min=0))

    def same(values: Tensor) -> Tensor:
        index = order.clamp(min=0)
        chosen = values.gather(1, index if values.ndim == 2 else index[..., None].expand(-1, -1, 2))
        return torch.where(seen if values.ndim == 2 else seen[..., None], chosen, 0.0).nan_to_num(0.0)

    wanted = (*asked_movement(scenes), truth(scenes).position)
    told = (same(found.way), same(found.growth), same(found.turn))
    axis = (torch.arange(GRID) + 0.5) * (2 / GRID) - 1
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)
    columns: list[list[Tensor]] = [[], [], []]
    for start in range(0, scenes.size, part):
        rows = slice(start, start + part)
        way, growth, turn, middle = (value[rows] for value in wanted)
        offset = points - middle[:, :, None]
        true_way = carried(offset, way, growth, turn) * HALF
        error = (carried(offset, *(value[rows] for value in told)) * HALF - true_way).norm(dim=-1)
        length = true_way.norm(dim=-1)
        own = labels[rows, None] == torch.arange(length.shape[1])[:, None]
        moving = own & (length >= MOVING_WAY)
        pixels = moving.sum((1, 2)).float()
        lost = (moving & ~seen[rows][..., None]).sum((1, 2)).float()
        totals = ((error * moving).sum((1, 2)), (length * moving).sum((1, 2)), lost)
        for column, total in zip(columns, totals, strict=True):
            column.append(torch.where(pixels > 0, total / pixels, torch.nan))
    return EndPoints(*(torch.cat(column) for column in columns))


def flow_errors(wanted: Tensor, occlusion: Tensor, found: Tensor | None, step: int = 1) -> Tensor:
    """Mean end-point error of each clip over the pixels that were asked to move and can be seen in both frames.

    Args:
        wanted: float32 [B, T-1, 2, H, W], pixels.
        occlusion: float32 [B, T-1, H, W], 1 where the pixel is hidden afterwards.
        found: the same shape as ``wanted``; None for a clip that stands still.
        step: frames of the video from one of these pictures to the next.

    Returns:
        float32 [B], pixels a picture; NaN where nothing moves.
    """
    moving = (wanted.norm(dim=2) >= MOVING_STEP * step) & (occlusion < 0.5)
    error = (wanted if found is None else found - wanted).norm(dim=2)
    pixels = moving.sum((1, 2, 3)).float()
    return torch.where(pixels > 0, (error * moving).sum((1, 2, 3)) / pixels, torch.nan)


def psnr(decoded: Tensor, frames: Tensor) -> Tensor:
    """float32 [B]: peak signal to noise ratio of clips [B, T, 3, H, W] in 0..1, dB."""
    return -10 * (decoded - frames).square().flatten(1).mean(1).clamp(min=1e-9).log10()


def motion_rows(
    columns: dict[str, dict[str, Tensor]], plain: str, tuned: str, untuned: tuple[str, str], whole: str = "both"
) -> dict[str, Interval]:
    """What the errors of several conditions amount to.

    Args:
        columns: kind of motion -> condition -> errors [N], the same clips in the same order in every condition.
        plain: the condition that is plain noise with the tuned network.
        tuned: the one that follows the flow most closely.
        untuned: the same two without the LoRA: (follows the flow, plain noise).
        whole: what all kinds together are called; empty where they are not wanted.

    Returns:
        Row name -> Interval: ``kind, condition`` (pixels), ``kind, condition / plain noise`` (ratio), and
        ``kind, LoRA off - on`` (how much higher the ratio is without).
    """
    together = {name: torch.cat([found[name] for found in columns.values()]) for name in next(iter(columns.values()))}
    rows = {}
    for kind, found in (columns | ({whole: together} if whole else {})).items():
        for condition, errors in found.items():
            rows[f"{kind}, {condition}"] = mean_interval(errors)
        for condition in found:
            own = untuned[1] if condition == untuned[0] else plain
            if condition not in (plain, untuned[1]):
                rows[f"{kind}, {condition} / plain noise"] = ratio_interval(found[condition], found[own])
        four = [found[name] for name in (*untuned, tuned, plain)]
        rows[f"{kind}, LoRA off - on"] = _interval(
            lambda off, off_plain, on, on_plain: off / off_plain.clamp(min=1e-9) - on / on_plain.clamp(min=1e-9), four
        )
    return rows
