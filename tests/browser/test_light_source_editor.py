"""The Light Source editor in the real graph editor, driven by mouse and keyboard in both node modes."""

import io
import json
import time
import urllib.parse
import urllib.request

import numpy
import pytest
from editor_hand import near
from light_editor import HEIGHT, LAMP, POINT, RADIUS, SIDE, SUN, WIDTH, lights_text
from papernodes.host import results
from papernodes.kernels.light_source import light_maps, parse_lights
from PIL import Image

FRAMES = 9
RUN_SECONDS = 120
MANY = [
    {**SIDE, "angle": 200.5, "colour": "#4080ff", "intensity": 0.7},
    {**POINT, "falloff": 1.5, "intensity": 1.2},
    {
        **POINT,
        "x": 0.9,
        "falloff": 0.6,
        "colour": [0.1, 0.9, 0.3],
        "keys": [
            {"frame": 1, "x": 0.2},
            {"frame": 4, "y": 0.9, "colour": "#ff00ff", "way": "ease"},
            {"frame": 7, "radius": 0.5, "intensity": 0.2, "way": "hold"},
        ],
    },
    {**SIDE, "keys": [{"frame": 0, "angle": 350}, {"frame": 8, "angle": 370, "way": "ease-out"}]},
]


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read()


def run(light) -> dict:
    """Queue the graph from the page; the record of the job when it has ended."""
    job = light.editor.queue()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        record = json.loads(get(light.editor.url, f"/history/{job}")).get(job)
        if record:
            return record
        light.page.wait_for_timeout(200)
    raise AssertionError(f"the job did not end within {RUN_SECONDS} s")


def shown(light, frame: int = 0) -> numpy.ndarray:
    """int [HEIGHT, WIDTH, 3]: the light that the editor shows."""
    return numpy.array(light.shown_frame(frame)).reshape(HEIGHT, WIDTH, 4)[..., :3]


def made(light, frames: int = 1, style: str = "fc") -> numpy.ndarray:
    """[frames, HEIGHT, WIDTH, 3]: what the node makes of the editor's text, in steps of 255."""
    return light_maps(parse_lights(light.text, frames), frames, HEIGHT, WIDTH, style).numpy() * 255


@pytest.mark.parametrize("style", ["fc", "fbc"])
def test_the_preview_is_the_nodes_light(light, style):
    light.open(*MANY, frames=FRAMES, style=style)
    light.select(0)
    wanted = made(light, FRAMES, style)
    for frame in (0, 2, 4, 6, 8):
        assert numpy.abs(shown(light, frame) - wanted[frame]).max() <= 1
    assert numpy.abs(wanted[2] - wanted[6]).max() > 50, "the light moves"
    light.open(*MANY[:1], style=style)
    assert numpy.abs(shown(light) - made(light, 1, style)[0]).max() <= 1


def test_a_point_light_is_dragged(light):
    light.open(SIDE, POINT)
    light.drag(light.handle(LAMP), light.screen(0.7, 0.3))
    side, point = light.lights
    assert near([point["x"], point["y"]], [0.7, 0.3]) and point["colour"] == "#ff8000" and point["keys"] == []
    assert side == {**SIDE, "intensity": 1, "colour": "#ffffff", "keys": []}
    assert light.ask("hands.selected") == 1
    assert numpy.abs(shown(light) - made(light)[0]).max() <= 1

    light.page.keyboard.down("Shift")
    light.drag(light.handle(LAMP), light.screen(0.5, 0.33))
    light.page.keyboard.up("Shift")
    point = light.lights[1]
    assert near(point["x"], 0.5) and point["y"] == light.lights[1]["y"] and near(point["y"], 0.3)


def test_the_radius_is_dragged(light):
    light.open(POINT)
    light.drag(light.handle(RADIUS), light.screen(0.4 + 0.4 * HEIGHT / WIDTH, 0.5))
    (point,) = light.lights
    assert near(point["radius"], 0.4) and (point["x"], point["y"]) == (0.4, 0.5)


def test_a_side_light_is_dragged_round(light):
    light.open(SIDE)
    middle = light.screen(0.5, 0.5)
    light.drag(light.handle(SUN), light.screen(0.5, 0.05))
    assert abs(light.lights[0]["angle"] - 270) < 1
    light.drag(light.handle(SUN), (middle[0] + 90, middle[1] - 40), (middle[0] + 90, middle[1] + 90))
    assert abs(light.lights[0]["angle"] - 45) < 1, "past the right it begins at 0 again"
    light.page.keyboard.down("Shift")
    light.drag(light.handle(SUN), (middle[0] + 90, middle[1] + 70))
    light.page.keyboard.up("Shift")
    assert light.lights[0]["angle"] == 45
    assert numpy.abs(shown(light) - made(light)[0]).max() <= 1


