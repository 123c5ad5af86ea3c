"""Drives the Cut and Drag editor on a page as a person does: places are fractions of the picture."""

import json
from typing import ClassVar

import numpy
from editor_hand import EditorHand, graph_around

NODE = "PaperNodes_CutAndDrag"
PICTURE = "motion_editor.png"
FRAMES = 13

ROTATED, PIVOT = "round", "pivot"
"""Shapes of handles; corners are "square"."""

PARTS = {
    "version": 1,
    "objects": [
        {
            "id": "spoon",
            "name": "Spoon",
            "polygon": [[0.2, 0.25], [0.45, 0.2], [0.5, 0.6], [0.25, 0.7]],
            "keys": [
                {"frame": 0, "x": 0, "y": 0, "angle": 0, "scale": 1, "way": "linear"},
                {"frame": 6, "x": 0.2, "y": 0.1, "angle": 30, "scale": 1.2, "way": "ease"},
                {"frame": 12, "x": 0.3, "y": -0.1, "angle": -20, "scale": 0.8, "way": "ease-out"},
            ],
        },
        {"id": "cup", "name": "Cup", "polygon": [[0.6, 0.5], [0.8, 0.5], [0.7, 0.85]], "keys": []},
    ],
}


WIDTH, HEIGHT = 96, 64
SQUARE = [(0.3, 0.3), (0.6, 0.3), (0.6, 0.65), (0.3, 0.65)]


def picture() -> numpy.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: stripes in every direction, so that nothing looks like its mirror image."""
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    bands = [numpy.sin(x / 5), numpy.sin(y / 4 + x / 20), numpy.cos((x + 2 * y) / 9)]
    return ((numpy.stack(bands, axis=-1) + 1) * 127).astype(numpy.uint8)


def graph(motion: object = "", *, picture: str | None = PICTURE, frames: int = FRAMES, size=(620, 720)) -> dict:
    """A graph in the editor's format: Load Image (where there is a picture), Cut And Drag, Save Image.

    Args:
        motion: the text, or what becomes the text as JSON.
        picture: a file in the input folder, or None for nothing connected.
    """
    text = motion if isinstance(motion, str) else json.dumps(motion)
    drag = {
        "id": 2,
        "type": NODE,
        "pos": [420, 60],
        "size": list(size),
        "flags": {},
        "order": 1,
        "mode": 0,
        "inputs": [{"name": "first_frame", "type": "IMAGE", "link": 1 if picture else None}],
        "outputs": [
            {"name": "flow", "type": "PN_FLOW", "links": None},
            {"name": "composite", "type": "IMAGE", "links": [2]},
            {"name": "masks", "type": "MASK", "links": None},
        ],
        "properties": {},
        "widgets_values": [frames, text, "fill"],
    }
    return graph_around(drag, 1, picture, "motion_editor", "6f0c7f52-2f8a-4a43-9c9e-0d5b6a1f7e10")


class MotionEditor(EditorHand):
    """The editor of the open graph's Cut And Drag."""

    node: ClassVar[str] = NODE
    store: ClassVar[str] = "motion"

    def open(self, motion: object = "", *, frame: bool = True, **options) -> "MotionEditor":
        """Load a graph and wait until the picture is there."""
        self.show(graph(motion, **options), frame=frame, picture=bool(options.get("picture", PICTURE)))
        return self

    @property
    def objects(self) -> list[dict]:
        return json.loads(self.text)["objects"]

    def draw_polygon(self, points: list[tuple[float, float]]) -> None:
        """Click the corners, and the first one again."""
        self.button("polygon").click()
        for point in [*points, points[0]]:
            self.click(*point)
            self.page.wait_for_timeout(30)  # not a double click
        self.settle()

    def select(self, identity: str, frame: int = 0) -> None:
        """Choose a part in the list, and a frame."""
        self.page.locator(f".papernodes-editor [data-object='{identity}']").first.click()
        self.seek(frame)
