"""Panoramas and perspective views: closed forms, round trips, the whole sphere, other packages, and the fast paths."""

import math

import numpy as np
import pytest
import torch
from papernodes.kernels.equirectangular import solid_angles, texel_directions
from papernodes.kernels.panorama import (
    CONVENTIONS,
    MODES,
    camera_directions,
    camera_rotations,
    equirect_to_perspective,
    perspective_to_equirect,
    rotate_panorama,
)

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []  # with a GPU, "make test-gpu" runs all of this on it
DEVICE = torch.device("cuda" if CUDA else "cpu")
CENTRES, EXACT = CONVENTIONS
ANGLES = [(0, 0, 0), (30, 0, 0), (0, 40, 0), (50, -70, 0), (120, 90, 0), (170, 20, 25), (-180, -3, -160)]
CUBE = [(0, 0, 0), (90, 0, 0), (180, 0, 0), (-90, 0, 0), (0, 90, 0), (0, -90, 0)]


def angles(*turns):
    """Yaw, pitch and roll, [T] each."""
    return tuple(torch.tensor(turns, dtype=torch.float32).unbind(-1))


def same(value, count):
    return torch.full((count,), float(value))


def scene(directions):
    """Something smooth that is known in every direction [..., 3]: [3, ...]."""
    x, y, z = (directions / directions.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack([0.5 + 0.4 * (3 * x + 1).sin(), 0.5 + 0.4 * (2 * y + z).cos(), 0.5 + 0.3 * (4 * z + x).sin()])


def panorama(height=128):
    return scene(texel_directions(height, 2 * height, DEVICE))[None]


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def decibels(one, other, where=None):
    gap = (one - other).square()
    gap = gap.mean() if where is None else (gap * where).sum() / where.expand_as(gap).sum()
    return float(-10 * gap.log10())


# ---- rotations -----------------------------------------------------------------------------------


def test_which_way_cameras_turn():
    ahead, up = torch.tensor([0.0, 0, -1]).double(), torch.tensor([0.0, 1, 0]).double()
    for turn, looks, top in (
        ((90, 0, 0), (1, 0, 0), (0, 1, 0)),  # to the right
        ((0, 90, 0), (0, 1, 0), (0, 0, 1)),  # up
        ((0, 0, 90), (0, 0, -1), (1, 0, 0)),  # its top goes to the right
        ((90, 90, 0), (0, 1, 0), (-1, 0, 0)),  # yaw about the world's axis
        ((-270, 0, 360), (1, 0, 0), (0, 1, 0)),
    ):
        matrix = camera_rotations(*angles(turn))[0]
        assert (matrix @ ahead).tolist() == list(looks) and (matrix @ up).tolist() == list(top)


def test_rotations_are_a_group():
    matrices = camera_rotations(*angles(*ANGLES))
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.equal(matrices[0], identity)
    torch.testing.assert_close(matrices @ matrices.mT, identity.expand_as(matrices), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(len(ANGLES), dtype=torch.float64))
    yaw, pitch, roll = angles(*ANGLES)
    zero = torch.zeros_like(yaw)
    parts = [camera_rotations(*some) for some in ((yaw, zero, zero), (zero, pitch, zero), (zero, zero, roll))]
    torch.testing.assert_close(parts[0] @ parts[1] @ parts[2], matrices, atol=1e-12, rtol=0)
    twice = camera_rotations(2 * yaw, zero, zero)
    torch.testing.assert_close(parts[0] @ parts[0], twice, atol=1e-12, rtol=0)
    for part, turn in zip(parts, ((-yaw, zero, zero), (zero, -pitch, zero), (zero, zero, -roll)), strict=True):
        torch.testing.assert_close(camera_rotations(*turn), part.mT, atol=1e-12, rtol=0)


def test_turned_panoramas():
    picture = noise(1, 3, 16, 32)
    turned = rotate_panorama(picture, *angles((0, 0, 0), (90, 0, 0), (-360, 0, 0), (11.25, 0, 0)))
    for number, texels in enumerate((0, 8, 0, 1)):
        assert torch.equal(turned[number], picture[0].roll(-texels, -1)), "bit for bit"
    smooth = panorama()
    for turn in ANGLES[1:]:
        matrix = camera_rotations(*angles(turn))[0].float().to(DEVICE)
        (once,) = rotate_panorama(smooth, *angles(turn))
        assert decibels(once, scene(texel_directions(128, 256, DEVICE) @ matrix.T)) > 60
        # Once more by another turn: as by both at once, so that each direction reads the product.
        (both,) = rotate_panorama(once[None], *angles((40, -25, 10)))
        second = camera_rotations(*angles((40, -25, 10)))[0].float().to(DEVICE)
        assert decibels(both, scene(texel_directions(128, 256, DEVICE) @ (matrix @ second).T)) > 55


@pytest.mark.parametrize("turns", [((3, 7, 0), (50, 0, 2), (0, -9, 0)), ((3, 7, 0), (90, 0, 0), (0, -9, 0))])
@pytest.mark.parametrize("frames", [1, 3])
def test_panoramas_turned_together_are_those_turned_alone(turns, frames):
    """Also where one of the turns is by whole columns."""
    pictures = noise(frames, 3, 16, 32)
    together = rotate_panorama(pictures, *angles(*turns))
    for number, turn in enumerate(turns):
        (alone,) = rotate_panorama(pictures[number % frames][None], *angles(turn))
        assert torch.equal(together[number], alone)


# ---- views ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "least"), [("bilinear", 65), ("nearest", 38), ("bicubic", 90)])
def test_views_are_what_lies_there_and_lead_back(mode, least):
    smooth, turns, fov = panorama(), angles(*ANGLES), torch.tensor([90.0, 60, 120, 20, 100, 150, 75])
    views = equirect_to_perspective(smooth, *turns, fov, 96, 128, mode=mode)
    for view, matrix, angle in zip(views, camera_rotations(*turns).float().to(DEVICE), fov.tolist(), strict=True):
        assert decibels(view, scene(camera_directions(96, 128, angle, DEVICE) @ matrix.T)) > least
    back, known = perspective_to_equirect(views, *turns, fov, 128, 256, mode=mode)
    assert set(known.unique().tolist()) == {0.0, 1.0} and not bool((back * (1 - known[:, None])).any())
    for number in range(len(ANGLES)):
        assert decibels(back[number], smooth[0], known[number]) > (40 if mode != "nearest" else 32)


def test_pixels_look_where_they_should():
    rays = camera_directions(4, 8, 90.0)
    assert rays.shape == (4, 8, 3) and bool((rays[..., 2] == -1).all())
    torch.testing.assert_close(rays[0, 0], torch.tensor([-7 / 8, 3 / 8, -1]))
    torch.testing.assert_close(rays[:, -1, 0], torch.full((4,), 7 / 8))
    picture = torch.zeros(1, 1, 16, 32, device=DEVICE)
    picture[..., 4, 20] = 1  # latitude 39.4 up, longitude 50.6 to the right
    view = equirect_to_perspective(picture, *angles((50.625, 39.375, 0)), same(20, 1), 9, 9)
    assert float(view[0, 0, 4, 4]) == pytest.approx(1, abs=1e-4)


def test_poles_and_the_seam_are_no_edges():
    """A linear function of the direction, which has no direction where it jumps."""
    smooth = texel_directions(32, 64, DEVICE).movedim(-1, 0)[None]
    for turn in ((180, 0, 0), (0, 90, 0), (33, -90, 0), (179, 80, 45)):
        for mode in ("bilinear", "bicubic"):
            view = equirect_to_perspective(smooth, *angles(turn), same(30, 1), 33, 33, mode=mode)
            rays = camera_directions(33, 33, 30.0) @ camera_rotations(*angles(turn))[0].float().T
            wanted = (rays / rays.norm(dim=-1, keepdim=True)).movedim(-1, 0).to(DEVICE)
            assert float((view[0] - wanted).abs().max()) < 0.004


def test_a_cube_divides_the_sphere_and_covering_views_leave_no_gap():
    for height, most in ((30, 0.05), (64, 0.0)):  # of 60 columns four lie on the edges
        views, turns = torch.ones(6, 1, 8, 8, device=DEVICE), angles(*CUBE)
        pictures, known = perspective_to_equirect(views, *turns, same(90, 6), height, 2 * height)
        torch.testing.assert_close(pictures[:, 0], known)
        times = known.sum(0)
        assert float(times.min()) == 1, "no gap"
        share = (solid_angles(height, 2 * height).to(DEVICE)[:, None] * (times > 1)).sum() / (4 * math.pi)
        assert float(share) <= most, "twice only on edges"
        for face in known:
            covered = (solid_angles(height, 2 * height).to(DEVICE)[:, None] * face).sum() / (4 * math.pi)
            assert float(covered) == pytest.approx(1 / 6, abs=0.02)
    ring = [(yaw, pitch, 0) for pitch in (-60, 0, 60) for yaw in range(0, 360, 60)]
    views = torch.ones(len(ring), 1, 8, 8, device=DEVICE)
    for convention in CONVENTIONS:
        _, known = perspective_to_equirect(views, *angles(*ring), same(90, len(ring)), 48, 96, convention=convention)
        assert bool(known.amax(0).all())


def test_one_goes_with_all():
    pictures, turns, fov = (
        noise(3, 2, 16, 32),
        angles((10, 20, 30), (-50, 5, 0), (0, 0, 0)),
        torch.tensor([60.0, 80, 100]),
    )
    one = [part[:1] for part in (*turns, fov)]
    for convention in CONVENTIONS:
        for call, size in ((equirect_to_perspective, (9, 11)), (perspective_to_equirect, (8, 16))):
            some = {"convention": convention}

            def drawn(*given, size=size, call=call, some=some):
                made = call(*given, *size, **some)
                return made if isinstance(made, torch.Tensor) else torch.cat([made[0], made[1][:, None]], 1)

            each = [drawn(pictures[n : n + 1], *(part[n : n + 1] for part in (*turns, fov))) for n in range(3)]
            torch.testing.assert_close(drawn(pictures, *turns, fov), torch.cat(each))
            seen = drawn(pictures[:1], *turns, fov)
            assert len(seen) == 3 and torch.equal(seen[0], each[0][0]) and not torch.equal(seen[1], each[1][0])
            assert torch.equal(drawn(pictures, *one)[0], each[0][0])
            assert torch.equal(drawn(pictures, *one)[2], drawn(pictures[2:], *one)[0])


# ---- others' ways --------------------------------------------------------------------------------


@pytest.mark.skipif(CUDA, reason="a CPU compares")
def test_views_are_py360converts():
    py360convert = pytest.importorskip("py360convert")
    smooth = panorama()
    pixels = smooth[0].movedim(0, -1).numpy()
    # Its first and last pixels lie on the edges of the field of view, ours half a pixel within.
    inclusive = 2 * math.degrees(math.atan(math.tan(math.radians(50)) * 63 / 64))
    for yaw, pitch, roll in ANGLES[:-1]:
        theirs = py360convert.e2p(pixels, (inclusive, inclusive), yaw, pitch, (64, 64), in_rot_deg=roll)
        (ours,) = equirect_to_perspective(smooth, *angles((yaw, pitch, roll)), same(100, 1), 64, 64)
        assert float((ours.movedim(0, -1) - torch.from_numpy(theirs)).abs().max()) < 2e-3, "it rounds to 1/32 texel"


def published_rotation(yaw, pitch):
    """Rot_z(yaw), then Rot about R1 y by -pitch by Rodrigues; x ahead, y to the right, z up."""
    a, b = math.radians(yaw), math.radians(-pitch)
    first = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]).double()
    x, y, z = (first @ torch.tensor([0.0, 1, 0]).double()).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]).double()
    second = torch.eye(3).double() + math.sin(b) * cross + (1 - math.cos(b)) * cross @ cross
    return first, second


