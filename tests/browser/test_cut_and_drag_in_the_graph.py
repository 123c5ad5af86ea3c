"""The Cut and Drag editor as a part of the graph, in both node modes: saved, loaded, run, seen at every size."""

import io
import json
import math
import time
import urllib.parse
import urllib.request

import numpy
import pytest
from editor_hand import near
from motion_editor import FRAMES, HEIGHT, PARTS, SQUARE, WIDTH, graph
from papernodes.host import results
from PIL import Image

RUN_SECONDS = 120


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read()


def run(motion) -> dict:
    """Queue the graph from the page; the record of the job when it has ended."""
    job = motion.editor.queue()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        record = json.loads(get(motion.editor.url, f"/history/{job}")).get(job)
        if record:
            return record
        motion.page.wait_for_timeout(200)
    raise AssertionError(f"the job did not end within {RUN_SECONDS} s")


def test_save_load_and_run(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.55, 0.5))
    text = motion.text
    prompt, saved = motion.editor.export()
    assert prompt["2"]["inputs"] == {"first_frame": ["1", 0], "frames": FRAMES, "motion": text, "hole": "fill"}
    (node,) = [node for node in saved["nodes"] if node["id"] == 2]
    assert node["widgets_values"] == [FRAMES, text, "fill"]

    motion.editor.load(json.loads(json.dumps(saved)))
    assert motion.text == text and motion.ask("editor.state.objects.length") == 1
    assert motion.editor.export()[0] == prompt

    record = run(motion)
    assert record["status"]["status_str"] == "success", record["status"]["messages"]
    frames = []
    for node_id, _, entry in results.entries(record["outputs"]):
        if node_id == "3":
            query = urllib.parse.urlencode({key: entry.get(key, "") for key in ("filename", "subfolder", "type")})
            with Image.open(io.BytesIO(get(motion.editor.url, f"/view?{query}"))) as image:
                frames.append(numpy.array(image.convert("RGB"), int))
    assert len(frames) == FRAMES
    for frame in (0, 5, FRAMES - 1):
        shown = numpy.array(motion.shown_frame(frame)).reshape(HEIGHT, WIDTH, 4)[..., :3]
        assert numpy.abs(shown - frames[frame]).max() <= 1, "the preview is the node's clip"
    assert numpy.abs(frames[-1] - frames[0]).max() > 50


def test_the_text_and_the_editor_keep_in_step(motion):
    """Whoever else writes the widget (a script, the graph's undo) is followed."""
    motion.open(PARTS)
    motion.page.evaluate(
        "(text) => { window.app.graph.nodes.find(node => node.id === 2).widgets.find("
        "widget => widget.name === 'motion').value = text; }",
        json.dumps({**PARTS, "objects": PARTS["objects"][1:]}),
    )
    motion.page.wait_for_timeout(700)
    assert motion.ask("editor.state.objects.map(object => object.id)") == ["cup"]
    motion.page.evaluate("() => { window.app.graph.nodes.find(node => node.id === 2).widgets[0].value = 6; }")
    motion.page.wait_for_timeout(700)
    assert motion.ask("hands.frames") == 6
    motion.open(PARTS, frames=8)
    assert "beyond the last frame 7" in motion.words and "Spoon" in motion.words


def test_it_opens_without_a_picture(motion):
    motion.open(picture=None)
    assert motion.ask("editor.panes[0].emptyWords()[0]") == "Connect a picture to first_frame"
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.4))
    (part,) = motion.objects
    assert near(part["polygon"], SQUARE) and near(part["keys"][-1]["x"], 0.2)
    motion.button("play").click()
    motion.page.wait_for_timeout(400)
    motion.button("play").click()


def test_a_picture_that_is_missing_is_said(motion):
    motion.editor.load(graph(picture="no_such_file.png"))
    motion.wait(f"{motion.found_editor}.panes[0].failed")
    assert "could not be loaded" in motion.ask("editor.panes[0].emptyWords()[0]")


def test_a_picture_that_comes_from_no_file_is_seen_after_a_run(motion):
    opened = graph(PARTS)
    (loader,) = [node for node in opened["nodes"] if node["id"] == 1]
    loader.update(type="EmptyImage", widgets_values=[48, 40, 1, int(time.time()) % 0xFFFFFF])
    loader["outputs"] = loader["outputs"][:1]
    motion.editor.load(opened)
    motion.editor.frame_graph()
    assert motion.ask("editor.panes[0].emptyWords()[0]") == "Run once to see the picture here"
    record = run(motion)
    assert record["status"]["status_str"] == "success", record["status"]["messages"]
    motion.wait(f"{motion.found_editor}.picture")
    assert motion.ask("[editor.picture.naturalWidth, editor.picture.naturalHeight]") == [48, 40]


