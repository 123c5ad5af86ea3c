"""Drives the Light Source editor on a page as a person does."""

import json
from typing import ClassVar

from editor_hand import EditorHand, graph_around

NODE = "PaperNodes_LightSource"
WIDTH, HEIGHT = 96, 64

SUN, LAMP, RADIUS = "sun", "lamp", "square"
"""Shapes of handles."""

SIDE = {"kind": "side", "angle": 180}
POINT = {"kind": "point", "x": 0.4, "y": 0.5, "radius": 0.25, "colour": "#ff8000"}


def lights_text(*lights: dict, **more) -> str:
    return json.dumps({"version": 1, "lights": list(lights), **more})


def graph(text: str, *, frames: int = 1, style: str = "fc", background: str | None = None, size=(620, 720)) -> dict:
    """A graph in the editor's format: Load Image (where a background is named), Light Source, Save Image."""
    source = {
        "id": 2,
        "type": NODE,
        "pos": [420, 60],
        "size": list(size),
        "flags": {},
        "order": 1,
        "mode": 0,
        "inputs": [
            {"name": "background", "type": "IMAGE", "link": 1 if background else None},
            {"name": "vae", "type": "VAE", "link": None},
        ],
        "outputs": [
            {"name": "image", "type": "IMAGE", "links": [2]},
            {"name": "latent", "type": "LATENT", "links": None},
        ],
        "properties": {},
        "widgets_values": [text, WIDTH, HEIGHT, frames, style],
    }
    return graph_around(source, 0, background, "light_editor", "0b51f1a6-3c52-4f8e-8f0e-6a7c2f3d9b21")


class LightEditor(EditorHand):
    """The editor of the open graph's Light Source."""

    node: ClassVar[str] = NODE
    store: ClassVar[str] = "lights"

    def open(self, *lights: dict | str, frame: bool = True, **options) -> "LightEditor":
        """Load a graph with these lights, or with a text."""
        text = lights[0] if lights and isinstance(lights[0], str) else lights_text(*lights)
        self.show(graph(text, **options), frame=frame, picture=bool(options.get("background")))
        return self

    @property
    def lights(self) -> list[dict]:
        return json.loads(self.text)["lights"]

    def select(self, number: int) -> None:
        """Choose a light in the list, from 0 on."""
        self.page.locator(f".papernodes-editor [data-light='{number}']").first.click()
        self.settle()

    def write(self, name: str, value: float | str) -> None:
        """Type into one of the fields."""
        self.button(name).fill(str(value))
        self.button(name).press("Enter")
        self.settle()
