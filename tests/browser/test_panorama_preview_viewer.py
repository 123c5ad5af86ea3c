"""The panorama viewer in the real graph editor: what it shows, and how one looks round, in both node modes."""

import json
import time
import urllib.request

import numpy
from editor_hand import near
from panorama_editor import CLIP, FINE, FINE_TURNED, FRAMES, HEIGHT, NARROW, TURNED, picture, seen
from papernodes.host import layout

RUN_SECONDS = 120
DIRECTIONS = [(0, 0, 90), (180, 12, 60), (-37.5, 84, 100), (120, -90, 75)]


def run(panorama) -> dict:
    """Queue the graph from the page; its outputs when the job has ended."""
    job = panorama.editor.queue()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{panorama.editor.url}/history/{job}", timeout=60) as answer:
            record = json.loads(answer.read()).get(job)
        if record:
            assert record["status"]["status_str"] == "success", record["status"]["messages"]
            return record["outputs"]["2"]
        panorama.page.wait_for_timeout(200)
    raise AssertionError(f"the job did not end within {RUN_SECONDS} s")


def test_it_shows_what_a_camera_sees(panorama):
    panorama.open()
    shown = {direction: panorama.look(*direction) for direction in DIRECTIONS}
    for direction, found in shown.items():
        wanted = seen(picture(), *direction, *found.shape[:2])
        away = numpy.abs(found - wanted)
        assert away.max() <= 2 and away.mean() < 0.5, f"{direction}: {away.max():.1f}, {away.mean():.2f}"
    # The comparison itself must be able to fail.
    found = shown[DIRECTIONS[0]]
    assert numpy.abs(found - seen(picture(), 0.5, 0, 90, *found.shape[:2])).mean() > 2
    assert numpy.abs(found - seen(picture(), 0, 0, 90.5, *found.shape[:2])).mean() > 1


def test_there_is_no_seam(panorama):
    """A panorama with its edges behind the viewer and before them looks the same, large and made smaller."""
    for name, turned, fov in ((None, TURNED, 60), (FINE, FINE_TURNED, 140)):
        behind = panorama.open(*([name] if name else [])).look(180, 5, fov)
        before = panorama.open(turned).look(0, 5, fov)
        assert numpy.abs(behind.astype(int) - before).max() <= 2
        assert behind.std() > 5
    up, turned = panorama.look(0, 90, 140), panorama.look(180, 90, 140)
    assert numpy.abs(up[::-1, ::-1].astype(int) - turned).max() <= 4, "the pole is no different place"


def test_looking_round(panorama):
    panorama.open()
    first = panorama.pixels()
    start, end = panorama.screen(0.5, 0.5), panorama.screen(0.6, 0.55)
    panorama.drag(start, end)
    yaw, pitch, fov = panorama.angles
    assert yaw < -20 and pitch > 5 and fov == 90, "the picture goes with the pointer"
    assert numpy.abs(panorama.pixels().astype(int) - first).mean() > 5
    assert f"Yaw {round(yaw)}, pitch {round(pitch)}" in panorama.words

    under = panorama.ask("editor.view.toPicture(argument)", [60, 90])
    x, y = panorama._on_page("argument", [60, 90])
    panorama.page.mouse.move(x, y)
    panorama.page.mouse.wheel(0, -400)
    panorama.settle()
    assert panorama.angles[2] < 70 and near(panorama.ask("editor.view.toPicture(argument)", [60, 90]), under, 0.02)
    for turns, limit in ((-6000, 5), (12000, 140)):
        panorama.page.mouse.wheel(0, turns)
        panorama.settle()
        fov = panorama.angles[2]
        assert fov == limit or 100 < fov < limit, "the longer side's limit"

    panorama.press("0")
    assert panorama.angles == (0, 0, 90) and numpy.array_equal(panorama.pixels(), first)
    panorama.press("ArrowRight", "ArrowRight", "Shift+ArrowLeft", "ArrowDown", "+")
    yaw, pitch, fov = panorama.angles
    assert near([yaw, pitch], [9, -5], 1e-6) and 70 < fov < 80
    panorama.button("fit").click()
    assert panorama.angles == (0, 0, 90)
    panorama.press(*["ArrowUp"] * 20, *["ArrowLeft"] * 40)
    assert near(panorama.angles[:2], [160, 90], 1e-6), "no further than up, and round"


def test_keys_and_sizes(panorama):
    panorama.open()
    small = panorama.pixels().shape
    panorama.press("f")
    panorama.page.wait_for_timeout(300)
    large = panorama.pixels()
    assert large.shape[0] > 1.3 * small[0] and large.shape[1] > 2 * small[1]
    assert numpy.abs(large - seen(picture(), 0, 0, 90, *large.shape[:2])).mean() < 0.6, "no pixel is drawn out"
    panorama.page.keyboard.press("Escape")
    panorama.page.wait_for_timeout(300)
    assert panorama.pixels().shape == small
    panorama.press("Delete")
    assert panorama.page.evaluate("() => window.app.graph.nodes.length") == 2, "Delete does not take the node"
    prompt, saved = panorama.editor.export()
    assert prompt["2"]["inputs"] == {
        "images": ["1", 0], "filename_prefix": "seen/round", "format": "preview only", "frame_rate": 20,
    }  # fmt: skip
    assert saved["nodes"][-1]["widgets_values"] == ["seen/round", "preview only", 20], "nothing is kept of looking"


