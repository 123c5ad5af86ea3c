"""Camera Flow and Cut And Drag: what they give, and what they say when they cannot."""

import json
import os
import re

import comfy.model_management
import comfy.utils
import folder_paths
import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.sampling import pixel_grid, remap
from papernodes.nodes.motion import MOST_FRAMES, MOVES, CameraFlow, CutAndDrag
from papernodes.nodes.warped_noise import WarpNoise
from PIL import Image

HEIGHT, WIDTH, FRAMES = 40, 60, 5
SQUARE = [[0.25, 0.25], [0.5, 0.25], [0.5, 0.55], [0.25, 0.55]]
TRIANGLE = [[0.6, 0.3], [0.9, 0.35], [0.7, 0.8]]
BOW_TIE = [[0.2, 0.2], [0.6, 0.6], [0.6, 0.2], [0.2, 0.6]]
STILL = {name: start for name, (_, _, start, _) in MOVES.items()}


def picture(height=HEIGHT, width=WIDTH):
    """One smooth random image."""
    noise = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    large = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=True)
    return large.permute(0, 2, 3, 1).clamp(0, 1).contiguous()


def motion(*objects, version=1, **more):
    entries = [{"id": f"o{k}", "polygon": polygon, "keys": keys} for k, (polygon, keys) in enumerate(objects)]
    return json.dumps({"version": version, "objects": entries, **more})


def moved(**values):
    return [{"frame": 0}, {"frame": FRAMES - 1, **values}]


def drag(text, frames=FRAMES, hole="keep", image=None):
    return CutAndDrag.execute(picture() if image is None else image, frames, text, hole)


def camera(image=None, frames=FRAMES, hole="fill", **more):
    moves = {name: more.pop(name, start) for name, start in STILL.items()}
    return CameraFlow.execute(picture() if image is None else image, frames, *moves.values(), hole, **more)


# ---- Cut And Drag --------------------------------------------------------------------------------


def test_dragging_a_part():
    flow, composite, masks = drag(motion((SQUARE, moved(x=0.2)))).args
    assert isinstance(flow, Flow)
    assert flow.direction == "forward"
    assert flow.vectors.shape == (FRAMES - 1, 2, HEIGHT, WIDTH)
    assert composite.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert masks.shape == (FRAMES, HEIGHT, WIDTH)
    assert all(part.device.type == "cpu" for part in (flow.vectors, flow.occlusion, composite, masks))
    assert torch.equal(composite[0], picture()[0])
    inside = masks[0] == 1
    assert inside.sum() > 100
    assert torch.equal(flow.vectors[0][:, inside], torch.tensor([[3.0], [0.0]]).expand(2, int(inside.sum())))
    assert not flow.vectors[0][:, masks[0] == 0].any()
    assert torch.equal(composite[4, :, 12:][inside[:, :-12]], composite[0, :, :-12][inside[:, :-12]])
    assert flow.occlusion[0].any()


