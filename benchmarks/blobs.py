"""Blob layouts: drawing ellipses, attention within regions, and what both cost a step of SDXL and of Wan.

Twelve blobs that move, each over about 3 % of the picture. Drawing is timed against eager torch, and against what is
written from the papers' formula: a covariance matrix inverted for every ellipse. Regional attention is timed against
PyTorch's attention to everything, which is what a plain step does, and against two ways to restrict it: FlexAttention,
compiled, with the same regions, and a dense mask. Steps (blobs_run.py) are those of networks of SDXL's and Wan's size
with random weights, in bfloat16, against the same networks without blobs.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from kernels.ellipses import raster, token_masks
from kernels.regional_attention import plan_regions, regional_attention

from . import lib

BLOBS, ACROSS = 12, 4
FRAMES, HEIGHT, WIDTH = 81, 720, 1280
WAN_FRAMES, WAN_HEIGHT, WAN_WIDTH = 21, 30, 52
"""Tokens of 81 frames of 832 x 480: 32,760."""

WAN_HEADS = {"1.3B": 12, "14B": 40}

Keep = Callable[[lib.Table], None]


def moving_blobs(frames: int, count: int = BLOBS) -> tuple[Tensor, Tensor]:
    """Ellipses, float64 [frames, count, 5], on circles about the places of a grid; all are present [frames, count]."""
    number, when = torch.arange(count).double(), torch.linspace(0, 1, max(frames, 2)).double()[:frames, None]
    down = math.ceil(count / ACROSS)
    turn = 2 * math.pi * when + number
    ellipses = torch.stack(
        (
            (number % ACROSS + 0.5) / ACROSS + 0.06 * turn.cos(),
            (number // ACROSS + 0.5) / down + 0.08 * turn.sin(),
            (0.12 + 0.06 * (number % 5) / 4).expand(frames, count),
            (0.08 + 0.06 * (number % 3) / 2).expand(frames, count),
            1.5 * turn,
        ),
        -1,
    )
    return ellipses, torch.ones(frames, count, dtype=torch.bool)


def token_regions(frames: int, height: int, width: int) -> Tensor:
    """int64 [1, frames * height * width]: the blobs that each token belongs to as bits 1 to 12; bit 0 = no blob."""
    ellipses, present = moving_blobs(frames)
    masks = token_masks(ellipses, present, height, width)
    sets = (masks.long() << torch.arange(1, BLOBS + 1)[:, None, None]).sum(1)
    return torch.where(sets == 0, 1, sets).view(1, -1)


def by_inverse(ellipses: Tensor, height: int, width: int) -> Tensor:
    """bool [T, K, height, width]: delta^T (R diag(a^2, b^2) R^T)^-1 delta <= 1, frame by frame."""
    x, y, a, b, angle = ellipses.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    covariance = turn @ torch.diag_embed(torch.stack((a, b), -1) * height).square() @ turn.transpose(-1, -2)
    inverse = torch.linalg.inv(covariance)
    down = torch.arange(height, device=ellipses.device) + 0.5
    across = torch.arange(width, device=ellipses.device) + 0.5
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)
    found = []
    for frame in range(len(ellipses)):
        delta = grid - torch.stack((x[frame] * width, y[frame] * height), -1)[:, None, None]
        found.append(((delta @ inverse[frame][:, None]) * delta).sum(-1) <= 1)
    return torch.stack(found)


def measure_raster(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Ours against eager torch and the inverse."""
    frames, height, width = (3, 45, 80) if tiny else (FRAMES, HEIGHT, WIDTH)
    ellipses, present = moving_blobs(frames)
    placed = ellipses.to(device, torch.float32)
    table = lib.Table(
        name=f"blobs-raster-{device.type}",
        title=f"Drawing {frames} x {BLOBS} ellipses at {width} x {height}, {device.type.upper()}",
        reference="eager torch, frame by frame (`kernels/ellipses.py`); hard masks also by an inverse matrix for each "
        "ellipse (`benchmarks/blobs.py`)",
        columns=["what", "dtype", "ours", "GB written", "reference", "reference ms", "ours / reference"],
        facts=lib.facts(device),
        remarks=["Ours starts from ellipses in main memory, checks them and brings them to the device."],
    )

    def draw(kind: str, composited: bool, dtype: torch.dtype, backend: str = "auto") -> Tensor:
        return raster(ellipses, present, height, width, kind, composited, dtype, device=device, backend=backend)

    repeats = 2 if tiny else 10
    for kind, composited, dtype in (
        ("hard", False, torch.bool), ("hard", False, torch.uint8), ("hard", False, torch.float32),
        ("hard", True, torch.uint8), ("hard", True, torch.float32), ("soft", True, torch.float32),
        ("opacity", True, torch.float32), ("opacity", True, torch.float16),
    ):  # fmt: skip
        what, shown = f"{kind}{', composited' if composited else ''}", str(dtype).removeprefix("torch.")
        references = {"eager": lambda: draw(kind, composited, dtype, "eager")}  # noqa: B023
        if dtype == torch.bool:
            references["inverse"] = lambda: by_inverse(placed, height, width)
        for name, reference in references.items():
            pair = lib.paired(lambda: draw(kind, composited, dtype), reference, device, repeats, 2)  # noqa: B023
            written = draw(kind, composited, dtype)
            size = written.numel() * written.element_size() / 1e9
            table.add(
                what, shown, f"{pair.subject:.2f} ms", f"{size:.2f}", name, f"{pair.reference:.2f}",
                f"{1 / pair.ratio:.4f}",
            )  # fmt: skip
            del written
        keep(table)


