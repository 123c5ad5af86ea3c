"""The Blob Layout editor in the real graph editor, driven by mouse and keyboard in both node modes."""

import json
import time
import urllib.request

import pytest
from blob_editor import BALL, HEIGHT, LEAF, SQUARE, TURNER, WIDTH, graph, layout_text
from editor_hand import near
from papernodes.kernels.blob_layout import parse_blobs

FRAMES = 25
RUN_SECONDS = 120
MOVING = {
    **LEAF,
    "path": "cubic",
    "keys": [
        {"frame": 0, "x": 0.15, "y": 0.3},
        {"frame": 12, "x": 0.5, "y": 0.8, "a": 0.1, "angle": 40, "way": "ease"},
        {"frame": 24, "x": 0.85, "y": 0.3},
    ],
}


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read()


def run(blob) -> dict:
    """Queue the graph from the page; the record of the job when it has ended."""
    job = blob.editor.queue()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        record = json.loads(get(blob.editor.url, f"/history/{job}")).get(job)
        if record:
            return record
        blob.page.wait_for_timeout(200)
    raise AssertionError(f"the job did not end within {RUN_SECONDS} s")


def held(blob, key, action):
    blob.page.keyboard.down(key)
    action()
    blob.page.keyboard.up(key)


def test_draw_and_describe(blob):
    blob.open("")
    assert "Drag on the picture" in blob.words
    blob.draw((0.2, 0.3), (0.5, 0.5))
    blob.page.keyboard.type("a dog")
    blob.page.keyboard.press("Enter")
    held(blob, "Shift", lambda: blob.draw((0.9, 0.9), (0.8, 0.5)))  # to the left and up: a circle
    blob.page.keyboard.type("moon?")
    blob.page.keyboard.press("Escape")
    blob.press("d")
    blob.draw((0.25, 0.35), (0.45, 0.45))  # inside the first one
    blob.button("caption").fill("its bone")
    blob.press("v")
    dog, moon, bone = blob.blobs
    assert (dog["id"], dog["caption"], moon["caption"], bone["caption"]) == ("1", "a dog", "", "its bone")
    assert near([dog[name] for name in "xyab"], [0.35, 0.4, 0.15 * WIDTH / HEIGHT, 0.1])
    assert moon["a"] == moon["b"] and near([moon["a"], moon["y"]], [0.2, 0.7])
    assert near([bone["x"], bone["y"], bone["b"]], [0.35, 0.4, 0.05]) and blob.selected == "3"
    blob.click(0.05, 0.95)
    assert blob.selected is None and len(blob.blobs) == 3, "a click draws nothing"
    parse_blobs(blob.text, WIDTH, HEIGHT, 1)
    blob.press("Control+z", "Control+z", "Control+z")
    assert [entry["caption"] for entry in blob.blobs] == ["a dog"]
    blob.press("Control+y")
    assert len(blob.blobs) == 2
    # A drag that is left leaves nothing behind.
    blob.drag(blob.screen(0.1, 0.8), blob.screen(0.3, 0.95), keep=True)
    assert blob.ask("hands.blobs.length") == 3
    blob.page.keyboard.press("Escape")
    blob.page.mouse.up()
    assert blob.ask("hands.blobs.length") == len(blob.blobs) == 2


