"""Help pages, their pictures and the English texts reach the page."""

import io
import json
import re
import urllib.request

from papernodes.host import editor as host_editor
from papernodes.host import layout, templates
from PIL import Image

PAGES = f"/extensions/{layout.PACK_NAME}/docs/"


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read()


def test_every_node_has_a_help_page_with_a_picture(server, object_info):
    nodes = sorted(name for name in object_info if name.startswith("PaperNodes_"))
    assert len(nodes) >= 8
    for node in nodes:
        page = get(server.url, f"{PAGES}{node}.md").decode("utf-8")
        names = re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", page)
        assert names, f"{node}.md shows no picture"
        for name in names:
            with Image.open(io.BytesIO(get(server.url, PAGES + name))) as picture:
                picture.load()
                assert min(picture.size) >= 32, name


def test_the_english_texts_arrive(server, object_info):
    """What the nodes say of themselves and what locales/en says are the same, node by node."""
    texts = json.loads(get(server.url, "/i18n"))["en"]["nodeDefs"]
    for name, described in object_info.items():
        if name.startswith("PaperNodes_"):
            assert texts[name]["display_name"] == described["display_name"]
            for group in ("required", "optional"):
                assert set(described["input"].get(group) or {}) <= set(texts[name]["inputs"]), name


def test_help_opens_beside_the_graph(editor):
    """The info button over a selected node shows the page with its picture, and the node bears its English name."""
    page = editor.page
    editor.load(templates.read_graph("warped_noise_from_video"))
    editor.frame_graph()
    title, x, y = page.evaluate(
        """() => {
            const node = window.app.graph.nodes.find(node => node.type === "PaperNodes_WarpNoise");
            const view = window.app.canvas.ds, canvas = window.app.canvasEl.getBoundingClientRect();
            const at = axis => (node.pos[axis] + view.offset[axis] + (axis ? -12 : 120)) * view.scale;
            return [node.title, canvas.left + at(0), canvas.top + at(1)];
        }"""
    )
    assert title == "Warp Noise (Go-with-the-Flow)"
    page.mouse.click(x, y)
    page.locator("[data-testid=info-button]").first.click(timeout=20_000)
    picture = page.locator(f"img[src*='{PAGES}PaperNodes_WarpNoise']").first
    picture.wait_for(state="visible", timeout=20_000)
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 100", arg=picture.element_handle())
    assert page.get_by_text("Gaussian noise that moves with a clip").first.is_visible()
    assert editor.errors == []


def test_the_template_browser_shows_and_opens_them(editor):
    page = editor.page
    names = sorted(path.stem for path in templates.WORKFLOWS.glob("*.json"))
    # High enough for most of them. A higher page never asks for the last.
    page.set_viewport_size({**host_editor.WINDOW, "height": 4800})
    page.evaluate("() => { window.app.extensionManager.command.execute('Comfy.BrowseTemplates'); }")
    for name in names:
        # A help page that is still open may name a template, too.
        page.get_by_role("heading", name=name, exact=True).wait_for(timeout=20_000)
    height, width = templates.THUMBNAIL  # the page keeps pictures under addresses of its own
    # It fetches a picture when it is seen, and those of the last rows are not.
    seen = page.evaluate(
        "names => [...document.querySelectorAll('h3')].filter(heading => names.includes(heading.textContent)"
        " && heading.getBoundingClientRect().bottom < window.innerHeight).length",
        names,
    )
    assert seen >= 40
    page.wait_for_function(
        "([count, width, height]) => [...document.images].filter("
        "image => image.naturalWidth === width && image.naturalHeight === height).length >= count",
        arg=[seen, width, height],
        timeout=20_000,
    )
    page.set_viewport_size(host_editor.WINDOW)
    page.get_by_role("heading", name=names[0], exact=True).click()
    page.get_by_text("All Templates").first.wait_for(state="detached", timeout=20_000)
    page.wait_for_timeout(host_editor.SETTLE_MILLISECONDS)
    assert editor.export()[0] == templates.read_twin(names[0])
    assert editor.errors == []