def flex_attention(regions: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention with the same regions, compiled; its block mask is made here."""
    from torch.nn.attention import flex_attention as flex

    sets = regions[0]

    def meets(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (sets[query] & sets[key]) != 0

    blocks = torch.compile(flex.create_block_mask)(meets, None, None, len(sets), len(sets), device=regions.device)
    compiled = torch.compile(flex.flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


def fastest_plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention to everything by the kernels that ComfyUI asks for first."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    first = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(first, set_priority=True):
        return functional.scaled_dot_product_attention(q, k, v)


def flash_plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention to everything by PyTorch's flash attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        return functional.scaled_dot_product_attention(q, k, v)


def measure_attention(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Ours at Wan's size against attention to everything and two other ways to restrict it."""
    size = (3, 6, 8) if tiny else (WAN_FRAMES, WAN_HEIGHT, WAN_WIDTH)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    regions = token_regions(*size).to(device)
    length, repeats = regions.shape[1], 2 if tiny else 10
    shown = str(dtype).removeprefix("torch.")
    table = lib.Table(
        name=f"blobs-attention-{device.type}",
        title=f"Attention within {BLOBS} blobs and the background, {length:,} tokens of 128 channels a head, {shown}, "
        f"{device.type.upper()}",
        reference="attention to everything (cuDNN, flash), or another way to restrict it, by PyTorch",
        columns=["what", "heads", "ours", "reference", "reference ms", "ours / reference", "differ by"],
        facts=lib.facts(device),
    )
    share = float(((regions[0][:, None] & regions[0, ::97][None]) != 0).float().mean())
    table.remarks.append(f"Of all pairs {100 * share:.0f} % meet. Plans are made before and used again.")
    plans = {ordered: plan_regions(regions, regions, ordered=ordered) for ordered in (True, False)}
    if plans[True].lists is not None:
        shares = [100 * plans[ordered].lists.share() for ordered in (True, False)]
        table.remarks.append(
            f"Blocks visited: {shares[0]:.0f} % of all with sorted tokens, {shares[1]:.0f} % in their own order."
        )
    time = lib.median_ms(lambda: plan_regions(regions, regions), device, repeats, 2)
    table.remarks.append(f"A plan takes {time:.2f} ms.")
    dense = ((regions[0][:, None] & regions[0][None]) != 0)[None, None]
    generator = torch.Generator(device).manual_seed(0)
    for name, heads in WAN_HEADS.items():
        heads = 2 if tiny else heads
        q, k, v = (
            torch.randn(1, length, heads, 128, device=device, dtype=dtype, generator=generator).transpose(1, 2)
            for _ in range(3)
        )
        references: dict[str, Callable[[], Tensor]] = {"everything, fastest": lambda: fastest_plain(q, k, v)}  # noqa: B023
        if device.type == "cuda":
            references["everything, flash"] = lambda: flash_plain(q, k, v)  # noqa: B023
            try:
                flex = flex_attention(regions)
                flex(q, k, v)
                references["FlexAttention"] = lambda: flex(q, k, v)  # noqa: B023
            except Exception as error:  # noqa: BLE001, whatever its compiler says
                table.remarks.append(f"FlexAttention does not compile here: {type(error).__name__}.")
        if name == "1.3B":
            references["dense mask"] = lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)  # noqa: B023
        wanted = references.get("dense mask")
        wanted = None if wanted is None else wanted()
        for ordered in (True, False):
            ours = lambda: regional_attention(q, k, v, plans[ordered])  # noqa: B023, E731
            gap = "-" if wanted is None else f"{float((ours() - wanted).abs().max()):.1e}"
            for kind, reference in references.items() if ordered else list(references.items())[:1]:
                rounds = 3 if kind == "dense mask" else repeats
                pair = lib.paired(ours, reference, device, rounds, 2)
                what = f"{name}, {'sorted' if ordered else 'own order'}"
                table.add(
                    what, heads, f"{pair.subject:.2f} ms", kind, f"{pair.reference:.2f}", f"{1 / pair.ratio:.3f}", gap
                )
                keep(table)


