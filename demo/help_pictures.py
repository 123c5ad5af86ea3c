"""Draws the pictures of web/docs with the pack's own kernels, from the clip, the photograph and the panorama in
demo/media: ``python -m demo.help_pictures``.

Needs PyAV and Pillow, which ComfyUI brings.
"""

import json
from pathlib import Path

import av
import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernels.camera_flow import CameraClip
from kernels.contact_sheet import contact_sheet
from kernels.cut_and_drag import CutAndDrag
from kernels.drag_motion import parse_motion
from kernels.equirectangular import background_frames
from kernels.flow import occlusion_mask
from kernels.flow_picture import flow_to_image
from kernels.noise_mix import mix_noise
from kernels.noise_picture import noise_to_picture
from kernels.noise_warp import warp_noise
from kernels.optical_flow import dis_flow
from kernels.schedule import Schedule

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "demo" / "media" / "bigbuckbunny_49.mp4"
PHOTOGRAPH = ROOT / "demo" / "media" / "coffee.jpg"
PANORAMA = ROOT / "demo" / "media" / "toy_panorama.jpg"
DRAGGED = ROOT / "workflows" / "api" / "cut_and_drag.json"
TILE = (135, 240)  # height and width of one tile
LATENT = (18, 32)
GAP = 6
FRAMES = 13


def read_clip() -> Tensor:
    """float32 [FRAMES, H, W, 3] in 0..1."""
    with av.open(str(CLIP)) as container:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(FRAMES), container.decode(video=0))]  # noqa: B905
    return torch.from_numpy(numpy.stack(frames)).float() / 255


def tile(picture: Tensor) -> Tensor:
    """[H, W, 3] -> [*TILE, 3]: noise keeps its hard edges, everything else is averaged."""
    mode = {"mode": "nearest"} if picture.shape[0] <= TILE[0] else {"mode": "area"}
    return torch.nn.functional.interpolate(picture.permute(2, 0, 1)[None], TILE, **mode)[0].permute(1, 2, 0)


def sheet(rows: list[list[Tensor]]) -> Image.Image:
    """Tiles in rows, with gaps of the page's own transparent colour."""
    height, width = len(rows) * (TILE[0] + GAP) - GAP, len(rows[0]) * (TILE[1] + GAP) - GAP
    canvas = torch.zeros(height, width, 4)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (TILE[0] + GAP), x * (TILE[1] + GAP)
            canvas[top : top + TILE[0], left : left + TILE[1], :3] = tile(picture)
            canvas[top : top + TILE[0], left : left + TILE[1], 3] = 1
    return Image.fromarray((canvas * 255).round().to(torch.uint8).numpy(), "RGBA")


