"""Makes what goes with the templates of workflows/, after one was changed in the editor: ``python host/templates.py
[--only-api] [NAME ...]``.

For each graph: its twin in workflows/api/, which is what the editor itself exports, and, from a run of it, the
thumbnail beside it and the reference pictures that the browser tests compare with. A graph that loads published
weights has its twin in workflows/api/needs_models/, and its thumbnail is made by what of it runs without them.
Needs what `make test` installs.
"""

import argparse
import asyncio
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import comfyui, layout
from .layout import HostError
from .server import Server

WORKFLOWS = layout.ROOT / "workflows"
REFERENCES = layout.ROOT / "tests" / "browser" / "reference"
MEDIA = layout.ROOT / "demo" / "media"

PICTURES = (".webp", ".png", ".jpg")
"""Endings of what a graph saves to be looked at."""

VIDEO = ".mp4"
"""Ending of what it saves to be played: in a thumbnail, too, but no reference, as it is compressed with losses."""

THUMBNAIL = (264, 480)
"""Height and width."""

LARGEST_THUMBNAIL = 60_000

STAND_INS = {
    "story_sheet_sdxl": "story_sheet",
    "ic_light_dragged_light": "light_from_a_side",
    "ic_light_background": "normals_and_detail",
    "relight_video": "environment_light",
    "manga_ninja_points": "match_points",
    "manga_ninja_clip": "demo_colour_clip",
    "blob_layout_sdxl": "demo_blob_layout",
    "blob_layout_flux": "demo_blob_layout",
    "blob_layout_gligen": "demo_blob_layout",
    "blob_video_wan": "demo_blob_video",
    "panorama_sdxl": "demo_panorama",
    "imagine360": "demo_imagine360",
}
"""A template that makes nothing to look at without published weights -> the one whose thumbnail it shows."""

LOADERS = (
    "UNETLoader", "LoraLoader", "LoraLoaderModelOnly", "DualCLIPLoader", "VAELoader", "CheckpointLoaderSimple",
    "CLIPLoader", "CLIPVisionLoader", "ControlNetLoader", "GLIGENLoader", "PaperNodes_ICLightModel",
    "PaperNodes_MotionModules", "PaperNodes_MotionLoRA", "PaperNodes_MangaNinjaLoader", "PaperNodes_BlobAdapter",
    "PaperNodes_Imagine360Loader",
)  # fmt: skip
"""Nodes that read published weights, which this pack does not bring along."""

SHIPPED = "papernodes_demo_"
"""How the names of files begin that such a node may name and find in the pack."""


