"""Drives the panorama viewer on a page as a person does, and says what it is to show."""

import base64
import io
import math
from pathlib import Path
from typing import ClassVar

import numpy
from editor_hand import EditorHand, graph_around
from PIL import Image

NODE = "PaperNodes_PanoramaPreview"
PICTURE, TURNED, CLIP, NARROW = "round.png", "round_turned.png", "round.gif", "narrow.png"
HEIGHT, FINE_HEIGHT, FRAMES = 64, 256, 6
FINE, FINE_TURNED = "round_fine.png", "round_fine_turned.png"


def picture(height: int = HEIGHT) -> numpy.ndarray:
    """uint8 [H, 2 H, 3]: noise and hard edges, nothing the same on both sides."""
    levels = numpy.random.default_rng(height).integers(0, 256, (height, 2 * height, 3), numpy.uint8)
    if height == HEIGHT:
        levels = levels // 2
        levels[:, :20] += 120
        levels[10:30, 50:90, 1] = 250
    return levels


def write_pictures(folder: Path) -> None:
    """The panoramas, and the same turned by half; a clip; and a picture that is no panorama."""
    for name, turned, height in ((PICTURE, TURNED, HEIGHT), (FINE, FINE_TURNED, FINE_HEIGHT)):
        Image.fromarray(picture(height)).save(folder / name)
        Image.fromarray(numpy.roll(picture(height), height, axis=1)).save(folder / turned)
    frames = [Image.new("P", (2 * HEIGHT, HEIGHT), number) for number in range(FRAMES)]
    for frame in frames:
        frame.putpalette([value for number in range(FRAMES) for value in (40 * number, 200 - 30 * number, 90)])
    frames[0].save(folder / CLIP, save_all=True, append_images=frames[1:], duration=125)
    Image.new("RGB", (90, 60), "red").save(folder / NARROW)


def seen(levels: numpy.ndarray, yaw: float, pitch: float, fov: float, height: int, width: int) -> numpy.ndarray:
    """float [height, width, 3]: what a pinhole camera sees, bilinearly, round the edges and over the poles."""
    rows, columns = levels.shape[:2]
    step = 2 * math.tan(math.radians(fov) / 2) / width
    x = (numpy.arange(width) - (width - 1) / 2) * step
    y = ((height - 1) / 2 - numpy.arange(height))[:, None] * step
    a, p = math.radians(yaw), math.radians(pitch)
    up, back = y * math.cos(p) + math.sin(p), y * math.sin(p) - math.cos(p)
    right, back = x * math.cos(a) - back * math.sin(a), x * math.sin(a) + back * math.cos(a)
    column = (numpy.arctan2(right, -back) / (2 * math.pi) + 0.5) * columns - 0.5
    row = (0.5 - numpy.arctan2(up, numpy.hypot(right, back)) / math.pi) * rows - 0.5
    beyond = numpy.concatenate((levels[:1], levels, levels[-1:])).astype(float)
    beyond[[0, -1]] = numpy.roll(beyond[[0, -1]], columns // 2, axis=1)
    top, left = numpy.floor(row).astype(int), numpy.floor(column).astype(int)
    down, across = (row - top)[..., None], (column - left)[..., None]

    def texel(i, j):
        return beyond[numpy.clip(top + 1 + i, 0, rows + 1), (left + j) % columns]

    above, below = (texel(i, 0) * (1 - across) + texel(i, 1) * across for i in (0, 1))
    return above * (1 - down) + below * down


class PanoramaEditor(EditorHand):
    """The viewer of the open graph's Panorama Preview."""

    node: ClassVar[str] = NODE

    def open(self, name: str = PICTURE, *, format: str = "preview only", size=(420, 520)) -> "PanoramaEditor":
        """Load a graph: Load Image, Panorama Preview; it need not have been run."""
        node = {
            "id": 2,
            "type": NODE,
            "pos": [420, 60],
            "size": list(size),
            "flags": {},
            "order": 1,
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "outputs": [],
            "properties": {},
            "widgets_values": ["seen/round", format, 20],
        }
        graph = graph_around(node, 0, name, "", "0b51f1a6-3c52-4f8e-8f0e-6a7c2f3d9b29")
        graph["nodes"], graph["links"] = graph["nodes"][:2], graph["links"][:1]
        self.show(graph)
        return self

    def look(self, yaw: float, pitch: float, fov: float = 90) -> numpy.ndarray:
        """What is shown in a direction, uint8 [height, width, 3]."""
        self.ask(
            "(Object.assign(editor.panes[0].look, {yaw: argument[0], pitch: argument[1], fov: argument[2]}),"
            " editor.refresh())",
            [yaw, pitch, fov],
        )
        self.settle()
        return self.pixels()

    def pixels(self) -> numpy.ndarray:
        """What is shown now, uint8 [height, width, 3]."""
        written = self.ask("editor.canvas.toDataURL('image/png')").partition(",")[2]
        with Image.open(io.BytesIO(base64.b64decode(written))) as image:
            return numpy.array(image.convert("RGB"))

    @property
    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch and field of view."""
        return tuple(self.ask("[editor.panes[0].look.yaw, editor.panes[0].look.pitch, editor.panes[0].look.fov]"))