def test_a_press_alone_writes_nothing(light):
    light.open(SIDE, POINT)
    before = light.text
    light.page.mouse.click(*light.handle(LAMP))
    assert light.ask("hands.selected") == 1
    light.page.mouse.click(*light.handle(SUN))
    assert light.ask("hands.selected") == 0 and light.text == before
    light.click(0.8, 0.9)
    assert light.ask("hands.selected") is None and light.text == before


def test_lights_are_added_and_deleted(light):
    light.open("")
    assert "all is dark" in light.words and (shown(light) == 0).all()
    light.button("add-side").click()
    light.button("add-side").click()
    light.button("add-point").click()
    assert [entry["kind"] for entry in light.lights] == ["side", "side", "point"]
    assert [entry["angle"] for entry in light.lights[:2]] == [180, 0], "from a side that has none"
    parse_lights(light.text, 1)
    x, y = light.screen(0.2, 0.8)
    light.page.mouse.dblclick(x, y)
    assert near([light.lights[3]["x"], light.lights[3]["y"]], [0.2, 0.8])
    light.select(1)
    light.button("remove").click()
    light.press("Delete", "Delete", "Delete", "Delete")
    assert light.lights == []
    assert light.page.evaluate("() => window.app.graph.nodes.length") == 2, "Delete takes lights, not the node"


def test_undo_and_redo(light):
    light.open(SIDE)
    before = light.text
    light.button("add-point").click()
    added = light.text
    light.drag(light.handle(LAMP), light.screen(0.8, 0.8))
    dragged = light.text
    light.press("Control+z")
    assert light.text == added
    light.button("undo").click()
    assert light.text == before and light.button("undo").is_disabled()
    light.press("Control+y")
    light.button("redo").click()
    assert light.text == dragged
    light.drag(light.handle(LAMP), light.screen(0.1, 0.1), keep=True)
    assert near(light.ask("editor.state.lights[1].x"), 0.1)
    light.page.keyboard.press("Escape")
    light.page.mouse.up()
    assert light.text == dragged and near(light.ask("editor.state.lights[1].x"), 0.8)


def test_colour_and_numbers(light):
    light.open(SIDE, POINT)
    light.select(1)
    light.button("colour").fill("#20c040")
    light.write("point-radius", 40)
    light.write("point-falloff", 2.5)
    light.write("point-intensity", 1.5)
    light.write("point-x", 12.5)
    point = light.lights[1]
    assert point == {
        **POINT,
        "x": 0.125,
        "radius": 0.4,
        "falloff": 2.5,
        "intensity": 1.5,
        "colour": "#20c040",
        "keys": [],
    }
    light.write("point-falloff", 0)
    assert light.lights[1]["falloff"] == 0.1, "never what the node would refuse"
    light.select(0)
    assert not light.button("point-x").is_visible()
    light.write("side-angle", 300)
    assert light.lights[0]["angle"] == 300
    parse_lights(light.text, 1)
    assert numpy.abs(shown(light) - made(light)[0]).max() <= 1


def test_everything_by_keyboard(light):
    light.open("")
    light.press("p", "ArrowRight", "Shift+ArrowUp", "w", "[", "[")
    (point,) = light.lights
    assert near([(point["x"] - 0.5) * WIDTH, (point["y"] - 0.5) * HEIGHT], [1, -10], 1e-2)
    assert (point["radius"], point["intensity"]) == (0.2625, 0.8)
    light.press("l", "ArrowRight", "ArrowDown", "Shift+ArrowLeft", "]")
    side = light.lights[1]
    assert (side["angle"], side["intensity"]) == (189, 1.1)
    light.press("PageUp")
    assert light.ask("hands.selected") == 0
    light.press("Control+d")
    assert near(light.lights[2]["x"], point["x"] + 0.06, 1e-4)
    light.press("Control+c", "Control+v", "Control+x")
    assert [entry["kind"] for entry in light.lights] == ["point", "side", "point"]
    light.press("Delete", "Delete", "Delete")
    assert light.lights == []
    assert light.page.evaluate("() => window.app.graph.nodes.length") == 2


