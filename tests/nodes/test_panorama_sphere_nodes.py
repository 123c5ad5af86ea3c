"""Cubemap Convert, Rotate Panorama and Panorama Seam as the host runs them, and what they say of bad input."""

import pytest
import torch
from papernodes.kernels.cubemap import CROSS, LAYOUTS, PICTURES, STRIP
from papernodes.nodes.panorama_sphere import (
    TO_EDGES,
    TO_FACES,
    TO_MIDDLE,
    TO_PANORAMA,
    CubemapConvert,
    PanoramaSeam,
    RotatePanorama,
)
from places import panorama_of, plain, room


def around(height=32, place=plain):
    """[1, H, 2 H, 3]"""
    return panorama_of(place, height).movedim(1, -1).contiguous()


def converted(image, direction=TO_FACES, layout=CROSS, size=0, interpolation="bilinear", **more):
    return CubemapConvert.execute(image, direction, layout, size, interpolation, **more).args


def turned(image, yaw="0", pitch="0", roll="0", frames=0, undo=False, interpolation="bilinear", **more):
    return RotatePanorama.execute(image, yaw, pitch, roll, frames, undo, interpolation, **more).args


def rolled(image, direction=TO_MIDDLE, degrees=40.0, feather=10.0, **more):
    return PanoramaSeam.execute(image, direction, degrees, feather, **more).args


