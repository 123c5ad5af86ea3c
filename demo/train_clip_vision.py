"""Trains the toy world's CLIP vision model: ``python -m demo.train_clip_vision --state build/training/clip --final``.

Two pictures show the same characters in other places, sizes and angles, before another background, in another light;
their embeddings are to agree more than with every other picture of the batch (InfoNCE, van den Oord et al. 2018, both
ways, temperature learnt). The others are made hard: scenes come in groups whose characters share shape, colour or
pattern with the first of the group, and a batch takes whole groups.

Writes image_clip_vision.safetensors, the moving average in int8.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo import training
from demo.training import Trainer, autocast, batches, initialise, say
from demo.training_data import Drawing, rendered, to_bytes
from demo.training_drawings import save_grid
from demo.world.attributes import COLOURS, HELD_OUT, PATTERNS, SHAPES
from demo.world.scene import Scenes, draw_scenes, repose

GROUP = 4
"""Scenes that share shape, colour or pattern: the second its shape, the third its colour, the fourth its pattern."""

POSES = 4
MEAN = (0.48145466, 0.4578275, 0.40821073)  # comfy.clip_vision.clip_preprocess
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def preprocess(pictures: Tensor) -> Tensor:
    """uint8 pictures [B, 3, 128, 128] as ComfyUI's CLIP vision gives them to the network."""
    mean = pictures.new_tensor(MEAN, dtype=torch.float32).view(3, 1, 1)
    deviation = pictures.new_tensor(DEVIATION, dtype=torch.float32).view(3, 1, 1)
    return (pictures.float() / 255 - mean) / deviation


def share_looks(scenes: Scenes, combinations: str = "train") -> Scenes:
    """The same scenes in groups of GROUP whose first characters resemble the group's first."""
    looks = {name: getattr(scenes, name).clone() for name in ("shape", "colour", "pattern")}
    allowed = {"train": ~HELD_OUT, "held_out": HELD_OUT, "all": torch.ones_like(HELD_OUT)}[combinations]
    for member, name in enumerate(("shape", "colour", "pattern"), start=1):
        changed = {key: value[member::GROUP, 0].clone() for key, value in looks.items()}
        size = changed[name].shape[0]
        changed[name] = looks[name][::GROUP, 0][:size].clone()
        fits = allowed[changed["shape"], changed["colour"], changed["pattern"]]
        # Two characters of one scene never share shape and colour.
        twice = (looks["shape"][member::GROUP, 1:] == changed["shape"][:, None]) & (
            looks["colour"][member::GROUP, 1:] == changed["colour"][:, None]
        )
        fits &= ~(twice & scenes.present[member::GROUP, 1:]).any(dim=1)
        looks[name][member::GROUP, 0] = torch.where(fits, changed[name], looks[name][member::GROUP, 0])
    return dataclasses.replace(scenes, **looks)