def test_move_size_and_turn(blob):
    blob.open(BALL, {**LEAF, "angle": 0})
    blob.click(0.7, 0.4)
    assert blob.selected == "2" and blob.text == layout_text(BALL, {**LEAF, "angle": 0}), "a click writes nothing"
    blob.draw((0.72, 0.42), (0.62, 0.52))
    leaf = blob.blobs[1]
    assert near([leaf["x"], leaf["y"]], [0.6, 0.5])
    held(blob, "Shift", lambda: blob.draw((0.6, 0.5), (0.61, 0.7)))
    assert blob.blobs[1]["x"] == leaf["x"] and near(blob.blobs[1]["y"], 0.7)
    x, y = leaf["x"], blob.blobs[1]["y"]
    blob.drag(blob.handle(SQUARE, 0), blob.screen(x + 0.3 * HEIGHT / WIDTH + 0.1, y))
    assert near(blob.blobs[1]["a"], 0.3 + 0.1 * WIDTH / HEIGHT) and blob.blobs[1]["b"] == 0.12
    before = blob.blobs[1]
    held(blob, "Shift", lambda: blob.drag(blob.handle(SQUARE, 3), blob.screen(x, y - 0.06)))
    after = blob.blobs[1]
    assert near([after["b"], after["a"]], [0.06, before["a"] / 2], 0.02) and after["angle"] == 0
    far = 0.3
    blob.drag(blob.handle(TURNER), blob.screen(x + far * HEIGHT / WIDTH, y - far))
    assert near(blob.blobs[1]["angle"], 45, 1.5)
    held(blob, "Shift", lambda: blob.drag(blob.handle(TURNER), blob.screen(x + far * HEIGHT / WIDTH, y + 0.25 * far)))
    assert blob.blobs[1]["angle"] in (-75, -60, 90), "every ellipse once: a half turn is none"
    for name, value in (("x", 30), ("a", 12.5), ("angle", 100), ("weight", 0.5)):
        blob.write(name, value)
    leaf = blob.blobs[1]
    assert (leaf["x"], leaf["a"], leaf["angle"], leaf["weight"]) == (0.3, 0.125, -80, 0.5)
    blob.press("ArrowRight", "Shift+ArrowDown", "e", "w")
    moved = blob.blobs[1]
    assert near([moved["x"], moved["y"]], [0.3 + 1 / WIDTH, leaf["y"] + 10 / HEIGHT], 2e-5)
    assert moved["angle"] == -75 and near([moved["a"], moved["b"]], [0.13125, leaf["b"] * 1.05], 2e-5)
    assert blob.blobs[0] == {
        **BALL,
        "angle": 0,
        "weight": 1,
        "path": "linear",
        "there": True,
        "keys": [],
        "captions": [],
    }


def test_order_and_what_lies_beneath(blob):
    under = {**BALL, "id": "3", "caption": "under"}
    blob.open(under, BALL, {**LEAF, "x": 0.3, "y": 0.55})
    picked = []
    for _ in range(4):
        blob.click(0.25, 0.6)
        picked.append(blob.selected)
    assert picked == ["2", "1", "3", "2"], "clicked again, the one beneath"
    blob.press("PageDown")
    assert [entry["id"] for entry in blob.blobs] == ["3", "2", "1"]
    blob.press("Shift+PageDown")
    assert [entry["id"] for entry in blob.blobs] == ["2", "3", "1"]
    blob.button("raise").click()
    blob.select("3")
    blob.button("top").click()
    assert [entry["id"] for entry in blob.blobs] == ["2", "1", "3"]
    assert blob.ask("[...editor.root.querySelectorAll('[data-blob]')].map(each => each.dataset.blob)") == [
        "3",
        "1",
        "2",
    ]
    blob.press("[")
    assert blob.selected == "1"
    blob.press("h")
    assert [entry["there"] for entry in blob.blobs] == [True, False, True]
    blob.select("2")
    blob.click(0.25, 0.7)
    assert blob.selected == "3", "hidden ones are not clicked"
    blob.press("Delete", "Delete", "Delete", "Delete")
    assert blob.blobs == [] and blob.page.evaluate("() => window.app.graph.nodes.length") == 2


def test_copies_also_go_to_another_node(blob):
    blob.open({**MOVING, "note": [1]}, frames=FRAMES)
    blob.select("2")
    blob.press("Control+d")
    twin = blob.blobs[1]
    assert twin["id"] == "1" and twin["note"] == [1] and near(twin["keys"][1]["x"], 0.54)
    blob.press("Control+c", "Control+x", "Control+v", "Control+v")
    assert [entry["id"] for entry in blob.blobs] == ["2", "1", "3"]
    blob.open(BALL)
    blob.ask("editor.canvas.focus()")
    blob.button("paste").click()
    assert [entry["id"] for entry in blob.blobs] == ["1", "2"] and blob.blobs[1]["caption"] == LEAF["caption"]
    blob.open(*({"caption": str(number)} for number in range(100)))
    blob.press("Control+v", "n")
    assert len(blob.blobs) == 100 and "100 blobs already" in blob.words and blob.button("ellipse").is_disabled()