def step_table(what: str, size: str, device: torch.device, remarks: list[str]) -> lib.Table:
    """An empty table of steps."""
    return lib.Table(
        name=f"blobs-{what.lower()}-{device.type}",
        title=f"A step of {what}, {size}, with {BLOBS} blobs, {device.type.upper()}",
        reference="the same network without blobs",
        columns=["what", "timed", "with blobs", "plain", "with blobs / plain", "more peak MB"],
        facts=lib.facts(device),
        remarks=["Random weights, bfloat16. Masks and plans are made in the first step and kept.", *remarks],
    )


def measure_steps(make: str, table: lib.Table, device: torch.device, tiny: bool, keep: Keep) -> None:
    """Steps with blobs in attention to text, and in the picture's to itself as well, against a plain one."""
    from . import blobs_run
    from .static_run import recorded

    step = getattr(blobs_run, make)(device, torch.bfloat16 if device.type == "cuda" else torch.float32, tiny)
    plain_peak = lib.peak_bytes(step.plain, device)
    captures = make == "sdxl_step" and device.type == "cuda"  # Wan's network reads numbers of main memory
    for within, what in ((False, "text"), (True, "text, and in 10 blocks the picture within regions")):
        call = step.with_blobs(within)
        call()
        more = lib.peak_bytes(call, device) - plain_peak
        ways = {"eager": (call, step.plain)}
        if captures:
            ways["captured"] = (recorded(call, device), recorded(step.plain, device))
        for way, (ours, plain) in ways.items():
            pair = lib.paired(ours, plain, device, 2 if tiny else 10, 2)
            table.add(
                what, way, f"{pair.subject:.1f} ms", f"{pair.reference:.1f} ms", f"{1 / pair.ratio:.3f}",
                f"{more / 1e6:.0f}" if device.type == "cuda" else "-",
            )  # fmt: skip
            keep(table)


def measure_sdxl(device: torch.device, tiny: bool, keep: Keep) -> None:
    """A guided step of SDXL."""
    remarks = [
        "Two rows, the negative without blobs; 77 rows of text become 308. Captured: recorded as CUDA graphs, which "
        "compares the GPU's work."
    ]
    table = step_table("SDXL", "in small" if tiny else "1024 x 1024", device, remarks)
    measure_steps("sdxl_step", table, device, tiny, keep)


def measure_wan(device: torch.device, tiny: bool, keep: Keep) -> None:
    """A step of Wan's positive row."""
    remarks = ["1.3B's 30 blocks; the positive row alone, 512 rows of text become 704."]
    table = step_table("Wan", "in small" if tiny else "81 frames of 832 x 480", device, remarks)
    measure_steps("wan_step", table, device, tiny, keep)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the tables")
    parser.add_argument("--tiny", action="store_true", help="small sizes: whether it runs; writes nothing")
    parser.add_argument("--only", choices=("raster", "attention", "sdxl", "wan"), action="append", help="which tables")
    arguments, _ = parser.parse_known_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("blobs: left out, its sizes need a GPU")
        return
    tables: dict[str, lib.Table] = {}

    def keep(table: lib.Table) -> None:
        tables[table.name] = table
        if not arguments.tiny:
            table.save(Path(arguments.results))

    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    measures = {"raster": measure_raster, "attention": measure_attention, "sdxl": measure_sdxl, "wan": measure_wan}
    for name in arguments.only or measures:
        measures[name](device, arguments.tiny, keep)
    for table in tables.values():
        print(table.markdown())


if __name__ == "__main__":
    main()
