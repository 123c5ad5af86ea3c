"""Drives the Blob Layout editor on a page as a person does."""

import json
from typing import ClassVar

from editor_hand import EditorHand, graph_around

NODE = "PaperNodes_BlobLayout"
WIDTH, HEIGHT = 768, 512

SQUARE, TURNER = "square", "round"
"""Shapes of handles: the four ends of the axes (a, -a, b, -b), and the one that turns."""

BALL = {"id": "1", "caption": "a red ball", "x": 0.25, "y": 0.6, "a": 0.2, "b": 0.2}
LEAF = {"id": "2", "caption": "a green leaf", "x": 0.7, "y": 0.4, "a": 0.3, "b": 0.12, "angle": -30}


def layout_text(*blobs: dict, **more) -> str:
    return json.dumps({"version": 1, "blobs": list(blobs), **more})


def graph(text: str, *, frames: int = 1, picture: str | None = None, size=(760, 780)) -> dict:
    """A graph in the editor's format: Load Image (where a picture is named), Blob Layout, Save Image of its preview."""
    node = {
        "id": 2,
        "type": NODE,
        "pos": [420, 60],
        "size": list(size),
        "flags": {},
        "order": 1,
        "mode": 0,
        "inputs": [
            {"name": "picture", "type": "IMAGE", "link": 1 if picture else None},
            {"name": "blobs", "type": "PN_BLOBS", "link": None},
        ],
        "outputs": [
            {"name": "blobs", "type": "PN_BLOBS", "links": None},
            {"name": "preview", "type": "IMAGE", "links": [2]},
            {"name": "masks", "type": "MASK", "links": None},
        ],
        "properties": {},
        "widgets_values": [text, WIDTH, HEIGHT, frames],
    }
    return graph_around(node, 1, picture, "blob_editor", "7c1e3a52-8d0b-4c59-9f0e-2b6a4d8e1f37")


class BlobEditor(EditorHand):
    """The editor of the open graph's Blob Layout."""

    node: ClassVar[str] = NODE
    store: ClassVar[str] = "layout"

    def open(self, *blobs: dict | str, frame: bool = True, **options) -> "BlobEditor":
        """Load a graph with these blobs, or with a text."""
        text = blobs[0] if blobs and isinstance(blobs[0], str) else layout_text(*blobs)
        self.show(graph(text, **options), frame=frame, picture=bool(options.get("picture")))
        return self

    @property
    def found_node(self) -> str:
        """JavaScript for the node: number 2, whatever others give it."""
        return "window.app.graph.getNodeById(2)"

    @property
    def blobs(self) -> list[dict]:
        return json.loads(self.text)["blobs"]

    @property
    def selected(self) -> str | None:
        return self.ask("hands.selected")

    def select(self, name: str) -> None:
        """Choose a blob in the list by its id."""
        self.page.locator(f".papernodes-editor [data-blob='{name}']").first.click()
        self.settle()

    def write(self, name: str, value: float | str) -> None:
        """Type into one of the fields."""
        self.button(name).fill(str(value))
        self.button(name).press("Enter")
        self.settle()

    def draw(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag from one point of the picture to another."""
        self.drag(self.screen(*start), self.screen(*end))
