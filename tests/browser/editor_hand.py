"""Drives an editor of the pack on a page as a person does: places are fractions of the picture."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy


def near(found, wanted, tolerance=0.012):
    return numpy.abs(numpy.asarray(found, float) - numpy.asarray(wanted, float)).max() < tolerance


def graph_around(node: dict, slot: int, picture: str | None, name: str, identity: str) -> dict:
    """A graph of a node with an editor, number 2, of the picture that it shows, if any, and of what it saves.

    Args:
        node: as a template holds it; link 1 comes in, link 2 goes out.
        slot: the output that is saved.
        picture: a file of the input folder, into the node's first input.
        name: of the files that are saved.
        identity: the graph's.
    """
    shared = {"flags": {}, "mode": 0, "properties": {}}
    load = {
        "id": 1,
        "type": "LoadImage",
        "pos": [60, 60],
        "size": [280, 320],
        "order": 0,
        "inputs": [],
        "outputs": [
            {"name": "IMAGE", "type": "IMAGE", "links": [1]},
            {"name": "MASK", "type": "MASK", "links": None},
        ],
        "widgets_values": [picture, "image"],
    }
    save = {
        "id": 3,
        "type": "SaveImage",
        "pos": [1120, 60],
        "size": [240, 200],
        "order": 2,
        "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
        "outputs": [],
        "widgets_values": [name],
    }
    return {
        "id": identity,
        "revision": 0,
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": [*([load | shared] if picture else []), node, save | shared],
        "links": [*([[1, 1, 0, 2, 0, "IMAGE"]] if picture else []), [2, 2, slot, 3, 0, "IMAGE"]],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


@dataclass
class EditorHand:
    """The editor of the open graph's node of one type.

    Attributes:
        editor: the page with the graph, ``host.editor.Editor``.
        node: the node's type.
        store: the widget that holds the editor's text.
    """

    editor: object
    node: ClassVar[str]
    store: ClassVar[str]

    def show(self, graph: dict, *, frame: bool = True, picture: bool = True) -> None:
        """Load a graph and wait until the picture is there."""
        # Nodes 2.0 places the nodes of a graph by the zoom at which it is loaded.
        self.page.evaluate("() => window.app.canvas.ds.reset()")
        self.editor.load(graph)
        if frame:
            self.editor.frame_graph()
        if picture:
            self.wait(f"Boolean({self.found_editor}.picture)")
        self.settle()

    @property
    def page(self):
        return self.editor.page

    @property
    def found_node(self) -> str:
        """JavaScript for the node."""
        return f"window.app.graph.nodes.find(node => node.type === {json.dumps(self.node)})"

    @property
    def found_editor(self) -> str:
        """JavaScript for its editor."""
        return f"({self.found_node}?.widgets.find(widget => widget.editor).editor)"

    def ask(self, expression: str, argument: object = None):
        """The value of an expression in which ``editor`` and ``hands`` are the editor's."""
        return self.page.evaluate(
            f"(argument) => {{ const editor = {self.found_editor}, hands = editor.hands; return {expression}; }}",
            argument,
        )

    def wait(self, expression: str) -> None:
        self.page.wait_for_function(f"() => {expression}", timeout=20_000)

    def settle(self) -> None:
        """Two frames: what was changed is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def widget(self, name: str):
        """The value of one of the node's widgets."""
        return self.page.evaluate(f"(name) => {self.found_node}.widgets.find(each => each.name === name).value", name)

    def set_widget(self, name: str, value: object) -> None:
        """Write a widget as a script would, and wait until the editor has seen it."""
        self.page.evaluate(
            f"([name, value]) => {{ {self.found_node}.widgets.find(each => each.name === name).value = value; }}",
            [name, value],
        )
        self.page.wait_for_timeout(700)

    @property
    def text(self) -> str:
        return self.widget(self.store)

    @property
    def words(self) -> str:
        """What the line under the canvas says."""
        return self.ask("editor.stateLine.textContent")

    def screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is on the page."""
        return self._on_page("editor.view.toCanvas(argument)", [x, y])

    def handle(self, shape: str, index: int = 0) -> tuple[float, float]:
        """Where a handle is on the page."""
        return self._on_page(
            "hands.handles().filter(each => each.shape === argument[0])[argument[1]].at", [shape, index]
        )

    def _on_page(self, place: str, argument) -> tuple[float, float]:
        x, y = self.ask(
            "(place => { const box = editor.canvas.getBoundingClientRect();"
            " return [box.left + place[0] * box.width / editor.canvas.clientWidth,"
            f" box.top + place[1] * box.height / editor.canvas.clientHeight]; }})({place})",
            argument,
        )
        return x, y

    def button(self, name: str):
        """A control of the editor by its data-id."""
        return self.page.locator(f".papernodes-editor [data-id='{name}']").first

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.screen(x, y))

    def drag(self, start: tuple[float, float], *ends: tuple[float, float], keep: bool = False) -> None:
        """Press at a place of the page, go through others, let go (unless ``keep``)."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for end in ends:
            self.page.mouse.move(*end, steps=4)
        if not keep:
            self.page.mouse.up()
        self.settle()

    def seek(self, frame: int) -> None:
        self.button("frame").fill(str(frame))
        self.settle()

    def press(self, *keys: str) -> None:
        """Keys, with the focus on the canvas."""
        self.ask("editor.canvas.focus()")
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def shown_frame(self, frame: int) -> list[int]:
        """The bytes (RGBA) of what the editor shows at a frame."""
        if self.ask("hands.frame") != frame:
            self.seek(frame)
        return self.ask(
            "(canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data))"
            "(hands.preview.canvas)"
        )
