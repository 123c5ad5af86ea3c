"""MangaNinja: a picture's time against its authors' loop, the reference pass' share of it, and memory.

The UNets and the ControlNet have SD1.5's size, all weights are random; 512 x 512, 50 steps. Ours is what the nodes run
on a GPU, in float16: the bank of one row, one call for three rows, the guidance of DualCFGGuider and Euler's steps,
which are DDIM's; what ComfyUI's sampler does around the networks' calls is left out, but the sums of guidance. The
reference (published_manga_ninja.py) is timed in float32, as its authors run it, and in float16. Both use PyTorch's
attention, and PyTorch's defaults for TF32: in convolutions, not in products of matrices.
"""

import argparse
import copy
import gc
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import lib
from .relight import SD15

STEPS, POINTS = 50, 12
SIZE = SD15 | {"in_channels": 4}
TINY = SIZE | {"model_channels": 32, "context_dim": 32}
CLIP_TEXT, CLIP_VISION, AUTOENCODER = 123_060_480, 303_966_208, 83_653_863
"""Parameters of CLIP ViT-L/14's text model, of its vision model with projection, and of SD1.5's VAE."""

Keep = Callable[[lib.Table], None]


@dataclass
class Networks:
    """All of MangaNinja but CLIP and VAE."""

    unet: nn.Module
    reference: nn.Module
    control: nn.Module
    points: nn.Module

    def to(self, dtype: torch.dtype) -> "Networks":
        """Copies in another dtype."""
        copies = {name: copy.deepcopy(network).to(dtype) for name, network in vars(self).items()}
        for network in copies.values():
            network.dtype = dtype
        return Networks(**copies)