def test_key_frames_and_captions(blob):
    blob.open(BALL, frames=FRAMES)
    blob.select("1")
    blob.draw((0.25, 0.6), (0.2, 0.3))
    assert blob.blobs[0]["keys"] == [], "a blob without keys is moved for the whole clip"
    blob.button("key").click()
    blob.seek(24)
    blob.draw((0.2, 0.3), (0.8, 0.3))
    blob.seek(12)
    blob.write("y", 70)
    blob.button("way").select_option("ease-out")
    blob.button("path").select_option("cubic")
    (ball,) = blob.blobs
    assert [key["frame"] for key in ball["keys"]] == [0, 12, 24] and ball["path"] == "cubic"
    assert ball["keys"][1]["way"] == "ease-out" and near([ball["keys"][1]["x"], ball["keys"][1]["y"]], [0.5, 0.7])
    wanted = parse_blobs(blob.text, WIDTH, HEIGHT, FRAMES).geometry()
    for frame in (5, 18):
        blob.seek(frame)
        found = blob.ask("(({x, y, a, b}) => [x, y, a, b])(hands.at(hands.current))")
        assert near(found, wanted[frame, 0, :4], 1e-6)
    # Onion skin: the keys nearby are drawn.
    read = "editor.canvas.toDataURL()"
    plain = blob.ask(read)
    blob.press("o")
    blob.settle()
    assert blob.ask(read) != plain
    # Away from a key on, and back at the next one.
    blob.seek(12)
    blob.button("there").click()
    assert parse_blobs(blob.text, WIDTH, HEIGHT, FRAMES).presence()[:, 0].tolist() == [True] * 12 + [False] * 12 + [
        True
    ]
    # Captions of their own.
    blob.seek(16)
    blob.press("t")
    blob.write("caption", "a blue ball")
    assert blob.blobs[0]["captions"] == [{"frame": 0, "text": "a red ball"}, {"frame": 16, "text": "a blue ball"}]
    blob.page.locator(".papernodes-editor [data-caption='0']").click()
    assert blob.ask("hands.frame") == 0 and blob.button("caption").input_value() == "a red ball"
    blob.seek(16)
    blob.button("words").click()
    assert blob.blobs[0]["captions"] == [] and blob.blobs[0]["caption"] == "a red ball"
    blob.button("play").click()
    blob.page.wait_for_timeout(400)
    blob.button("play").click()
    assert blob.ask("hands.frame") != 16 and not blob.ask("hands.player.playing")
    blob.set_widget("frames", 20)
    assert "beyond the last frame 19" in blob.words
    blob.seek(12)
    blob.press("k", ">", "k", "<", "k")
    blob.set_widget("frames", 1)
    assert not blob.button("key").is_visible() or blob.blobs[0]["keys"], "one picture has no timeline"


def test_what_it_does_not_know_is_kept(blob):
    known = {
        **BALL,
        "name": "ball",
        "keys": [{"frame": 0, "note": [1]}],
        "captions": [{"frame": 0, "text": "b", "z": 1}],
    }
    blob.open(layout_text(known, author="somebody"))
    blob.select("1")
    blob.write("y", 90)
    blob.write("caption", "c")
    saved = json.loads(blob.text)
    (ball,) = saved["blobs"]
    assert (saved["author"], saved["version"], ball["name"], ball["keys"][0]["note"]) == ("somebody", 1, "ball", [1])
    assert ball["keys"][0]["y"] == 0.9 and ball["captions"] == [{"frame": 0, "text": "c", "z": 1}]
    parse_blobs(blob.text, WIDTH, HEIGHT, 1)
    # What a newer version wrote is left as it is.
    text = '{"version": 2, "blobs": [], "new": [1]}'
    blob.set_widget("layout", text)
    assert "newer version" in blob.words and blob.button("ellipse").is_disabled()
    blob.press("d", "n", "Delete", "Control+v", "Control+z", "ArrowLeft", "t", "h")
    blob.draw((0.1, 0.5), (0.5, 0.1))
    assert blob.text == text
    # What cannot be read can be replaced and brought back.
    for text, words in (("hello", "first change replaces it"), (layout_text(3, BALL), "1 blob could not be read")):
        blob.set_widget("layout", text)
        assert words in blob.words and blob.text == text
        blob.press("n")
        parse_blobs(blob.text, WIDTH, HEIGHT, 1)
        blob.press("Control+z")
        assert blob.text == text


