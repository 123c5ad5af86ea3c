"""The Cut and Drag editor in the real graph editor, driven by mouse and keyboard in both node modes."""

import io
import json
import math
import time
import urllib.parse
import urllib.request

import numpy
import pytest
import torch
from motion_editor import EDITOR, FRAMES, PARTS, PICTURE, PIVOT, ROTATED, MotionEditor, graph
from papernodes.host import results
from papernodes.kernels.cut_and_drag import CutAndDrag
from papernodes.kernels.drag_motion import parse_motion
from PIL import Image

WIDTH, HEIGHT = 96, 64
SQUARE = [(0.3, 0.3), (0.6, 0.3), (0.6, 0.65), (0.3, 0.65)]
RUN_SECONDS = 120


def picture() -> numpy.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: stripes in every direction, so that nothing looks like its mirror image."""
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    bands = [numpy.sin(x / 5), numpy.sin(y / 4 + x / 20), numpy.cos((x + 2 * y) / 9)]
    return ((numpy.stack(bands, axis=-1) + 1) * 127).astype(numpy.uint8)


@pytest.fixture(scope="module", autouse=True)
def input_picture(base_directory):
    folder = base_directory / "input"
    folder.mkdir(exist_ok=True)
    # Transparent in part: Load Image hands on the colours, and so must the page.
    alpha = numpy.full((HEIGHT, WIDTH, 1), 255, numpy.uint8)
    alpha[:20, :30] = 0
    Image.fromarray(numpy.concatenate([picture(), alpha], axis=2)).save(folder / PICTURE)


@pytest.fixture
def motion(editor):
    """The editor of a fresh graph; the page must have had no error in the end."""
    editor.errors.clear()
    yield MotionEditor(editor)
    assert editor.errors == []


def near(found, wanted, tolerance=0.012):
    return numpy.abs(numpy.asarray(found, float) - numpy.asarray(wanted, float)).max() < tolerance


def test_a_polygon_by_clicks(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    (part,) = motion.objects
    assert near(part["polygon"], SQUARE)
    assert part["keys"] == [] and part["name"] == "Part 1"
    assert motion.ask("[hands.tool, hands.selected]") == ["select", part["id"]]
    parse_motion(motion.text, FRAMES)


def test_a_lasso_in_one_stroke(motion):
    motion.open()
    motion.button("lasso").click()
    ring = [(0.5 + 0.25 * math.cos(t / 40 * math.tau), 0.5 + 0.3 * math.sin(t / 40 * math.tau)) for t in range(40)]
    motion.drag(*[motion.screen(*point) for point in ring])
    (part,) = motion.objects
    points = numpy.array(part["polygon"])
    radius = numpy.hypot((points[:, 0] - 0.5) / 0.25, (points[:, 1] - 0.5) / 0.3)
    assert numpy.abs(radius - 1).max() < 0.05
    assert 8 <= len(points) < 160, "the stroke is thinned out, and keeps its shape"


def test_too_little_of_an_outline_is_refused_in_words(motion):
    motion.open()
    motion.button("lasso").click()
    motion.drag(motion.screen(0.5, 0.5), motion.screen(0.505, 0.5))
    assert motion.text == "" and ("small" in motion.words or "three points" in motion.words)


def test_the_first_drag_of_a_part_goes_to_the_last_frame(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.3))
    (part,) = motion.objects
    first, last = part["keys"]
    assert first == {"frame": 0, "x": 0, "y": 0, "angle": 0, "scale": 1, "way": "linear"}
    assert last["frame"] == FRAMES - 1 and near([last["x"], last["y"]], [0.2, -0.1])
    assert (last["angle"], last["scale"]) == (0, 1)


def test_handles_turn_and_scale(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.seek(6)
    centre, turner = numpy.array(motion.handle(PIVOT)), numpy.array(motion.handle(ROTATED))
    away = turner - centre
    right, below = centre + numpy.array([-away[1], away[0]]), centre - away
    motion.drag(tuple(turner), tuple(right), tuple(below))
    key = motion.objects[0]["keys"][-1]
    assert (
        key["frame"] == 6 and abs(key["angle"] - 180) < 2 and key["scale"] == 1 and near([key["x"], key["y"]], [0, 0])
    )

    corner = numpy.array(motion.handle("square"))
    motion.drag(tuple(corner), tuple(centre + (corner - centre) * 1.5))
    key = motion.objects[0]["keys"][-1]
    assert abs(key["scale"] - 1.5) < 0.03 and abs(key["angle"] - 180) < 2


def test_shift_turns_by_steps(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    centre, turner = numpy.array(motion.handle(PIVOT)), numpy.array(motion.handle(ROTATED))
    away = turner - centre
    motion.page.keyboard.down("Shift")
    motion.drag(tuple(turner), tuple(centre + away @ [[0.74, 0.67], [-0.67, 0.74]]))
    motion.page.keyboard.up("Shift")
    assert motion.objects[0]["keys"][-1]["angle"] == 45


def test_another_pivot_leaves_the_part_where_it_is(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    before = motion.ask("hands.handles().filter(each => each.shape === 'square').map(each => each.at)")
    motion.drag(motion.handle(PIVOT), motion.screen(0.4, 0.3))
    after = motion.ask("hands.handles().filter(each => each.shape === 'square').map(each => each.at)")
    assert near(before, after, 0.1)
    spoon = motion.objects[0]
    assert near(
        motion.ask("editor.view.toPicture(hands.handles().find(each => each.shape === 'pivot').at)"), [0.4, 0.3]
    )
    assert spoon["pivot"] != [0.4, 0.3], "it is written where it lies in the first picture"


def test_points_are_moved_added_and_removed(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.button("points").click()
    motion.drag(motion.screen(*SQUARE[2]), motion.screen(0.7, 0.8))
    assert near(motion.objects[0]["polygon"][2], [0.7, 0.8])
    motion.drag(motion.screen(0.45, 0.3), motion.screen(0.45, 0.15))
    points = motion.objects[0]["polygon"]
    assert len(points) == 5 and near(points[1], [0.45, 0.15])
    motion.press("Delete")
    points = motion.objects[0]["polygon"]
    assert len(points) == 4 and near(points[1], SQUARE[1])
    assert len(motion.objects) == 1, "Delete takes the point, not the part"
    before = motion.text
    motion.click(*SQUARE[0])
    motion.drag(motion.screen(0.45, 0.3), motion.screen(0.45, 0.3))
    assert len(motion.objects[0]["polygon"]) == 5, "a press on the outline alone adds a point"
    motion.press("Control+z")
    assert motion.text == before, "a press on a point alone changes nothing"


def test_keys_on_the_timeline(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.4))
    motion.seek(6)
    motion.button("key").click()
    keys = motion.objects[0]["keys"]
    assert [key["frame"] for key in keys] == [0, 6, 12] and near(keys[1]["x"], keys[2]["x"] / 2)

    motion.button("way").select_option("ease-in")
    assert motion.objects[0]["keys"][1]["way"] == "ease-in"

    box = motion.button("key-1").bounding_box()
    lane = motion.page.locator(".papernodes-editor .lane").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    motion.drag(middle, (lane["x"] + lane["width"] * 9 / 12, middle[1]))
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 9, 12]
    motion.drag(
        (lane["x"] + lane["width"] * 9 / 12, middle[1]), (lane["x"] + lane["width"] * 2, middle[1])
    )  # not past its neighbour
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 11, 12]

    motion.button("key-1").focus()
    motion.page.keyboard.press("ArrowLeft")
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 10, 12]
    motion.page.keyboard.press("Delete")
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 12]
    assert len(motion.editor.missing_nodes()) == 0 and motion.objects, "the node is still there"


def test_the_strip_and_the_slider_seek(motion):
    motion.open(PARTS)
    lane = motion.page.locator(".papernodes-editor .lane").bounding_box()
    motion.page.mouse.click(lane["x"] + lane["width"] * 4 / 12, lane["y"] + 3)
    assert motion.ask("hands.frame") == 4
    motion.button("time").focus()
    motion.page.keyboard.press("ArrowRight")
    assert motion.ask("hands.frame") == 5
    assert motion.button("time").get_attribute("aria-valuenow") == "5"


def test_play_shows_what_python_makes(motion):
    motion.open(PARTS)
    motion.button("play").click()
    seen = set()
    for _ in range(30):
        seen.add(motion.ask("hands.frame"))
        motion.page.wait_for_timeout(60)
    assert len(seen) >= 5, f"the clip stands still: {seen}"
    assert motion.ask("hands.player.playing")
    motion.button("play").click()
    assert not motion.ask("hands.player.playing")

    clip = CutAndDrag(torch.from_numpy(picture()).float() / 255, parse_motion(json.dumps(PARTS), FRAMES), FRAMES)
    differing = []
    for frame in (0, 4, 6, 11):
        shown = numpy.array(motion.shown_frame(frame)).reshape(HEIGHT, WIDTH, 4)[..., :3]
        wanted = clip.frame(frame).composite.numpy() * 255
        assert numpy.abs(shown - wanted).max() <= 1
        differing.append(numpy.abs(shown - picture()).max())
    assert min(differing[1:]) > 50, "the frames are not the picture itself"


def test_undo_and_redo(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    drawn = motion.text
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.4))
    dragged = motion.text
    assert dragged != drawn
    motion.press("Control+z")
    assert motion.text == drawn
    motion.button("undo").click()
    assert motion.text == ""
    assert motion.button("undo").is_disabled()
    motion.press("Control+y")
    assert motion.text == drawn
    motion.button("redo").click()
    assert motion.text == dragged
    motion.press("Control+z", "Control+Shift+z")
    assert motion.text == dragged
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3, "the graph's own undo stayed out of it"


def test_escape_leaves_a_drag_without_a_trace(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    before = motion.text
    motion.drag(motion.handle("square"), motion.screen(0.9, 0.9), keep=True)
    assert motion.ask("editor.state.objects[0].keys[1].scale") != 1.2
    motion.page.keyboard.press("Escape")
    motion.page.mouse.up()
    assert motion.ask("editor.state.objects[0].keys[1].scale") == 1.2
    assert motion.text == before


def test_everything_by_keyboard(motion):
    """From drawing to renaming without a pointer."""
    motion.open()
    motion.press("p")
    right, down = ["Shift+ArrowRight"] * 4, ["Shift+ArrowDown"] * 4
    motion.press(" ", *right, " ", *down, " ", "Enter")
    (part,) = motion.objects
    assert near(part["polygon"], [[0.5, 0.5], [0.7, 0.5], [0.7, 0.7]], 1e-4)

    motion.press("ArrowRight", "Shift+ArrowUp", "e", "w")
    key = motion.objects[0]["keys"][-1]
    assert key["frame"] == FRAMES - 1 and near([key["x"] * WIDTH, key["y"] * HEIGHT], [1, -10], 1e-4)
    assert (key["angle"], key["scale"]) == (5, 1.05)

    motion.press("Home", ".", ".", "k")
    assert motion.ask("hands.frame") == 2 and [key["frame"] for key in motion.objects[0]["keys"]] == [0, 2, 12]
    motion.press("Control+d", "[")
    assert [part["name"] for part in motion.objects] == ["Part 2", "Part 1"]
    motion.press("F2")
    motion.page.keyboard.type("Handle")
    motion.page.keyboard.press("Enter")
    assert [part["name"] for part in motion.objects] == ["Handle", "Part 1"]
    motion.press("PageUp", "Delete")
    assert [part["name"] for part in motion.objects] == ["Handle"]
    motion.press(" ")
    assert motion.ask("hands.player.playing")
    motion.press(" ")
    assert not motion.ask("hands.player.playing")
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3


def test_copy_cut_and_paste(motion):
    motion.open(PARTS)
    motion.select("spoon")
    motion.press("Control+c", "Control+v")
    first, _, copy = motion.objects
    assert copy["id"] not in ("spoon", "cup") and copy["name"] == "Spoon 2" and copy["polygon"] == first["polygon"]
    assert near([key["x"] for key in copy["keys"]], [key["x"] + 0.03 for key in first["keys"]], 1e-6)
    motion.press("Control+x")
    assert [part["name"] for part in motion.objects] == ["Spoon", "Cup"]
    motion.open({"version": 1, "objects": []})
    motion.press("Control+v")
    assert [part["name"] for part in motion.objects] == ["Spoon 2"], "into another graph"
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3, "the graph pasted no node"
    parse_motion(motion.text, FRAMES)


def test_order_and_numbers(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    motion.button("raise").click()
    assert [part["id"] for part in motion.objects] == ["cup", "spoon"]
    assert motion.button("raise").is_disabled() and motion.button("lower").is_enabled()
    motion.button("angle").fill("-90")
    motion.button("angle").press("Enter")
    motion.button("x").fill("12.5")
    motion.button("x").press("Tab")
    key = motion.objects[1]["keys"][1]
    assert (key["angle"], key["x"]) == (-90, 0.125)
    motion.page.locator(".papernodes-editor [data-object='cup']").dblclick()
    motion.page.keyboard.type("Saucer")
    motion.page.keyboard.press("Enter")
    assert motion.objects[0]["name"] == "Saucer"


def test_onion_skin_is_drawn(motion):
    motion.open(PARTS)
    motion.select("spoon")
    read = (
        "Array.from(editor.canvas.getContext('2d').getImageData(0, 0, editor.canvas.width, editor.canvas.height).data)"
    )
    before = numpy.array(motion.ask(read))
    motion.button("onion").click()
    motion.settle()
    changed = numpy.mean(numpy.abs(numpy.array(motion.ask(read)) - before) > 8)
    assert 0.005 < changed < 0.5
    motion.button("onion").click()
    motion.settle()
    assert numpy.array_equal(numpy.array(motion.ask(read)), before)


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
    motion.wait(f"{EDITOR}.panes[0].failed")
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
    motion.wait(f"{EDITOR}.picture")
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
