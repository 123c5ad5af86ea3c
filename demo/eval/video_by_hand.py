"""Motion made by hand for the video models: what is asked of the nodes Cut And Drag and Camera Flow, and their flows.

Scenes say what is asked, in the world's own terms, so that everything that measures other clips measures these, too.
The flows are those of the functions behind the nodes, which get what a person would give them: the first frame, an
outline with key frames, schedules, a depth picture. Orbit and roll are left out: the first foreshortens what is flat,
the second would turn the ground, and neither can be rendered to compare with.
"""

import dataclasses
import json
import math

import torch
from torch import Tensor

from demo.eval.reading import truth
from demo.eval.video_scenes import (
    CHARACTERS,
    FIRST_SEED,
    FLOW_PART,
    FRAMES,
    LEAST_CAMERA,
    flow_scenes,
    flows_of,
)
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes, uniform
from kernels.camera_flow import CameraClip, RenderedClip, relative_depth
from kernels.cut_and_drag import Clip, CutAndDrag
from kernels.drag_motion import parse_motion
from kernels.schedule import Schedule

DRAG, CAMERA = HAND_KINDS = ("cut-and-drag", "camera move")
"""One character is cut out and dragged; the camera pans and zooms, in half of the clips with depth."""

DEPTH_RATIO = 2.0
"""How many times farther the background is than the characters, where the camera moves with depth."""

DRAGS = 24
"""Paths drawn for each scene; the first that fits is taken."""


def hand_scenes(kind: str, count: int, seed: int, *, frames: int = FRAMES, combinations: str = "train") -> Scenes:
    """Scenes that move as somebody asked; one or two characters each, a caption of the first frame fits them.

    Args:
        kind: one of HAND_KINDS, or of KINDS: those are flow_scenes'.
        count: how many.
        seed: added to FIRST_SEED.
        frames: of each video, at least 3.
        combinations: as in draw_scenes.

    Raises:
        ValueError: another kind.
    """
    if kind not in HAND_KINDS:
        return flow_scenes(kind, count, seed, frames=frames, combinations=combinations)
    drawn = draw_scenes(4 * count + 32, FIRST_SEED + seed, characters=CHARACTERS, combinations=combinations)
    still = dataclasses.replace(
        drawn,
        **{
            name: getattr(drawn, name).expand(-1, frames, *getattr(drawn, name).shape[2:]).clone()
            for name in ("position", "radius", "angle", "camera")
        },
    )
    # A generator of its own: draw_scenes' begins with the same numbers for the same seed.
    generator = torch.Generator().manual_seed(FIRST_SEED + 500_000 + seed)
    scenes, fits = (_dragged if kind == DRAG else _filmed)(still, generator)
    rows = fits.nonzero()[:count, 0]
    assert rows.numel() == count
    return scenes.select(rows)


def hand_flows(kind: str, scenes: Scenes, device: torch.device | str = "cpu") -> Tensor:
    """float32 [B, T-1, 2, 128, 128] on the device: the flows of the nodes' functions, of KINDS the scenes' own."""
    if kind not in HAND_KINDS:
        return flows_of(scenes, device)[0]
    clips = (drag_clips if kind == DRAG else camera_clips)(scenes, device)
    return torch.stack([clip.vectors for clip in clips])


