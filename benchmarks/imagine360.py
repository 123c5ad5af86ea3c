"""Imagine360 at its published size: a step's memory and time against an unchunked transcription.

32 frames, 20 views of 256 x 256, a panorama of 1024 x 512, both guidance rows in one call; random weights in bfloat16.
Ours is the network as the nodes run it, in parts. The reference (published_imagine360.py) computes all at once, repeats
text and image tokens for every picture and makes the masks at every exchange block; both use PyTorch's attention.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from . import lib

FRAMES, SIDE = 32, 32
PUBLISHED = {
    "image_size": 32,
    "in_channels": 9,
    "out_channels": 4,
    "model_channels": 320,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 1024,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "adm_in_channels": None,
    "legacy": False,
}
BAR = 22.0
"""GiB."""


def published_sizes(unet: dict):
    """BranchSizes of the published network, or of a narrower one."""
    from papernodes.networks.image_tokens import TokenSizes
    from papernodes.networks.imagine360_layout import all_places, is_used
    from papernodes.networks.motion import ModuleSizes
    from papernodes.networks.panorama_branch import BranchSizes

    widths = [unet["model_channels"] * times for times in unet["channel_mult"]]
    by_side = {"down": widths, "mid": widths[-1:], "up": widths[::-1]}
    motion = {place: ModuleSizes(by_side[place.side][place.level], 1, 2, 64) for place in all_places(unet)
              if is_used(unet, place)}  # fmt: skip
    return BranchSizes(unet=unet, motion=motion, tokens=TokenSizes())


@torch.no_grad()
def random_network(device: torch.device, dtype: torch.dtype, unet: dict) -> nn.Module:
    """Weights that keep the variance; norms do nothing yet, biases are small."""
    from papernodes.networks.imagine360 import Imagine360Network

    torch.manual_seed(0)
    network = Imagine360Network(published_sizes(unet), torch.float32, dtype=dtype, device=device)
    for name, value in network.state_dict().items():
        if name.endswith("bands"):
            value.clamp_(max=8.0)  # beyond that, what two ways of computing give would differ by rounding alone
        elif value.ndim > 1:
            value.normal_(std=1.0 if name.endswith((".pe", "latents")) else value[0].numel() ** -0.5)
        elif name.endswith("bias"):
            value.normal_(std=0.1)
        else:
            value.fill_(1.0)
    return network.eval().requires_grad_(False)


def random_call(device: torch.device, dtype: torch.dtype, network: nn.Module, rows: int, frames: int, side: int):
    """Arguments of a call: 20 views of ``side``, a panorama of twice that height."""
    from papernodes.kernels.view_rings import icosahedron_views
    from papernodes.networks.imagine360 import Condition, StepDraws

    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, device=device) * scale).to(dtype)

    cameras = tuple((*one, 90.0) for one in zip(*(angles.tolist() for angles in icosahedron_views()), strict=True))
    shapes = (frames, 2 * side, 4 * side), (len(cameras) * frames, side, side)
    condition = Condition(
        *(draw(rows, 5, *shape) for shape in shapes),
        cameras,
        anchor_features=draw(rows, frames, 256, 64, 64),
        frame_features=draw(rows, frames, 256, 64, 64),
        position=draw(rows, frames, 6, scale=100),
        pitch=draw(rows, frames, scale=10),
    )
    tokens = network.sizes.tokens
    draws = StepDraws(
        (False, True, False, True, False, False, True),
        tuple(draw(tokens.queries, tokens.output, scale=0.1) for _ in range(2)),
    )
    times = torch.full((rows,), 500.0, device=device)
    context = draw(rows, 77, network.sizes.unet["context_dim"])
    return [draw(rows, 4, *shape) for shape in shapes], times, context, condition, draws


@torch.no_grad()
def run(device: torch.device, tiny: bool) -> lib.Table:
    """The table."""
    from papernodes.networks.imagine360 import PART, held_numbers

    from .published_imagine360 import PublishedImagine360

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    unet = PUBLISHED | {"model_channels": 64, "channel_mult": [1, 1, 1, 1], "context_dim": 1024} if tiny else PUBLISHED
    frames, side = (2, 16) if tiny else (FRAMES, SIDE)
    network = random_network(device, dtype, unet)
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    call = random_call(device, dtype, network, 2, frames, side)
    published = PublishedImagine360(network)
    places = sum(latent.numel() for latent in call[0]) / unet["out_channels"]
    estimate = held_numbers(unet, places, PART) * call[0][0].element_size()
    table = lib.Table(
        name=f"imagine360-{device.type}",
        title=f"Imagine360, a step of {frames} frames with 20 views, {16 * side} x {32 * side}, {device.type.upper()}",
        reference="the network unchunked, transcribed (`benchmarks/published_imagine360.py`)",
        columns=["what", "peak GiB", "time", "reference / ours", "differs by"],
        facts=lib.facts(device),
        remarks=[
            f"Both guidance rows in one call, {str(dtype).removeprefix('torch.')}. Peaks are of all that is allocated, "
            f"{weights / 2**30:.1f} GiB of it weights; text encoder, VAE and SAM are not loaded while a sampler runs.",
            f"What our MODEL tells ComfyUI it needs beside its weights: {estimate / 2**30:.1f} GiB.",
        ],
    )

    def peak(step) -> float:
        before = torch.cuda.memory_allocated() if device.type == "cuda" else weights
        return (before + lib.peak_bytes(step, device)) / 2**30

    def ours() -> list[Tensor]:
        return network(*call)

    def theirs() -> list[Tensor]:
        return published(*call)

    network.limit = PART
    wanted = theirs()
    found = ours()
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
    del found, wanted
    rows = lib.in_turn((ours, theirs), device, 1 if tiny else 5, 0 if tiny else 1)
    pair = lib.pair_of(rows)
    our_peak, their_peak = peak(ours), peak(theirs)
    table.add("ours", f"{our_peak:.2f}", f"{pair.subject:.0f} ms", f"{pair.ratio:.3f}", f"{gap:.1e}")
    network.limit = None
    whole = lib.median_ms(ours, device, 1 if tiny else 3, 0 if tiny else 1)
    table.add("ours, all at once", f"{peak(ours):.2f}", f"{whole:.0f} ms", f"{pair.reference / whole:.3f}", "")
    table.add("reference", f"{their_peak:.2f}", f"{pair.reference:.0f} ms", "", "")
    if device.type == "cuda" and not tiny:
        table.remarks.append(
            f"Bars: a peak under {BAR:g} GiB ({'met' if our_peak < BAR else 'missed'}), at most the reference's time "
            f"({'met' if pair.ratio >= 1 else 'missed'})."
        )
    if device.type == "cpu" and gap > 1e-4:
        sys.exit(f"imagine360: the two sides differ by {gap:.1e}")
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the table")
    parser.add_argument("--tiny", action="store_true", help="a small network: whether it runs; writes nothing")
    arguments, _ = parser.parse_known_args()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("imagine360: left out, networks of SD2.1's size need a GPU")
        return
    table = run(device, arguments.tiny)
    if not arguments.tiny:
        table.save(Path(arguments.results))
    print(table.markdown())


if __name__ == "__main__":
    main()