def test_save_load_run_and_what_lies_beneath(blob):
    """A second Blob Layout gives the blobs beneath; after a run they are seen."""
    made = graph(layout_text(BALL, MOVING), frames=FRAMES, picture="coffee.jpg")
    node = next(each for each in made["nodes"] if each["id"] == 2)
    other = {**json.loads(json.dumps(node)), "id": 4, "pos": [60, 640], "flags": {"collapsed": True}, "order": 0}
    other["widgets_values"][0] = layout_text({**BALL, "x": 0.8, "caption": "planned"})
    other["inputs"][0]["link"] = None
    other["outputs"][1]["links"], other["outputs"][0]["links"] = None, [4]
    node["inputs"][1]["link"] = 4
    made["nodes"].append(other)
    made["links"].append([4, 4, 0, 2, 1, "PN_BLOBS"])
    blob.show(made | {"last_node_id": 4, "last_link_id": 4})
    assert blob.ask("hands.beneath.length") == 0
    blob.draw((0.25, 0.6), (0.35 if blob.editor.nodes_2 else 0.3, 0.6))  # else all of the second run is cached
    text = blob.text
    prompt, saved = blob.editor.export()
    values = {
        "layout": text,
        "width": WIDTH,
        "height": HEIGHT,
        "frames": FRAMES,
        "picture": ["1", 0],
        "blobs": ["4", 0],
    }
    assert prompt["2"]["inputs"] == values
    blob.editor.load(json.loads(json.dumps(saved)))
    assert blob.text == text and blob.editor.export()[0] == prompt
    record = run(blob)
    assert record["status"]["status_str"] == "success", record["status"]["messages"]
    assert len(record["outputs"]["3"]["images"]) == FRAMES
    blob.wait(f"{blob.found_editor}.hands.beneath.length === 1")
    assert blob.ask("hands.beneath[0].caption") == "planned" and len(blob.blobs) == 2
    blob.page.evaluate(f"() => {blob.found_node}.disconnectInput(1)")
    assert blob.ask("hands.beneath.length") == 0


@pytest.mark.parametrize(("width", "height", "least"), [(320, 568, 120), (3840, 2160, 1400)])
def test_large_view_from_phone_to_4k_and_screen_readers(blob, width, height, least):
    window = blob.page.viewport_size
    blob.open({**BALL, "captions": [{"frame": 0, "text": "one"}]}, MOVING, frames=FRAMES)
    try:
        blob.page.set_viewport_size({"width": width, "height": height})
        blob.ask("editor.enlarge()")
        blob.page.wait_for_timeout(300)
        blob.select("1")
        named = "'button, input, select, textarea, canvas, [role]'"
        unnamed = blob.ask(
            f"[...editor.root.querySelectorAll({named})].filter(each =>"
            " !(each.getAttribute('aria-label') || each.textContent.trim()"
            " || each.classList.contains('group') || each.getAttribute('role') === 'status'))"
            ".map(each => each.outerHTML)"
        )
        assert unnamed == []
        cut = blob.ask(
            """[...editor.root.querySelectorAll("button, input, select, textarea, canvas")].filter(each => {
                const box = each.getBoundingClientRect();
                return each.checkVisibility({visibilityProperty: true})
                    && (box.left < -1 || box.right > innerWidth + 1);
            }).map(each => each.getAttribute("aria-label"))"""
        )
        assert cut == []
        overlaps = blob.ask(
            "(below => [...editor.root.querySelectorAll('.side *')].filter(each =>"
            " each.getBoundingClientRect().bottom > below + 1 && !each.closest('.list')).length)"
            "(editor.root.querySelector('.body').getBoundingClientRect().bottom)"
        )
        assert overlaps == 0
        box = blob.ask("(box => [box.width, box.height])(editor.canvas.getBoundingClientRect())")
        assert min(box) >= least
        blob.draw((0.25, 0.6), (0.5, 0.5))
        assert near([blob.blobs[0]["x"], blob.blobs[0]["y"]], [0.5, 0.5], 0.02)
        blob.press("Enter")
        blob.page.keyboard.press("Escape")
        assert blob.ask("editor.dialog.open && editor.shadow.activeElement === editor.canvas"), "back from the caption"
        blob.press("f")
        assert not blob.ask("editor.dialog.open")
    finally:
        blob.page.set_viewport_size(window)