def draw_poses(drawing: Drawing, device: torch.device, size: int, seed: int) -> Tensor:
    """Pictures uint8 [N, POSES, 3, size, size] on the device; groups stay together."""
    parts = []
    for k, (scenes, _) in enumerate(drawing):
        scenes = share_looks(scenes)
        poses = [scenes, *(repose(scenes, seed * 1_000_000 + k * POSES + pose) for pose in range(1, POSES))]
        frames = [torch.cat([to_bytes(part.frames[:, 0]) for part in rendered(pose, device, size)]) for pose in poses]
        parts.append(torch.stack(frames, dim=1))
    pool = torch.cat(parts)
    return pool[: pool.shape[0] // GROUP * GROUP]


def make_loss(network: nn.Module, temperature: Tensor, pool: Tensor, arguments):
    """The loss of one step: two poses of ``batch`` scenes, in whole groups."""
    device = pool.device
    groups = max(1, arguments.batch // GROUP)
    members = torch.arange(GROUP, device=device)
    target = torch.arange(groups * GROUP, device=device)

    def loss() -> Tensor:
        first = torch.randint(0, pool.shape[0] // GROUP, (groups, 1), device=device)
        chosen = (first * GROUP + members).flatten()
        pose = torch.randint(0, POSES, chosen.shape, device=device)
        other = (pose + torch.randint(1, POSES, chosen.shape, device=device)) % POSES
        pictures = torch.cat([pool[chosen, pose], pool[chosen, other]])
        with autocast(device):
            found = network(preprocess(pictures))[2].float()
        one, two = functional.normalize(found, dim=-1).chunk(2)
        likeness = one @ two.T * temperature.clamp(0, 4.6).exp()
        # A group that was drawn twice is not its own opposite.
        same = (chosen[:, None] == chosen[None]) & (target[:, None] != target[None])
        likeness = likeness.masked_fill(same, -100.0)
        return (functional.cross_entropy(likeness, target) + functional.cross_entropy(likeness.T, target)) / 2

    return loss


def build(device: torch.device) -> nn.Module:
    """The network with start values."""
    from networks.demo_vision import build_clip_vision

    network = build_clip_vision(device)
    initialise(network)
    nn.init.normal_(network.vision_model.embeddings.class_embedding, std=0.02)
    return network


@torch.no_grad()
def retrieval(network: nn.Module, device: torch.device, size: int, seed: int, combinations: str, among: int) -> float:
    """How often a character is found by its embedding among ``among`` of other looks, in another pose; four rounds."""
    right = total = 0
    for round_seed in range(seed, seed + 4):
        scenes, many = [], draw_scenes(among * 20, round_seed, characters=1, combinations=combinations)
        look = (many.shape[:, 0] * len(COLOURS) + many.colour[:, 0]) * len(PATTERNS) + many.pattern[:, 0]
        seen = torch.zeros(len(SHAPES) * len(COLOURS) * len(PATTERNS), dtype=torch.bool)
        for row, value in enumerate(look.tolist()):
            if not seen[value] and len(scenes) < among:
                seen[value] = True
                scenes.append(row)
        chosen = many.select(torch.tensor(scenes))
        found = []
        for pose in (chosen, repose(chosen, round_seed + 100)):
            pictures = torch.cat([to_bytes(part.frames[:, 0]) for part in rendered(pose, device, size)])
            embeddings = torch.cat([network(preprocess(pictures[part]))[2] for part in batches(len(scenes), 256)])
            found.append(functional.normalize(embeddings, dim=-1))
        best = (found[0] @ found[1].T).argmax(dim=1).cpu()
        right += int((best == torch.arange(len(scenes))).sum())
        total += len(scenes)
    return right / total


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=2.5, batch=512, rate=1e-3, pictures=40960)
    arguments = parser.parse_args()
    device = training.settle(arguments)
    arguments.size = 128  # the network's position embedding is for 128 pixels
    # Mostly one character, some pictures with two.
    drawing = Drawing(arguments, arguments.pictures, arguments.seed + 31, characters=(0.8, 0.2, 0.0, 0.0))

    from demo.bare_machine import use_host

    use_host()
    from networks.demo_format import load, save

    pool = draw_poses(drawing, device, arguments.size, arguments.seed + 1)
    torch.manual_seed(arguments.seed)
    network = build(device)
    temperature = torch.tensor(2.3, device=device, requires_grad=True)
    parameters = {**dict(network.named_parameters()), "temperature": temperature}
    trainer = Trainer(parameters, make_loss(network, temperature, pool, arguments), arguments, reserve=20)
    trainer.train()

    state = trainer.averaged()
    del state["temperature"]
    target = arguments.out / "image_clip_vision.safetensors"
    save(target, state, trainer.metadata("image_clip_vision"))
    network.load_state_dict(load(target, "image_clip_vision")[0])  # as it is stored
    network.to(device)
    among = 5 if arguments.tiny else 100
    shares = {kind: retrieval(network, device, arguments.size, 900, kind, min(among, 75)) for kind in ("held_out",)}
    shares["train"] = retrieval(network, device, arguments.size, 950, "train", among)
    shares["all"] = retrieval(network, device, arguments.size, 980, "all", among)
    say(f"the same character found among {among} (held_out: {min(among, 75)}): {shares}")
    found = {f"retrieval_{kind}": f"{share:.4f}" for kind, share in shares.items()}
    save(target, state, {**trainer.metadata("image_clip_vision"), **found})
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB; temperature {temperature.exp().item():.1f}")
    save_grid([pool[:8, pose].float() / 255 for pose in range(POSES)], arguments.state / "poses.png")
    say("done")


if __name__ == "__main__":
    main()
