"""Drives ComfyUI's own graph editor in headless Chromium, through playwright: loads graphs, saves them, queues them.

The editor is the one authority on how a graph of its format reads in API format, so templates and tests ask it.
"""

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import browser
from .layout import HostError

ARGUMENTS = ("--no-sandbox", "--mute-audio", "--enable-unsafe-swiftshader")
"""No sandbox, because root (in a container) gets none. WebGL in software, for whoever asks for it; not with
``--use-angle=swiftshader``, which draws the whole page with the processors that a server on the CPU needs: a graph of
three seconds then takes thirty."""

WINDOW = {"width": 1600, "height": 1000}
READY_MILLISECONDS = 90_000
SETTLE_MILLISECONDS = 800
"""Widgets settle a moment after a graph was loaded: pictures arrive, Nodes 2.0 measures its elements."""


PREVIEW_WIDGETS = ("video-preview", "preview")
"""Pictures and text in nodes, which the editor exports as empty inputs that no node has: the first one once a video was
decoded, and not before, the second one Preview Any's."""


@dataclass
class Editor:
    """An open page with the editor in it.

    Attributes:
        page: playwright's page.
        url: the server's address.
        nodes_2: whether nodes are drawn as Nodes 2.0 does.
        errors: exceptions that nothing in the page caught, as they came.
    """

    page: object
    url: str
    nodes_2: bool = False
    errors: list[str] = field(default_factory=list)

    def load(self, graph: dict) -> None:
        """Open a graph in the editor's format."""
        self.page.evaluate("async (graph) => { await window.app.loadGraphData(graph); }", graph)
        self.page.wait_for_timeout(SETTLE_MILLISECONDS)

    def export(self) -> tuple[dict, dict]:
        """What the editor makes of the open graph: in API format, and in its own as it saves it.

        Whether a preview happens to be there already makes no difference to either.
        """
        # As text, because that is what the editor saves: playwright itself would turn "undefined" into None.
        made = json.loads(self.page.evaluate("async () => JSON.stringify(await window.app.graphToPrompt())"))
        for node in made["output"].values():
            for name in PREVIEW_WIDGETS:
                node["inputs"].pop(name, None)
        return made["output"], made["workflow"]

    def missing_nodes(self) -> list[str]:
        """Types of nodes in the open graph that the editor has no class for."""
        return self.page.evaluate(
            "() => window.app.graph.nodes.filter(node => !window.LiteGraph.registered_node_types[node.type])"
            ".map(node => node.type)"
        )

    def queue(self) -> str:
        """Queue the open graph as the Run button does.

        Returns:
            The server's name for the job.

        Raises:
            HostError: the server refuses the graph.
        """
        is_answer = lambda response: response.url.endswith("/prompt") and response.request.method == "POST"  # noqa: E731
        with self.page.expect_response(is_answer) as waiting:
            self.page.evaluate("async () => { await window.app.queuePrompt(0); }")
        answer = waiting.value.json()
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise HostError(f"The server refuses the graph: {json.dumps(answer)[:500]}")
        return answer["prompt_id"]

    def frame_graph(self) -> None:
        """Move and scale the view so that the whole graph is seen."""
        self.page.evaluate(
            """() => {
                const boxes = [...window.app.graph.nodes.map(node => node.getBounding()),
                               ...window.app.graph.groups.map(group => group.boundingRect)];
                const left = Math.min(...boxes.map(box => box[0])), top = Math.min(...boxes.map(box => box[1]));
                const right = Math.max(...boxes.map(box => box[0] + box[2]));
                const bottom = Math.max(...boxes.map(box => box[1] + box[3]));
                const view = window.app.canvas.ds;
                const wide = window.innerWidth - 140, high = window.innerHeight - 160;
                view.scale = Math.min(1, wide / (right - left), high / (bottom - top));
                view.offset[0] = 100 / view.scale - left;
                view.offset[1] = 90 / view.scale - top;
                window.app.canvas.setDirty(true, true);
            }"""
        )
        self.page.wait_for_timeout(SETTLE_MILLISECONDS)


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """A running browser (playwright's).

    Raises:
        HostError: playwright or Chromium is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise HostError("playwright is not installed; run `make test` once, or pip install playwright.") from None
    program = browser.find_chromium()
    if program is None:
        raise HostError("No Chromium is installed (on Debian: sudo apt-get install chromium), or set CHROMIUM_PATH.")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(program), args=list(ARGUMENTS))
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def open_editor(running, url: str, *, nodes_2: bool = False, needs: str = "PaperNodes_WarpNoise") -> Iterator[Editor]:
    """Open the editor in a new page, as somebody sees it who has been here before.

    Args:
        running: the browser, from ``chromium``.
        url: the server's address.
        nodes_2: draw nodes as Nodes 2.0 does (Vue elements) in place of the classic canvas.
        needs: a node class to wait for.
    """
    # Before the page is opened: on a first visit the template browser would lie over the graph.
    settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": nodes_2, "Comfy.Locale": "en"}
    request = urllib.request.Request(
        f"{url}/settings", json.dumps(settings).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30):
        pass
    context = running.new_context(viewport=WINDOW)
    page = context.new_page()
    editor = Editor(page, url, nodes_2)
    page.on("pageerror", lambda error: editor.errors.append(str(error)[:300]))
    try:
        page.goto(f"{url}/", wait_until="domcontentloaded")
        page.wait_for_function(
            f"Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.[{json.dumps(needs)}])",
            timeout=READY_MILLISECONDS,
        )
        page.wait_for_timeout(2 * SETTLE_MILLISECONDS)
        yield editor
    finally:
        context.close()
