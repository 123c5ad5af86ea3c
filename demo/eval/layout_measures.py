"""Whether what was asked for stands where it was asked for, in the colour that was asked for."""

from dataclasses import replace

import torch
from torch import Tensor

from demo.blob_scenes import label_ellipses
from demo.eval.reading import Reading, match, truth
from demo.world.render import render
from demo.world.scene import Scenes
from kernels.ellipses import distances

SIZE = 128
AWAY = 10.0
"""Stage units from the middle: far outside the picture."""


def ellipse_overlaps(one: Tensor, other: Tensor, size: int = SIZE) -> Tensor:
    """Intersection over union of ellipses [..., 5] in pairs, counted in pixels of a square picture, float32 [...]."""
    inside = [distances(some, size, size) <= 1 for some in (one, other)]
    shared, either = inside[0] & inside[1], inside[0] | inside[1]
    return shared.sum((-2, -1)) / either.sum((-2, -1)).clamp_min(1)


def read_overlaps(found: Reading, scenes: Scenes, asked: Tensor, present: Tensor) -> Tensor:
    """How far what is read covers what was asked for: IoU float32 [B, K] on the CPU, 0 for what is missing.

    What is read is drawn again, each as the known shape at the read place, size and angle, the nearer before the
    farther; the ellipses are those of what is seen of each. A thing of another shape or colour is missing.

    Args:
        found: of B pictures.
        scenes: that were asked for.
        asked: their ellipses float32 [B, K, 5]; present: bool [B, K].
    """
    wanted = truth(scenes)
    same = found.pick(match(wanted, found))
    right = same.present & (same.shape == wanted.shape) & (same.colour == wanted.colour) & wanted.present
    scenes = scenes.to("cpu")
    place = torch.where(right[..., None], same.position, AWAY).nan_to_num(AWAY)
    again = replace(
        scenes,
        position=place[:, None],
        radius=torch.where(right, same.radius, 0.1)[:, None].nan_to_num(0.1),
        angle=torch.where(right, same.angle, 0.0)[:, None].nan_to_num(0.0),
        accessory=torch.where(right & (same.accessory >= 0), same.accessory, scenes.accessory),
    )
    labels = render(again.to(asked.device), SIZE, SIZE, layers=("labels",)).labels[:, 0]
    read, seen = label_ellipses(labels, right.to(asked.device))
    overlaps = ellipse_overlaps(read, asked)
    return torch.where(seen & present, overlaps, 0.0).cpu()


def are_right(found: Reading, scenes: Scenes) -> Tensor:
    """bool [B, K]: which of the asked characters are there, in their shape and colour, wherever they stand."""
    wanted, same = _by_shape(found, scenes)
    return same.present & (same.colour == wanted.colour) & wanted.present


def leaks(found: Reading, scenes: Scenes) -> Tensor:
    """bool [B, K]: which of the asked characters have the colour of another one that was asked for, not their own.

    Matched by look and place, as for the overlaps: what stands where a character was asked for counts as it, unless a
    better one is near.
    """
    wanted = truth(scenes)
    return _of_another(wanted, found.pick(match(wanted, found)))


def leaks_by_shape(found: Reading, scenes: Scenes) -> Tensor:
    """The same of characters matched by shape alone, wherever they stand, and of equal shapes by colour."""
    return _of_another(*_by_shape(found, scenes))


def _of_another(wanted: Reading, same: Reading) -> Tensor:
    wrong = same.present & wanted.present & (same.colour != wanted.colour)
    others = wanted.present[:, None] & ~torch.eye(wanted.present.shape[1], dtype=torch.bool)
    return wrong & ((same.colour[..., None] == wanted.colour[:, None]) & others).any(-1)


def _by_shape(found: Reading, scenes: Scenes) -> tuple[Reading, Reading]:
    """What was asked for, and what was read in the same order: each of the same shape, or not present."""
    wanted = truth(scenes)

    def by_shape(some: Reading) -> Reading:
        # As if shapes were places, one unit apart, so that different ones are never matched.
        return replace(some, position=torch.stack((some.shape.float(), torch.zeros_like(some.radius)), -1))

    return wanted, found.pick(match(by_shape(wanted), by_shape(found)))


def per_object(values: Tensor, asked: Tensor) -> Tensor:
    """Of values [B, K], a number for each picture whose mean is the mean over all asked objects, [B].

    Pictures of many objects have larger ones, so an interval of that mean is a little too wide.
    """
    return (values * asked).sum(1) / asked.sum(1).float().mean()