def psnr(one, other):
    return -10 * float((one - other).square().mean().log10())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clip_goes_to_faces_and_back(layout):
    clip = torch.cat((around(), around(place=room)))
    masks = (clip[..., 0] > 0.5).float()
    faces, face_masks = converted(clip, layout=layout, mask=masks)
    size = {CROSS: (2, 48, 64), STRIP: (2, 16, 96), PICTURES: (12, 16, 16)}[layout]
    assert faces.shape == (*size, 3) and face_masks.shape == size
    back, back_masks = converted(faces, TO_PANORAMA, layout, mask=face_masks)
    assert back.shape == clip.shape and back_masks.shape == masks.shape
    assert psnr(back, clip) > 22 and float((back_masks - masks).abs().mean()) < 0.05
    alone, nothing = converted(clip[1:], layout=layout)
    assert torch.equal(alone, faces[len(faces) // 2 :]) and float(nothing.abs().max()) == 0


def test_sizes_and_interpolation_of_cubes():
    image = around()
    assert converted(image, size=5)[0].shape == (1, 15, 20, 3)
    faces = converted(image, layout=STRIP)[0]
    assert converted(faces, TO_PANORAMA, STRIP, size=10)[0].shape == (1, 10, 20, 3)
    hdr = image * 50
    bicubic = converted(hdr, interpolation="bicubic")[0]
    assert float(bicubic.max()) <= float(hdr.max()) and float(bicubic.min()) >= 0
    nearest = converted(torch.eye(32).repeat(1, 2)[None, ..., None].expand(-1, -1, -1, 3), interpolation="nearest")[0]
    assert set(nearest.flatten().tolist()) == {0.0, 1.0}
    with_alpha = torch.cat((image, torch.zeros_like(image[..., :1])), -1)
    assert torch.equal(converted(with_alpha)[0], converted(image)[0])


def test_whole_columns_are_turned_bit_for_bit():
    image, mask = around(), torch.rand(1, 32, 64)
    clip, masks = turned(image, yaw="0:0, 4:45", frames=5, mask=mask)
    for number in range(5):
        assert torch.equal(clip[number], image[0].roll(-2 * number, 1))
        assert torch.equal(masks[number], mask[0].roll(-2 * number, 1))
    back, back_masks = turned(clip, yaw="0:0, 4:45", undo=True, mask=masks)
    assert torch.equal(back, image.expand(5, -1, -1, -1)) and torch.equal(back_masks, mask.expand(5, -1, -1))
    assert torch.equal(turned(image, yaw="360", pitch="360", roll="-360")[0], image)


def test_turns_are_the_cameras_and_are_undone():
    image = torch.zeros(1, 64, 128, 3)
    image[:, 28:36, 92:100] = 1.0  # 90 degrees to the right, level
    assert float(turned(image, yaw="90")[0][0, 30:34, 62:66].min()) > 0.9
    image[:] = 0
    image[:, :6] = 1.0  # overhead
    assert float(turned(image, pitch="90")[0][0, 30:34, 62:66].min()) > 0.9
    right = torch.zeros(1, 64, 128, 3)
    right[:, 28:36, 92:100] = 1.0
    # A camera that is rolled clockwise by 90 degrees has what was to its right at the top of its picture.
    assert float(turned(right, roll="90")[0][0, :2].min()) > 0.9
    soft = around(64)
    soft = torch.nn.functional.avg_pool2d(soft.movedim(-1, 1), 9, 1, 4).movedim(1, -1)
    angles = {"yaw": "20", "pitch": "0:-30, 2:50", "roll": "12"}
    there = turned(soft, frames=3, **angles)[0]
    assert psnr(turned(there, undo=True, **angles)[0], soft.expand(3, -1, -1, -1)) > 35
    # Two turns about one axis are one turn by their sum.
    assert psnr(turned(turned(soft, pitch="20")[0], pitch="15")[0], turned(soft, pitch="35")[0]) > 38
    assert psnr(turned(turned(soft, yaw="13.3")[0], yaw="-5.1")[0], turned(soft, yaw="8.2")[0]) > 38


@pytest.mark.parametrize("width", [64, 63])
def test_the_seam_goes_to_the_middle_and_back(width):
    image, own = torch.rand(2, 16, width, 3), torch.rand(2, 16, width)
    middle, over = rolled(image, mask=own)
    assert torch.equal(middle, image.roll(width // 2, 2)) and over.shape == (2, 16, width)
    assert bool((over >= own.roll(width // 2, 2)).all()) and float(over[:, :, width // 2].min()) == 1
    only = rolled(image)[1]
    assert float(only[:, :, width // 2 - 1 : width // 2 + 1].min()) == 1 and float(only[:, :, 0].max()) == 0
    back, nothing = rolled(middle, TO_EDGES, degrees=0.0)
    assert torch.equal(back, image) and float(nothing.max()) == 0
    assert torch.equal(rolled(middle, TO_EDGES, degrees=0.0, mask=own.roll(width // 2, 2))[1], own)
    assert float(rolled(middle, TO_EDGES)[1][:, :, [0, -1]].min()) == 1


def test_what_they_say_of_bad_input():
    image = around()
    for bad in (image[:, :, :60], image[:, :1], torch.rand(1, 1, 2, 3)):
        size = f"{bad.shape[2]}x{bad.shape[1]}"
        for node in (converted, turned):
            with pytest.raises(
                ValueError, match=f"'image' is {size} pixels; an equirectangular .* twice as wide as high"
            ):
                node(bad)
    for layout, bad, words in (
        (CROSS, image, "cross 4x3: 4 faces wide and 3 high, all square"),
        (STRIP, image, "strip 6x1: 6 faces wide"),
        (PICTURES, image, "six pictures: square"),
        (PICTURES, torch.rand(7, 8, 8, 3), "7 pictures; expected for six pictures: 6 for each panorama"),
    ):
        with pytest.raises(ValueError, match=f"'image': .*{words}.* another 'layout'"):
            converted(bad, TO_PANORAMA, layout)
    with pytest.raises(ValueError, match="'mask' is 10x10 pixels and 'image' 64x32"):
        converted(image, mask=torch.rand(1, 10, 10))
    for node in (turned, rolled):
        with pytest.raises(ValueError, match="'mask' holds 3 pictures and 'image' 1"):
            node(image, mask=torch.rand(3, 32, 64))
    with pytest.raises(ValueError, match="'image' holds 2 pictures and 'frames' is 3"):
        turned(image.expand(2, -1, -1, -1), frames=3)
    for name in ("yaw", "pitch", "roll"):
        with pytest.raises(ValueError, match=name):
            turned(image, **{name: "left"})
        angles = {"yaw": "0", "pitch": None, "roll": "0:0, 5:90"}
        assert RotatePanorama.validate_inputs(**angles) is True
        assert name in RotatePanorama.validate_inputs(**(angles | {name: "0:0, 0:1"}))
    with pytest.raises(ValueError, match="at least two columns"):
        rolled(torch.rand(1, 8, 1, 3))
    for name, call in (
        ("direction", lambda: converted(image, "sideways")),
        ("layout", lambda: converted(image, layout="star")),
        ("interpolation", lambda: converted(image, interpolation="cubic")),
        ("size", lambda: converted(image, size=10**6)),
        ("frames", lambda: turned(image, frames=-1)),
        ("interpolation", lambda: turned(image, interpolation="cubic")),
        ("direction", lambda: rolled(image, "up")),
        ("degrees", lambda: rolled(image, degrees=400.0)),
        ("feather", lambda: rolled(image, feather=float("nan"))),
        ("image", lambda: rolled(image * torch.nan)),
        ("image", lambda: turned(torch.rand(32, 64, 3))),
    ):
        with pytest.raises(ValueError, match=f"'{name}'"):
            call()