def _first_frames(scenes: Scenes, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Pictures float32 [B, H, W, 3] and labels int64 [B, H, W] on the device."""
    rows = torch.arange(scenes.size).split(FLOW_PART)
    parts = [render(scenes.select(some).at(slice(0, 1)).to(device), layers=("frames", "labels")) for some in rows]
    pictures, labels = (torch.cat([getattr(part, name)[:, 0] for part in parts]) for name in ("frames", "labels"))
    return pictures.permute(0, 2, 3, 1), labels


# Cut and drag.


def legs(frames: int) -> Tensor:
    """float32 [T, 3]: how much of the first, middle and last key a frame holds; it gathers way, then loses it."""
    turn = frames // 2
    time = torch.arange(frames)
    into = (time / turn).clamp(max=1) ** 2
    out = 1 - (1 - ((time - turn) / (frames - 1 - turn)).clamp(0, 1)) ** 2
    return torch.stack((1 - into, into - out, out), -1)


def _dragged(still: Scenes, generator: torch.Generator) -> tuple[Scenes, Tensor]:
    """Scenes whose front character goes along a bent path, half of them grow or shrink, half turn; and which fit."""
    size, frames = still.size, still.frames
    rows, front = torch.arange(size), still.count - 1
    start = still.position[rows, 0, front]
    shape = (size, DRAGS, 1)
    heading = uniform(generator, -math.pi, math.pi, *shape)
    way = torch.cat((heading.cos(), heading.sin()), -1) * uniform(generator, 0.4, 0.8, *shape)
    aside = torch.stack((-way[..., 1], way[..., 0]), -1) * uniform(generator, -0.25, 0.25, *shape)
    some = torch.rand(2, size, DRAGS, 1, generator=generator) < 0.5
    growth = uniform(generator, -0.35, 0.35, *shape) * some[0]
    turn = uniform(generator, -0.8, 0.8, *shape) * some[1]
    held = legs(frames)
    along = held[:, 1] / 2 + held[:, 2]  # the middle key holds half of everything
    place = start[:, None, None] + way[:, :, None] * along[:, None] + aside[:, :, None] * held[:, 1:2]
    radius = still.radius[rows, 0, front][:, None, None] * (growth * along).exp()  # [B, DRAGS, T]
    inside = (place.abs() + 0.9 * radius[..., None] <= 1).all(-1).all(-1)
    other, its_radius = still.position[:, None, :1, 0], still.radius[:, None, :1, 0]
    gap = (place - other).norm(dim=-1) / (radius + its_radius)
    clear = (gap >= 0.92).all(-1) | (still.count == 1)[:, None]  # as far apart as draw_places wants them
    fits = inside & clear
    taken = fits.int().argmax(1)
    changes = {name: getattr(still, name).clone() for name in ("position", "radius", "angle")}
    changes["position"][rows, :, front] = place[rows, taken]
    changes["radius"][rows, :, front] = radius[rows, taken]
    changes["angle"][rows, :, front] += turn[rows, taken] * along
    return dataclasses.replace(still, **changes), fits.any(1)


def outline(mask: Tensor) -> list[tuple[int, int]]:
    """The outline of the largest part of a mask, as one draws round it: corners (x, y) of pixels, holes left out.

    Args:
        mask: bool [H, W] with something in it.
    """
    inside = torch.nn.functional.pad(mask.cpu(), (1, 1, 1, 1)).tolist()
    # From each corner to the next ones, clockwise on the screen round every pixel; what two pixels share is no edge.
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, line in enumerate(inside[1:-1]):
        for x, here in enumerate(line[1:-1]):
            if not here:
                continue
            if not inside[y][x + 1]:
                onward.setdefault((x, y), []).append((x + 1, y))
            if not line[x + 2]:
                onward.setdefault((x + 1, y), []).append((x + 1, y + 1))
            if not inside[y + 2][x + 1]:
                onward.setdefault((x + 1, y + 1), []).append((x, y + 1))
            if not line[x]:
                onward.setdefault((x, y + 1), []).append((x, y))
    loops = []
    while onward:
        point = next(iter(onward))
        corners, area, heading = [], 0, None
        while point in onward:
            ways = onward[point]
            # Where two pixels touch by their corners only, turn right: they stay apart.
            right = None if heading is None else (point[0] - heading[1], point[1] + heading[0])
            end = ways.pop(ways.index(right) if right in ways else 0)
            if not ways:
                del onward[point]
            step = (end[0] - point[0], end[1] - point[1])
            if step != heading:
                corners.append(point)
            area += point[0] * end[1] - end[0] * point[1]
            point, heading = end, step
        loops.append((area, corners))
    return max(loops)[1]  # those round holes go the other way, their area is negative


def drag_text(scenes: Scenes, row: int, labels: Tensor) -> str:
    """What the editor of Cut And Drag would write for a scene: the outline of the front character, and three keys.

    Args:
        scenes: before a still camera.
        row: which of them.
        labels: int64 [H, W] of its first frame.
    """
    front, (height, width) = int(scenes.count[row]) - 1, labels.shape
    corners = outline(labels == front)
    position, radius = scenes.position[row, :, front], scenes.radius[row, :, front]
    angle = scenes.angle[row, :, front]
    keys = []
    for frame, way in ((0, "linear"), (scenes.frames // 2, "ease-in"), (scenes.frames - 1, "ease-out")):
        move = ((position[frame] - position[0]) / 2).tolist()  # the stage is two units wide and high
        keys.append(
            {
                "frame": frame,
                "x": move[0],
                "y": move[1],
                "angle": math.degrees(angle[frame] - angle[0]),
                "scale": float(radius[frame] / radius[0]),
                "way": way,
            }
        )
    polygon = [[x / width, y / height] for x, y in corners]
    pivot = ((position[0] + 1) / 2).tolist()
    return json.dumps({"version": 1, "objects": [{"id": "a", "polygon": polygon, "pivot": pivot, "keys": keys}]})


def drag_clips(scenes: Scenes, device: torch.device | str = "cpu", hole: str = "keep") -> list[Clip]:
    """What Cut And Drag makes of each scene's first frame; its flow is the same for every ``hole``, "keep" is fast."""
    pictures, labels = _first_frames(scenes, device)
    labels, clips = labels.cpu(), []
    for row, picture in enumerate(pictures):
        motion = parse_motion(drag_text(scenes, row, labels[row]), scenes.frames)
        clips.append(CutAndDrag(picture, motion, scenes.frames, hole=hole).render())
    return clips


# Camera moves.


def _filmed(still: Scenes, generator: torch.Generator) -> tuple[Scenes, Tensor]:
    """Scenes before which the camera moves, every second one with depth; and where characters stay in sight.

    Pan and zoom are what the characters seem to do. With depth the camera goes ahead or back instead of zooming, and
    what is DEPTH_RATIO times as far away as the characters follows by less: it has a camera of its own, and the
    characters make up for the difference.
    """
    size, frames = still.size, still.frames
    time = torch.linspace(0, 1, frames)
    ease = time * time * (3 - 2 * time)
    pan = uniform(generator, -0.45, 0.45, size, 1, 2) * ease[:, None]
    last = torch.exp(uniform(generator, -0.25, 0.25, size, 1))
    deep = (torch.arange(size) % 2 == 1)[:, None]
    ahead = (1 - 1 / last) * ease  # parts of the way to the characters
    zoom = torch.where(deep, 1 / (1 - ahead), 1 + (last - 1) * ease)
    far_zoom = torch.where(deep, 1 / (1 - ahead / DEPTH_RATIO), zoom)
    far_pan = torch.where(deep[..., None], pan / DEPTH_RATIO, pan)
    shown = (still.position - pan[:, :, None]) * zoom[..., None, None]  # by the camera
    position = torch.where(
        deep[..., None, None], shown / far_zoom[..., None, None] + far_pan[:, :, None], still.position
    )
    radius = torch.where(deep[..., None], still.radius * (zoom / far_zoom)[..., None], still.radius)
    camera = torch.cat((far_pan, far_zoom[..., None]), -1)
    scenes = dataclasses.replace(still, position=position, radius=radius, camera=camera)
    edge = shown[:, -1].abs() + 0.5 * (still.radius * zoom[..., None])[:, -1, :, None]
    seen = ((edge <= 1).all(-1) | ~still.present).all(1)
    travel = torch.maximum(pan[:, -1].norm(dim=-1), last[:, 0].log().abs())
    return scenes, seen & (travel >= LEAST_CAMERA)


def is_deep(scenes: Scenes) -> Tensor:
    """bool [B]: where the characters move otherwise than what is behind them."""
    moved = (scenes.position[:, -1] - scenes.position[:, 0]).abs().amax((1, 2))
    return torch.maximum(moved, (scenes.radius[:, -1] - scenes.radius[:, 0]).abs().amax(1)) > 0


def camera_words(scenes: Scenes, row: int, nearness: float) -> dict[str, str]:
    """The schedules that make Camera Flow do what a scene shows.

    Args:
        scenes: of kind CAMERA.
        row: which of them.
        nearness: the characters' depth where the scene is deep, in depths of the picture's centre; else 1.
    """
    some = scenes.select(slice(row, row + 1))
    first, last = truth(some), truth(some, scenes.frames - 1)
    zoom = float(last.radius[0, 0] / first.radius[0, 0])
    pan = (first.position[0, 0] - last.position[0, 0] / zoom) / 2 * nearness  # of the picture's width and height
    moves = {"pan_x": (0, float(pan[0])), "pan_y": (0, float(pan[1]))}
    if bool(is_deep(some)):
        moves["dolly"] = (0, nearness * (1 - 1 / zoom))
    else:
        moves["zoom"] = (1, zoom)
    return {name: f"0:{start}, {scenes.frames - 1}:{end:.8f} ease" for name, (start, end) in moves.items()}


def camera_clips(scenes: Scenes, device: torch.device | str = "cpu", hole: str = "grey") -> list[RenderedClip]:
    """What Camera Flow makes of each scene's first frame, where it is deep with white characters as depth picture.

    Its flow is the same for every ``hole``; "grey" is fast.
    """
    pictures, labels = _first_frames(scenes, device)
    clips = []
    for row, (picture, deep) in enumerate(zip(pictures, is_deep(scenes).tolist(), strict=True)):
        depth, nearness = None, 1.0
        if deep:
            white = labels[row] >= 0
            depth = relative_depth(white.float(), "near is white", DEPTH_RATIO, tuple(white.shape))
            nearness = float(depth[white].mean())
        words = camera_words(scenes, row, nearness)
        moves = {name: Schedule.parse(text, name).at(scenes.frames) for name, text in words.items()}
        clips.append(CameraClip(picture, moves, depth=depth, hole=hole).render())
    return clips
