"""Where the analytic reader supposes characters, and which of them may hide which."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.shapes import signed_distance

SEPARATION = 0.5
"""Two characters' middles are farther apart than this much of the sum of their radii."""


@dataclass(frozen=True)
class Poses:
    """N outlines in each of B pictures; every field is [B, N]."""

    shape: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor

    def pick(self, order: Tensor) -> "Poses":
        """Others in their place: int64 [B, M]."""
        return Poses(*(getattr(self, field.name).gather(1, order) for field in dataclasses.fields(self)))

    def turned(self, angle: Tensor, pivot: Tensor) -> "Poses":
        """At several angles [B, N, A] each, turned round the point v = ``pivot`` [B, N] on their axis: [B, N * A]."""
        each = angle.shape[2]
        reach = (self.radius * pivot)[..., None]
        x = self.x[..., None] - reach * (self.angle.sin()[..., None] - angle.sin())
        y = self.y[..., None] + reach * (self.angle.cos()[..., None] - angle.cos())
        shape, radius = (value.repeat_interleave(each, dim=1) for value in (self.shape, self.radius))
        return Poses(shape, x.flatten(1), y.flatten(1), radius, angle.flatten(1))

    def place(self, points: Tensor) -> Tensor:
        """Stage points [B, N, P, 2] of character points [B, N, P, 2]."""
        cos, sin = (self.angle.cos() * self.radius)[..., None], (self.angle.sin() * self.radius)[..., None]
        u, v = points.unbind(-1)
        return torch.stack((self.x[..., None] + u * cos - v * sin, self.y[..., None] + u * sin + v * cos), -1)

    def local(self, points: Tensor) -> Tensor:
        """Character points of stage points [B, N, P, 2]."""
        cos, sin = (self.angle.cos() / self.radius)[..., None], (self.angle.sin() / self.radius)[..., None]
        x, y = (points - torch.stack((self.x, self.y), -1)[..., None, :]).unbind(-1)
        return torch.stack((x * cos + y * sin, y * cos - x * sin), -1)


def apart(some: Poses, others: Poses) -> Tensor:
    """bool [B, N, M]: whether both may be in one picture."""
    gap = torch.hypot(some.x[..., None] - others.x[:, None], some.y[..., None] - others.y[:, None])
    return gap >= SEPARATION * (some.radius[..., None] + others.radius[:, None])


@dataclass(frozen=True)
class Hiding:
    """M characters, and which of them may hide which of N poses."""

    others: Poses  # [B, M]
    hides: Tensor  # bool [B, N, M]

    @staticmethod
    def between(poses: Poses, others: Poses, present: Tensor) -> "Hiding":
        """Those that are there and leave a pose room may hide it."""
        return Hiding(others, apart(poses, others) & present[:, None])

    def repeat(self, count: int) -> "Hiding":
        """For ``count`` poses in the place of each one."""
        return Hiding(self.others, self.hides.repeat_interleave(count, dim=1))

    def clear(self, points: Tensor, margin: float) -> Tensor:
        """bool [B, N, P]: whether stage points [B, N, P, 2] are farther than ``margin`` from all that may hide them."""
        batch, count, number, _ = points.shape
        found = torch.ones(batch, count, number, dtype=torch.bool, device=points.device)
        for k in range(self.others.x.shape[1]):
            one = self.others.pick(torch.full_like(self.others.shape[:, :1], k))
            local = one.local(points.flatten(1, 2)[:, None])
            inside = signed_distance(one.shape[:, 0], local[..., 0], local[..., 1])[:, 0] < margin
            found &= ~(inside.view(found.shape) & self.hides[..., k, None])
        return found