@pytest.mark.parametrize("text", ['{"version": 2, "objects": [], "new": [1, 2]}', '{"version":7,"scenes":[{}]}'])
def test_what_a_newer_version_wrote_is_left_as_it_is(motion, text):
    motion.open(text)
    assert "newer version" in motion.words
    assert motion.button("polygon").is_disabled() and motion.button("raise").is_disabled()
    motion.press("p", " ", "Delete", "Control+v", "Control+z", "k", "e", "ArrowLeft")
    motion.click(0.5, 0.5)
    motion.drag(motion.screen(0.3, 0.3), motion.screen(0.6, 0.6))
    assert motion.text == text
    prompt, saved = motion.editor.export()
    assert prompt["2"]["inputs"]["motion"] == text
    motion.editor.load(saved)
    assert motion.text == text


def test_a_text_that_is_no_motion_can_be_replaced_and_brought_back(motion):
    motion.open("hello")
    assert "first change replaces it" in motion.words
    assert motion.text == "hello", "looking changes nothing"
    motion.draw_polygon(SQUARE)
    assert len(motion.objects) == 1
    motion.press("Control+z")
    assert motion.text == "hello"


def test_plain_keys_do_not_reach_the_graph(motion):
    motion.open()
    motion.click(0.5, 0.5)
    motion.press("Delete", "Backspace", "r", "m", "Control+a")
    assert motion.page.evaluate("() => window.app.graph.nodes.map(node => node.mode)") == [0, 0, 0]


def test_dragging_does_not_move_the_node(motion):
    motion.open(PARTS)
    where = (
        "() => Object.fromEntries(window.app.graph.nodes.map(node =>"
        " [node.id, [...node.pos, ...node.size].map(Math.round)]))"
    )
    before = motion.page.evaluate(where)
    motion.drag(motion.screen(0.02, 0.95), motion.screen(0.6, 0.5))
    motion.select("spoon", 6)
    motion.drag(motion.screen(0.55, 0.5), motion.screen(0.2, 0.2))
    assert motion.page.evaluate(where) == before


def test_the_wheel_zooms_where_the_pointer_is(motion):
    motion.open(PARTS)
    motion.click(0.95, 0.95)
    place = motion.screen(0.3, 0.4)
    motion.page.mouse.move(*place)
    scale = motion.page.evaluate("() => window.app.canvas.ds.scale")
    motion.page.mouse.wheel(0, -400)
    motion.page.wait_for_timeout(200)
    assert motion.ask("editor.view.zoom") > 1.3
    assert math.dist(motion.screen(0.3, 0.4), place) < 1
    assert motion.page.evaluate("() => window.app.canvas.ds.scale") == scale, "the graph stays"
    motion.press("0")
    assert motion.ask("editor.view.zoom") == 1


@pytest.mark.parametrize("scale", [0.75, 1.7])
def test_the_zoom_of_the_graph_does_not_matter(motion, scale):
    motion.open(frame=False)
    motion.page.evaluate(
        """(scale) => {
            const node = window.app.graph.nodes.find(node => node.id === 2), view = window.app.canvas.ds;
            view.scale = scale;
            view.offset[0] = 150 / scale - node.pos[0];
            view.offset[1] = 110 / scale - node.pos[1];
            window.app.canvas.setDirty(true, true);
        }""",
        scale,
    )
    motion.page.wait_for_timeout(500)
    motion.draw_polygon(SQUARE)
    assert near(motion.objects[0]["polygon"], SQUARE, 0.02)


VISIBLE = """(() => {
    const wide = innerWidth, high = innerHeight;
    return [...editor.root.querySelectorAll("button, input, select, canvas")].map(each => {
        const box = each.getBoundingClientRect();
        return [each.getAttribute("aria-label") ?? each.textContent, box.left >= -1 && box.right <= wide + 1,
            box.bottom <= high + 1 && box.top >= -1, box.width, box.height];
    });
})()"""


