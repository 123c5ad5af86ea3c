"""Pairs of pictures for MangaNinja's demonstration: the same characters twice, and which of their places match.

One picture is the reference, of the other the lines are given and the colours are wanted. In some pairs two characters
differ in nothing but their colours, so that nothing in the lines tells which is which: there only points can.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from demo.train_clip_vision import preprocess
from demo.training_data import encode_pictures, to_bytes
from demo.world.attributes import HELD_OUT
from demo.world.render import render
from demo.world.scene import Scenes, repose
from demo.world.truth import matched_points

PLACES = 6
"""Matched places on each character; of those that are in sight in both pictures, training draws some."""

TWINS = 0.35
"""Share of the pairs of several characters in which the first two are alike but for their colours."""

ELSEWHERE = 0.25
"""Share of the pairs whose reference stands before another background, in another light."""

SHUFFLED = 0.35
"""Share of the references that are cut into squares and put together in another order."""

VISION_SIZE = 128
"""Pixels that CLIP vision sees."""

CUTS = (2, 4, 8)
"""Into how many squares each side is cut; the paper goes from 2 to 32 on pictures of 512 pixels."""


def with_twins(scenes: Scenes, twins: Tensor, combinations: str = "train") -> tuple[Scenes, Tensor]:
    """The same scenes; where ``twins``, the second character is the first one in its own colour.

    Args:
        scenes: of one frame, on the CPU.
        twins: bool [B], where it is to be so; scenes of one character stay as they are.
        combinations: "train" leaves scenes alone in which a held-out look would come about, "held_out" those in which
            the second would have one that is not, "all" none.

    Returns:
        The scenes, and bool [B]: where it is so.
    """
    first = {name: getattr(scenes, name)[:, 0] for name in ("shape", "pattern", "face", "accessory")}
    held_out = HELD_OUT[first["shape"], scenes.colour[:, 1], first["pattern"]]
    fits = {"train": ~held_out, "held_out": held_out, "all": torch.ones_like(held_out)}[combinations]
    # No scene has two characters of one shape and colour.
    colours, shapes = scenes.colour, scenes.shape
    twice = colours[:, 0] == colours[:, 1]
    for k in range(2, shapes.shape[1]):
        twice |= scenes.present[:, k] & (shapes[:, k] == first["shape"]) & (colours[:, k] == colours[:, 1])
    changed = twins & fits & ~twice & (scenes.count > 1)
    fields = {}
    for name, value in first.items():
        whole = getattr(scenes, name).clone()
        whole[:, 1] = torch.where(changed, value, whole[:, 1])
        fields[name] = whole
    return replace(scenes, **fields), changed


def shuffled(pictures: Tensor, points: Tensor, cuts: int, order: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures cut into squares and put together in another order, and where their points went (Liu et al., section 3).

    Args:
        pictures: [B, C, H, W], H and W multiples of ``cuts``.
        points: [B, P, 2], pixels, x then y; whole numbers are the middles of pixels.
        cuts: squares along each side.
        order: int64 [B, cuts * cuts]: which square comes to each place, row by row.

    Returns:
        As pictures and points.
    """
    size, channels, height, width = pictures.shape
    h, w = height // cuts, width // cuts
    squares = pictures.view(size, channels, cuts, h, cuts, w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    squares = squares.gather(1, order[:, :, None, None, None].expand_as(squares))
    moved = squares.unflatten(1, (cuts, cuts)).permute(0, 3, 1, 4, 2, 5).reshape(pictures.shape)
    x, y = points.unbind(-1)
    column, row = (((at + 0.5) / side).floor().clamp(0, cuts - 1) for at, side in ((x, w), (y, h)))
    place = order.argsort(1).gather(1, (row * cuts + column).long())
    at = torch.stack((x - column * w + place % cuts * w, y - row * h + place // cuts * h), -1)
    return moved, at


@dataclass(frozen=True)
class Pairs:
    """B pairs, on one device."""

    wanted: Tensor  # float32 [B, 3, H, W], 0..1
    reference: Tensor  # float32 [B, 3, H, W], 0..1
    lines: Tensor  # float32 [B, 1, H, W], 1 on a line of the wanted picture
    mask: Tensor  # float32 [B, 1, H, W], 1 where characters of the wanted picture are
    wanted_points: Tensor  # float32 [B, K, P, 2], pixels
    reference_points: Tensor  # float32 [B, K, P, 2], pixels
    visible: Tensor  # bool [B, K, P], in sight in both


def draw_pairs(scenes: Scenes, reference: Scenes, size: int, seed: int, places: int = PLACES) -> Pairs:
    """Draws both pictures of each pair.

    Args:
        scenes: B scenes of one frame.
        reference: the same characters, see scene.repose.
        size: pixels.
        seed: of the matched places.
        places: P, on each character.
    """
    drawn = render(scenes, size, size, layers=("frames", "lines", "masks"))
    given = render(reference, size, size).frames[:, 0]
    found = matched_points(scenes, reference, places, seed, size, size)
    mask = drawn.masks[:, 0].sum(1, keepdim=True).clamp(0, 1)
    return Pairs(drawn.frames[:, 0], given, drawn.lines[:, 0], mask, found.first, found.second, found.visible)


def pair_maker(
    vae, vision, device: torch.device, size: int, seed: int
) -> Callable[[Scenes, Tensor], tuple[Tensor, ...]]:
    """A function of scenes (and rows of tokens, which it leaves alone) that makes what is learned from.

    That is latents float16 [N, 4, size/8, size/8] of the wanted picture and of the reference, lines uint8
    [N, 1, size, size], points int16 [N, K P, 4] (x, y in the wanted picture, x, y in the reference; -1 where there is
    none), embeddings float16 [N, 128] of the reference and the characters' share of each latent pixel, float16
    [N, 1, size/8, size/8].

    Args:
        vae: encodes the pictures.
        vision: CLIP vision, embeds the reference.
        device: where.
        size: of the pictures.
        seed: of all that is drawn here.
    """
    generator = torch.Generator().manual_seed(seed)
    calls = iter(range(1, 1 << 30))

    @torch.no_grad()
    def make(scenes: Scenes, _: Tensor) -> tuple[Tensor, ...]:
        call, count = next(calls), scenes.size
        scenes, _ = with_twins(scenes, torch.rand(count, generator=generator) < TWINS)
        own = seed * 100_003 + call
        near, far = repose(scenes, own, scenery=False), repose(scenes, own)
        away = torch.rand(count, generator=generator) < ELSEWHERE
        names = ("background", "background_shift", "light", "light_direction")
        changes = {}
        for name in names:
            rows = away.view(-1, *[1] * (getattr(near, name).ndim - 1))
            changes[name] = torch.where(rows, getattr(far, name), getattr(near, name))
        pairs = draw_pairs(scenes.to(device), replace(near, **changes).to(device), size, own)
        seen = functional.interpolate(pairs.reference, (VISION_SIZE, VISION_SIZE))  # of smaller pictures in a trial run
        embeddings = vision(pixel_values=preprocess(to_bytes(seen)))[2]
        given, points = pairs.reference, pairs.reference_points.flatten(1, 2)
        for cuts in CUTS:
            rows = (torch.rand(count, generator=generator) < SHUFFLED / len(CUTS)).nonzero()[:, 0].to(device)
            if rows.numel():
                order = torch.rand(rows.numel(), cuts * cuts, generator=generator).argsort(1).to(device)
                given[rows], points[rows] = shuffled(given[rows], points[rows], cuts, order)
        places = torch.cat((pairs.wanted_points.flatten(1, 2), points), -1).round().clamp(0, size - 1)
        places = torch.where(pairs.visible.flatten(1)[..., None], places, -1.0)
        return (
            encode_pictures(vae, pairs.wanted),
            encode_pictures(vae, given),
            to_bytes(pairs.lines),
            places.to(torch.int16),
            embeddings.half(),
            functional.avg_pool2d(pairs.mask, 8).half(),
        )

    return make


def numbered_maps(places: Tensor, count: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Point maps of the wanted pictures and of the references, float32 [B, 1, size, size] each; free of syncs.

    Args:
        places: int16 [B, P, 4] as ``pair_maker`` gives them.
        count: int64 [B]: how many are taken, in a random order, as far as there are so many.
        size: pixels.
    """
    batch, most, _ = places.shape
    there = places[..., 0] >= 0
    chance = torch.rand(batch, most, device=places.device).masked_fill(~there, 2.0)
    order = chance.argsort(1)
    chosen = places.gather(1, order[..., None].expand(-1, -1, 4)).long()
    number = torch.arange(1, most + 1, device=places.device).expand(batch, -1)
    taken = there.gather(1, order) & (number <= count[:, None])
    maps = []
    for side in (chosen[..., :2], chosen[..., 2:]):
        # What is not taken lands in one more place, which is cut off; of two at one place the later number stays.
        at = torch.where(taken, side[..., 1] * size + side[..., 0], size * size)
        empty = torch.zeros(batch, size * size + 1, device=places.device)
        drawn = empty.scatter_reduce(1, at, number.float() * taken, "amax")
        maps.append(drawn[:, :-1].view(batch, 1, size, size))
    return maps[0], maps[1]
