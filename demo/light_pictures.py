"""Draws the light nodes' pictures of web/docs with the demonstration models: ``python -m demo.light_pictures``.

What the templates normals_and_detail, light_from_a_side and environment_light make, with torch's own noise; a held-out
character in the light of four backgrounds, by the small IC-Light; of IC-Light's other nodes what they are given.
"""

import json
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels, schedule
from demo.eval.light_report import ARMS, LightModels
from demo.help_pictures import ROOT
from demo.light_pairs import Pictures, azimuth, draw_pairs, with_azimuth
from demo.media_pictures import MEDIA
from demo.story_pictures import save
from demo.world.attributes import BACKGROUNDS, LIGHT_ANGLES
from demo.world.render import render
from demo.world.scene import draw_scenes
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
RELIT_SEED, RELIT_PLACES = 33, ("desert", "snow", "room", "room")
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


def by_backgrounds(models: ImageModels) -> None:
    """Draws the picture of IC-Light Model: one character in the light of places and of greys."""
    arm = ARMS["fbc, a place"]
    scene = draw_scenes(1, RELIT_SEED, characters=1, combinations="held_out")
    scenes = with_azimuth(scene.select(torch.zeros(4, dtype=torch.long)), torch.tensor(LIGHT_ANGLES))
    places = torch.tensor([BACKGROUNDS.index(place) for place in RELIT_PLACES])
    parts = [
        draw_pairs(replace(scenes.select(half), background=places[half]), SIZE, torch.Generator().manual_seed(2), grey)
        for half, grey in ((slice(0, 2), 0.0), (slice(2, 4), 1.0))
    ]
    pictures = Pictures(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(Pictures)))
    settings = SimpleNamespace(steps=20, cfg=2.0, batch=4)
    relit = LightModels(models, CHECKPOINTS).draw(pictures, replace(scenes, background=places), arm, 3, settings, True)
    shown = [*pictures.background.movedim(1, -1), *relit.movedim(1, -1)]
    names = [f"{place}, light from {light}" for place, light in zip(RELIT_PLACES, LIGHTS[:2], strict=False)]
    save("ICLightModel", shown, [*names, *(f"grey, light from {light}" for light in LIGHTS[2:]), *["relit"] * 4], 4)


def given_to_ic_light() -> None:
    """Draws the pictures of IC-Light's other nodes: what they are given, rendered, and noise levels."""
    scene = draw_scenes(1, 11, characters=1)
    given = draw_pairs(scene, 256, torch.Generator().manual_seed(5), 0.0)
    foreground = given.foreground[0].movedim(0, -1)
    source = render(with_azimuth(scene, azimuth(scene) + 2.5), 256, 256).frames[0, 0].movedim(0, -1)
    mask = given.mask[0, 0, ..., None].expand(-1, -1, 3)
    save("ICLightConditioning", [source, mask, foreground], ["foreground", "mask", "what lies beside the noise"], 3)
    small = torch.nn.functional.interpolate(given.wanted, scale_factor=0.5, mode="area")[0].movedim(0, -1)
    page = torch.ones(192, 192, 3)
    page[32:160, 32:160] = small
    larger = torch.nn.functional.interpolate(small.movedim(-1, 0)[None], size=(192, 192), mode="bicubic")[0]
    large = torch.nn.functional.interpolate(given.foreground, size=(192, 192), mode="area")[0].movedim(0, -1)
    shown = [page, larger.clamp(0, 1).movedim(0, -1), large]
    save("ICLightHires", shown, ["first pass", "the second begins here", "foreground, larger"], 3)
    save("ICLightSchedule", [levels_picture()], ["noise levels of 25 steps: native blue, demo-exact orange"], 1)


def levels_picture(height: int = 200, width: int = 420) -> Tensor:
    """Karras' levels on SD1.5's schedule and on the truly linear one, [H, W, 3]: step to the right, sigma up."""
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.line([(30, 10), (30, height - 20), (width - 10, height - 20)], fill="#444444")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    for steps, colour in ((betas, "#2f6fde"), (torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), "#e07b24")):
        kept = (1 - steps).cumprod(0)
        sigmas = ((1 - kept) / kept).sqrt()
        ramp = torch.linspace(0, 1, 25, dtype=torch.float64)
        ends = sigmas[-1] ** (1 / 7), sigmas[0] ** (1 / 7)
        levels = (ends[0] + ramp * (ends[1] - ends[0])) ** 7
        points = [
            (30 + (width - 45) * k / 24, height - 20 - (height - 35) * float(v) / 26) for k, v in enumerate(levels)
        ]
        pen.line(points, fill=colour, width=2)
        for x, y in points:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    for value in (0, 10, 20):
        pen.text((8, height - 26 - (height - 35) * value / 26), str(value), fill="#444444")
    return torch.from_numpy(numpy.array(picture)).float() / 255


def main() -> None:
    """Draws all of them."""
    given_to_ic_light()
    surroundings()
    use_host()
    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")
    by_backgrounds(models)
    save("LightSource", lit_by_hand(models), ["light from the right", "drawn over it", "three lamps"], 3)
    first, *lit = drawn(models)
    normals = normal_picture(normals_from_light(*lit))
    save("NormalsFromLight", [*(some[0] for some in lit), normals[0]], [*LIGHTS, "normals"], 5)
    moved = detail_transfer(lit[0], first, RADIUS)
    save("DetailTransfer", [first[0], lit[0][0], moved[0]], ["source", "relit", "with the source's detail"], 3)


if __name__ == "__main__":
    main()
