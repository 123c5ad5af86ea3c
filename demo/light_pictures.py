"""Draws the light nodes' pictures of web/docs with the demonstration models: ``python -m demo.light_pictures``.

What the templates normals_and_detail, light_from_a_side and environment_light make, with torch's own noise.
"""

import json

import numpy
import torch
from PIL import Image
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.image_models import CHECKPOINTS, ImageModels, schedule
from demo.help_pictures import ROOT
from demo.media_pictures import MEDIA
from demo.story_pictures import save
from kernels.detail_transfer import detail_transfer
from kernels.environment_light import environment_light_maps, grey_exposure, tone_map
from kernels.equirectangular import background_frames
from kernels.hdr_format import read_hdr
from kernels.light_source import light_maps, parse_lights
from kernels.normals_from_light import normal_picture, normals_from_light
from kernels.pixel_coding import coded

WHO = "a blue dotted star with a crown in a forest"
LIGHTS = ("the left", "the right", "above", "below")
SEEDS = (3, 11)
DENOISE, CFG, RADIUS = 0.65, 3.0, 3.0

LIT = ROOT / "workflows" / "api" / "light_from_a_side.json"
LAMPS = [
    {"kind": "point", "x": 0.25, "y": 0.3, "radius": 0.22, "falloff": 1.5, "colour": "#ff5a3c"},
    {"kind": "point", "x": 0.75, "y": 0.35, "radius": 0.22, "falloff": 1.5, "colour": "#3ce07a"},
    {"kind": "point", "x": 0.5, "y": 0.78, "radius": 0.22, "falloff": 1.5, "colour": "#4a6cff"},
]


def drawn(models: ImageModels) -> list[Tensor]:
    """The first picture, and it under each of LIGHTS, each [1, H, W, 3]."""
    noises = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    states = models.encode_prompts([WHO, *(f"{WHO}, lit from {light}" for light in LIGHTS)])
    empty = models.encode_prompts([""])
    first = models.sample(noises[0], states[:1], empty, CFG, schedule(models.scheduler), None, None)
    sigmas = schedule(models.scheduler, denoise=DENOISE)
    lit = [models.sample(noises[1], state[None], empty, CFG, sigmas, first, None) for state in states[1:]]
    return [models.decode(latent).movedim(1, -1) for latent in (first, *lit)]


def surroundings() -> None:
    """Draws the pictures of Load HDR and Environment Light."""
    sky = read_hdr(MEDIA / "toy_sky.hdr")
    small = torch.nn.functional.interpolate(sky.movedim(-1, 0)[None], size=(128, 256), mode="area")[0].movedim(0, -1)
    save("LoadHDR", list(tone_map(small.expand(2, -1, -1, -1), torch.tensor([0.0, -5.0]))), ["as it is", "-5 stops"], 2)
    normals = torch.from_numpy(numpy.array(Image.open(MEDIA / "toy_normals.png").resize((128, 128)))).float() / 255
    normals = torch.nn.functional.normalize(normals * 2 - 1, dim=-1)
    yaw = torch.tensor([0.0, 90.0, 180.0, 270.0])
    turned = yaw, torch.zeros(4)
    views = background_frames(sky, *turned, 75.0, 128, 128), environment_light_maps(sky, *turned, normals)
    shown = [tone_map(some, grey_exposure(sky) + 0.7) for some in views]
    names = [f"yaw {value:.0f}" for value in yaw.tolist()]
    save("EnvironmentLight", [*shown[0], *shown[1]], [*names, *[""] * 4], 4)


def inputs_of(kind: str) -> dict:
    """The inputs of the template's first node of a class."""
    nodes = json.loads(LIT.read_text("utf-8")).values()
    return next(node["inputs"] for node in nodes if node["class_type"] == kind)


def lit_by_hand(models: ImageModels) -> list[Tensor]:
    """The light of the template light_from_a_side, what is drawn over it, and three lamps, each [H, W, 3]."""
    source, sampler, prompt = (inputs_of(kind) for kind in ("PaperNodes_LightSource", "KSampler", "CLIPTextEncode"))
    size = (source["height"], source["width"])
    light = light_maps(parse_lights(source["lights"], 1), 1, *size, source["style"])
    start = models.encode(coded(light, "official").movedim(-1, 1))
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(sampler["seed"]))
    states = models.encode_prompts([prompt["text"], ""])
    sigmas = schedule(models.scheduler, sampler["steps"], sampler["denoise"])
    latent = models.sample(noise, states[:1], states[1:], sampler["cfg"], sigmas, start, None)
    lamps = light_maps(parse_lights(json.dumps({"version": 1, "lights": LAMPS}), 1), 1, *size)
    found = torch.cat((light.movedim(-1, 1), models.decode(latent), lamps.movedim(-1, 1)))
    # Twice as large, because there are few of them.
    large = torch.nn.functional.interpolate(found, scale_factor=2.0, mode="bicubic", align_corners=False)
    return list(large.clamp(0, 1).movedim(1, -1))


def main() -> None:
    """Draws all of them."""
    surroundings()
    use_host()
    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")
    save("LightSource", lit_by_hand(models), ["light from the right", "drawn over it", "three lamps"], 3)
    first, *lit = drawn(models)
    normals = normal_picture(normals_from_light(*lit))
    save("NormalsFromLight", [*(some[0] for some in lit), normals[0]], [*LIGHTS, "normals"], 5)
    moved = detail_transfer(lit[0], first, RADIUS)
    save("DetailTransfer", [first[0], lit[0][0], moved[0]], ["source", "relit", "with the source's detail"], 3)


if __name__ == "__main__":
    main()
