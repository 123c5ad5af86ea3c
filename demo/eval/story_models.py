"""Five-frame stories for the image models, drawn in batches: the story nodes' own arithmetic on a bare GPU machine.

Prompts, windows and reweighting come from kernels/, the bias from patches/regional.py; only the tokens are found with
the toy world's table, because ComfyUI's tokenizer cannot be imported there. tests/demo/test_eval_story.py compares a
story with what the nodes draw.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from demo.diffusion import encode_text
from demo.eval.image_models import SIZE, STEPS, ImageModels, schedule
from demo.training import batches
from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, LIGHTS, PATTERNS, SHAPES
from demo.world.captions import LIGHTING, PLACES, WEARING, with_article
from demo.world_tokens import LENGTH, token_ids, token_rows
from kernels.singular_values import EXPRESS, SUPPRESS, Curve, reweight_story
from kernels.story_text import Prompt, find_tokens, make_prompts

FRAMES = 5
VALUES = {"colour": COLOURS, "pattern": PATTERNS, "accessory": ACCESSORIES}


@dataclass(frozen=True)
class Story:
    """A character by two of its four attributes, and where it is seen in which light."""

    shape: int
    backgrounds: tuple[int, ...]
    lights: tuple[int, ...]
    named: str = "colour"
    """Which attribute is named beside the shape."""

    value: int = 0
    """And what it is, an index into VALUES[named]."""

    @property
    def identity(self) -> str:
        """Such as "a red cat", "a striped cat" or "a cat with a hat"; the other two attributes are left open."""
        word, shape = VALUES[self.named][self.value], SHAPES[self.shape]
        if self.named == "accessory":
            return f"{with_article(shape)} {WEARING[word][0]}"
        return with_article(f"{word} {shape}")

    @property
    def texts(self) -> list[str]:
        """Such as "in a forest, lit from above"."""
        return [
            f"{PLACES[BACKGROUNDS[place]]}, {LIGHTING[LIGHTS[light]]}"
            for place, light in zip(self.backgrounds, self.lights, strict=True)
        ]


@dataclass(frozen=True)
class Arm:
    """One way of prompting a story."""

    together: bool
    """All frames in one prompt, or each frame alone."""

    mode: str = "off"
    """"off", "svr" or "svr-eot"."""

    strength: float = 0.0
    """Of the identity attention."""

    same_noise: bool = True
    window: int = 10
    express: Curve = EXPRESS
    suppress: Curve = SUPPRESS


BASELINE, FULL = "one by one", "story"


def arms_of(
    express: Curve = EXPRESS, suppress: Curve = SUPPRESS, strength: float = 1.0, window: int = 10
) -> dict[str, Arm]:
    """The whole method, the frames prompted one by one, and what becomes of the method without its parts."""
    full = Arm(together=True, mode="svr", strength=strength, window=window, express=express, suppress=suppress)
    return {
        BASELINE: Arm(together=False),
        FULL: full,
        "story, no identity attention": replace(full, strength=0.0),
        "story, no reweighting": replace(full, mode="off"),
        "story, neither": replace(full, mode="off", strength=0.0),
        "story, svr-eot": replace(full, mode="svr-eot"),
        "one by one, identity attention": Arm(together=False, strength=strength),
        "one by one, other noise for each frame": Arm(together=False, same_noise=False),
        "story, other noise for each frame": replace(full, same_noise=False),
    }


def draw_stories(count: int, seed: int) -> list[Story]:
    """Stories that name the shape and, in turn, colour, pattern or accessory; a story's five places differ."""
    chance, found = random.Random(seed), []
    for number in range(count):
        shape, named = chance.randrange(len(SHAPES)), tuple(VALUES)[number % len(VALUES)]
        # "none" and "plain" are what a caption leaves unsaid.
        value = chance.randrange(0 if named == "colour" else 1, len(VALUES[named]))
        places = tuple(chance.sample(range(len(BACKGROUNDS)), FRAMES))
        lights = tuple(chance.randrange(len(LIGHTS)) for _ in range(FRAMES))
        found.append(Story(shape, places, lights, named, value))
    return found


def prompts_of(story: Story, arm: Arm) -> list[Prompt]:
    """A prompt for each frame."""
    identities, frames = {"": story.identity}, [(("",), text) for text in story.texts]
    if arm.together:
        return make_prompts(identities, frames, arm.window)
    return [make_prompts(identities, [frame], 10)[0] for frame in frames]


@torch.no_grad()
def encode(models: ImageModels, prompts: Sequence[Prompt], arm: Arm) -> tuple[Tensor, Tensor]:
    """Conditioning float32 [N, 77, 128] and the logits' bias [N, 1, 77]."""
    rows = torch.from_numpy(token_rows([prompt.text for prompt in prompts])).long().to(models.device)
    states = torch.cat([encode_text(models.text, part) for part in rows.split(512)]).float().cpu()
    steps = max(len(prompt.suppressed) for prompt in prompts)
    suppressed = torch.zeros(steps, len(prompts), LENGTH, dtype=torch.bool)
    expressed, ends = torch.zeros(2, len(prompts), LENGTH, dtype=torch.bool)
    bias = torch.zeros(len(prompts), 1, LENGTH)
    for n, prompt in enumerate(prompts):
        tokens, start, places = token_ids(prompt.text), 1, []
        for part in (prompt.identity, *prompt.texts):
            alone = token_ids(part)
            alone = alone[1 : alone.index(alone[-1], 1)]
            first = find_tokens(tokens, alone, start)
            start = first + len(alone)
            places.append(slice(first, start))
        for step, text in enumerate(prompt.suppressed):
            suppressed[step, n, places[1 + text]] = True
        expressed[n, places[1 + prompt.shown]] = True
        ends[n, start:] = True
        bias[n, 0, : places[0].stop] = math.log1p(arm.strength)
    if arm.mode != "off":
        states = reweight_story(
            states, list(suppressed), expressed, ends, mode=arm.mode, suppress=arm.suppress, express=arm.express
        )
    return states, bias


@torch.no_grad()
def draw(
    models: ImageModels,
    stories: Sequence[Story],
    arm: Arm,
    seed: int,
    cfg: float,
    *,
    steps: int = STEPS,
    batch: int = 500,
) -> Tensor:
    """Pictures float32 [stories * FRAMES, 3, 128, 128] in 0..1, a story's frames one after the other.

    Args:
        seed: of the noise; a story's first noise is the same in every arm.
        cfg: guidance, at the empty prompt.
        batch: pictures at a time.
    """
    from patches.regional import options_with_bias  # needs the host's modules

    prompts = [prompt for story in stories for prompt in prompts_of(story, arm)]
    states, bias = encode(models, prompts, arm)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(stories), FRAMES, 4, SIZE // 8, SIZE // 8, generator=generator)
    if arm.same_noise:
        noise = noise[:, :1].expand_as(noise)
    noise, unwanted, found = noise.flatten(0, 1), models.encode_prompts([""]), []
    sigmas = schedule(models.scheduler, steps)
    for part in batches(len(prompts), batch):
        options = None
        if arm.strength:
            own = bias[part].to(models.device)
            options = options_with_bias(torch.cat((own, torch.zeros_like(own))), {}, models.unet)
        positive = states[part].to(models.device, models.working)
        latents = models.sample(
            noise[part].to(models.device), positive, unwanted.expand_as(positive), cfg, sigmas, None, None, options
        )
        found.append(models.decode(latents).cpu())
    return torch.cat(found)