@pytest.mark.parametrize(("width", "height", "least"), [(320, 568, 150), (768, 1024, 400), (3840, 2160, 1400)])
def test_large_view_from_phone_to_4k(motion, width, height, least):
    window = motion.page.viewport_size
    motion.open(PARTS)
    try:
        motion.page.set_viewport_size({"width": width, "height": height})
        motion.ask("editor.enlarge()")
        motion.page.wait_for_timeout(300)
        controls = motion.ask(VISIBLE)
        assert [name for name, across, *_ in controls if not across] == [], "cut off at a side"
        assert [name for name, _, down, *_ in controls if not down] == [], "cut off below"
        canvas = next(control for control in controls if "drawing area" in control[0])
        assert min(canvas[3:]) >= least
        motion.select("cup")
        motion.press("Delete")
        motion.draw_polygon(SQUARE)
        assert near(motion.objects[-1]["polygon"], SQUARE, 0.02)
        motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.5))
        assert near(motion.objects[-1]["keys"][-1]["x"], 0.2, 0.02)
        motion.press("f")
        assert not motion.ask("editor.dialog.open")
    finally:
        motion.page.set_viewport_size(window)


def test_a_narrow_node_shows_everything(motion):
    motion.open(PARTS, size=(320, 560))
    cut = motion.ask(
        """(() => {
            const box = editor.element.getBoundingClientRect();
            return [...editor.root.querySelectorAll("button, input, select")].filter(each => {
                const own = each.getBoundingClientRect();
                return own.left < box.left - 1 || own.right > box.right + 1;
            }).map(each => each.getAttribute("aria-label"));
        })()"""
    )
    assert cut == []


def test_screen_readers_and_tab(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    unnamed = motion.ask(
        "[...editor.root.querySelectorAll('button, input, select, canvas, [role]')].filter(each =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim()"
        " || each.classList.contains('group') || each.getAttribute('role') === 'status')).map(each => each.outerHTML)"
    )
    assert unnamed == []
    assert motion.ask("editor.stateLine.getAttribute('aria-live')") == "polite"
    wanted = motion.ask(
        "[...editor.root.querySelectorAll('button, input, select, canvas, [role=slider]')]"
        ".filter(each => !each.disabled).length"
    )
    motion.ask("editor.root.querySelector('button').focus()")
    reached = 1
    for _ in range(wanted + 2):
        motion.page.keyboard.press("Tab")
        if not motion.ask("Boolean(editor.shadow.activeElement)"):
            break
        reached += 1
    assert reached == wanted


@pytest.mark.parametrize("large", [False, True], ids=["in_the_node", "large_view"])
def test_two_fingers_move_a_view_and_draw_nothing(motion, large):
    motion.open()
    if large:
        motion.press("f")
    graph_view = "() => [window.app.canvas.ds.scale, ...window.app.canvas.ds.offset]"
    before = motion.page.evaluate(graph_view)
    motion.button("lasso").click()
    (x, y), session = motion.screen(0.4, 0.5), motion.page.context.new_cdp_session(motion.page)

    def touch(kind, *places):
        points = [{"x": left, "y": y, "id": number} for number, left in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        motion.settle()

    touch("touchStart", x)
    touch("touchMove", x + 10)
    touch("touchStart", x + 10, x + 60)
    for step in range(1, 6):
        touch("touchMove", x + 10 - 8 * step, x + 60 + 8 * step)
    touch("touchEnd")
    assert motion.text == "" and motion.ask("hands.outline.corners") == 0
    if large:
        assert motion.ask("editor.view.zoom") == pytest.approx(130 / 50, rel=0.02)
        motion.press("f")
        assert motion.page.evaluate(graph_view) == before, "the graph behind it is where it was"
        motion.button("lasso").click()
    ring = [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.3, 0.6)]
    motion.press("0", "l")
    motion.drag(*[motion.screen(*point) for point in ring])
    assert len(motion.objects) == 1, "one pointer draws as before"


def test_a_removed_node_stops_its_editor(motion):
    motion.open(PARTS)
    motion.page.evaluate(
        "() => { const node = window.app.graph.nodes.find(node => node.id === 2);"
        " window.removed = node.widgets.find(widget => widget.editor).editor; removed.hands.player.play(0);"
        " window.app.graph.remove(node); }"
    )
    motion.page.wait_for_timeout(500)
    assert motion.page.evaluate("() => removed.hands.player.playing") is False
