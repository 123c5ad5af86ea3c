"""How far the demonstration models follow a light map: ``python -m demo.light_maps_followed`` prints how many of 40
pictures are lit as their map says, by the pack's reader, with words that agree, without words, and with the opposite
words. Chance is 10. The models were never trained on light maps; web/docs/PaperNodes_LightSource.md has the numbers.
"""

import torch
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.image_models import CHECKPOINTS, ImageModels, schedule
from demo.eval.network_reader import NetworkReader
from demo.light_pictures import CFG
from demo.world.attributes import LIGHTS
from demo.world.captions import LIGHTING
from kernels.light_source import SIDES, Light, light_maps
from kernels.pixel_coding import coded

PROMPTS = (
    "a blue dotted star with a crown in a forest",
    "a yellow ghost on a beach",
    "a red cat in a city",
    "a green cube in a meadow",
    "a pink heart in a room",
)
NOISES, SEED, DENOISE = 2, 100, 0.8
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
WORDS = {
    "agree": lambda side: f", {LIGHTING[side]}",
    "none": lambda side: "",
    "opposite": lambda side: f", {LIGHTING[OPPOSITE[side]]}",
}


def drawn(models: ImageModels, side: str, words: str) -> Tensor:
    """Pictures [B, 3, H, W] drawn over the map of a light from a side, with NOISES for each of PROMPTS."""
    light = light_maps((Light("side", {"angle": SIDES[side], "intensity": 1.0}),), 1, 128, 128)
    start = models.encode(coded(light, "official").movedim(-1, 1)).expand(NOISES, -1, -1, -1)
    empty = models.encode_prompts([""]).expand(NOISES, -1, -1)
    sigmas = schedule(models.scheduler, denoise=DENOISE)
    found = []
    for number, prompt in enumerate(PROMPTS):
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(SEED + number))
        state = models.encode_prompts([prompt + WORDS[words](side)]).expand(NOISES, -1, -1)
        found.append(models.decode(models.sample(noise, state, empty, CFG, sigmas, start, None)))
    return torch.cat(found)


def main() -> None:
    """Prints a line for each kind of words."""
    use_host()
    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")
    reader = NetworkReader()
    for words in WORDS:
        right = {
            side: int((reader.read(drawn(models, side, words)).light == LIGHTS.index(side)).sum()) for side in SIDES
        }
        print(f"words: {words}: {sum(right.values())} of {len(SIDES) * len(PROMPTS) * NOISES} {right}", flush=True)


if __name__ == "__main__":
    main()
