"""What a scene's pictures are known to hold beyond the renderer's layers: ellipses, flow, matched points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.geometry import character_to_picture, stage_grid, stage_to_picture
from demo.world.render import render
from demo.world.scene import Scenes
from demo.world.shapes import signed_distance


def ellipses(masks: Tensor) -> Tensor:
    """The ellipse of each mask's own mean and covariance, which for a filled ellipse is that ellipse.

    Args:
        masks: float32 [..., H, W], coverage in 0..1.

    Returns:
        float32 [..., 5]: centre x / W, centre y / H, semi-axes a >= b in units of H, and the angle of a in radians in
        (-pi/2, pi/2], from the x axis, positive clockwise on the screen. Zeros for an empty mask.
    """
    height, width = masks.shape[-2:]
    x = torch.arange(width, device=masks.device) + 0.5
    y = torch.arange(height, device=masks.device)[:, None] + 0.5
    area = masks.sum((-2, -1))
    weight = masks / area.clamp(min=1e-6)[..., None, None]
    mean_x, mean_y = (weight * x).sum((-2, -1)), (weight * y).sum((-2, -1))
    dx, dy = x - mean_x[..., None, None], y - mean_y[..., None, None]
    xx, yy, xy = ((weight * term).sum((-2, -1)) for term in (dx * dx, dy * dy, dx * dy))
    middle, spread = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    a, b = 2 * (middle + spread).sqrt(), 2 * (middle - spread).clamp(min=0).sqrt()
    angle = torch.atan2(2 * xy, xx - yy) / 2
    found = torch.stack((mean_x / width, mean_y / height, a / height, b / height, angle), -1)
    return torch.where(area[..., None] > 0.5, found, torch.zeros_like(found))


def forward_flow(scenes: Scenes, height: int = 128, width: int = 128) -> tuple[Tensor, Tensor]:
    """Where every pixel of a video goes in the next frame, and which of them cannot be seen there.

    Returns:
        vectors: float32 [B, T-1, 2, H, W], pixels, dx (right) then dy (down), forward.
        occlusion: float32 [B, T-1, H, W], 1 where the point is hidden or outside the picture in the next frame.

    Raises:
        ValueError: the scenes have one frame.
    """
    if scenes.frames < 2:
        raise ValueError("scenes has one frame; a flow needs at least two.")
    layers = render(scenes, height, width, ("labels", "local"))
    labels, now, after = layers.labels, scenes.at(slice(None, -1)), scenes.at(slice(1, None))
    x, y, _ = stage_grid(now, height, width)
    target = stage_to_picture(after, height, width, torch.stack((x, y), -1))
    local = layers.local[:, :-1].permute(0, 1, 3, 4, 2)
    for k in range(scenes.shape.shape[1]):
        points = local.flatten(2, 3)[:, :, None].expand(-1, -1, scenes.shape.shape[1], -1, -1)
        moved = character_to_picture(after, height, width, points)[:, :, k].view(local.shape)
        target = torch.where((labels[:, :-1] == k)[..., None], moved, target)
    columns = torch.arange(width, device=target.device, dtype=torch.float32)
    rows = torch.arange(height, device=target.device, dtype=torch.float32)[:, None]
    vectors = torch.stack((target[..., 0] - columns, target[..., 1] - rows), 2)
    to_x, to_y = target[..., 0].round().long(), target[..., 1].round().long()
    outside = (to_x < 0) | (to_x >= width) | (to_y < 0) | (to_y >= height)
    place = to_y.clamp(0, height - 1) * width + to_x.clamp(0, width - 1)
    there = labels[:, 1:].flatten(2).gather(2, place.flatten(2)).view(place.shape)
    return vectors, (outside | (there != labels[:, :-1])).float()


@dataclass(frozen=True)
class MatchedPoints:
    """The same P places on each character in two renders.

    ``first`` and ``second`` are float32 [B, K, P, 2], pixels, x then y; ``visible`` is bool [B, K, P], True where the
    character exists and the place is in sight in both.
    """

    first: Tensor
    second: Tensor
    visible: Tensor


def visible_at(scenes: Scenes, points: Tensor, height: int, width: int) -> Tensor:
    """bool [B, K, P]: whether each character is what the picture shows at its points [B, K, P, 2], pixels."""
    labels = render(scenes, height, width, ("labels",)).labels[:, 0]
    x, y = points.round().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    seen = labels.flatten(1).gather(1, place.flatten(1)).view(place.shape)
    return inside & (seen == torch.arange(points.shape[1], device=points.device)[:, None])


def matched_points(
    first: Scenes, second: Scenes, points: int = 8, seed: int = 0, height: int = 128, width: int = 128
) -> MatchedPoints:
    """Draw points on the bodies and say where they are in two renders of the same characters (see ``repose``).

    Args:
        first, second: still scenes of the same characters, in the same order.
        points: P, places on each character.
        seed: of the draw.
        height, width: of both pictures, pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, characters = first.shape.shape
    drawn = (torch.rand(batch * characters, 1, points * 12, 2, generator=generator) * 1.8 - 0.9).to(first.count.device)
    depth = signed_distance(first.shape.flatten(), drawn[..., 0], drawn[..., 1])[:, 0]
    # The deepest few would crowd the centre: of those well inside, the first ones drawn.
    order = (depth > -0.12).int().argsort(dim=1, stable=True)[:, :points]
    places = drawn[:, 0].gather(1, order[..., None].expand(-1, -1, 2)).view(batch, 1, characters, points, 2)
    a = character_to_picture(first, height, width, places)[:, 0]
    b = character_to_picture(second, height, width, places)[:, 0]
    inside = (depth.gather(1, order) <= -0.12).view(batch, characters, points)
    visible = inside & visible_at(first, a, height, width) & visible_at(second, b, height, width)
    return MatchedPoints(a, b, visible & first.present[..., None])
