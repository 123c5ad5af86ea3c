"""Every shipped graph in API format: run over HTTP with its outputs looked at, or, where it needs models, validated.

A graph's files are told apart by their endings and decoded. What a graph is to make stands in EXPECTED, by the title or
the class of the output node; a new graph fails here until it says so.
"""

import asyncio
import io
from pathlib import Path

import av
import numpy
import pytest
import torch
from papernodes.host import layout, results, templates, workflow
from papernodes.host.client import Client
from PIL import Image, ImageSequence
from safetensors.torch import load as load_safetensors

FOLDER = layout.ROOT / "workflows" / "api"
RUNNABLE = sorted(FOLDER.glob("*.json"))
NEEDS_MODELS = sorted((FOLDER / "needs_models").glob("*.json"))
MEDIA = sorted(path for path in (layout.ROOT / "demo" / "media").iterdir() if path.suffix in layout.MEDIA_SUFFIXES)

FILES = (".safetensors", ".mp4", ".png", ".jpg", ".gif", ".webp", ".pth", ".hdr")

EXPECTED: dict[str, dict[str, int]] = {
    # graph -> output node (its title or class) -> frames in each of its files
    "blobs_from_masks": {"Save pictures of blobs": 12, "Save pictures of masks": 1},
    "camera_move": {
        "Save preview pictures": 49,
        "Save flow picture": 48,
        "Save noise picture": 49,
        "Save warped noise": 49,
    },
    "cut_and_drag": {
        "Save composite pictures": 49,
        "Save flow picture": 48,
        "Save noise picture": 49,
        "Save warped noise": 49,
    },
    "demo_blob_captions": {"Save pictures": 1},
    "demo_blob_layout": {"Save pictures": 1, "Save pictures of blobs": 1},
    "demo_blob_video": {"Save pictures": 17, "Save pictures of blobs": 17},
    "demo_camera_move": {
        "Save preview pictures": 17,
        "Save flow picture": 16,
        "Save noise picture": 5,
        "Save video": 17,
    },
    "demo_colour_clip": {"Save coloured pictures": 12, "Save pictures as drawn": 12},
    "demo_cut_and_drag": {
        "Save composite pictures": 17,
        "Save flow picture": 16,
        "Save noise picture": 5,
        "Save video": 17,
    },
    "demo_dragged_light": {"Save relit pictures": 1, "Save pictures of light": 1},
    "demo_imagine360": {
        "Save pictures of the first frame": 1,
        "Save pictures of the last frame": 1,
        "Save pictures of what lies behind": 8,
    },
    "demo_line_art": {"Save pictures": 1},
    "demo_manga_ninja": {"Save coloured pictures": 1},
    "demo_motion_transfer": {"Save flow picture": 48, "Save noise picture": 5, "Save video": 17},
    "demo_orbiting_light": {"Save relit pictures": 16},
    "demo_panorama": {"Save pictures of the panorama": 1},
    "demo_panorama_views": {"Save pictures of the panorama": 1},
    "demo_planned_layout": {"Save pictures": 1, "Save pictures of blobs": 1},
    "demo_relight_background": {"Save relit pictures": 1},
    "demo_text_to_image": {"Save pictures": 1},
    "environment_light": {"Save light pictures": 24, "Save background pictures": 24},
    "perspective_views": {"Save pictures of views": 24, "Save panorama pictures": 1, "Save mask pictures": 1},
    "express_and_suppress": {"Save pictures": 1},
    "flow_files": {"Save Flow": 1, "Save flow picture": 32, "Save noise picture": 9, "Save warped noise": 9},
    "level_panorama": {
        "Save tilted pictures": 12,
        "Save elevation pictures": 12,
        "Save level pictures": 12,
        "Save pictures of faces": 1,
    },
    "light_from_a_side": {"Save pictures": 1, "Save pictures of light": 1},
    "line_art_of_a_picture": {"Save pictures": 1, "Save pictures of lines": 1},
    "match_points": {"Save matched pictures": 1},
    "mix_noise": {"Save noise picture": 33, "Save mixed noise": 33},
    "normals_and_detail": {"Lit from the left, before": 1, "Save pictures of normals": 1, "Save relit pictures": 1},
    "panorama_viewer": {"Save pictures of the panorama": 1},
    "recolour_clip": {"Save steady pictures": 9, "Save pictures as drawn": 9},
    "seam_repair": {"Save seam pictures": 1, "Save repaired pictures": 1, "Save panorama pictures": 1},
    "story_sheet": {"Save story sheet": 1},
    "suggest_points": {"Save matched pictures": 1, "Save pictures matched by lines": 1},
    "warped_noise_from_video": {"Save flow picture": 48, "Save noise picture": 49, "Save warped noise": 49},
}