@torch.no_grad()
def random_networks(device: torch.device, config: dict, seed: int = 0) -> Networks:
    """In float32: norms do nothing yet, weights keep the variance, biases are small."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from papernodes.networks.point_net import PointNet

    kind = {"device": device, "dtype": torch.float32}
    hosts = kind | {"operations": comfy.ops.disable_weight_init}
    encoder = {name: value for name, value in config.items() if name != "out_channels"}
    found = Networks(
        UNetModel(**config, **hosts),
        UNetModel(**config, **hosts),
        ControlNet(**encoder, hint_channels=3, **hosts),
        PointNet([config["model_channels"] * times for times in config["channel_mult"]], **kind),
    )
    torch.manual_seed(seed)
    for network in vars(found).values():
        network.eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            else:
                parameter.fill_(1.0)
    return found


def random_picture(device: torch.device, config: dict, latent: int):
    """What a run draws from, float32: lines at random, points at random places. See published_manga_ninja.Picture."""
    from .published_manga_ninja import Picture

    generator = torch.Generator(device).manual_seed(1)
    pixels = 8 * latent

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def numbered() -> Tensor:
        found = torch.zeros(1, 1, pixels, pixels, device=device)
        places = torch.randperm(pixels * pixels, generator=generator, device=device)[:POINTS]
        found.view(-1)[places] = torch.arange(1.0, POINTS + 1, device=device)
        return found

    edge = (draw(1, 1, pixels, pixels) > 1.5).float().expand(-1, 3, -1, -1)
    tokens = (draw(1, 1, config["context_dim"]) for _ in range(2))
    return Picture(draw(1, 4, latent, latent), draw(1, 4, latent, latent), *tokens, edge, numbered(), numbered())


class Ours:
    """What the nodes run, in the networks' dtype, latents in float32.

    Args:
        networks: on the device.
        away: the reference UNet once more, which rests in main memory.
        steps: of the run.
        reference_scale, point_scale: MangaNinja's, from which the guider makes its own.
    """

    def __init__(
        self,
        networks: Networks,
        away: nn.Module,
        steps: int = STEPS,
        reference_scale: float = 9.0,
        point_scale: float = 15.0,
    ):
        from .published_manga_ninja import leading_times, signal_shares

        self.networks, self.away = networks, away
        weight = next(networks.unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.first_scale, self.second_scale = (1 + reference_scale) / 2, point_scale / 2
        shares = signal_shares()
        self.times = leading_times(steps)
        self.sigmas = [((1 - shares[time]) / shares[time]) ** 0.5 for time in [*self.times, 0]]

    @torch.no_grad()
    def __call__(self, picture, move: bool = False) -> Tensor:
        """The latent [1, 4, h, w], scaled as the UNet sees it; ``move``: as in ``kept_bank``."""
        prepared = self.prepare(picture, self.kept_bank(picture, move))
        x = picture.noise * (1 + self.sigmas[0] ** 2) ** 0.5
        for number in range(len(self.times)):
            x = self.step(x, number, *prepared)
        return x / (1 + self.sigmas[-1] ** 2) ** 0.5

    @torch.no_grad()
    def kept_bank(self, picture, move: bool = False) -> dict:
        """The bank in main memory, where ComfyUI keeps what goes from node to node.

        Args:
            move: the reference UNet comes from main memory and goes back, as it does where memory is short.
        """
        reference = self.away.to(self.device) if move else self.networks.reference
        found = {place: tokens.cpu() for place, tokens in self.bank(picture, reference).items()}
        if move:
            self.away.to("cpu")
        return found

    @torch.no_grad()
    def bank(self, picture, reference: nn.Module) -> dict:
        """The reference pass: one row, without noise."""
        from papernodes.patches.reference_attention import keep_tokens

        found: dict = {}
        time = torch.zeros(1, device=self.device)
        inputs = picture.reference.to(self.dtype), time, picture.image.to(self.dtype)
        reference(*inputs, transformer_options=keep_tokens(found, {}))
        return found

    @torch.no_grad()
    def prepare(self, picture, bank: dict) -> tuple:
        """What stays for a run: the rows' attention, context [3, 1, C] and hint [3, 3, 8 h, 8 w]."""
        from papernodes.patches.reference_attention import ROLES, ReferenceRows

        maps = picture.target_points, picture.reference_points
        points = [[tokens.to(self.dtype) for tokens in self.networks.points(drawn)] for drawn in maps]
        context = torch.cat((picture.empty, picture.image, picture.image)).to(self.dtype)
        hint = (2 * picture.edge - 1).repeat(3, 1, 1, 1).to(self.dtype)
        held = {place: tokens.to(self.device, self.dtype) for place, tokens in bank.items()}
        return ReferenceRows(held, ROLES, *points), context, hint

    @torch.no_grad()
    def step(self, x: Tensor, number: int, rows, context: Tensor, hint: Tensor) -> Tensor:
        """One of Euler's steps of a latent [1, 4, h, w] whose noise has the deviation of the step's sigma."""
        sigma, after = self.sigmas[number : number + 2]
        batch = torch.cat((x, x, x))
        inputs = (batch / (sigma**2 + 1) ** 0.5).to(self.dtype)
        times = torch.full((3,), float(self.times[number]), device=self.device)
        control = merged(self.networks.control(inputs, hint, times, context))
        found = self.networks.unet(inputs, times, context, control=control, transformer_options=rows.options({}))
        plain, referred, pointed = (batch - found.float() * sigma).chunk(3)
        clean = plain + self.first_scale * (referred - plain) + self.second_scale * (pointed - referred)
        return x + (x - clean) / sigma * (after - sigma)


def merged(found: dict) -> dict:
    """A ControlNet's result as the host's sampler hands it on, which multiplies by the strength even where it is 1."""
    for residuals in found.values():
        for residual in residuals:
            residual *= 1.0
    return {"input": [], **found}


class Setting:
    """A device, the networks' sizes, a picture and how many steps it takes."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.tiny = device, tiny
        self.config, self.latent, self.steps = (TINY, 16, 4) if tiny else (SIZE, 64, STEPS)
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.picture = random_picture(device, self.config, self.latent)
        self.half_picture = self.picture.to(self.dtype)
        self.size = "in small" if tiny else "512 x 512"
        # What the libraries themselves need is there before memory is counted.
        torch.ones(64, 64, device=device, dtype=self.dtype) @ torch.ones(64, 64, device=device, dtype=self.dtype)

    @staticmethod
    def described(dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.")

    def ours(self, networks: Networks, away: nn.Module, steps: int | None = None) -> Ours:
        return Ours(networks, away, steps or self.steps)

    def published(self, networks: Networks, steps: int | None = None):
        from .published_manga_ninja import PublishedMangaNinja

        return PublishedMangaNinja(*vars(networks).values(), steps=steps or self.steps)


class Bytes:
    """Counts a device's memory beyond what is allocated when this is made."""

    def __init__(self, device: torch.device):
        self.device = device
        self.base = self._allocated()

    def _allocated(self) -> int:
        gc.collect()
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else 0

    def show(self, call: Callable[[], object]) -> tuple[str, str]:
        """Megabytes: allocated before a call, weights for the most part; and the peak while it runs. Both beyond the
        base."""
        before = self._allocated()
        peak = lib.peak_bytes(call, self.device)
        return f"{(before - self.base) / 1e6:.0f}", f"{(before - self.base + peak) / 1e6:.0f}"