def published_reach(fov, height, width):
    return math.tan(math.radians(fov) / 2), math.tan(math.radians(height / width * fov) / 2)


def published_view(pano, yaw, pitch, fov, height, width):
    """Positions in a panorama, x and y, as Imagine360's description has them."""
    reach_w, reach_h = published_reach(fov, height, width)
    y = torch.from_numpy(np.linspace(-reach_w, reach_w, width)).expand(height, width)
    z = -torch.from_numpy(np.linspace(-reach_h, reach_h, height))[:, None].expand(height, width)
    rays = torch.stack([torch.ones_like(y), y, z], -1)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    first, second = published_rotation(yaw, pitch)
    rays = rays @ (second @ first).T
    longitude = torch.rad2deg(torch.atan2(rays[..., 1], rays[..., 0]))
    latitude = torch.rad2deg(-torch.asin(rays[..., 2].clamp(-1, 1)))
    middle_x, middle_y = (pano[1] - 1) / 2, (pano[0] - 1) / 2
    return longitude / 180 * middle_x + middle_x, latitude / 90 * middle_y + middle_y


def published_panorama(view, yaw, pitch, fov, height, width):
    """Positions in a view, and where it reaches."""
    reach_w, reach_h = published_reach(fov, *view)
    longitude = torch.deg2rad(torch.from_numpy(np.linspace(-180, 180, width)).expand(height, width))
    latitude = torch.deg2rad(torch.from_numpy(np.linspace(90, -90, height))[:, None].expand(height, width))
    rays = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], -1)
    first, second = published_rotation(yaw, pitch)
    rays = rays @ torch.linalg.inv(second).T @ torch.linalg.inv(first).T
    ahead = rays[..., 0] > 0
    rays = rays / torch.where(ahead, rays[..., 0], 1.0)[..., None]
    y, z = rays[..., 1], rays[..., 2]
    mask = ahead & (y.abs() < reach_w) & (z.abs() < reach_h)
    return (y + reach_w) / (2 * reach_w) * view[1], (-z + reach_h) / (2 * reach_h) * view[0], mask


