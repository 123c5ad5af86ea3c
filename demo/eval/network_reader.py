"""The trained reader: a small convolutional network that finds the middle of every character and says what it is.

A map of 16 x 16 cells says where characters' middles are; at each such cell further maps hold the exact place, size,
angle, shape, colour, pattern, accessory and face. Light and background come from the whole picture.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.eval.reading import UNSURE, Reading
from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, FACES, LIGHTS, PATTERNS, SHAPES
from demo.world.scene import MAXIMUM_CHARACTERS

SIZE = 128
CELLS = 16
CHARACTER_HEADS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "pattern": len(PATTERNS),
    "accessory": len(ACCESSORIES),
    "face": len(FACES),
}
PICTURE_HEADS = {"light": len(LIGHTS), "background": len(BACKGROUNDS)}
HEADS = (*CHARACTER_HEADS, *PICTURE_HEADS)
POSE = 5
"""Numbers of a pose: offset x and y in cells, log radius, cos and sin of the angle."""

SURE = 0.5
"""Calibrated probability below which an answer is "unsure"."""

CLOSEST = 0.12
"""Stage units; of two middles closer than this only the surer one counts."""

READER_FILE = Path(__file__).parent / "reader.safetensors"


class Convolution(nn.Module):
    """Convolution and batch normalisation; ``fold`` turns both into one convolution with a bias."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x))

    def fold(self) -> None:
        """Take the normalisation's measured statistics into the convolution."""
        if isinstance(self.norm, nn.Identity):
            return
        old, norm = self.convolution, self.norm
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding).to(scale.device)
        with torch.no_grad():
            new.weight.copy_(old.weight * scale[:, None, None, None])
            new.bias.copy_(norm.bias - norm.running_mean * scale)
        self.convolution, self.norm = new, nn.Identity()


class Block(nn.Module):
    """Two convolutions beside a direct way."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = Convolution(width, width), Convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x + self.second(functional.silu(self.first(x))))


class ReaderNetwork(nn.Module):
    """Pictures [B, 3, 128, 128] in 0..1 to raw maps and answers; about a million weights."""

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96), blocks: tuple[int, int, int] = (1, 2, 4)):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, count in zip(widths, blocks, strict=True):
            layers += [Convolution(before, width, 5 if before == 3 else 3, 2), nn.SiLU()]
            layers += [Block(width) for _ in range(count)]
            before = width
        self.body = nn.Sequential(*layers)
        hidden = 160
        self.cell = nn.Sequential(Convolution(before, hidden, 1), nn.SiLU())
        self.outputs = nn.Conv2d(hidden, 1 + POSE + sum(CHARACTER_HEADS.values()), 1)
        self.whole = nn.Sequential(Convolution(before, hidden, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1))
        self.picture = nn.Conv2d(hidden, sum(PICTURE_HEADS.values()), 1)
        nn.init.constant_(self.outputs.bias[:1].detach(), -4.0)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Maps float [B, 1 + POSE + classes, 16, 16] and answers float [B, classes]."""
        features = self.body(pictures * 2 - 1)
        return self.outputs(self.cell(features)).float(), self.picture(self.whole(features)).flatten(1).float()

    def fold(self) -> "ReaderNetwork":
        """Fold every normalisation; what is stored and read with has none."""
        for module in self.modules():
            if isinstance(module, Convolution):
                module.fold()
        return self


def split_classes(answers: Tensor, heads: dict[str, int]) -> dict[str, Tensor]:
    """The last axis cut into each head's classes."""
    return dict(zip(heads, answers.split(list(heads.values()), dim=-1), strict=True))