def zeros(device: torch.device, dtype: torch.dtype, copies: int, tiny: bool) -> list[Tensor]:
    """What stands for CLIP's towers, ``copies`` of each, and for the VAE."""
    counts = [CLIP_TEXT, CLIP_VISION] * copies + [AUTOENCODER]
    return [torch.zeros(count // 1000 if tiny else count, device=device, dtype=dtype) for count in counts]


def measure_memory(setting: Setting, keep: Keep) -> tuple[Networks, Networks, nn.Module]:
    """Makes the networks, one set after the other, and a table of what each way of running them needs.

    Returns:
        In float32, in the setting's dtype, and the reference UNet for ``Ours``.
    """
    device, dtype = setting.device, setting.dtype
    table = lib.Table(
        name=f"manga-ninja-memory-{device.type}",
        title=f"MangaNinja's memory, {setting.size}, {device.type.upper()}, MB, weights included",
        reference="the authors' loop, transcribed (`benchmarks/published_manga_ninja.py`), all their networks resident",
        columns=["what", "in", "before the run", "peak"],
        facts=lib.facts(device),
        remarks=[
            "Reference: two UNets, ControlNet, point net, and, as tensors of zeros that nothing reads, the VAE "
            f"({AUTOENCODER:,} parameters) and two copies each of CLIP ViT-L/14's text model ({CLIP_TEXT:,}) and "
            f"vision model with projection ({CLIP_VISION:,}), which the authors load twice.",
            "Ours, all resident: the same with one copy of each. Ours, moved: the reference UNet comes for its pass "
            "and goes, CLIP and VAE have gone, as ComfyUI does it where memory is short.",
        ],
    )
    steps = 2  # a peak does not depend on how many there are

    def add(what: str, kind: torch.dtype, count: Bytes, call: Callable[[], object]) -> None:
        table.add(what, setting.described(kind), *count.show(call))
        keep(table)

    count = Bytes(device)
    single = random_networks(device, setting.config)
    others = zeros(device, torch.float32, 2, setting.tiny)
    run = setting.published(single, steps)
    add("reference", torch.float32, count, lambda: run(setting.picture))
    del others
    count = Bytes(device)
    half = single.to(dtype)
    others = zeros(device, dtype, 2, setting.tiny)
    run = setting.published(half, steps)
    add("reference", dtype, count, lambda: run(setting.half_picture))
    del others
    others = zeros(device, dtype, 1, setting.tiny)
    away = copy.deepcopy(half.reference).to("cpu")
    ours = setting.ours(half, away, steps)
    add("ours, all resident", dtype, count, lambda: ours(setting.picture))
    del others
    half.reference.to("cpu")
    add("ours, moved", dtype, count, lambda: ours(setting.picture, move=True))
    half.reference.to(device)
    return single, half, away


def measure_times(setting: Setting, single: Networks, half: Networks, away: nn.Module, keep: Keep) -> tuple:
    """A table of runs and steps; returns our runs' times in milliseconds, the second with the reference UNet moved."""
    device, picture, half_picture = setting.device, setting.picture, setting.half_picture
    ours, theirs, theirs_half = setting.ours(half, away), setting.published(single), setting.published(half)
    table = lib.Table(
        name=f"manga-ninja-{device.type}",
        title=f"MangaNinja, {setting.steps} steps, the reference pass included, {setting.size}, {device.type.upper()}",
        reference="the authors' loop, transcribed (`benchmarks/published_manga_ninja.py`)",
        columns=["what", "reference in", "ours", "reference", "ours / reference", "differ by"],
        facts=lib.facts(device),
        remarks=[
            f"Ours in {setting.described(setting.dtype)}. TF32 as PyTorch sets it: convolutions only. Moved: our "
            "reference UNet comes from pageable main memory and goes back within the run; theirs stays.",
            "Networks and guidance only: neither side has CLIP, VAE or a sampler's bookkeeping in it. Differ by: the "
            "largest difference of the two latents over the largest value.",
        ],
    )

    def add(what: str, pair: lib.Pair, dtype: torch.dtype, found: Tensor, wanted: Tensor) -> float:
        gap = float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
        shown = [f"{milliseconds:.1f} ms" for milliseconds in (pair.subject, pair.reference)]
        table.add(what, setting.described(dtype), *shown, f"{1 / pair.ratio:.3f}", f"{gap:.1e}")
        keep(table)
        return gap

    made: dict[str, Tensor] = {}

    def keeping(name: str, call: Callable[[], Tensor]) -> Callable[[], None]:
        def kept() -> None:
            made[name] = call()

        return kept

    calls = {
        "ours": lambda: ours(picture),
        "moved": lambda: ours(picture, move=True),
        "single": lambda: theirs(picture),
        "half": lambda: theirs_half(half_picture),
    }
    rounds = lib.in_turn([keeping(name, call) for name, call in calls.items()], device, 1 if setting.tiny else 3, 1)
    columns = dict(zip(calls, zip(*rounds, strict=True), strict=True))
    gaps = []
    for what, subject in (("a run", "ours"), ("a run, moved", "moved")):
        for reference, dtype in (("single", torch.float32), ("half", setting.dtype)):
            pair = lib.pair_of(list(zip(columns[subject], columns[reference], strict=True)))
            gaps.append(add(what, pair, dtype, made[subject], made[reference]))
    if device.type == "cpu" and max(gaps) > 1e-4:
        sys.exit(f"manga_ninja: the two runs differ by {max(gaps):.1e}")

    middle = setting.steps // 2
    prepared = ours.prepare(picture, ours.kept_bank(picture))
    scale = (1 + ours.sigmas[middle] ** 2) ** 0.5
    noisy = picture.noise * scale

    def step() -> Tensor:
        return ours.step(noisy, middle, *prepared)

    for network, given, dtype in ((theirs, picture, torch.float32), (theirs_half, half_picture, setting.dtype)):
        needed, time = network.prepare(given), ours.times[middle]

        def reference(network=network, given=given, time=time, needed=needed) -> Tensor:
            return network.step(given.noise, time, needed)

        pair = lib.paired(step, reference, device, 2 if setting.tiny else 20)
        after = (1 + ours.sigmas[middle + 1] ** 2) ** 0.5
        add("a step", pair, dtype, step() / after, reference())
    return statistics.median(columns["ours"]), statistics.median(columns["moved"])


def measure_pass(setting: Setting, ours: Ours, runs: tuple[float, float], keep: Keep) -> None:
    """A table of the reference pass' share of a run of ours."""
    device, picture = setting.device, setting.picture
    run, moved = runs
    table = lib.Table(
        name=f"manga-ninja-pass-{device.type}",
        title=f"MangaNinja's reference pass in a run of {setting.steps} steps, {setting.size}, {device.type.upper()}",
        reference="a run of ours with that pass in it",
        columns=["what", "time", "share of a run"],
        facts=lib.facts(device),
        remarks=["ComfyUI runs the pass once for a reference and keeps its bank for all further pictures."],
    )

    def there_and_back() -> None:
        for tokens in ours.kept_bank(picture).values():
            tokens.to(device)

    def moving() -> None:
        for tokens in ours.kept_bank(picture, move=True).values():
            tokens.to(device)

    for what, call, whole, repeats in (
        ("the pass alone", lambda: ours.bank(picture, ours.networks.reference), run, 20),
        ("and the bank to main memory and back", there_and_back, run, 20),
        ("and the reference UNet from main memory and back", moving, moved, 5),
    ):
        taken = lib.in_turn([call], device, 2 if setting.tiny else repeats, 2)
        time = statistics.median(milliseconds for (milliseconds,) in taken)
        table.add(what, f"{time:.1f} ms", f"{100 * time / whole:.2f} %")
        keep(table)


def run(device: torch.device, tiny: bool, keep: Keep) -> None:
    """All tables; ``keep`` is handed each of them whenever it has a new row."""
    setting = Setting(device, tiny)
    single, half, away = measure_memory(setting, keep)
    runs = measure_times(setting, single, half, away, keep)
    measure_pass(setting, setting.ours(half, away), runs, keep)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the tables")
    parser.add_argument("--tiny", action="store_true", help="small networks: whether it runs; writes nothing")
    arguments, _ = parser.parse_known_args()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("manga_ninja: left out, networks of SD1.5's size need a GPU")
        return
    tables: dict[str, lib.Table] = {}

    def keep(table: lib.Table) -> None:
        tables[table.name] = table
        if not arguments.tiny:
            table.save(Path(arguments.results))

    run(device, arguments.tiny, keep)
    for table in tables.values():
        print(table.markdown())


if __name__ == "__main__":
    main()
