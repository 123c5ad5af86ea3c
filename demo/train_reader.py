"""Trains the reader: ``python -m demo.train_reader --minutes 2 --state build/training/reader --out demo/eval --final``.

The reader must know every look, the held-out ones too: it judges whether a model that never saw them draws them.
Pictures are rendered at the start and damaged anew in every step (demo/eval/degrade.py). All in one piece: the state
holds no statistics of the normalisations, so a resumed run would have to find them first.
"""

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional

from demo import training
from demo.eval.degrade import degrade, soften
from demo.eval.network_reader import (
    CELLS,
    CHARACTER_HEADS,
    HEADS,
    PICTURE_HEADS,
    POSE,
    SIZE,
    NetworkReader,
    ReaderNetwork,
    split_classes,
)
from demo.eval.reading import markdown, score, truth
from demo.training import batches, elapsed, say
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes

SMALLEST = 0.12
"""Radius in stage units (as the camera shows it) below which a character is not asked for."""


def vary(scenes: Scenes, seed: int) -> Scenes:
    """Some of the scenes as videos show them: panned, zoomed, characters turned all the way round."""
    generator = torch.Generator().manual_seed(seed)

    def chance(share: float, *shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) < share).float()

    size, characters = scenes.shape.shape
    moved = chance(0.4, size, 1, 1)
    pan = (torch.rand(size, 1, 2, generator=generator) * 2 - 1) * 0.45 * moved
    zoom = torch.exp((torch.rand(size, 1, 1, generator=generator) * 2 - 1) * 0.28 * moved)
    turned = chance(0.2, size, 1, 1) * (torch.rand(size, 1, characters, generator=generator) * 2 - 1) * math.pi
    empty = torch.rand(size, generator=generator) < 0.01
    return dataclasses.replace(
        scenes,
        camera=torch.cat((pan, zoom), -1),
        angle=scenes.angle + turned,
        count=torch.where(empty, 0, scenes.count),
    )


@dataclasses.dataclass
class Pool:
    """Pictures and what the network should say of them, on the device."""

    pictures: Tensor  # uint8 [N, 3, 128, 128]
    present: Tensor  # bool [N, K]
    pose: Tensor  # float32 [N, K, 5]: x and y in cells, log radius, cos and sin of the angle
    character: Tensor  # int64 [N, K, heads]
    picture: Tensor  # int64 [N, heads]


def targets(scenes: Scenes) -> dict[str, Tensor]:
    """What Pool holds beside the pictures."""
    asked = truth(scenes)
    middle = (asked.position + 1) * (CELLS / 2)
    pose = torch.cat(
        (middle, torch.stack((asked.radius.clamp(min=1e-3).log(), asked.angle.cos(), asked.angle.sin()), -1)), -1
    )
    return {
        "present": asked.present & (asked.radius > SMALLEST),
        "pose": pose,
        "character": torch.stack([getattr(scenes, name) for name in CHARACTER_HEADS], -1),
        "picture": torch.stack([getattr(scenes, name) for name in PICTURE_HEADS], -1),
    }


def draw_pool(count: int, seed: int, device: torch.device, seconds: float, part: int = 1024) -> Pool:
    """Render up to ``count`` pictures, until ``seconds`` after the start of the process."""
    part = min(part, count)
    pictures = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
    found: list[dict[str, Tensor]] = []
    done = 0
    for number, chosen in enumerate(batches(count, part)):
        weights = (0.34, 0.33, 0.18, 0.15)
        some_seed = seed * 100_000 + number
        scenes = draw_scenes(chosen.stop - chosen.start, some_seed, characters=weights, combinations="all")
        scenes = vary(scenes, some_seed + 50_000)
        found.append(targets(scenes))
        frames = render(scenes.to(device), SIZE, SIZE).frames[:, 0]
        pictures[chosen] = (frames * 255).round().to(torch.uint8)
        done = chosen.stop
        if elapsed() > seconds:
            break
    say(f"{done} pictures rendered")
    joined = {name: torch.cat([one[name] for one in found]).to(device) for name in found[0]}
    return Pool(pictures[:done], **joined)


