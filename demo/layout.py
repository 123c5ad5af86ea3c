"""Helps a model to learn what stands where, and asks whether it has: left and right are not learned by themselves."""

import torch
from torch import Tensor, nn

from demo.diffusion import add_noise, encode_text, signal_levels
from demo.training import autocast
from demo.training_data import encode_pictures
from demo.world.captions import RELATIONS, captions
from demo.world.render import render
from demo.world.scene import draw_scenes
from demo.world_tokens import token_rows


class PlaceReading(nn.Module):
    """Linear heads that read from a pixel's features, as its cross attention gets them, where in the picture it lies.

    A UNet tells left from right by nothing but its convolutions' padding, and learns to only where that pays at once.
    For the relation of two characters it does not: what words say of it helps no pixel that does not know its place,
    and knowing its place helps none whose words do not tell. Features trained to hold their place open that circle.
    The heads are no part of the model.

    Args:
        unet: the UNet whose features are read. Its first two blocks see too little of the picture, and are left out.
    """

    SKIPPED = ("input_blocks.1.", "input_blocks.2.")

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.features: dict[nn.Module, Tensor] = {}
        self.heads = nn.ModuleList()
        for name, module in unet.named_modules():
            if name.endswith(".attn2") and not name.startswith(self.SKIPPED):
                module.register_forward_pre_hook(self._keep)
                self.heads.append(nn.Linear(module.to_q.in_features, 2, device=module.to_q.weight.device))

    def _keep(self, module: nn.Module, inputs: tuple) -> None:
        self.features[module] = inputs[0]

    def loss(self) -> Tensor:
        """Mean squared error of the places read in the UNet's last call, each coordinate in -1..1."""
        features, self.features = self.features, {}
        errors = []
        for head, pixels in zip(self.heads, features.values(), strict=True):
            side = round(pixels.shape[1] ** 0.5)
            line = (torch.arange(side, device=pixels.device) + 0.5) * (2 / side) - 1
            place = torch.stack((line.repeat(side), line.repeat_interleave(side)), -1)
            with torch.autocast(pixels.device.type, enabled=False):
                errors.append((head(pixels.float()) - place).square().mean())
        return torch.stack(errors).mean()


class RelationReading(nn.Module):
    """A linear head that reads from every token's state which side or relation the caption has named before it.

    The other half of the circle that PlaceReading opens: without it the text encoder forgets a relation as soon as
    another character follows.

    Args:
        device: where the text encoder is.
    """

    WORDS = ("left", "right", "above", "below")

    def __init__(self, device: torch.device):
        super().__init__()
        self.head = nn.Linear(128, len(self.WORDS), device=device)
        found = torch.from_numpy(token_rows([" ".join((*self.WORDS, "from"))])[0]).long().to(device)
        self.rows, self.light = found[1 : 1 + len(self.WORDS)], found[1 + len(self.WORDS)]

    def loss(self, rows: Tensor, states: Tensor) -> Tensor:
        """Mean cross entropy over the tokens that have a relation before them, or are its word.

        Args:
            rows: int64 [B, 77]; of "lit from above" and "lit from the left" the last word is no relation.
            states: [B, 77, 128], what the text encoder makes of them.
        """
        light = rows == self.light
        light = nn.functional.pad(light, (1, 0))[:, :-1] | nn.functional.pad(light, (2, 0))[:, :-2]
        named = (rows[..., None] == self.rows) & ~light[..., None]
        seen = named.any(-1).cumsum(1)
        first = (named & (seen == 1)[..., None]).any(1).int().argmax(-1)
        with torch.autocast(states.device.type, enabled=False):
            guesses = self.head(states.float()).log_softmax(-1)
        errors = -guesses.gather(-1, first[:, None, None].expand(-1, rows.shape[1], 1))[..., 0]
        there = (seen > 0).float()
        return (errors * there).sum() / there.sum().clamp(min=1)


class RelationProbe:
    """How much a caption's relation matters to the model: what the loss does not tell.

    Args:
        vae: encodes the pictures.
        device: where the models are.
        size: of the pictures.
        count: how many scenes of two characters.
    """

    TIME = 900  # the noise hides all but the largest things

    def __init__(self, vae, device: torch.device, size: int, count: int = 512):
        scenes = draw_scenes(count, 23456, characters=2)
        sentences = captions(scenes, 1, full=True)
        self.level = signal_levels(device)[self.TIME]
        self.groups = {}
        for one, two in (("left", "right"), ("above", "below")):
            phrases = [f" {RELATIONS[name][0]} " for name in (one, two)]
            chosen = [k for k, text in enumerate(sentences) if any(phrase in text for phrase in phrases)]
            right = [sentences[k] for k in chosen]
            wrong = [
                text.replace(phrases[0], phrases[1]) if phrases[0] in text else text.replace(phrases[1], phrases[0])
                for text in right
            ]
            pictures = render(scenes.select(torch.tensor(chosen)).to(device), size, size).frames[:, 0]
            clean = encode_pictures(vae, pictures).float()
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5)).to(device)
            rows = [torch.from_numpy(token_rows(texts)).long().to(device) for texts in (right, wrong)]
            self.groups[f"{one}/{two}"] = (clean, noise, rows)

    @torch.no_grad()
    def __call__(self, unet: nn.Module, text: nn.Module) -> dict[str, float]:
        """Relation -> mean squared error of the clean latent with the opposite relation, less that with the right one.

        Near 0 where the relation is not looked at.
        """
        found = {}
        for name, (clean, noise, rows) in self.groups.items():
            x = add_noise(clean, noise, self.level.expand(clean.shape[0]))
            times = torch.full((clean.shape[0],), float(self.TIME), device=clean.device)
            errors = []
            for some in rows:
                with autocast(clean.device):
                    working = torch.bfloat16 if clean.is_cuda else torch.float32
                    context = encode_text(text, some).to(working)
                    guess = unet(x.to(working), times, context, transformer_options={})
                errors.append((guess.float() - noise).square().mean() * (1 - self.level) / self.level)
            found[name] = round(float(errors[1] - errors[0]), 4)
        return found