def test_key_frames(light):
    light.open(POINT, frames=FRAMES)
    light.drag(light.handle(LAMP), light.screen(0.2, 0.2))
    assert light.lights[0]["keys"] == [], "a light without keys is moved for the whole clip"
    light.button("key").click()
    light.seek(8)
    light.drag(light.handle(LAMP), light.screen(0.8, 0.4))
    light.button("colour").fill("#0000ff")
    light.button("way").select_option("ease-in")
    first, last = light.lights[0]["keys"]
    assert (first["frame"], last["frame"], last["way"]) == (0, 8, "ease-in")
    assert near([first["x"], last["x"], last["y"]], [0.2, 0.8, 0.4])
    assert (first["colour"], last["colour"]) == ("#ff8000", "#0000ff")
    wanted = made(light, FRAMES)
    for frame in (0, 5, 8):
        assert numpy.abs(shown(light, frame) - wanted[frame]).max() <= 1
    light.seek(5)
    light.button("key").click()
    assert [key["frame"] for key in light.lights[0]["keys"]] == [0, 5, 8]
    assert numpy.abs(shown(light, 5) - wanted[5]).max() <= 1, "a key where there was none changes nothing there"
    light.press("k", ">", "k")
    light.seek(0)
    light.button("key").click()
    (entry,) = light.lights
    assert entry["keys"] == [] and near(entry["x"], 0.2), "it stays as its last key had it"


def test_a_side_light_with_keys_goes_on_past_the_right(light):
    light.open({**SIDE, "angle": 350, "keys": [{"frame": 0}]}, frames=FRAMES)
    light.seek(8)
    light.drag(light.handle(SUN), light.screen(0.97, 0.75))
    first, last = light.lights[0]["keys"]
    assert first["angle"] == 350 and 360 < last["angle"] < 400, "by the short way, not back through the left"


def test_the_clip_plays(light):
    light.open(*MANY, frames=FRAMES)
    light.button("play").click()
    seen = set()
    for _ in range(20):
        seen.add(light.ask("hands.frame"))
        light.page.wait_for_timeout(60)
    light.button("play").click()
    assert len(seen) >= 4 and not light.ask("hands.player.playing")


def test_one_picture_has_no_timeline(light):
    light.open(SIDE)
    assert not light.button("key").is_visible()
    light.press("k", " ")
    assert light.text == lights_text(SIDE) and not light.ask("hands.player.playing")
    light.set_widget("frames", 5)
    assert light.button("key").is_visible()
    light.open({**SIDE, "keys": [{"frame": 3, "angle": 0}]})
    assert "beyond the last frame 0" in light.words and light.button("key").is_visible()


def test_what_it_does_not_know_is_kept(light):
    known = {**POINT, "name": "lamp", "keys": [{"frame": 0, "note": [1]}]}
    light.open(lights_text(known, author="somebody"))
    light.write("point-y", 90)
    saved = json.loads(light.text)
    (point,) = saved["lights"]
    assert (saved["author"], saved["version"], point["name"], point["keys"][0]["note"]) == ("somebody", 1, "lamp", [1])
    assert point["keys"][0]["y"] == 0.9
    parse_lights(light.text, 1)


@pytest.mark.parametrize("text", ['{"version": 2, "lights": [], "new": [1]}', '{"version":7,"suns":[{}]}'])
def test_what_a_newer_version_wrote_is_left_as_it_is(light, text):
    light.open(text)
    assert "newer version" in light.words and light.button("add-side").is_disabled()
    light.press("p", "l", "Delete", "Control+v", "Control+z", "ArrowLeft", "Control+d")
    light.page.mouse.dblclick(*light.screen(0.5, 0.5))
    light.drag(light.screen(0.05, 0.5), light.screen(0.5, 0.05))
    assert light.text == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "first change replaces it"),
        ("[1]", "first change replaces it"),
        (lights_text({"kind": "moon"}, SIDE), "1 light could not be read"),
    ],
)
def test_a_text_that_cannot_be_read_can_be_replaced_and_brought_back(light, text, words):
    light.open(text)
    assert words in light.words and light.text == text
    light.button("add-point").click()
    parse_lights(light.text, 1)
    light.press("Control+z")
    assert light.text == text


