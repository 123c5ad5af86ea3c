"""Draws the pictures of Line Art, Match Points, Suggest Points, Luma Replace and Chroma Smooth in web/docs.

``python -m demo.colour_pictures [points]``. Of Match Points it is its template's pictures and pairs, of Suggest Points
what its template finds, of the others what the template recolour_clip makes, with torch's own noise; prints how much
brightness and colour change from a frame to the next along the motion. With ``points`` only those of pairs are drawn.
"""

import json
import sys

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from demo.bare_machine import use_host, use_pack
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels, schedule
from demo.help_pictures import ROOT
from demo.media_pictures import MEDIA, TOY_SIZE
from demo.story_pictures import save
from kernels.cut_and_drag import CutAndDrag
from kernels.drag_motion import parse_motion
from kernels.flow import Flow, invert_flow
from kernels.line_art import METHODS, found_lines, without_faint
from kernels.luma import chroma_smooth, luma_replace, split
from kernels.match_picture import match_picture
from kernels.matched_points import parse_points, point_map
from kernels.sampling import pixel_grid, remap

GRAPHS = ROOT / "workflows" / "api"


def inputs_of(title: str, graph: str = "recolour_clip") -> dict:
    """The inputs of a template's node of a title."""
    nodes = json.loads((GRAPHS / f"{graph}.json").read_text("utf-8")).values()
    return next(node["inputs"] for node in nodes if node["_meta"]["title"] == title)


def recoloured(models: ImageModels, clip: Tensor) -> Tensor:
    """Every frame [T, H, W, 3] of the clip drawn anew in the template's colours."""
    sampler, texts = inputs_of("KSampler"), (inputs_of("Prompt")["text"], "")
    start = models.encode(clip.movedim(-1, 1))
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(sampler["seed"]))
    told, empty = (state.expand(len(clip), -1, -1) for state in models.encode_prompts(list(texts)).split(1))
    sigmas = schedule(models.scheduler, sampler["steps"], sampler["denoise"])
    return models.decode(models.sample(noise, told, empty, sampler["cfg"], sigmas, start, None)).movedim(1, -1)


def changes(clip: Tensor, flow: Flow) -> list[float]:
    """Mean change of luma, and of chroma (Lab's a and b), from a frame to the next along the motion."""
    backward = invert_flow(flow.vectors)
    found = []
    for part in split(clip, "Lab"):
        there = remap(part[:-1], pixel_grid(*part.shape[2:]) + backward, border="border")
        found.append(float((part[1:] - there).abs().mean()))
    return found


def lines_of(name: str, width: float) -> list[Tensor]:
    """A picture of demo/media, and its lines by both methods, each [H, W, 3]."""
    picture = Image.open(MEDIA / name).convert("RGB")
    side = min(picture.size)
    picture = picture.crop((0, 0, side, side)).resize((2 * SIZE, 2 * SIZE), Image.Resampling.LANCZOS)
    shown = to_tensor(picture).movedim(0, -1)
    lines = [without_faint(found_lines(shown[None], method, width)) for method in METHODS]
    return [shown, *(some[0, ..., None].expand(-1, -1, 3) for some in lines)]


def matches() -> list[Tensor]:
    """The template's two pictures with their pairs, and MangaNinja's two maps of them side by side, each [H, W, 3]."""
    (pairs,) = parse_points(inputs_of("Match Points", "match_points")["points"]).frames
    shown, maps = [], []
    for side in ("reference", "target"):
        file = MEDIA / inputs_of(side.title(), "match_points")["image"]
        shown.append(to_tensor(Image.open(file).convert("RGB")).movedim(0, -1))
        # A pixel of the map for every eight of the picture, so that it is seen; brighter is a higher number.
        drawn = point_map(pairs, side, TOY_SIZE // 8, TOY_SIZE // 8) / len(pairs)
        large = torch.nn.functional.interpolate(drawn, size=(TOY_SIZE, TOY_SIZE))
        maps.append(large[0].expand(3, -1, -1).movedim(0, -1))
    none = pairs.only(torch.zeros(0, dtype=torch.int64))
    return [match_picture(*shown, pairs)[0], match_picture(*maps, none)[0]]


def suggestions() -> list[Tensor]:
    """The template's pictures with the pairs that it finds, by features and by keypoints, each [H, W, 3]."""
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint
    from papernodes.nodes.manga_ninja import MangaNinjaLoader
    from papernodes.nodes.suggest_points import SuggestPoints

    (files,) = MangaNinjaLoader.execute(**inputs_of("MangaNinja Loader", "suggest_points")).args
    vae = DemoCheckpoint.execute(**inputs_of("Demo Checkpoint", "suggest_points")).args[2]
    found = []
    for title, target, more in (
        ("By features", "Target", {"manga_ninja": files, "vae": vae}),
        ("By keypoints", "Line art", {}),
    ):
        shown = [
            to_tensor(Image.open(MEDIA / inputs_of(name, "suggest_points")["image"]).convert("RGB"))[None]
            for name in ("Reference", target)
        ]
        reference, asked = (some.movedim(1, -1) for some in shown)
        given = {
            name: value for name, value in inputs_of(title, "suggest_points").items() if not isinstance(value, list)
        }
        found.append(SuggestPoints.execute(**given | more | {"reference": reference, "target": asked}).args[1][0])
    return found


def main() -> None:
    """Draws all of them."""
    use_host()
    use_pack()
    save("MatchPoints", matches(), ["", ""], 1)
    save("SuggestPoints", suggestions(), ["features of a UNet", "keypoints, the lines of both"], 1)
    if sys.argv[1:] == ["points"]:
        return
    save("LineArt", [*lines_of("toy_scene.png", 2.0), *lines_of("coffee.jpg", 1.0)], ["picture", *METHODS] * 2, 3)
    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")
    picture = Image.open(MEDIA / "toy_scene.png").convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    drag = inputs_of("Cut And Drag")
    motion = parse_motion(drag["motion"], drag["frames"])
    made = CutAndDrag(to_tensor(picture).movedim(0, -1), motion, drag["frames"], hole=drag["hole"]).render()
    flow, clip = Flow(made.vectors, occlusion=made.occlusion), made.composites
    drawn = recoloured(models, clip)
    bright = luma_replace(drawn, clip)
    steady = chroma_smooth(bright, flow, None, inputs_of("Chroma Smooth")["strength"])
    for name, some in (("source", clip), ("as drawn", drawn), ("luma", bright), ("luma and chroma", steady)):
        print(name, *(f"{value:.4f}" for value in changes(some, flow)))
    save("LumaReplace", [clip[0], drawn[0], bright[0]], ["source", "generated", "generated, source's luma"], 3)
    shown = [some[frame] for some in (bright, steady) for frame in (0, 2, 4, 6)]
    names = [f"frame {frame}" for frame in (0, 2, 4, 6)]
    save("ChromaSmooth", shown, [*(f"{name}, before" for name in names), *(f"{name}, smooth" for name in names)], 4)


if __name__ == "__main__":
    main()
