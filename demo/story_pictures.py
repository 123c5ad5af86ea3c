"""Draws the story nodes' pictures of web/docs with the demonstration models: ``python -m demo.story_pictures``."""

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.image_models import CHECKPOINTS, ImageModels, schedule, story_lora_path
from demo.eval.story_models import Arm, Story, draw, encode
from demo.help_pictures import ROOT
from demo.world.attributes import COLOURS, SHAPES
from kernels.contact_sheet import contact_sheet
from kernels.noise_mix import mix_noise
from kernels.noise_picture import noise_to_picture
from kernels.singular_values import Curve
from kernels.story_text import Prompt

SEED = 3
STORY = Story(SHAPES.index("ghost"), (0, 1, 3, 4, 6), (0, 2, 1, 0, 2), "colour", COLOURS.index("green"))
TOGETHER = Arm(together=True, mode="svr")
STRENGTH = 3.0
"""Of the identity attention in its own picture: with the paper's 1 little is seen."""


def save(name: str, pictures: list[Tensor], captions: list[str], columns: int) -> None:
    """Writes web/docs/PaperNodes_<name>.webp."""
    sheet = contact_sheet(pictures, captions, columns=columns)[0]
    path = ROOT / "web" / "docs" / f"PaperNodes_{name}.webp"
    Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(path, quality=70, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def frames(models: ImageModels, arm: Arm) -> list[Tensor]:
    """The story's pictures [H, W, 3]."""
    return list(draw(models, [STORY], arm, SEED, 3.0).movedim(1, -1))


def crown_and_snow(models: ImageModels, mode: str) -> Tensor:
    """What the template express_and_suppress draws, [H, W, 3]."""
    prompt = Prompt(("a blue ball",), (0, 1), ("with a crown", "in the snow"), shown=1)
    arm = Arm(together=True, mode=mode, suppress=Curve(0.0, 0.3))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    sigmas, empty = schedule(models.scheduler), models.encode_prompts([""])
    latent = models.sample(noise, encode(models, [prompt], arm)[0], empty, 3.0, sigmas, None, None)
    return models.decode(latent)[0].movedim(0, -1)


def main() -> None:
    """Draws all of them."""
    use_host()
    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")
    tuned = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m", lora=story_lora_path())
    without, attending = frames(tuned, TOGETHER), frames(tuned, replace(TOGETHER, strength=STRENGTH))
    for name in ("StoryPrompts", "StorySheet"):
        save(name, attending, STORY.texts, 3)
    save("IdentityAttention", without + attending, ["without"] * 5 + [f"strength {STRENGTH:g}"] * 5, 5)
    reweighted = [crown_and_snow(models, mode) for mode in ("off", "svr")]
    save("SingularValueReweight", reweighted, ["plain", "'in the snow' expressed, 'with a crown' suppressed"], 2)
    drawn = [torch.randn(1, 4, 24, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    mixed = [drawn[0], *(mix_noise(noise, drawn[0], 0.5) for noise in drawn[1:])]
    save("StoryNoise", [noise_to_picture(noise, shortest_side=96)[0] for noise in mixed], [""] * 3, 3)


if __name__ == "__main__":
    main()
