"""Drives the Match Points editor on a page as a person does: places are fractions of one of its two pictures."""

import json
from typing import ClassVar

from editor_hand import EditorHand, graph_around

NODE = "PaperNodes_MatchPoints"
REFERENCE, TARGET = "coffee.jpg", "toy_scene.png"
"""Of demo/media: 576x384 and 256x256 pixels."""

SIZES = {"reference": (576, 384), "target": (256, 256)}


def points_text(*pairs: dict, **more) -> str:
    return json.dumps({"version": 1, "points": list(pairs), **more})


def pair(reference=None, target=None) -> dict:
    """A pair as the text has it; without one of its points an unfinished one."""
    made = {"reference": reference, "target": target}
    return {side: list(point) for side, point in made.items() if point}


def graph(text: str, *, target: str | None = TARGET, size=(700, 600)) -> dict:
    """A graph in the editor's format: two Load Image, Match Points, and Save Image of its preview.

    Args:
        text: the points.
        target: a file in the input folder, or None for nothing connected.
        size: the node's.
    """
    match = {
        "id": 2,
        "type": NODE,
        "pos": [400, 60],
        "size": list(size),
        "flags": {},
        "order": 1,
        "mode": 0,
        "inputs": [
            {"name": "reference", "type": "IMAGE", "link": 1},
            {"name": "target", "type": "IMAGE", "link": 3 if target else None},
            {"name": "flow", "type": "PN_FLOW", "link": None},
        ],
        "outputs": [
            {"name": "points", "type": "PN_POINTS", "links": None},
            {"name": "preview", "type": "IMAGE", "links": [2]},
        ],
        "properties": {},
        "widgets_values": [text],
    }
    made = graph_around(match, 1, REFERENCE, "match_editor", "5ad8c7f2-11f0-4a58-9d77-0f3f5b1c6e02")
    if target:
        loaders = [node for node in made["nodes"] if node["type"] == "LoadImage"]
        second = json.loads(json.dumps(loaders[0])) | {"id": 4, "pos": [60, 440], "widgets_values": [target, "image"]}
        second["outputs"][0]["links"] = [3]
        made["nodes"].insert(0, second)
        made["links"].append([3, 4, 0, 2, 1, "IMAGE"])
        made |= {"last_node_id": 4, "last_link_id": 3}
    return made


class MatchEditor(EditorHand):
    """The editor of the open graph's Match Points."""

    node: ClassVar[str] = NODE
    store: ClassVar[str] = "points"

    def open(self, *pairs: dict | str, frame: bool = True, **options) -> "MatchEditor":
        """Load a graph with these pairs, or with a text, and wait for the pictures."""
        text = pairs[0] if pairs and isinstance(pairs[0], str) else points_text(*pairs)
        self.show(graph(text, **options), frame=frame)
        if options.get("target", TARGET):
            self.wait(f"Boolean({self.found_editor}.panes[1].picture)")
            self.settle()
        return self

    @property
    def pairs(self) -> list[dict]:
        return json.loads(self.text)["points"]

    @property
    def selected(self) -> int | None:
        return self.ask("hands.selected")

    def at(self, side: str, x: float, y: float) -> tuple[float, float]:
        """Where a point of a picture is on the page."""
        return self._on_page("hands.paneOf(argument[0]).view.toCanvas(argument[1])", [side, [x, y]])

    def put(self, side: str, x: float, y: float) -> None:
        """Click into a picture."""
        self.page.mouse.click(*self.at(side, x, y))
        self.settle()

    def marker(self, index: int, side: str) -> tuple[float, float]:
        """Where a pair's point is on the page, from 0 on."""
        return self._on_page(
            "hands.handles().find(each => each.index === argument[0] && each.side === argument[1]).at", [index, side]
        )

    def select(self, index: int) -> None:
        """Choose a pair by its button under the pictures, from 0 on."""
        self.page.locator(f".papernodes-editor [data-pair='{index}']").first.click()
        self.settle()

    def write(self, name: str, value: float) -> None:
        """Type into one of the fields."""
        self.button(name).fill(str(value))
        self.button(name).press("Enter")
        self.settle()

    def frame(self, side: str) -> list[float]:
        """x, y, width and height of a picture on the canvas."""
        return self.ask("(({x, y, width, height}) => [x, y, width, height])(hands.paneOf(argument).view.frame)", side)