def test_masks_are_all_frames_of_one_part_after_the_other():
    _, _, masks = drag(motion((SQUARE, []), (TRIANGLE, moved(x=-0.3)))).args
    assert masks.shape == (2 * FRAMES, HEIGHT, WIDTH)
    back, front = masks[:FRAMES], masks[FRAMES:]
    assert torch.equal(back, back[:1].expand_as(back)), "it rests, and is whole behind the other"
    assert front[0][:, : WIDTH // 2].sum() == 0
    assert front[4][:, : WIDTH // 2].sum() > 20
    assert (back[4] * front[4]).any()
    _, _, alone = drag(motion((TRIANGLE, moved(x=-0.3)))).args
    assert torch.equal(front, alone)


@pytest.mark.parametrize("text", ["", "  \n", '{"version": 1}', '{"version": 1, "objects": []}'])
def test_nothing_to_move(text):
    flow, composite, masks = drag(text, hole="fill").args
    assert torch.equal(composite, picture().expand_as(composite))
    assert not flow.vectors.any()
    assert not flow.occlusion.any()
    assert masks.shape == (FRAMES, HEIGHT, WIDTH)
    assert not masks.any()


def test_the_editor_gets_the_first_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    (entry,) = drag("").ui["first_frame"]
    assert entry["type"] == "temp"
    shown = Image.open(tmp_path / entry["subfolder"] / entry["filename"])
    assert shown.size == (WIDTH, HEIGHT)
    expected = (picture()[0] * 255).to(torch.uint8)
    assert torch.equal(torch.tensor(list(shown.tobytes()), dtype=torch.uint8).view(HEIGHT, WIDTH, 3), expected)


def test_everything_dragged_outside_leaves_the_filled_picture():
    flow, composite, masks = drag(motion((SQUARE, [{"frame": 0, "x": 3}])), hole="fill").args
    assert not flow.vectors.any()
    assert not masks.any()
    assert torch.equal(composite, composite[:1].expand_as(composite))
    assert not torch.equal(composite[0], picture()[0]), "the hole is filled"


def test_a_crossing_outline_is_filled_on_both_sides():
    flow, _, masks = drag(motion((BOW_TIE, moved(y=0.2)))).args
    left, right = masks[0][:, : int(0.38 * WIDTH)], masks[0][:, int(0.42 * WIDTH) :]
    assert left.sum() > 50
    assert right.sum() > 50
    assert flow.vectors.isfinite().all()


def test_noise_follows_a_dragged_part():
    flow = drag(motion((SQUARE, moved(x=0.2)))).args[0]
    (noise,) = WarpNoise.execute(flow, 1, "0", "nearest", "nearest", 1).args
    latent = torch.zeros(FRAMES, 4, HEIGHT, WIDTH)
    made = noise.generate_noise({"samples": latent})
    assert torch.equal(made[1, :, 14:20, 20:30], made[0, :, 14:20, 17:27])


BAD_MOTIONS = {
    "{": r"motion: this is not JSON",
    motion((SQUARE[:2], [])): r'motion: object 1 \("o0"\): its polygon has 2 points; expected 3 to 2000\.',
    motion((SQUARE, [{"frame": 3}, {"frame": 1}])): r"key 2 is at frame 1, but key 1 is at frame 3; frames must incr",
    motion((SQUARE, [{"frame": 5}])): r"key 1 is at frame 5, beyond the clip of 5 frames \(0 to 4\)\. Move or delete",
    motion(*[(SQUARE, [])] * 200): r"motion: there are 200 objects; at most 100 can be moved",
    motion(version=2): r"motion: it was written by a newer version of this pack .*Update ComfyUI-PaperNodes",
    motion((SQUARE, [{"frame": 0, "x": float("nan")}])): r"motion: this is not JSON \(NaN is not a number\)",
}


@pytest.mark.parametrize("text", BAD_MOTIONS, ids=range(len(BAD_MOTIONS)))
def test_bad_motions_are_refused_before_anything_runs(text):
    verdict = CutAndDrag.validate_inputs(FRAMES, text)
    assert isinstance(verdict, str)
    assert re.search(BAD_MOTIONS[text], verdict)
    with pytest.raises(ValueError, match=BAD_MOTIONS[text]):
        drag(text)


def test_linked_inputs_are_not_judged_yet():
    far = motion((SQUARE, [{"frame": 200}]))
    assert CutAndDrag.validate_inputs(None, far) is True
    assert "200" in CutAndDrag.validate_inputs(49, far)
    assert CutAndDrag.validate_inputs(49, None) is True
    assert "newer version" in CutAndDrag.validate_inputs(None, motion(version=2))
    assert CameraFlow.validate_inputs(None, *[None] * 6) is True
    assert "zoom" in CameraFlow.validate_inputs(None, "0", "0", "0", "0", "0", "0")


# ---- Camera Flow ---------------------------------------------------------------------------------


def test_a_camera_at_rest_sees_the_picture():
    flow, revealed, preview = camera().args
    assert torch.equal(preview, picture().expand_as(preview))
    assert not flow.vectors.any()
    assert not revealed.any()
    assert preview.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert revealed.shape == (FRAMES, HEIGHT, WIDTH)
    assert flow.vectors.shape == (FRAMES - 1, 2, HEIGHT, WIDTH)


def test_a_pan_moves_the_picture_the_other_way():
    flow, revealed, preview = camera(pan_x="0:0, 4:0.2", hole="grey").args
    torch.testing.assert_close(flow.vectors[:, 0], torch.full((4, HEIGHT, WIDTH), -3.0), rtol=0, atol=1e-3)
    assert revealed[4, :, -12:].all()
    assert not revealed[4, :, :-12].any()
    assert (preview[4, :, -12:] == 0.5).all()
    torch.testing.assert_close(preview[4, :, :-12], picture()[0, :, 12:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["zoom", "roll", "orbit", "dolly"])
def test_every_move_shows_in_flow_and_preview(name):
    ramp = torch.linspace(0.2, 1, WIDTH).expand(1, HEIGHT, WIDTH)
    text = {"zoom": "0:1, 4:1.3", "roll": "0:0, 4:12", "orbit": "0:0, 4:12", "dolly": "0:0, 4:0.25"}[name]
    flow, _, preview = camera(depth=ramp, **{name: text}).args
    target = pixel_grid(HEIGHT, WIDTH) + flow.vectors
    fetched = remap(preview[1:].permute(0, 3, 1, 2), target).permute(0, 2, 3, 1)
    visible = flow.occlusion == 0
    assert visible.float().mean() > 0.6
    followed = (fetched - preview[:-1]).abs().mean(dim=-1)[visible].mean()
    ignored = (preview[1:] - preview[:-1]).abs().mean(dim=-1)[visible].mean()
    assert followed < 0.35 * ignored


def test_depth_as_image_and_as_mask_and_its_convention():
    ramp = torch.linspace(0, 1, 30).expand(1, 20, 30)
    image = ramp[..., None].expand(-1, -1, -1, 3)
    pan = {"pan_x": "0:0, 4:0.2"}
    mask_flow = camera(depth=ramp, **pan).args[0].vectors
    assert torch.equal(camera(depth=image, **pan).args[0].vectors, mask_flow)
    left, right = mask_flow[0, 0, 20, 12], mask_flow[0, 0, 20, 48]
    assert right < left < 0, "white is near and near things move farther"
    other = camera(depth=ramp, depth_convention="far is white", **pan).args[0].vectors
    assert other[0, 0, 20, 12] < other[0, 0, 20, 48] < 0
    flat = camera(depth=ramp, depth_ratio=1.0, **pan).args[0].vectors
    torch.testing.assert_close(flat[:, 0], torch.full((4, HEIGHT, WIDTH), -3.0), rtol=0, atol=1e-3)


COLOURED = torch.zeros(1, 8, 8, 3)
COLOURED[..., 0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"orbit": "0:0, 4:10"}, r"^'orbit' changes over the clip, which needs a depth\. Connect a depth picture"),
        ({"dolly": "0:0, 4:0.1"}, r"^'dolly' changes over the clip, which needs a depth"),
        ({"zoom": "0"}, r"^zoom: the value 0 is out of range; expected 0.01 to 100"),
        ({"pan_x": "a"}, r'^pan_x: "a" is not a number; expected a number such as 0.5, or keys'),
        ({"roll": "8:1, 2:0"}, r"^roll: the key at 2 comes after the key at 8; positions must increase"),
        ({"hole": "paint"}, r"^'hole' is 'paint'; expected one of: fill, grey"),
        ({"depth": torch.rand(3, 8, 8)}, r"^'depth' holds 3 pictures; expected one, of the first frame"),
        ({"depth": torch.full((1, 8, 8), float("nan"))}, r"^'depth' holds NaN or infinite values"),
        ({"depth": torch.rand(8)}, r"^'depth' has shape \[8\]"),
        ({"depth": COLOURED}, r"^depth: the picture is in colours"),
        ({"depth_convention": "white"}, r"^'depth_convention' is 'white'; expected one of: near is white, far is"),
        ({"depth_ratio": 0.5}, r"^'depth_ratio' is 0.5; expected a number from 1 to 1000"),
        ({"field_of_view": float("nan")}, r"^'field_of_view' is nan; expected a number from 5 to 150"),
    ],
)
def test_bad_camera_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        camera(**arguments)