def heat_target(pose: Tensor, present: Tensor) -> Tensor:
    """float32 [B, 16, 16]: 1 in the cell of each middle, falling off round it."""
    axis = torch.arange(CELLS, device=pose.device) + 0.5
    dx, dy = axis - pose[..., :1], axis - pose[..., 1:2]
    near = torch.exp(-(dx[:, :, None, :] ** 2 + dy[:, :, :, None] ** 2) / (2 * 0.7**2))
    own = (dx.abs() <= 0.5)[:, :, None, :] & (dy.abs() <= 0.5)[:, :, :, None]
    near = torch.where(own, 1.0, near * 0.95) * present[..., None, None]
    return near.amax(1)


def heat_loss(heat: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of a map of middles (Zhou et al., Objects as Points), a mean over the characters."""
    chance = heat.sigmoid()
    hit = (wanted >= 1).float()
    positive = -functional.logsigmoid(heat) * (1 - chance) ** 2 * hit
    negative = -functional.logsigmoid(-heat) * chance**2 * (1 - wanted) ** 4 * (1 - hit)
    return (positive + negative).sum() / hit.sum().clamp(min=1)


def reader_loss(network: ReaderNetwork, pictures: Tensor, pool: Pool, rows: Tensor) -> Tensor:
    """The loss of one batch: pictures float [B, 3, 128, 128], what they show in the pool's ``rows``."""
    present, pose = pool.present[rows], pool.pose[rows]
    maps, whole = network(pictures)
    total = heat_loss(maps[:, 0], heat_target(pose, present))
    # A middle near the edge of its cell may be read in the next one: train that too.
    jitter = (torch.rand_like(pose[..., :2]) - 0.5) * 0.5
    cell = (pose[..., :2] + jitter).floor().clamp(0, CELLS - 1)
    place = (cell[..., 1] * CELLS + cell[..., 0]).long()
    found = maps.flatten(2).gather(2, place[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    weight = present.float()
    weight = weight / weight.sum().clamp(min=1)
    said = found[..., 1 : 1 + POSE]
    total = total + ((said[..., :2] - (pose[..., :2] - cell - 0.5)).abs().sum(-1) * weight).sum()
    total = total + ((said[..., 2] - pose[..., 2]).abs() * weight).sum()
    total = total + 0.3 * (((said[..., 3:] - pose[..., 3:]) ** 2).sum(-1) * weight).sum()
    for k, (name, logits) in enumerate(split_classes(found[..., 1 + POSE :], CHARACTER_HEADS).items()):
        loss = functional.cross_entropy(logits.flatten(0, 1), pool.character[rows][..., k].flatten(), reduction="none")
        total = total + (0.3 if name == "face" else 1.0) * (loss.view_as(weight) * weight).sum()
    for k, logits in enumerate(split_classes(whole, PICTURE_HEADS).values()):
        total = total + functional.cross_entropy(logits, pool.picture[rows][:, k])
    return total


def make_loss(network: ReaderNetwork, pool: Pool, batch: int):
    """The loss of a batch that it draws and damages itself."""
    device = pool.pictures.device

    def loss() -> Tensor:
        rows = torch.randint(pool.pictures.shape[0], (batch,), device=device)
        with torch.no_grad():
            pictures = degrade(pool.pictures[rows].float() / 255).contiguous(memory_format=torch.channels_last)
        with training.autocast(device):
            return reader_loss(network, pictures, pool, rows)

    return loss


@torch.no_grad()
def settle_statistics(network: ReaderNetwork, pool: Pool, count: int = 32) -> None:
    """Measure the normalisations' statistics for the averaged weights."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    network.train()
    for chosen in batches(min(pool.pictures.shape[0], count * 256), 256):
        network(degrade(pool.pictures[chosen].float() / 255))
    network.eval()


@torch.no_grad()
def calibrate(network: ReaderNetwork, pool: Pool, device: torch.device) -> tuple[Tensor, float]:
    """One temperature a head, and the probability from which a middle counts, both on damaged pictures."""
    reader = NetworkReader.of(network, torch.ones(len(HEADS)), 0.4, device)
    maps, whole = [], []
    for chosen in batches(pool.pictures.shape[0], 256):
        one, two = reader.answers(degrade(pool.pictures[chosen].float() / 255))
        maps.append(one)
        whole.append(two)
    maps, whole = torch.cat(maps), torch.cat(whole)
    cell = pool.pose[..., :2].floor().clamp(0, CELLS - 1)
    place = (cell[..., 1] * CELLS + cell[..., 0]).long()
    found = maps.flatten(2).gather(2, place[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    pairs = [
        (logits[pool.present], pool.character[..., k][pool.present])
        for k, logits in enumerate(split_classes(found[..., 1 + POSE :], CHARACTER_HEADS).values())
    ] + [(logits, pool.picture[:, k]) for k, logits in enumerate(split_classes(whole, PICTURE_HEADS).values())]
    tried = torch.linspace(0.5, 4.0, 36).tolist()
    temperature = torch.tensor(
        [min(tried, key=lambda t: float(functional.cross_entropy(logits / t, index))) for logits, index in pairs]
    )
    wanted = pool.present.sum(1)
    chance = maps[:, 0].sigmoid()
    top = functional.max_pool2d(chance[:, None], 3, 1, 1)[:, 0]
    maxima = torch.where(chance == top, chance, 0.0).flatten(1)
    levels = [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    heat = max(levels, key=lambda level: float(((maxima > level).sum(1) == wanted).float().mean()))
    return temperature, heat


def measure(reader: NetworkReader, count: int, seed: int) -> dict[str, str]:
    """Shares right on fresh pictures, printed and as metadata: by number of characters, clean and damaged."""
    lines = {}
    for number in (1, 2, 3, 4):
        scenes = draw_scenes(count, seed + number, characters=number, combinations="all")
        frames = torch.cat([render(scenes.select(rows).to(reader.device)).frames[:, 0] for rows in batches(count, 256)])
        for name, pictures in (("clean", frames), ("soft", soften(frames)), ("damaged", degrade(frames))):
            table = score(truth(scenes), reader.read(pictures))
            say(f"{number} characters, {name}:\n{markdown(table)}")
            if name != "damaged":
                lines[f"{name}_{number}"] = ", ".join(f"{key} {share.value:.4f}" for key, share in table.items())
    return lines


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=2, batch=512, rate=3e-3, pictures=98304)
    parser.set_defaults(drawing_seconds=35)
    parser.add_argument("--measured", type=int, default=1000, help="fresh pictures for each number of characters")
    arguments = parser.parse_args()
    device = training.settle(arguments)
    if arguments.tiny:
        arguments.measured = 8

    from networks.demo_format import pack, save, unpack

    pool = draw_pool(arguments.pictures, arguments.seed + 1, device, arguments.drawing_seconds)
    fresh = draw_pool(min(4096, arguments.pictures), arguments.seed + 500, device, arguments.drawing_seconds + 10)
    torch.manual_seed(arguments.seed)
    network = ReaderNetwork().to(device, memory_format=torch.channels_last).train()
    say(f"{sum(weight.numel() for weight in network.parameters())} weights")
    trainer = training.Trainer(
        dict(network.named_parameters()),
        make_loss(network, pool, arguments.batch),
        arguments,
        reserve=20,
        average=0.998,
        weight_decay=0.02,
    )
    trainer.train()
    trainer.use_averages()
    settle_statistics(network, pool)
    network.fold()
    weights = network.state_dict()
    network.load_state_dict(unpack(pack(weights)))  # what is measured is what will be stored
    temperature, heat = calibrate(network, fresh, device)
    say(f"temperatures {dict(zip(HEADS, temperature.tolist(), strict=True))}, middles count from {heat}")
    reader = NetworkReader.of(network, temperature, heat, device)
    lines = measure(reader, arguments.measured, arguments.seed * 1000 + 900_000_000)
    target = arguments.out / "reader.safetensors"
    weights = weights | {"calibration.temperature": temperature, "calibration.heat": torch.tensor(heat)}
    save(target, weights, {**trainer.metadata("reader"), **lines})
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    say("done")


if __name__ == "__main__":
    main()
