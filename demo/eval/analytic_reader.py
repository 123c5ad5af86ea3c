"""The analytic reader: no trained weights, only the world's formulas, held against the picture.

1. Ink that lies on an outline and not beside it, for every shape, size and angle at every place (correlation).
2. The best few outlines at the best few places, each moved and turned until it fits best.
3. For each: which accessory, and which colour, pattern and light explain the colours inside, point by point.
4. Outline, accessory and colours together choose the shape; characters too close to a better one are dropped.
5. Step 3 once more for those that are left, without the points that another of them hides.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from demo.eval.analytic_library import (
    AZIMUTHS,
    HEIGHTS,
    LENGTH_POWER,
    LOOKS,
    SEARCH_SIZE,
    SIZE_GROUPS,
    Library,
    library,
)
from demo.eval.analytic_poses import Hiding, Poses, apart
from demo.eval.reading import UNSURE, Reading, concatenate
from demo.world.attributes import ACCESSORIES, INK, LIGHT_ANGLES, PATTERNS, SHAPES
from demo.world.dress import OUTLINE, accessories
from demo.world.scene import MAXIMUM_CHARACTERS

INK_REACH = 0.35
"""Distance in RGB at which a colour is no longer ink at all."""

PLACES, GROUPS_EACH = 7, 6
"""How many places are looked at closer, and how many shapes (a shape in two ranges of size counts twice) at each."""

SHARE_OF_BEST, LEAST_BELOW, FIRST_ABOVE = 0.4, 0.08, 0.12
"""A character's quality (see there) is at least so much of the picture's best less LEAST_BELOW: soft pictures have less
of it throughout. With FIRST_ABOVE more it is sure enough to hide others."""

ERROR_WEIGHT, WORN_WEIGHT = 3.0, 1.5
"""What the colours' error takes from an outline's score, and what an accessory that fits gives."""

ROUND_ONES = 8
"""Balls and drops at most whose angle is looked for, in one picture."""

PIVOT = {"ball": 0.0, "drop": 0.24}
"""Shapes whose outlines say little about the angle, and the v of the middle round which they may have turned."""

CLIP = 0.25
"""Largest difference in RGB that one point counts."""

IN_DRESS = 0.3
"""What a candidate loses whose middle lies in something that a better one wears."""

WORN_LIMIT = 0.16
"""Mean difference in RGB up to which an accessory may be there."""


@dataclass(frozen=True)
class Looks:
    """What N poses in each of B pictures show, and how badly each explanation fits."""

    accessory: Tensor  # int64 [B, N]
    worn_error: Tensor  # float32 [B, N, 6], mean difference in RGB; for "none" WORN_LIMIT
    look: Tensor  # int64 [B, N], colour * 5 + pattern
    error: Tensor  # float32 [B, N], mean difference in RGB of the body's colours, of a point at most CLIP
    light_error: Tensor  # float32 [B, N, AZIMUTHS], mean square, by the light's direction on the screen
    margin: Tensor  # float32 [B, N], by how much (mean square) the best look of another colour or pattern is worse


def sample(picture: Tensor, points: Tensor) -> Tensor:
    """Colours [B, N, P, C] of pictures [B, C, H, W] at stage points [B, N, P, 2]."""
    return functional.grid_sample(picture, points, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)


def ink_map(pictures: Tensor) -> Tensor:
    """float32 [B, 1, H, W]: how much like the outlines' ink each pixel is, 0..1."""
    gap = (pictures - INK.to(pictures.device)[:, None, None]).square().sum(1, keepdim=True).sqrt()
    return (1 - gap / INK_REACH).clamp(0, 1)


def in_sight(points: Tensor, hiding: Hiding | None) -> Tensor:
    """bool [B, N, P]: whether stage points lie in the picture and in no other character."""
    clear = (points.abs() < 1).all(-1)
    return clear if hiding is None else clear & hiding.clear(points, 0.10)