def cubic_read(image, x, y, a=-0.75):
    """Keys' convolution by its kernel, both axes wrapping; image float64 [C, H, W]."""

    def kernel(d):
        d = d.abs()
        near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    total = 0
    for down in range(-1, 3):
        for across in range(-1, 3):
            column, row = x.floor() + across, y.floor() + down
            value = image[:, row.long() % image.shape[1], column.long() % image.shape[2]]
            total = total + value * kernel(x - column) * kernel(y - row)
    return total


@pytest.mark.parametrize(
    ("yaw", "pitch", "fov", "size"), [(0, 0, 90, (16, 16)), (-144, 52.62, 90, (12, 20)), (36, -10.81, 60, (9, 7))]
)
def test_exact_is_the_published_grid(yaw, pitch, fov, size):
    turns = (*angles((yaw, pitch, 0)), same(fov, 1))
    pano, view = noise(1, 2, 24, 48), noise(1, 2, *size, seed=1)
    yaw, pitch = float(turns[0]), float(turns[1])
    x, y = published_view((24, 48), yaw, pitch, fov, *size)
    ours = equirect_to_perspective(pano, *turns, *size, mode="bicubic", convention=EXACT)[0].cpu()
    torch.testing.assert_close(ours.double(), cubic_read(pano[0].cpu().double(), x, y), atol=1e-5, rtol=0)
    ours = equirect_to_perspective(pano, *turns, *size, mode="nearest", convention=EXACT)[0].cpu()
    assert torch.equal(ours, pano[0].cpu()[:, y.round().long(), x.round().long()])
    x, y, mask = published_panorama(size, yaw, pitch, fov, 24, 48)
    wanted = cubic_read(view[0].cpu().double(), x, y) * mask
    ours, known = perspective_to_equirect(view, *turns, 24, 48, mode="bicubic", convention=EXACT)
    assert torch.equal(known[0].cpu(), mask.float())
    torch.testing.assert_close(ours[0].cpu().double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.skipif(CUDA, reason="a CPU compares")
def test_exact_panoramas_are_opencvs():
    """What the published warp calls; before version 5 it rounds positions to 1/32 pixel."""
    cv2 = pytest.importorskip("cv2")
    view, slack = noise(1, 3, 32, 32), 1e-4 if int(cv2.__version__.split(".")[0]) >= 5 else 0.1
    x, y, mask = published_panorama((32, 32), 72, 10, 90, 64, 128)
    maps = (part.float().numpy() for part in (x, y))
    theirs = cv2.remap(view[0].movedim(0, -1).contiguous().numpy(), *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    ours, known = perspective_to_equirect(
        view, *angles((72, 10, 0)), same(90, 1), 64, 128, mode="bicubic", convention=EXACT
    )
    assert torch.equal(known[0], mask.float())
    torch.testing.assert_close(ours[0], torch.from_numpy(theirs).movedim(-1, 0) * mask, atol=slack, rtol=0)


@pytest.mark.skipif(CUDA, reason="a CPU compares")
def test_exact_views_are_kornias():
    remap = pytest.importorskip("kornia").geometry.transform.remap
    pano = noise(1, 3, 64, 128)
    for yaw, pitch in ((0, 0), (108, -52.62), (170, 10.81)):
        x, y = published_view((64, 128), yaw, torch.tensor(pitch).item(), 90, 32, 32)
        theirs = remap(pano.double(), x[None], y[None], align_corners=True)
        ours = equirect_to_perspective(pano, *angles((yaw, pitch, 0)), same(90, 1), 32, 32, convention=EXACT)
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)


# ---- fast paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["triton", None])
@pytest.mark.parametrize(
    ("shape", "size", "side_by_side", "dtype"),
    [
        ((1, 3, 16, 32), (7, 13), False, torch.float32),
        ((4, 5, 9, 18), (33, 34), True, torch.float32),
        ((1, 1, 2, 4), (1, 1), False, torch.float32),
        ((4, 2, 8, 14), (17, 9), True, torch.float16),
    ],
)
def test_fast_paths_do_what_the_reference_does(backend, shape, size, side_by_side, dtype):
    turns = angles((0, 0, 0), (33, -88, 20), (-170, 10, -50), (180, 90, 10))
    fov = torch.tensor([90.0, 120, 20, 60])
    slack = 1e-4 if dtype == torch.float32 else 2e-3
    images = noise(*shape, dtype=dtype)
    if side_by_side:
        images = images.movedim(1, -1).contiguous().movedim(-1, 1)
    ways = ("eager", backend)
    one, other = (equirect_to_perspective(images, *turns, fov, *size, backend=way) for way in ways)
    assert other.dtype == dtype and (other.movedim(1, -1).is_contiguous() or not side_by_side)
    torch.testing.assert_close(other, one, atol=slack, rtol=0)
    one, other = (rotate_panorama(images, *turns, backend=way) for way in ways)
    torch.testing.assert_close(other, one, atol=slack, rtol=0)
    width = size[1] + size[1] % 2
    one, other = (perspective_to_equirect(images, *turns, fov, size[0], width, backend=way) for way in ways)
    alike = (one[1] == other[1])[:, None]
    assert float(alike.float().mean()) > 0.99, "but for middles on an edge"
    torch.testing.assert_close(other[0] * alike, one[0] * alike, atol=slack, rtol=0)


def test_the_same_again_is_the_same_as_the_host_runs_it_too():
    images, turns = noise(1, 3, 32, 64), (*angles(*ANGLES), same(90, len(ANGLES)))
    for backend in (None, "eager"):
        one, other = (equirect_to_perspective(images, *turns, 40, 40, backend=backend) for _ in range(2))
        assert torch.equal(one, other)
        with torch.inference_mode():
            assert torch.equal(equirect_to_perspective(images.clone(), *turns, 40, 40, backend=backend), one)
    images.requires_grad_()
    equirect_to_perspective(images, *turns, 8, 8).sum().backward()
    assert float(images.grad.sum()) == pytest.approx(3 * 64 * len(ANGLES), rel=1e-4)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": torch.zeros(3, 8, 16)}, r"images: got torch.float32 \[3, 8, 16\]; expected floating"),
        ({"images": torch.zeros(1, 3, 8, 16, dtype=torch.uint8)}, "images: got torch.uint8"),
        ({"images": torch.zeros(3, 1, 8, 16)}, "images: got 3 for 2 cameras; expected as many, or one of either"),
        ({"yaw": torch.zeros(1)}, r"yaw, pitch and roll: got \[\[1\], \[2\], \[2\]\]; expected a value"),
        ({"pitch": torch.tensor([0, math.nan])}, "yaw, pitch and roll: got nan; expected degrees"),
        ({"fov": torch.tensor([90.0])}, r"fov: got \[1\]; expected a value for each of 2 frames"),
        ({"fov": torch.tensor([90.0, 0])}, "fov: got 0 degrees; expected more than 0 and less than 180"),
        ({"fov": torch.tensor([90.0, 180])}, "fov: got 180 degrees"),
        ({"fov": torch.tensor([90.0, math.nan])}, "fov: got nan degrees"),
        ({"height": 0}, "height and width: got 0 and 4; expected at least 1"),
        ({"mode": "cubic"}, "mode: got 'cubic'; expected one of " + ", ".join(MODES)),
        ({"convention": "x"}, "convention: got 'x'; expected one of pixel centres, Imagine360 exact"),
        ({"backend": "x"}, "backend: got 'x'"),
        ({"backend": "triton", "mode": "bicubic"}, "backend: triton draws bilinear panoramas .*got bicubic"),
        ({"convention": EXACT, "height": 9}, "fov: 90 degrees across 4x9 pixels are 202.5 degrees down"),
    ],
)
def test_bad_input_is_refused(changes, said):
    given = {"images": torch.zeros(2, 1, 8, 16), "yaw": torch.zeros(2), "pitch": torch.zeros(2), "roll": torch.zeros(2),
             "fov": same(90, 2), "height": 4, "width": 4}  # fmt: skip
    equirect_to_perspective(**given)
    with pytest.raises(ValueError, match=said):
        equirect_to_perspective(**given | changes)