def save(name: str, rows: list[list[Tensor]]) -> None:
    """Writes web/docs/PaperNodes_<name>.webp."""
    path = ROOT / "web" / "docs" / f"PaperNodes_{name}.webp"
    sheet(rows).save(path, quality=60, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def gray(mask: Tensor) -> Tensor:
    """[H, W] -> [H, W, 3]."""
    return mask[..., None].expand(-1, -1, 3)


def small_noise(noise: Tensor) -> list[Tensor]:
    """One picture a frame, at the noise's own size."""
    return list(noise_to_picture(noise, shortest_side=1))


def read_photograph() -> Tensor:
    """float32 [H, W, 3] in 0..1."""
    return torch.from_numpy(numpy.array(Image.open(PHOTOGRAPH).convert("RGB"))).float() / 255


def wide(picture: Tensor) -> Tensor:
    """The upper rows of [H, W, 3], in a tile's proportions."""
    return picture[: picture.shape[1] * TILE[0] // TILE[1]]


def draw_motion_by_hand() -> None:
    """The pictures of Cut And Drag, with the template's motion, and of Camera Flow."""
    photograph = read_photograph()
    (inputs,) = (
        node["inputs"]
        for node in json.loads(DRAGGED.read_text("utf-8")).values()
        if node["class_type"] == "PaperNodes_CutAndDrag"
    )
    frames = inputs["frames"]
    dragged = CutAndDrag(photograph, parse_motion(inputs["motion"], frames), frames).render()
    painted = flow_to_image(dragged.vectors)
    shown = [0, 14, 30]
    save("CutAndDrag", [[wide(dragged.composites[i]) for i in shown], [wide(painted[i]) for i in shown]])

    texts = {"zoom": "0:1, 12:0.8", "roll": "0:0, 12:8 ease", "pan_x": "0:0, 12:0.08"}
    camera = CameraClip(photograph, {name: Schedule.parse(text).at(FRAMES) for name, text in texts.items()}).render()
    painted = flow_to_image(camera.vectors)
    below = [wide(painted[6]), wide(painted[11]), wide(gray(camera.revealed[12]))]
    save("CameraFlow", [[wide(camera.previews[i]) for i in (0, 6, 12)], below])


def draw_motion_lora(width: int = 720, height: int = 250) -> None:
    """Where a motion LoRA acts, and how its two matrices change a layer."""
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    font, ink, grey, blue, orange = ImageFont.load_default(14), "#333333", "#d5dae2", "#3c78d8", "#e8862e"

    def text(x: float, y: float, words: str) -> None:
        pen.text((x, y), words, fill=ink, font=font, anchor="mm")

    # The UNet: down, middle, up; a module behind each block.
    sizes = (100, 76, 52, 34, 52, 76, 100)
    for number, size in enumerate(sizes):
        left, top = 16 + 42 * number, 105 - size / 2
        pen.rectangle((left, top, left + 20, top + size), fill=grey)
        if number != 3:
            pen.rectangle((left + 23, top, left + 31, top + size), fill=blue)
            pen.rectangle((left + 25, 98, left + 29, 112), fill=orange)
    for x, colour, words in ((16, grey, "UNet: Load LoRA"), (16, blue, "Motion Modules"), (16, orange, "Motion LoRA")):
        y = 178 + 22 * (grey, blue, orange).index(colour)
        pen.rectangle((x, y, x + 14, y + 14), fill=colour)
        pen.text((x + 22, y + 7), words, fill=ink, font=font, anchor="lm")
    # One layer of a module.
    pen.rectangle((350, 55, 450, 155), fill=blue)
    pen.rectangle((570, 55, 582, 155), fill=orange)
    pen.rectangle((594, 55, 694, 67), fill=orange)
    text(400, 105, "W")
    text(510, 105, "+  strength  x")
    text(576, 40, "up")
    text(644, 40, "down")
    text(400, 178, "a layer of a module,")
    text(400, 196, "as in the motion file")
    text(632, 178, "the LoRA: two thin")
    text(632, 196, "matrices for each layer")
    path = ROOT / "web" / "docs" / "PaperNodes_MotionLoRA.webp"
    picture.save(path, quality=80, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def draw_panorama_preview(height: int = 200, width: int = 400) -> None:
    """The panorama as it lies flat, and what is seen inside it."""
    flat = torch.from_numpy(numpy.array(Image.open(PANORAMA).convert("RGB"))).float() / 255
    # The surroundings turn against the camera.
    turned, raised = torch.tensor([20.0, -90.0, 180.0]), torch.tensor([0.0, 20.0, 0.0])
    seen = background_frames(flat, turned, raised, 100.0, height, width)
    small = torch.nn.functional.interpolate(flat.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
    names = ["the panorama", "yaw -20", "yaw 90, pitch -20", "yaw 180, where its edges meet"]
    drawn = contact_sheet([small, *seen], names, columns=2)[0]
    path = ROOT / "web" / "docs" / "PaperNodes_PanoramaPreview.webp"
    Image.fromarray((drawn * 255).round().to(torch.uint8).numpy()).save(path, quality=80, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draws all of them."""
    clip = read_clip()
    flow, back = (dis_flow(clip, direction=way, factor=0.5) for way in ("forward", "backward"))
    painted = flow_to_image(flow)
    noise = warp_noise(flow, 4, LATENT, seed=1)
    plain = torch.randn(noise.shape, generator=torch.Generator().manual_seed(2))
    shown = [0, 4, 8]
    mixed = mix_noise(noise, plain, torch.tensor([0.0, *[0.5] * 6, *[1.0] * 6]))

    save("OpticalFlow", [[clip[4], painted[4], gray(occlusion_mask(flow, back)[4])]])
    save("FlowToImage", [[painted[4], flow_to_image(flow, max_magnitude=20.0)[4]]])
    save("LoadFlow", [[painted[i] for i in shown]])
    save("SaveFlow", [[painted[i] for i in (3, 7, 11)]])
    save("WarpNoise", [[clip[i] for i in shown], [small_noise(noise)[i] for i in shown]])
    save("NoiseToLatent", [[small_noise(noise)[i] for i in shown]])
    save("LatentToNoise", [[small_noise(noise * 0.2)[4], small_noise(noise)[4]]])
    save("MixNoise", [[small_noise(noise)[4], small_noise(mixed)[4], small_noise(plain)[4]]])
    draw_motion_by_hand()
    draw_motion_lora()
    draw_panorama_preview()


if __name__ == "__main__":
    main()