def test_a_clip_plays(panorama):
    panorama.open(CLIP, format="automatic")
    assert not panorama.button("play").is_visible(), "before a run there is one picture"
    made = run(panorama)
    assert len(made["panorama"]) == FRAMES and made["videos"][0]["filename"].endswith(".mp4")
    panorama.wait(f"{panorama.found_editor}.panes[0].count === {FRAMES} && {panorama.found_editor}.picture")
    colours = []
    for frame in range(FRAMES):
        panorama.seek(frame)
        panorama.wait(f"{panorama.found_editor}.panes[0].frames.pictures.has({frame})")
        panorama.settle()
        colours.append(panorama.pixels().mean((0, 1)))
    wanted = [(40 * number, 200 - 30 * number, 90) for number in range(FRAMES)]
    assert numpy.abs(numpy.array(colours) - wanted).max() < 4

    panorama.press("Home", "Space")
    frames = set()
    for _ in range(15):
        frames.add(panorama.ask("hands.frame"))
        panorama.page.wait_for_timeout(40)
    assert len(frames) >= 3 and panorama.ask("hands.player.playing") and panorama.ask("hands.player.rate") == 20
    panorama.button("play").click()
    assert not panorama.ask("hands.player.playing")
    panorama.press("End", ",")
    assert panorama.ask("hands.frame") == FRAMES - 2
    # The graph is opened again: what was run is still there.
    panorama.ask("(editor.panes[0].taken.clear(), editor.panes[0].shown = null)")
    panorama.wait(f"{panorama.found_editor}.panes[0].shown && {panorama.found_editor}.picture")
    assert panorama.ask("editor.panes[0].count") == FRAMES


def test_frames_are_let_go_when_they_take_too_much_room(panorama):
    """Ten pictures with room for four: what is shown and what comes next are there, and no more."""
    panorama.open()
    kept, loaded, next_loaded = panorama.page.evaluate(
        """async (module) => {
            const { Frames } = await import(module);
            const canvas = new OffscreenCanvas(20, 10);
            canvas.getContext("2d").fillRect(0, 0, 20, 10);
            const file = await canvas.convertToBlob();
            let asked = 0;
            const frames = new Frames(Array.from({length: 10}, (_, number) => ({path: String(number)})), {
                fetchPath: async () => (asked++, {ok: true, blob: async () => file}), limit: () => 8192,
                changed: () => {}, bytes: 4 * 20 * 10 * 4 });
            const kept = [];
            for (const number of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 5]) {
                while (!frames.at(number)) await new Promise(done => setTimeout(done, 5));
                await new Promise(done => setTimeout(done, 30));
                kept.push([frames.pictures.size, frames.shown.width]);
            }
            const found = [kept, frames.files.size, frames.at(6)?.width];
            frames.dispose();
            return found;
        }""",
        f"/extensions/{layout.PACK_NAME}/lib/panorama_frames.mjs",
    )
    assert all(count <= 5 and width == 20 for count, width in kept), "a closed picture is 0 wide"
    assert loaded == 10 and next_loaded == 20


def test_a_run_shows_its_own_file(panorama):
    panorama.open(TURNED, format=".png")
    (entry,) = run(panorama)["panorama"]
    assert entry["filename"].startswith("round_0") and entry["subfolder"] == "seen" and entry["type"] == "output"
    panorama.wait(f"{panorama.found_editor}.panes[0].shown && {panorama.found_editor}.picture")
    panorama.settle()
    found = panorama.pixels()
    assert numpy.abs(found - seen(picture(), 180, 0, 90, *found.shape[:2])).mean() < 0.6
    assert panorama.page.evaluate(f"() => !{panorama.found_node}.imgs?.length"), "the page shows it no second time"


def test_what_cannot_be_seen_from_within_lies_flat(panorama):
    panorama.open(NARROW)
    assert "is 90x60; a panorama is twice as wide as high" in panorama.words
    assert (panorama.pixels() == (255, 0, 0)).all(-1).any()

    panorama.open()
    whole = panorama.pixels()
    # Smaller textures than the picture.
    panorama.ask("(editor.panes[0].sphere.most = 41, editor.panes[0].source = 0, editor.picture.seen = true)")
    panorama.wait(f"{panorama.found_editor}.picture && !{panorama.found_editor}.picture.seen")
    panorama.settle()
    assert f"Seen at 40x20 in place of {2 * HEIGHT}x{HEIGHT}: no larger one fits" in panorama.words
    panorama.ask("(editor.panes[0].sphere.most = 8192, editor.panes[0].source = 0, editor.picture.seen = true)")
    panorama.wait(f"{panorama.found_editor}.picture && !{panorama.found_editor}.picture.seen")

    # The context is lost, and comes back.
    panorama.ask("(argument => window.loss = editor.panes[0].sphere.gl.getExtension('WEBGL_lose_context'))()")
    panorama.page.evaluate("() => window.loss.loseContext()")
    panorama.wait(f"{panorama.found_editor}.panes[0].sphere.lost")
    panorama.settle()
    assert "was lost: the panorama lies flat" in panorama.words
    assert not numpy.array_equal(panorama.pixels(), whole) and panorama.pixels().std() > 20
    panorama.page.evaluate("() => window.loss.restoreContext()")
    panorama.wait(f"!{panorama.found_editor}.panes[0].sphere.lost")
    panorama.settle()
    assert numpy.array_equal(panorama.pixels(), whole) and panorama.words.startswith("Yaw 0")

    # A browser without WebGL 2.
    panorama.ask(
        "(editor.panes[0].sphere = {ready: false, lost: false, limit: 0, use() {}, leave() {}},"
        " editor.panes[0].seek(0), editor.refresh())"
    )
    panorama.settle()
    flat = panorama.pixels()
    assert "no WebGL 2: the panorama lies flat" in panorama.words and flat.std() > 20
    panorama.drag(panorama.screen(0.5, 0.5), panorama.screen(0.6, 0.6))
    assert not numpy.array_equal(panorama.pixels(), flat), "the flat picture can be moved, too"