def read_graph(name: str) -> dict:
    """A template, in the editor's format."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def reads_published(kind: str, values) -> bool:
    """Whether a node of this class with these values in its widgets reads published weights."""
    return kind in LOADERS and not any(str(value).startswith(SHIPPED) for value in values)


def needs_models(name: str) -> bool:
    """Whether a template loads published weights, so that it cannot run here."""
    return any(reads_published(node["type"], node.get("widgets_values") or ()) for node in read_graph(name)["nodes"])


def twin_path(name: str) -> Path:
    """Where the same graph in API format lies."""
    folder = WORKFLOWS / "api" / "needs_models" if needs_models(name) else WORKFLOWS / "api"
    return folder / f"{name}.json"


def read_twin(name: str) -> dict:
    """The same graph in API format."""
    return json.loads(twin_path(name).read_text(encoding="utf-8"))


def runnable_part(prompt: dict) -> dict:
    """The nodes of a graph in API format that need no published weights, directly or through others."""
    left = dict(prompt)
    while True:
        kept = {
            key: node
            for key, node in left.items()
            if not reads_published(node["class_type"], node["inputs"].values())
            and all(value[0] in left for value in node["inputs"].values() if isinstance(value, list))
        }
        if len(kept) == len(left):
            return kept
        left = kept


def reference_path(name: str, title: str) -> Path:
    """Where the reference picture of an output node lies."""
    return REFERENCES / f"{name}-{title.lower().replace(' ', '-')}.png"


def write_twins(url: str, names: list[str]) -> None:
    """Save graphs as the classic editor does, in its format and in the API's.

    Raises:
        HostError: a graph has nodes that the server does not know.
    """
    from . import editor

    with editor.chromium() as running, editor.open_editor(running, url) as page:
        for name in names:
            page.load(read_graph(name))
            if missing := page.missing_nodes():
                raise HostError(f"workflows/{name}.json: the server has no {', '.join(missing)}.")
            api, saved = page.export()
            for path, graph in ((WORKFLOWS / f"{name}.json", saved), (twin_path(name), api)):
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(graph, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


async def run_graph(url: str, prompt: dict) -> dict[str, list[bytes]]:
    """Run a graph in API format.

    Returns:
        Title of an output node -> the files of its pictures, moving or still, or its video.

    Raises:
        HostError: it fails.
    """
    from . import results, workflow
    from .client import Client

    async with Client(url) as client:
        outcome = await client.run(prompt)
        if outcome.status != "success":
            raise HostError("; ".join(map(str, outcome.errors)))
        pictures = {}
        for node, _, entry in results.entries(outcome.outputs):
            # What lies in the temp folder is only shown, by an editor for instance.
            if entry["filename"].endswith((*PICTURES, VIDEO)) and entry.get("type") != "temp":
                pieces = []
                await client.download(entry, pieces.append)
                pictures.setdefault(workflow.title(prompt[node]), []).append(b"".join(pieces))
        return pictures


def slices(panels: list, size: tuple[int, int] = THUMBNAIL) -> "numpy.ndarray":  # noqa: F821
    """Pictures [H, W, 3] side by side in one of a size, each cut out of its middle, with thin gaps."""
    import numpy
    from PIL import Image

    height, width = size
    gap = 4
    edges = numpy.linspace(0, width + gap, len(panels) + 1).round().astype(int)
    canvas = numpy.full((height, width, 3), 24, numpy.uint8)
    for panel, left, right in zip(panels, edges[:-1], edges[1:] - gap, strict=True):
        scale = max(height / panel.shape[0], (right - left) / panel.shape[1])
        large_size = (max(right - left, round(panel.shape[1] * scale)), max(height, round(panel.shape[0] * scale)))
        large = numpy.array(Image.fromarray(panel).resize(large_size, Image.Resampling.LANCZOS))
        y, x = (large.shape[0] - height) // 2, (large.shape[1] - (right - left)) // 2
        canvas[:, left:right] = large[y : y + height, x : x + right - left]
    return canvas


def one_above_others(picture, panels: list) -> "numpy.ndarray":  # noqa: F821
    """The middle of a picture, and under it others side by side, in one of THUMBNAIL's size."""
    import numpy

    (height, width), gap = THUMBNAIL, 4
    upper = slices([picture], ((height - gap) // 2, width))
    line = numpy.full((gap, width, 3), 24, numpy.uint8)
    return numpy.concatenate([upper, line, slices(panels, (height - gap - len(upper), width))])


def whole(picture) -> "numpy.ndarray":  # noqa: F821
    """A picture [H, W, 3] in one of THUMBNAIL's size, with white beside it or above and below."""
    import numpy
    from PIL import Image, ImageOps

    return numpy.array(ImageOps.pad(Image.fromarray(picture), THUMBNAIL[::-1], color="white"))


def exposure(frames, first: int, last: int):
    """What a camera sees that stays open from one frame to another: what moves becomes grey."""
    return frames[first : last + 1].mean(axis=0).round().astype("uint8")


def start_picture(name: str, title: str | None = None):
    """The picture of demo/media that a template loads, by a node of that title; uint8 [H, W, 3]."""
    from . import workflow
    from .pictures import read_frames

    loaders = [node for node in read_twin(name).values() if node["class_type"] == "LoadImage"]
    (file,) = (node["inputs"]["image"] for node in loaders if title in (None, workflow.title(node)))
    return read_frames((MEDIA / file).read_bytes())[0]


def seen_from_within(panorama):
    """A look into a panorama, and the whole of it, small, in a corner."""
    from PIL import Image

    from .pictures import look_into

    height, width = THUMBNAIL
    canvas = look_into(panorama, 20, 100, height, width)
    small = Image.fromarray(panorama).resize((152, 76), Image.Resampling.LANCZOS)
    canvas[-88:-8, 8:164] = 255
    canvas[-86:-10, 10:162] = small
    return canvas


def draw_thumbnail(name: str, pictures: dict):
    """The picture beside a template, from its own run."""
    import numpy

    if name == "demo_panorama":  # turned by half, so that its edges meet in the middle
        panorama = pictures["Save pictures of the panorama"][0]
        return slices([numpy.roll(panorama, panorama.shape[1] // 2, 1)])
    if name == "demo_imagine360":
        first, last = (pictures[f"Save pictures of the {which} frame"][0] for which in ("first", "last"))
        return one_above_others(first, [last])
    if name == "demo_panorama_views":
        return slices([pictures["Save pictures of the panorama"][0]])
    if "Save pictures of the panorama" in pictures:
        return seen_from_within(pictures["Save pictures of the panorama"][0])
    if "Save pictures of light" in pictures:
        drawn = pictures.get("Save relit pictures", pictures.get("Save pictures"))
        return slices([pictures["Save pictures of light"][0], drawn[0]])
    if "Save pictures of blobs" in pictures:
        asked, drawn = (pictures.get(title) for title in ("Save pictures of blobs", "Save pictures"))
        if drawn is None:
            return slices([asked[0], asked[-1]])
        return slices([clip[len(clip) * 2 // 3] for clip in (asked, drawn)])
    if "Save pictures of views" in pictures:
        views = pictures["Save pictures of views"]
        below = [views[len(views) * part // 4] for part in (1, 2, 3)]
        return one_above_others(pictures["Save panorama pictures"][0], below)
    if "Save repaired pictures" in pictures:
        return slices([pictures[title][0] for title in ("Save seam pictures", "Save repaired pictures")])
    if "Save elevation pictures" in pictures:
        clips = [pictures[f"Save {what} pictures"] for what in ("tilted", "elevation", "level")]
        return slices([clip[0] for clip in clips])
    if name == "demo_blob_captions":
        return slices(list(pictures["Save pictures"][::2]))
    if "Save pictures of lines" in pictures:
        panels = [pictures[title][0] for title in ("Save pictures of lines", "Save pictures")]
        return slices([start_picture(name), *panels])
    if "Save pictures" in pictures:
        drawn = pictures["Save pictures"]
        return slices([start_picture(name), drawn[0]] if name == "demo_line_art" else list(drawn[:2]))
    if "Save steady pictures" in pictures:
        return slices([start_picture(name), pictures["Save steady pictures"][0]])
    if "Save coloured pictures" in pictures:
        coloured = pictures["Save coloured pictures"]
        given = [start_picture(name, title) for title in ("Reference", "Line art")]
        return slices([*given, coloured[len(coloured) // 2]])
    if "Save story sheet" in pictures:
        return whole(pictures["Save story sheet"][0])
    if "Save matched pictures" in pictures:
        return whole(pictures["Save matched pictures"][0])
    if "Save pictures of normals" in pictures:
        return slices([pictures[title][0] for title in ("Save relit pictures", "Save pictures of normals")])
    if "Save relit pictures" in pictures:
        relit = pictures["Save relit pictures"]
        clip = [relit[len(relit) * third // 3] for third in range(3)]
        return slices(clip if len(relit) > 1 else [start_picture(name, "Background"), relit[0]])
    if "Save light pictures" in pictures:
        clips = [pictures[title] for title in ("Save background pictures", "Save light pictures")]
        return slices([clip[len(clip) // 12] for clip in clips])
    noise = pictures["Save noise picture"]
    flow = pictures.get("Save flow picture")
    if "Save video" in pictures:
        return slices(video_panels(name, pictures))
    if name == "animatediff_motion_transfer":
        panels = [clip[len(clip) * 2 // 3] for clip in (cropped_clip(name), flow, noise)]
    elif name in ("warped_noise_from_video", "hunyuan_motion_transfer"):
        from .pictures import read_video

        frame = 36
        clip = read_video(MEDIA / "bigbuckbunny_49.mp4")
        centre = slice(clip.shape[2] // 10, clip.shape[2] // 2)  # the rabbit is left of the middle
        still = noise[frame * len(noise) // len(clip)]  # a video latent has fewer frames than the clip
        panels = [clip[frame][:, centre], flow[frame][:, centre], still[:, : noise.shape[2] // 2]]
    elif name == "mix_noise":
        panels = [exposure(noise, 0, 3), exposure(noise, 16, len(noise) - 1)]
    elif (moved := pictures.get("Save composite pictures", pictures.get("Save preview pictures"))) is not None:
        # The moved photograph, and how it moves there; where a model draws the rest, the noise that it begins with.
        shown = (moved, flow, noise) if needs_models(name) else (moved, flow)
        panels = [clip[len(clip) * 2 // 3] for clip in shown]
    else:
        panels = [panel for panel in (None if flow is None else flow[len(flow) // 8], noise[0]) if panel is not None]
    return slices(panels)


def cropped_clip(name: str):
    """The clip of demo/media as a template's Image Crop cuts it; uint8 [T, H, W, 3]."""
    from .pictures import read_video

    (crop,) = (node["inputs"] for node in read_twin(name).values() if node["class_type"] == "ImageCrop")
    rows, columns = (slice(crop[a], crop[a] + crop[b]) for a, b in (("y", "height"), ("x", "width")))
    return read_video(MEDIA / "bigbuckbunny_49.mp4")[:, rows, columns]


def video_panels(name: str, pictures: dict) -> list:
    """What was asked for, the noise where that is a clip's motion, and the video, at two thirds of the way."""
    asked = pictures.get("Save composite pictures", pictures.get("Save preview pictures"))
    shown = [pictures["Save video"]]
    if asked is None:
        asked = cropped_clip(name)
        shown = [pictures["Save noise picture"], *shown]
    return [clip[len(clip) * 2 // 3] for clip in (asked, *shown)]


def write_pictures(name: str, contents: dict[str, list[bytes]]) -> None:
    """Write a template's thumbnail and, where it runs as a whole, its reference pictures."""
    from PIL import Image

    from .pictures import join_tiles, read_files, read_video, sheet_tiles

    videos = {title for title, files in contents.items() if files[0][4:8] == b"ftyp"}
    frames = {
        title: read_video(files[0]) if title in videos else read_files(files) for title, files in contents.items()
    }
    REFERENCES.mkdir(parents=True, exist_ok=True)
    if not needs_models(name):
        for title, moving in frames.items():
            if title in videos:
                continue
            join_tiles(sheet_tiles(moving)).save(reference_path(name, title), optimize=True)
    picture = Image.fromarray(draw_thumbnail(name, frames))
    for quality in range(90, 20, -5):
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= LARGEST_THUMBNAIL:
            break
    (WORKFLOWS / f"{name}.jpg").write_bytes(content.getvalue())
    print(f"workflows/{name}.jpg: {content.tell() / 1000:.0f} kB")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--only-api", action="store_true", help="write the twins and run nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help="templates without .json; all if none is named")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            base = layout.make_base_directory(Path(folder))
            layout.copy_media(base / "input")
            with Server(comfyui.find(), base=base, cpu=True) as server:
                write_twins(server.url, names)
                for name in () if arguments.only_api else sorted(names, key=lambda name: name in STAND_INS):
                    if name in STAND_INS:
                        shutil.copyfile(WORKFLOWS / f"{STAND_INS[name]}.jpg", WORKFLOWS / f"{name}.jpg")
                        continue
                    write_pictures(name, asyncio.run(run_graph(server.url, runnable_part(read_twin(name)))))
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