def peaks(heat: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The surest local maxima of heat logits [B, 16, 16]: probabilities and cell numbers, each [B, count]."""
    chance = heat.sigmoid()
    best = functional.max_pool2d(chance[:, None], 3, 1, 1)[:, 0]
    return torch.where(chance == best, chance, 0.0).flatten(1).topk(count, dim=1)


class NetworkReader:
    """Reads pictures with the trained network.

    Args:
        path: the reader's file.
        device: where it runs.

    Raises:
        DemoFileError: the file is missing, damaged, of another kind or of another world version.
    """

    def __init__(self, path: Path = READER_FILE, device: torch.device | str = "cpu"):
        from networks.demo_format import check_fit, load

        weights, self.metadata = load(path, "reader")
        network = ReaderNetwork().fold()
        calibration = {name: weights.pop(f"calibration.{name}", torch.ones(())) for name in ("temperature", "heat")}
        check_fit(path, weights, network.state_dict())
        network.load_state_dict(weights)
        self.use(network, calibration["temperature"], float(calibration["heat"]), device)

    @classmethod
    def of(
        cls, network: ReaderNetwork, temperature: Tensor, heat: float, device: torch.device | str
    ) -> "NetworkReader":
        """A reader round a folded network that is not in a file yet."""
        reader = cls.__new__(cls)
        reader.metadata = {}
        reader.use(network, temperature, heat, device)
        return reader

    def use(self, network: ReaderNetwork, temperature: Tensor, heat: float, device: torch.device | str) -> None:
        """Set what reads: the network, one temperature a head, the probability from which a middle counts."""
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.temperature = dict(zip(HEADS, temperature.tolist(), strict=True))
        self.heat = heat

    @torch.no_grad()
    def answers(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The network's raw maps and answers for float pictures [B, 3, H, W] of any size and device."""
        pictures = pictures.to(self.device, torch.float32)
        if pictures.shape[-2:] != (SIZE, SIZE):
            pictures = functional.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)
        return self.network(pictures)

    def read(self, pictures: Tensor, part: int = 256) -> Reading:
        """Read float32 [B, 3, H, W] in 0..1; square pictures, other sizes are resized to 128 x 128."""
        from demo.eval.reading import concatenate

        return concatenate([self.read_part(pictures[k : k + part]) for k in range(0, pictures.shape[0], part)])

    def read_part(self, pictures: Tensor) -> Reading:
        """Read as many pictures as fit into memory."""
        maps, whole = self.answers(pictures)
        chance, cell = peaks(maps[:, 0], MAXIMUM_CHARACTERS + 2)
        found = maps.flatten(2).gather(2, cell[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
        pose = found[..., 1 : 1 + POSE]
        middle = torch.stack((cell % CELLS, cell // CELLS), -1) + 0.5 + pose[..., :2]
        position = middle * (2 / CELLS) - 1
        present = chance > self.heat
        gap = position[:, :, None] - position[:, None]
        close = torch.hypot(gap[..., 0], gap[..., 1]) < CLOSEST
        for k in range(1, chance.shape[1]):
            present[:, k] &= ~(close[:, k, :k] & present[:, :k]).any(1)
        order = present.int().argsort(dim=1, descending=True, stable=True)[:, :MAXIMUM_CHARACTERS]
        names = split_classes(found[..., 1 + POSE :], CHARACTER_HEADS) | split_classes(whole, PICTURE_HEADS)
        index = {name: self.decide(name, logits) for name, logits in names.items()}

        def ordered(values: Tensor) -> Tensor:
            return values.gather(1, order).cpu()

        return Reading(
            present=ordered(present),
            position=torch.stack([ordered(position[..., axis]) for axis in range(2)], -1),
            radius=ordered(pose[..., 2].exp()),
            angle=ordered(torch.atan2(pose[..., 4], pose[..., 3])),
            **{name: ordered(index[name]) for name in CHARACTER_HEADS if name != "face"},
            **{name: index[name].cpu() for name in PICTURE_HEADS},
        )

    def decide(self, name: str, logits: Tensor) -> Tensor:
        """The likeliest class, or -1 where its calibrated probability is below SURE."""
        chance, index = (logits / self.temperature[name]).softmax(-1).max(-1)
        return torch.where(chance >= SURE, index, UNSURE)
