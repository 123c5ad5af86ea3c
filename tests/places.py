"""Places as functions of the direction one looks in, for panoramas and cameras whose tilt is known exactly."""

import torch
import torch.nn.functional as F
from papernodes.kernels.equirectangular import texel_directions
from papernodes.kernels.panorama import camera_directions, camera_rotations


def _mix(one, other, amount):
    return one + (torch.tensor(other) - one) * amount[..., None]


def _stripe(value, every, width):
    """1 where a value lies within the first part ``width`` of each step of ``every``."""
    return (value.remainder(every) < width).float()


def _scatter(*values):
    """0..1 for whole numbers, without order."""
    total = sum(value.floor() * step for value, step in zip(values, (12.9898, 78.233, 37.719), strict=False))
    return (torch.sin(total) * 43758.5453).remainder(1.0)


def room(directions, box=((-3.1, 2.6), (-1.5, 1.3), (-3.7, 4.2))):
    """A furnished box: boards on the floor, panels and pictures on the walls. [..., 3] of directions [..., 3]."""
    distances = []
    for axis, (low, high) in enumerate(box):
        d = directions[..., axis]
        distances.append(torch.where(d > 0, high, low) / torch.where(d == 0, 1e-9, d))
    distance, axis = torch.stack(distances).min(0)
    x, y, z = (directions * distance[..., None]).unbind(-1)
    along = torch.where(axis == 0, z, x)
    colour = torch.tensor([0.82, 0.78, 0.70]).expand(*x.shape, 3)
    colour = _mix(colour, [0.55, 0.66, 0.70], (axis == 0).float())
    colour = _mix(colour, [0.35, 0.30, 0.25], _stripe(along, 1.3, 0.06) * (axis != 1) * (y < 0.0))
    colour = _mix(colour, [0.93, 0.93, 0.90], ((y + 0.0).abs() < 0.03).float() * (axis != 1))
    picture = ((along.remainder(2.6) - 1.2).abs() < 0.45) & ((y - 0.55).abs() < 0.35) & (axis != 1)
    colour = _mix(colour, [0.75, 0.30, 0.22], picture.float())
    door = ((along - 1.2).abs() < 0.5) & (y < 0.6) & (axis == 2)
    colour = _mix(colour, [0.40, 0.26, 0.16], door.float())
    floor, ceiling = (axis == 1) & (y < 0), (axis == 1) & (y > 0)
    boards = 0.45 + 0.25 * _scatter(x * 3, torch.zeros_like(x))
    colour = torch.where(floor[..., None], torch.stack((boards, boards * 0.75, boards * 0.55), -1), colour)
    colour = torch.where(ceiling[..., None], torch.tensor([0.96, 0.96, 0.94]), colour)
    return _mix(colour, [0.80, 0.80, 0.82], (_stripe(x, 1.5, 0.08) + _stripe(z, 1.5, 0.08)).clamp(0, 1) * ceiling)


def street(directions):
    """Two rows of houses with windows, a road to the horizon, a sky."""
    x, y, _ = directions.unbind(-1)
    to_wall = 7.0 / x.abs().clamp_min(1e-6)
    to_ground = torch.where(y < 0, 1.6 / (-y).clamp_min(1e-6), torch.inf)
    wall = to_wall < to_ground
    place = directions * torch.minimum(to_wall, to_ground.clamp_max(1e6))[..., None]
    px, py, pz = place.unbind(-1)
    house = (pz / 9).floor()
    tone = _scatter(house, px.sign())
    roof = 6.0 + 7.0 * _scatter(house, px.sign() * 3 + 5)
    front = torch.stack((0.45 + 0.4 * tone, 0.42 + 0.25 * tone, 0.38 + 0.15 * (1 - tone)), -1)
    panes = _stripe(pz + 0.8, 3.0, 1.4) * _stripe(py + 0.2, 3.2, 1.8)
    front = _mix(front, [0.15, 0.20, 0.28], panes)
    ground = torch.tensor([0.40, 0.40, 0.42]).expand_as(front)
    ground = _mix(ground, [0.68, 0.66, 0.62], (px.abs() > 4.5).float())
    ground = _mix(ground, [0.92, 0.92, 0.88], (px.abs() < 0.12).float() * _stripe(pz, 4.0, 2.0))
    up = y / directions.norm(dim=-1)
    sky = torch.stack((0.80 - 0.45 * up, 0.87 - 0.30 * up, 0.97 - 0.08 * up), -1)
    open_air = (py > roof) | (pz.abs() > 150)
    colour = torch.where(wall[..., None], front, ground)
    return torch.where((open_air & (y > 0))[..., None], sky, colour).clamp(0, 1)


def plain(directions, hills=0.0):
    """Ground and sky that meet at the horizon, both uneven; hills rise so many degrees over it."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    x, y, z = unit.unbind(-1)
    lon, lat = torch.atan2(x, -z), torch.rad2deg(torch.asin(y.clamp(-1, 1)))
    rim = hills * (0.5 + 0.25 * torch.sin(3 * lon + 1) + 0.25 * torch.sin(7 * lon))
    clouds = torch.sin(5 * lon + 3 * torch.sin(lat / 9)) * torch.sin(lat / 6 + 2 * torch.sin(2 * lon))
    sky = torch.stack(
        (0.62 - 0.003 * lat + 0.08 * clouds, 0.75 - 0.002 * lat + 0.06 * clouds, 0.92 + 0.03 * clouds), -1
    )
    far = 1.6 / (-y).clamp_min(1e-3)
    furrows = 0.05 * torch.sin(x * far * 2) + 0.04 * torch.sin(z * far * 1.3)
    ground = torch.stack((0.42 + furrows, 0.46 + furrows, 0.26 + furrows), -1)
    return torch.where((lat > rim)[..., None], sky, ground).clamp(0, 1)


def panorama_of(place, height):
    """[1, 3, H, 2 H] in 0..1, four rays to a pixel."""
    picture = place(texel_directions(2 * height, 4 * height)).movedim(-1, 0)[None]
    return F.avg_pool2d(picture, 2)


def views_of(place, yaw, pitch, roll, fov=90.0, height=180, width=320):
    """[T, height, width, 3] of cameras with given angles in degrees, four rays to a pixel."""
    rays = camera_directions(2 * height, 2 * width, fov)
    turns = camera_rotations(*(torch.as_tensor(angle, dtype=torch.float32).reshape(-1) for angle in (yaw, pitch, roll)))
    views = [place(rays @ turn.T.float()).movedim(-1, 0) for turn in turns]
    return F.avg_pool2d(torch.stack(views), 2).movedim(1, -1)