def decode(name: str, content: bytes) -> torch.Tensor:
    """An output file as numbers, frames first.

    Raises:
        AssertionError: the ending is none that is known here.
    """
    suffix = Path(name).suffix.lower()
    if suffix in (".png", ".webp", ".gif", ".jpg"):
        with Image.open(io.BytesIO(content)) as image:
            frames = [numpy.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        return torch.from_numpy(numpy.stack(frames)).float()
    if suffix == ".latent":
        latent = load_safetensors(content)["latent_tensor"]
        return (latent.transpose(1, 2).flatten(0, 1) if latent.ndim == 5 else latent).float()
    if suffix == ".safetensors":
        return max(load_safetensors(content).values(), key=torch.numel).float()
    if suffix == ".npy":
        return torch.from_numpy(numpy.load(io.BytesIO(content), allow_pickle=False)).float()
    if suffix == ".flo":
        width, height = numpy.frombuffer(content, "<i4", 2, 4)
        assert content[:4] == b"PIEH"
        return torch.from_numpy(numpy.frombuffer(content, "<f4", offset=12).reshape(1, height, width, 2).copy())
    if suffix in (".mp4", ".webm"):
        with av.open(io.BytesIO(content)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return torch.from_numpy(numpy.stack(frames)).float()
    raise AssertionError(f"{name}: add the ending {suffix} to this test")


def used_media(prompt: dict) -> list[Path]:
    """The demo's files that a graph's inputs name."""
    values = {value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, str)}
    return [path for path in MEDIA if path.name in values]


def describe(prompt: dict, node: str) -> str:
    return f"{node} {workflow.title(prompt[node]) or ''} ({prompt[node]['class_type']})"


def test_there_are_graphs_to_run():
    assert RUNNABLE, "workflows/api/ holds no graph"
    assert set(EXPECTED) == {path.stem for path in RUNNABLE}, "EXPECTED above must name every graph, and no other"


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_graph_runs_and_makes_what_it_says(path, server, object_info):
    prompt = workflow.load(path).content
    expected = EXPECTED[path.stem]

    async def run():
        async with Client(server.url) as client:
            for media in used_media(prompt):
                assert await client.upload(media) == media.name
            outcome = await client.run(prompt)
            files = []
            for node, _, entry in results.entries(outcome.outputs):
                pieces = []
                await client.download(entry, pieces.append)
                files.append((node, entry["filename"], b"".join(pieces)))
            return outcome, files

    outcome, files = asyncio.run(run())
    assert outcome.status == "success", [str(error) for error in outcome.errors]
    assert set(workflow.output_nodes(prompt, object_info)) <= outcome.ran
    makers = {node: {workflow.title(prompt[node]), prompt[node]["class_type"]} for node, _, _ in files}
    for name in expected:
        assert any(name in names for names in makers.values()), f"no file came from the output node {name}"
    for node, name, content in files:
        where = f"{describe(prompt, node)}: {name}"
        values = decode(name, content)
        assert torch.isfinite(values).all(), where
        assert values.std() > 0, f"{where} is constant"
        (frames,) = [count for key, count in expected.items() if key in makers[node]]
        assert values.shape[0] == frames, f"{where} has {values.shape[0]} frames, not {frames}"
        if frames > 1:
            change = (values[1:] - values[:-1]).flatten(1).abs().amax(dim=1)
            assert (change > 0).all(), f"{where}: frames {torch.nonzero(change == 0).flatten().tolist()} repeat"


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_the_runner_reads_the_editors_format_alike(path, object_info):
    """The graph as the editor saves it, through comfy-cli's conversion, is the twin that the editor itself exports."""
    graph = workflow.load(layout.ROOT / "workflows" / path.name)
    assert graph.is_ui

    def plain(prompt: dict) -> dict:
        return {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}

    assert plain(workflow.to_api(graph, object_info)) == plain(workflow.load(path).content)


def test_graphs_fit_the_nodes(object_info):
    """Classes, inputs, links and values against /object_info; file names of models may be any."""
    for path in (*RUNNABLE, *NEEDS_MODELS):
        prompt = workflow.load(path).content
        assert find_problems(prompt, object_info) == [], path.name
        assert workflow.output_nodes(prompt, object_info), f"{path.name} makes nothing"


DRAWN = ({"Save flow picture", "Save noise picture"}, {"Save pictures of what is known"})
"""What graphs that need models save without them: for their thumbnail, or to be looked at first."""


@pytest.mark.parametrize("path", NEEDS_MODELS, ids=lambda path: path.stem)
def test_a_graph_that_needs_models_runs_up_to_them(path, object_info):
    """What draws its thumbnail could be queued as it is; the rest hangs on files that the note names."""
    prompt = workflow.load(path).content
    assert templates.twin_path(path.stem) == path
    part = templates.runnable_part(prompt)
    assert find_problems(part, object_info) == []
    left_out = {node["class_type"] for key, node in prompt.items() if key not in part}
    assert set(templates.LOADERS) & left_out and "SamplerCustomAdvanced" in left_out
    saved = {workflow.title(prompt[key]) for key in workflow.output_nodes(part, object_info)}
    # What runs draws the thumbnail, or is looked at first; where nothing runs, another template's is shown.
    drawn = any(titles <= saved for titles in DRAWN)
    assert drawn or (not saved and path.stem in templates.STAND_INS)

    files = {
        value
        for node in prompt.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.endswith((".safetensors", ".ckpt", ".pth"))
    }
    notes = "\n".join(
        node["widgets_values"][0] for node in templates.read_graph(path.stem)["nodes"] if node["type"] == "MarkdownNote"
    )
    assert files and [name for name in sorted(files) if name not in notes] == []
    assert "https://" in notes and "icence" in notes


@pytest.mark.parametrize("path", [path for path in NEEDS_MODELS if "hunyuan" in path.stem], ids=lambda path: path.stem)
def test_the_video_is_as_long_as_its_motion(path):
    prompt = workflow.load(path).content
    (latent,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "EmptyHunyuanLatentVideo"]
    motion = [node["inputs"]["frames"] for node in prompt.values() if node["class_type"].startswith("PaperNodes_C")]
    clips = [node["inputs"]["file"] for node in prompt.values() if node["class_type"] == "LoadVideo"]
    for name in clips:
        with av.open(str(layout.ROOT / "demo" / "media" / name)) as container:
            motion.append(sum(1 for _ in container.decode(video=0)))
    assert motion == [latent["length"]] and latent["length"] % 4 == 1


def test_a_clip_of_pictures_is_what_its_motion_lora_was_made_with():
    prompt = workflow.load(FOLDER / "needs_models" / "animatediff_motion_transfer.json").content
    (latent,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "EmptyLatentImage"]
    assert (latent["width"], latent["height"], latent["batch_size"]) == (512, 512, 16)
    # The noise follows what the crop shows, in the latent's proportions, and is made for a clip.
    (crop,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "ImageCrop"]
    (warp,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "PaperNodes_WarpNoise"]
    (flow,) = [key for key, node in prompt.items() if node["class_type"] == "PaperNodes_OpticalFlow"]
    assert crop["width"] == crop["height"] and warp["batch_4d"] == "frames" and warp["flow"] == [flow, 0]
    # Modules, then their LoRA, then the sampler and its scheduler.
    (modules,) = [key for key, node in prompt.items() if node["class_type"] == "PaperNodes_MotionModules"]
    (lora,) = [key for key, node in prompt.items() if node["class_type"] == "PaperNodes_MotionLoRA"]
    assert prompt[lora]["inputs"]["model"] == [modules, 0]
    users = [node["class_type"] for node in prompt.values() if node["inputs"].get("model") == [lora, 0]]
    assert sorted(users) == ["BasicScheduler", "CFGGuider"]


def test_which_graphs_run():
    stems = {path.stem for path in templates.WORKFLOWS.glob("*.json")}
    needing = {name for name in stems if templates.needs_models(name)}
    assert needing == {path.stem for path in NEEDS_MODELS} and needing
    assert stems - needing == {path.stem for path in RUNNABLE}
    for path in RUNNABLE:
        prompt = workflow.load(path).content
        assert templates.runnable_part(prompt) == prompt


def find_problems(prompt: dict, object_info: dict) -> list[str]:
    """What the server would not accept of a graph, but for the files it names."""
    problems = []
    for key, node in prompt.items():
        described = object_info.get(node["class_type"])
        if described is None:
            problems.append(f"{describe(prompt, key)}: no such node")
            continue
        required, optional = described["input"].get("required") or {}, described["input"].get("optional") or {}
        missing = set(required) - set(node["inputs"])
        unknown = {name for name in node["inputs"] if "." not in name} - set(required) - set(optional)
        problems += [f"{describe(prompt, key)}: input {name} is missing" for name in sorted(missing)]
        problems += [f"{describe(prompt, key)}: there is no input {name}" for name in sorted(unknown)]
        for name, value in node["inputs"].items():
            spec = required.get(name) or optional.get(name)
            if spec is not None and (problem := check_value(value, spec, prompt, object_info)):
                problems.append(f"{describe(prompt, key)}: {name}: {problem}")
    return problems


def check_value(value, spec: list, prompt: dict, object_info: dict) -> str | None:
    """What is wrong with an input's value, or None."""
    kind = spec[0] if isinstance(spec[0], str) else "COMBO"
    options = spec[1] if len(spec) > 1 else {}
    if isinstance(value, list):
        source, slot = value
        outputs = object_info.get(prompt.get(source, {}).get("class_type"), {}).get("output", ())
        if slot >= len(outputs):
            return f"node {source} has no output {slot}"
        given = outputs[slot] if isinstance(outputs[slot], str) else "COMBO"
        fitting = "*" in (given, kind) or given in kind.split(",")
        return None if fitting else f"{given} into {kind}"
    if kind == "COMBO":
        choices = spec[0] if isinstance(spec[0], list) else options.get("options", [])
        names_a_file = isinstance(value, str) and Path(value).suffix in FILES
        return None if names_a_file or value in choices else f"{value!r} is none of {choices}"
    fits = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool, "STRING": str}.get(kind)
    if fits is None:
        return f"a socket of type {kind} takes a link"
    if not isinstance(value, fits) or (isinstance(value, bool) and kind != "BOOLEAN"):
        return f"{value!r} is no {kind}"
    if kind in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
        return f"{value} is outside {options.get('min')} to {options.get('max')}"
    return None


def test_a_broken_graph_would_be_noticed(object_info):
    """The check above on single values, so that it is known to fail."""
    prompt = {"1": {"class_type": "EmptyImage", "inputs": {}}, "2": {"class_type": "EmptyLatentImage", "inputs": {}}}

    def problem(value, *spec):
        return check_value(value, list(spec), prompt, object_info)

    assert problem(["1", 0], "IMAGE") is None
    assert problem(["2", 0], "IMAGE") == "LATENT into IMAGE"
    assert problem(["1", 1], "IMAGE") == "node 1 has no output 1"
    assert problem(["9", 0], "IMAGE") == "node 9 has no output 0"
    assert problem(["1", 0], "*") is None
    assert problem("x", "IMAGE") == "a socket of type IMAGE takes a link"
    assert problem("c", "COMBO", {"options": ["a"]}) == "'c' is none of ['a']"
    assert problem("a", ["a"]) is None
    assert problem(True, "INT") == "True is no INT"
    assert problem(9, "INT", {"min": 0, "max": 8}) == "9 is outside 0 to 8"