def test_bad_schedules_are_refused_before_anything_runs():
    texts = dict(STILL)
    assert CameraFlow.validate_inputs(49, **texts) is True
    assert CameraFlow.validate_inputs(49, **(texts | {"orbit": "0:0, 24:500"})).startswith("orbit: the value 500 at 24")
    assert CameraFlow.validate_inputs(49, **(texts | {"dolly": "x"})).startswith("dolly: ")


# ---- both ----------------------------------------------------------------------------------------

BOTH = {"camera": lambda **k: camera(pan_x="0:0, 4:0.2", **k), "drag": lambda **k: drag(motion((SQUARE, [])), **k)}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": torch.rand(4, 8, 8, 3)}, r"^'first_frame' holds 4 images; one picture is moved\. Choose one with"),
        ({"image": torch.full((1, 8, 8, 3), float("nan"))}, r"^'first_frame' holds NaN or infinite pixels"),
        ({"image": torch.rand(1, 8, 8, 1)}, r"^'first_frame' has shape \[1, 8, 8, 1\]; expected one image"),
        ({"image": torch.rand(0, 8, 8, 3)}, r"^'first_frame' has shape \[0, 8, 8, 3\]"),
        ({"frames": 1}, r"^'frames' is 1; flow leads from a frame to the next, so at least 2 are needed"),
        ({"frames": MOST_FRAMES + 1}, r"^'frames' is 1001; expected a number from 2 to 1000"),
    ],
)
def test_bad_pictures_and_lengths(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        BOTH[name](**arguments)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 31)])
def test_odd_pictures_transparency_and_the_shortest_clip(name, size):
    image = torch.rand(1, *size, 4)
    before = image.clone()
    flow, *rest = (BOTH[name])(image=image, frames=2 if name == "camera" else FRAMES).args
    assert flow.size == size
    assert all(part.isfinite().all() for part in rest)
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", BOTH)
def test_interrupt_stops_within_one_frame(name):
    steps = []

    def hook(value, total, preview, node_id=None):
        steps.append((value, total))
        if value == 2:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            BOTH[name]()
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert steps == [(1, FRAMES), (2, FRAMES)]


@pytest.mark.parametrize("name", BOTH)
def test_two_runs_agree(name):
    first, second = BOTH[name]().args, BOTH[name]().args
    assert torch.equal(first[0].vectors, second[0].vectors)
    assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


def test_temporary_pictures_go_to_the_temp_folder_only():
    before = set(os.listdir(folder_paths.get_output_directory()))
    drag("")
    assert set(os.listdir(folder_paths.get_output_directory())) == before