def test_save_load_and_run(light):
    light.open(*MANY[:2], frames=3, style="fbc", background="motion_editor.png")
    light.drag(light.handle(LAMP), light.screen(0.75, 0.6))
    text = light.text
    prompt, saved = light.editor.export()
    values = {"lights": text, "width": WIDTH, "height": HEIGHT, "frames": 3, "style": "fbc", "background": ["1", 0]}
    assert prompt["2"]["inputs"] == values
    (node,) = [node for node in saved["nodes"] if node["id"] == 2]
    assert node["widgets_values"] == [text, WIDTH, HEIGHT, 3, "fbc"]

    light.editor.load(json.loads(json.dumps(saved)))
    assert light.text == text and light.ask("editor.state.lights.length") == 2
    assert light.editor.export()[0] == prompt

    record = run(light)
    assert record["status"]["status_str"] == "success", record["status"]["messages"]
    frames = []
    for node_id, _, entry in results.entries(record["outputs"]):
        if node_id == "3":
            query = urllib.parse.urlencode({key: entry.get(key, "") for key in ("filename", "subfolder", "type")})
            with Image.open(io.BytesIO(get(light.editor.url, f"/view?{query}"))) as image:
                frames.append(numpy.array(image.convert("RGB"), int))
    assert len(frames) == 3
    assert numpy.abs(shown(light) - frames[0]).max() <= 1, "the preview is the node's light"


def test_the_picture_behind(light):
    """It is seen in the light, cut to the map's sides, and what is made does not depend on it."""
    light.open(SIDE, background="motion_editor.png")
    read = (
        "Array.from(editor.canvas.getContext('2d').getImageData(0, 0, editor.canvas.width, editor.canvas.height).data)"
    )
    lit = numpy.array(light.ask(read))
    light.button("backdrop").click()
    light.settle()
    plain = numpy.array(light.ask(read))
    assert 0.05 < numpy.mean(numpy.abs(lit - plain) > 8) < 0.9
    assert light.text == lights_text(SIDE) and numpy.abs(shown(light) - made(light)[0]).max() <= 1
    light.set_widget("width", 32)
    assert light.ask("[editor.view.picture.width, editor.view.picture.height]") == [32, HEIGHT]


def test_a_large_map_is_shown_smaller(light):
    light.open(*MANY[:2])
    light.set_widget("width", 2048)
    light.set_widget("height", 1024)
    size = light.ask("[hands.preview.canvas.width, hands.preview.canvas.height]")
    assert size == [384, 192]
    light.drag(light.handle(LAMP), light.screen(0.2, 0.2))
    assert near([light.lights[1]["x"], light.lights[1]["y"]], [0.2, 0.2])


def test_screen_readers_and_tab(light):
    light.open(*MANY, frames=FRAMES)
    light.select(2)
    unnamed = light.ask(
        "[...editor.root.querySelectorAll('button, input, select, canvas, [role]')].filter(each =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim()"
        " || each.classList.contains('group') || each.getAttribute('role') === 'status')).map(each => each.outerHTML)"
    )
    assert unnamed == []
    seen = "each => !each.disabled && each.checkVisibility({visibilityProperty: true})"
    wanted = light.ask(
        f"[...editor.root.querySelectorAll('button, input, select, canvas, [role=slider]')].filter({seen}).length"
    )
    light.ask("editor.root.querySelector('button').focus()")
    reached = 1
    for _ in range(wanted + 2):
        light.page.keyboard.press("Tab")
        if not light.ask("Boolean(editor.shadow.activeElement)"):
            break
        reached += 1
    assert reached == wanted


@pytest.mark.parametrize(("width", "height", "least"), [(320, 568, 120), (3840, 2160, 1400)])
def test_large_view_from_phone_to_4k(light, width, height, least):
    window = light.page.viewport_size
    light.open(*MANY, frames=FRAMES)
    try:
        light.page.set_viewport_size({"width": width, "height": height})
        light.ask("editor.enlarge()")
        light.page.wait_for_timeout(300)
        light.select(1)
        cut = light.ask(
            """[...editor.root.querySelectorAll("button, input, select, canvas")].filter(each => {
                const box = each.getBoundingClientRect();
                return each.checkVisibility({visibilityProperty: true})
                    && (box.left < -1 || box.right > innerWidth + 1);
            }).map(each => each.getAttribute("aria-label"))"""
        )
        assert cut == []
        box = light.ask("(box => [box.width, box.height])(editor.canvas.getBoundingClientRect())")
        assert min(box) >= least
        light.drag(light.handle(LAMP, 1), light.screen(0.6, 0.7))  # the selected one is on top
        assert near([light.lights[1]["x"], light.lights[1]["y"]], [0.6, 0.7], 0.02)
        light.press("f")
        assert not light.ask("editor.dialog.open")
    finally:
        light.page.set_viewport_size(window)