def quality(poses: Poses, outline: Tensor, looks: Looks) -> Tensor:
    """How well a candidate explains its place: its outline, the colours in it, and what it wears."""
    worn = (0.1 - looks.worn_error.amin(2)).clamp(min=0)
    return outline * (poses.radius / 0.4) ** LENGTH_POWER - ERROR_WEIGHT * looks.error + WORN_WEIGHT * worn


class AnalyticReader:
    """Reads square pictures by rendering and comparing.

    Args:
        device: where it runs.
        radii: smallest and largest radius that it looks for, stage units.
        widest: the largest angle to either side, radians.
    """

    def __init__(
        self, device: torch.device | str = "cpu", radii: tuple[float, float] = (0.25, 0.66), widest: float = 0.42
    ):
        self.device = torch.device(device)
        self.library: Library = library(str(self.device), *radii, widest)
        self.radii, self.widest = radii, widest

    def read(self, pictures: Tensor, part: int | None = None) -> Reading:
        """Read float32 [B, 3, H, W] in 0..1, square; ``part`` pictures at a time."""
        part = part or (8 if self.device.type == "cpu" else 32)
        return concatenate([self.read_part(pictures[k : k + part]) for k in range(0, pictures.shape[0], part)])

    @torch.no_grad()
    def read_part(self, pictures: Tensor) -> Reading:
        """Read as many pictures as fit into memory."""
        pictures = pictures.to(self.device, torch.float32)
        ink = ink_map(pictures)
        poses, outline = self.refine(ink, self.search(ink), rounds=2)
        poses = self.turn_round(pictures, poses, outline)
        looks = self.look(pictures, poses)
        value = quality(poses, outline, looks)
        least = SHARE_OF_BEST * value.amax(1, keepdim=True) - LEAST_BELOW
        first, present = self.choose(poses, looks, value, least + FIRST_ABOVE)
        hidden = Hiding.between(poses, first, present)
        looks = self.look(pictures, poses, hidden)
        outline = self.outline_score(ink, poses, hidden)
        poses, present = self.choose(poses, looks, quality(poses, outline, looks), least)
        hidden = Hiding.between(poses, poses, present)
        poses, _ = self.refine(ink, poses, rounds=1, first=2)
        poses = self.turn(pictures, poses, hidden)
        looks = self.look(pictures, poses, hidden)
        light = self.light(looks, present)
        return Reading(
            present=present.cpu(),
            position=torch.stack((poses.x, poses.y), -1).cpu(),
            radius=poses.radius.cpu(),
            angle=poses.angle.cpu(),
            shape=poses.shape.cpu(),
            colour=(looks.look // len(PATTERNS)).cpu(),
            pattern=(looks.look % len(PATTERNS)).cpu(),
            accessory=looks.accessory.cpu(),
            light=light.cpu(),
            background=torch.full_like(light, UNSURE).cpu(),
        )

    def search(self, ink: Tensor) -> Poses:
        """The best outlines of GROUPS_EACH groups at each of PLACES places: [B, PLACES * GROUPS_EACH]."""
        lib, size = self.library, SEARCH_SIZE
        small = functional.interpolate(ink, (size, size), mode="bilinear", antialias=True)[:, 0]
        spectrum = torch.fft.rfft2(small)
        best, which = [], []
        groups = len(SHAPES) * SIZE_GROUPS
        for group in range(groups):
            rows = (lib.template_group == group).nonzero()[:, 0]
            score = torch.fft.irfft2(spectrum[:, None] * lib.templates[rows], s=(size, size))
            top, index = score.max(1)
            best.append(top)
            which.append(rows[index])
        best, which = torch.stack(best, 1), torch.stack(which, 1)  # [B, G, 64, 64]
        batch = best.shape[0]
        near = functional.max_pool2d(best, 7, 1, 3)  # each group may lie a little beside the others
        peak = best.amax(1)
        maximum = functional.max_pool2d(peak[:, None], 9, 1, 4)[:, 0]
        peak = torch.where(peak == maximum, peak, -1.0)
        _, place = peak.flatten(1).topk(PLACES, dim=1)  # [B, P]
        here = near.flatten(2).gather(2, place[:, None].expand(-1, groups, -1))  # [B, G, P]
        _, group = here.topk(GROUPS_EACH, dim=1)  # [B, E, P]
        # Where within the neighbourhood that group was best.
        reach = torch.arange(-3, 4, device=ink.device)
        px = (place[:, None] % size)[..., None] + reach.repeat(7)
        py = (place[:, None] // size)[..., None] + reach.repeat_interleave(7)
        inside = (px >= 0) & (px < size) & (py >= 0) & (py < size)
        flat = (py.clamp(0, size - 1) * size + px.clamp(0, size - 1)).expand(-1, GROUPS_EACH, -1, -1)
        index = group[..., None] * size * size + flat
        values = best.flatten(1).gather(1, index.flatten(1)).view_as(index).masked_fill(~inside, -9.0)
        cell = index.gather(3, values.argmax(3, keepdim=True))[..., 0].transpose(1, 2).reshape(batch, -1)
        template = which.flatten(1).gather(1, cell)
        x, y = cell % size, cell // size % size
        return Poses(
            shape=lib.template_shape[template],
            x=(x + 0.5) * (2 / size) - 1,
            y=(y + 0.5) * (2 / size) - 1,
            radius=lib.template_radius[template],
            angle=lib.template_angle[template],
        )

    def outline_score(self, ink: Tensor, poses: Poses, hiding: Hiding | None = None) -> Tensor:
        """float32 [B, N], about -1..1: ink on the outline, less what is just outside and inside."""
        lib = self.library
        contour, outward = lib.contour[poses.shape], lib.outward[poses.shape]
        weight_of = None
        if hiding is not None:
            clear = hiding.clear(poses.place(contour), 0.16).float()
            # Where hardly anything is in sight, what is hidden counts as missing.
            weight_of = clear / clear.sum(-1, keepdim=True).clamp(min=0.4 * clear.shape[-1])
        beside = (OUTLINE + 2.6 / ink.shape[-1] / poses.radius)[..., None, None]
        total = torch.zeros_like(poses.x)
        for offset, weight in ((-0.025, 0.5), (0.025, 0.5), (beside, -0.6), (-beside - 0.02, -0.4)):
            found = sample(ink, poses.place(contour + outward * offset))[..., 0]
            total += weight * (found.mean(-1) if weight_of is None else (found * weight_of).sum(-1))
        return total

    def refine(self, ink: Tensor, poses: Poses, rounds: int, first: int = 0) -> tuple[Poses, Tensor]:
        """Move, scale and turn each outline to where it scores best; also returns the scores."""
        axis = torch.tensor([-1.0, 0.0, 1.0], device=ink.device)
        steps = torch.cartesian_prod(axis, axis, axis, axis)  # [81, 4]
        batch, count = poses.x.shape
        for k in range(first, first + rounds):
            scale = 0.5**k
            moved = Poses(
                shape=poses.shape[..., None].expand(-1, -1, 81).flatten(1),
                x=(poses.x[..., None] + steps[:, 0] * 0.016 * scale).flatten(1),
                y=(poses.y[..., None] + steps[:, 1] * 0.016 * scale).flatten(1),
                radius=(poses.radius[..., None] * (1 + steps[:, 2] * 0.03 * scale)).flatten(1),
                angle=(poses.angle[..., None] + steps[:, 3] * 0.06 * scale).flatten(1),
            )
            score, index = self.outline_score(ink, moved).view(batch, count, 81).max(2)
            poses = moved.pick(torch.arange(count, device=ink.device) * 81 + index)
        return poses, score

    def turn_round(self, pictures: Tensor, poses: Poses, outline: Tensor) -> Poses:
        """Give the best balls and drops the angle at which their colours fit best: their outlines say little of it."""
        pivots = torch.full((len(SHAPES),), torch.nan, device=self.device)
        for name, v in PIVOT.items():
            pivots[SHAPES.index(name)] = v
        pivot = pivots[poses.shape]
        order = torch.where(pivot.isnan(), -9.0, outline).topk(ROUND_ONES, dim=1).indices
        some, pivot = poses.pick(order), pivot.gather(1, order)
        angles = torch.linspace(-self.widest, self.widest, 2 * round(self.widest / 0.1) + 1, device=self.device)
        tried = some.turned(angles.expand(*order.shape, -1), pivot.nan_to_num(0.0))
        best = self.best_turn(pictures, tried, angles.numel())
        best = torch.where(pivot.isnan()[..., None], torch.stack((some.x, some.y, some.angle), -1), best)
        x, y, angle = (
            old.scatter(1, order, new)
            for old, new in zip((poses.x, poses.y, poses.angle), best.unbind(-1), strict=True)
        )
        return dataclasses.replace(poses, x=x, y=y, angle=angle)

    def turn(self, pictures: Tensor, poses: Poses, hiding: Hiding) -> Poses:
        """Turn each character a little, to where its colours and what it wears fit best."""
        reach = torch.where(poses.shape == SHAPES.index("ball"), 0.045, 0.015)
        steps = torch.arange(-3, 4, device=reach.device)
        tried = poses.turned(poses.angle[..., None] + reach[..., None] * steps, torch.zeros_like(reach))
        best = self.best_turn(pictures, tried, steps.numel(), hiding.repeat(steps.numel()))
        return dataclasses.replace(poses, angle=best[..., 2])

    def best_turn(self, pictures: Tensor, tried: Poses, count: int, hiding: Hiding | None = None) -> Tensor:
        """x, y and angle [B, N, 3] of the best of every ``count`` poses."""
        looks = self.look(pictures, tried, hiding)
        error = (looks.error + 0.5 * looks.worn_error.amin(2)).unflatten(1, (-1, count))
        best = error.argmin(2, keepdim=True)
        return torch.cat(
            [value.unflatten(1, (-1, count)).gather(2, best) for value in (tried.x, tried.y, tried.angle)], 2
        )

    def look(self, pictures: Tensor, poses: Poses, hiding: Hiding | None = None) -> Looks:
        """Read accessory, colour, pattern and light of each pose [B, N]; what others hide is not looked at."""
        lib = self.library
        batch, count = poses.x.shape
        kinds = len(ACCESSORIES)
        worn = poses.place(lib.worn[poses.shape].flatten(2, 3))  # [B, N, A * P, 2]
        seen = sample(pictures, worn).view(batch, count, kinds, 1, -1, 3)
        free = in_sight(worn, hiding).view(batch, count, kinds, 1, -1).float()
        gap = (seen - lib.worn_colours[poses.shape]).abs().mean(-1).clamp(max=0.35)  # [B, N, A, Z, P]
        fit = (gap * free).sum(-1) / free.sum(-1).clamp(min=8)
        fit = torch.where(free.sum(-1) < 24, 0.35, fit)
        worn_error = fit.amin(-1)
        worn_error[..., 0] = WORN_LIMIT
        accessory = worn_error.argmin(-1)

        points = poses.place(lib.body[poses.shape])
        colours = sample(pictures, points)  # [B, N, P, 3]
        weight = in_sight(points, hiding)
        weight &= ~lib.under[poses.shape, accessory]
        seen_weight = weight.float() + 1e-4
        seen_weight = seen_weight / seen_weight.sum(-1, keepdim=True)
        weight = seen_weight
        error = self.look_errors(poses.shape, colours, weight)  # [B, N, LOOKS, AZIMUTHS * HEIGHTS]
        # Once more without the points that the best explanation leaves unexplained.
        gap = self.gaps(poses.shape, colours, error)
        weight = weight / (1 + (gap / 0.10) ** 2)
        weight = weight / weight.sum(-1, keepdim=True)
        error = self.look_errors(poses.shape, colours, weight)
        by_look = error.amin(3)
        least, look = by_look.min(2)
        second = by_look.scatter(2, look[..., None], torch.inf).amin(2)
        by_light = error.view(batch, count, LOOKS, AZIMUTHS, len(HEIGHTS)).amin((2, 4))
        # From the character's own direction of light to the screen's.
        turn = (poses.angle * (AZIMUTHS / (2 * math.pi))).round().long()
        bins = (torch.arange(AZIMUTHS, device=turn.device) - turn[..., None]) % AZIMUTHS
        clipped = (self.gaps(poses.shape, colours, error).clamp(max=CLIP) * seen_weight).sum(-1)
        return Looks(accessory, worn_error, look, clipped, by_light.gather(2, bins), second - least)

    def gaps(self, shape: Tensor, colours: Tensor, error: Tensor) -> Tensor:
        """How far seen colours [B, N, P, 3] lie from what explains them with the least ``error``: [B, N, P]."""
        best = error.flatten(2).argmin(2)
        return (colours - self.library.looks[shape, best].view_as(colours)).abs().mean(-1)

    def look_errors(self, shape: Tensor, colours: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean square differences [B, N, LOOKS, L] of seen colours [B, N, P, 3] from every look and light."""
        lib = self.library
        flat_shape = shape.flatten()
        colours, weight = colours.flatten(0, 1).flatten(1), weight.flatten(0, 1).repeat_interleave(3, dim=1)
        own = (colours.square() * weight).sum(1, keepdim=True)
        error = torch.empty(flat_shape.numel(), lib.looks.shape[1], device=shape.device)
        for kind in range(len(SHAPES)):
            rows = (flat_shape == kind).nonzero()[:, 0]
            if rows.numel():
                looks = lib.looks[kind]
                cross = (colours[rows] * weight[rows]) @ looks.T
                error[rows] = own[rows] - 2 * cross + weight[rows] @ lib.looks_squared[kind].T
        return (error / 3).clamp(min=0).view(*shape.shape, LOOKS, -1)

    def choose(self, poses: Poses, looks: Looks, value: Tensor, least: Tensor) -> tuple[Poses, Tensor]:
        """The best candidates that leave each other room: poses [B, 4], and whether they are there."""
        value = torch.where(value < least, -torch.inf, value)
        picked, present = [], []
        for _ in range(MAXIMUM_CHARACTERS):
            best, index = value.max(1, keepdim=True)
            picked.append(index)
            present.append(best > -torch.inf)
            one = poses.pick(index)
            value = value.masked_fill(~apart(poses, one)[..., 0], -torch.inf)
            value = value - IN_DRESS * self.in_dress(poses, one, looks.accessory.gather(1, index))
            value = torch.where(value < least, -torch.inf, value)
        return poses.pick(torch.cat(picked, 1)), torch.cat(present, 1)

    def in_dress(self, poses: Poses, one: Poses, accessory: Tensor) -> Tensor:
        """bool [B, N]: whether the middles of poses lie in what ``one`` [B, 1] wears ([B, 1], ACCESSORIES)."""
        local = one.local(torch.stack((poses.x, poses.y), -1)[:, None])
        u, v = local[..., 0], local[..., 1]
        pixel = torch.full_like(u[:, :, :1], 0.04)
        return accessories(accessory[:, 0], one.shape[:, 0], u, v, pixel).distance[:, 0] < 0.12

    def light(self, looks: Looks, present: Tensor) -> Tensor:
        """int64 [B]: the light's class, from all characters together."""
        total = (looks.light_error * present[..., None]).sum(1)  # [B, AZIMUTHS]
        turns = torch.arange(AZIMUTHS, device=total.device) * (2 * math.pi / AZIMUTHS)
        azimuth = turns[total.argmin(1)]
        away = torch.cos(azimuth[:, None] - torch.tensor(LIGHT_ANGLES, device=total.device))
        return torch.where(present.any(1), away.argmax(1), UNSURE)
