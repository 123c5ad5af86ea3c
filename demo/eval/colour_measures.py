"""How far the colours of a picture are from those that were wanted, and whether two that could be swapped are."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from demo.eval.reading import Reading, match, truth
from demo.world.attributes import PALETTE, TINTS
from demo.world.render import render
from demo.world.scene import Scenes

SMALLEST = 24
"""Pixels that a region has at least, of a picture of 128 x 128."""

SAME = 0.02
"""By how much a pixel's colour without light may differ from the paint's to belong to its region."""

WHITE = (0.95047, 1.0, 1.08883)  # D65


def to_lab(pictures: Tensor) -> Tensor:
    """CIE Lab [B, 3, H, W] of sRGB pictures [B, 3, H, W] in 0..1, white D65."""
    linear = torch.where(pictures <= 0.04045, pictures / 12.92, ((pictures.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
        device=pictures.device,
    )
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear) / torch.tensor(WHITE, device=pictures.device)[:, None, None]
    f = torch.where(xyz > 216 / 24389, xyz.clamp_min(1e-9) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)


@dataclass(frozen=True)
class Regions:
    """Where each paint of each character is seen."""

    cover: Tensor  # float32 [B, 2 K, H, W], 1 inside: the bodies' own colours, then their patterns'
    there: Tensor  # bool [B, 2 K]: those of at least SMALLEST pixels


def regions_of(scenes: Scenes, size: int) -> Regions:
    """The regions of scenes of one frame; lines, faces and what is worn belong to none."""
    drawn = render(scenes, size, size, layers=("flat", "masks"))
    flat, masks = drawn.flat[:, 0], drawn.masks[:, 0]
    covers = []
    for paints in (PALETTE, TINTS):
        paint = paints.to(flat.device)[scenes.colour]  # [B, K, 3]
        away = (flat[:, None] - paint[..., None, None]).abs().amax(2)
        covers.append((away < SAME) & (masks > 0.99))
    cover = torch.cat(covers, 1).float()
    return Regions(cover, cover.sum((2, 3)) >= SMALLEST)


def region_colours(pictures: Tensor, regions: Regions) -> Tensor:
    """The mean Lab colour of each region, [B, 2 K, 3]; NaN where there is none."""
    weight = regions.cover / regions.cover.sum((2, 3), keepdim=True)
    return torch.einsum("bkhw,bchw->bkc", weight, to_lab(pictures))


def colour_errors(pictures: Tensor, wanted: Tensor, regions: Regions) -> Tensor:
    """float32 [B] on the CPU: the mean over a picture's regions of how far their mean colour is from the wanted one's
    (Delta E of 1976); NaN for a picture without regions.
    """
    away = (region_colours(pictures, regions) - region_colours(wanted, regions)).norm(dim=-1)
    return torch.where(regions.there, away, torch.nan).nanmean(1).cpu()


def own_colours(pictures: Tensor, wanted: Tensor, regions: Regions) -> Tensor:
    """bool [B] on the CPU: whether each of a picture's first two characters is nearer to its own colour than to the
    other's, judged by their bodies' own paint.
    """
    found, true = (region_colours(some, regions)[:, :2] for some in (pictures, wanted))
    own, other = ((found - some).norm(dim=-1) for some in (true, true.flip(1)))
    return (own < other).all(1).cpu()


def read_colours(found: Reading, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """bool [B, K]: whether the reader finds the character that stands where each one is to stand, in its colour; and
    which characters there are.

    Characters are matched by place and shape, so that two that swapped their colours are not taken for each other.
    """
    wanted = truth(scenes)
    unread = (replace(some, colour=torch.zeros_like(some.colour)) for some in (wanted, found))
    order = match(*unread)
    same = found.pick(order)
    return (same.colour == wanted.colour) & same.present, wanted.present
