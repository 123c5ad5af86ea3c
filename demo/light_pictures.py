"""Draws the light nodes' pictures of web/docs with the demonstration models: ``python -m demo.light_pictures``.

What the template normals_and_detail makes, with torch's own noise.
"""

import torch
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.image_models import CHECKPOINTS, ImageModels, schedule
from demo.story_pictures import save
from kernels.detail_transfer import detail_transfer
from kernels.normals_from_light import normal_picture, normals_from_light

WHO = "a blue dotted star with a crown in a forest"
LIGHTS = ("the left", "the right", "above", "below")
SEEDS = (3, 11)
DENOISE, CFG, RADIUS = 0.65, 3.0, 3.0


def drawn(models: ImageModels) -> list[Tensor]:
    """The first picture, and it under each of LIGHTS, each [1, H, W, 3]."""
    noises = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    states = models.encode_prompts([WHO, *(f"{WHO}, lit from {light}" for light in LIGHTS)])
    empty = models.encode_prompts([""])
    first = models.sample(noises[0], states[:1], empty, CFG, schedule(models.scheduler), None, None)
    sigmas = schedule(models.scheduler, denoise=DENOISE)
    lit = [models.sample(noises[1], state[None], empty, CFG, sigmas, first, None) for state in states[1:]]
    return [models.decode(latent).movedim(1, -1) for latent in (first, *lit)]


def main() -> None:
    """Draws both."""
    use_host()
    first, *lit = drawn(ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m"))
    normals = normal_picture(normals_from_light(*lit))
    save("NormalsFromLight", [*(some[0] for some in lit), normals[0]], [*LIGHTS, "normals"], 5)
    moved = detail_transfer(lit[0], first, RADIUS)
    save("DetailTransfer", [first[0], lit[0][0], moved[0]], ["source", "relit", "with the source's detail"], 3)


if __name__ == "__main__":
    main()
