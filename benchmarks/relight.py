"""A step of RelightVid: time against its authors' forward pass, memory at 16, 32 and 120 frames.

The UNet has SD1.5's size with IC-Light's twelve channels and RelightVid's motion modules, all of random weights, at
512 x 512 with the three rows of its guidance. Ours is what the node Motion Modules runs, in float16 on a GPU; the
reference (published_relight.py) is timed in float32, as its authors run it, and in float16. Both use PyTorch's
attention, and PyTorch's defaults for TF32: in convolutions, not in products of matrices.
"""

import argparse
import copy

import torch
from torch import Tensor

from . import lib

ROWS, FRAMES, TEXT = 3, 16, 77
LENGTHS = (16, 32, 120)
SD15 = {
    "image_size": 32, "in_channels": 12, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
    "use_linear_in_transformer": False, "context_dim": 768, "num_heads": 8, "num_head_channels": -1,
    "use_spatial_transformer": True, "legacy": False, "use_checkpoint": False,
}  # fmt: skip
TINY = SD15 | {"model_channels": 32, "context_dim": 32}


def random_motion(widths: list[int], positions: int = 32) -> dict[str, Tensor]:
    """Weights of AnimateDiff's layout: two modules a level on the way down, three on the way up, none in the middle."""
    from networks.demo_motion import module_shapes, position_table

    found = {}
    for side, levels, count in (("down", widths, 2), ("up", widths[::-1], 3)):
        for level, width in enumerate(levels):
            for number in range(count):
                module = f"{side}_blocks.{level}.motion_modules.{number}.temporal_transformer."
                for name, shape in module_shapes(width).items():
                    found[module + name] = torch.randn(shape) * shape[-1] ** -0.5
    tables = {name: position_table(value.shape[0], positions) for name, value in found.items() if "to_q" in name}
    return found | {name.replace("to_q.weight", "pos_encoder.pe"): table for name, table in tables.items()}


class Setting:
    """The networks and the inputs of one step."""

    def __init__(self, device: torch.device, config: dict, latent: int):
        import comfy.ops
        from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
        from papernodes.networks.motion import read_motion
        from papernodes.patches.frames import layer_before

        self.device, self.latent = device, latent
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        torch.manual_seed(0)
        operations = comfy.ops.disable_weight_init
        unet = UNetModel(**config, device=device, dtype=torch.float32, operations=operations).eval()
        for parameter in unet.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        widths = [config["model_channels"] * factor for factor in config["channel_mult"]]
        motion = {name: value.to(device) for name, value in random_motion(widths).items()}
        motion = read_motion("random", motion, operations=operations)

        def published(unet, motion):
            from .published_relight import PublishedClip

            layers = {layer_before(unet, place): module for place, module in motion.by_place().items()}
            return PublishedClip(unet, layers)

        self.published_single = published(unet, motion)
        # Copies, so that the modules know each other's halves as they did.
        self.unet, self.motion = copy.deepcopy((unet, motion))
        self.unet.to(self.dtype).dtype = self.dtype
        self.motion.to(self.dtype)
        self.published_half = published(self.unet, self.motion)
        self.context = torch.randn(ROWS, TEXT, config["context_dim"], device=device)

    def clip(self, frames: int) -> Tensor:
        """float32 ``[rows, channels, F, h, w]``; the rows of one clip begin alike."""
        generator = torch.Generator(self.device).manual_seed(frames)
        shape = (1, 12, frames, self.latent, self.latent)
        return torch.randn(shape, device=self.device, generator=generator).expand(ROWS, -1, -1, -1, -1).contiguous()

    def times(self) -> Tensor:
        """One for each row."""
        return torch.full((ROWS,), 500.0, device=self.device)

    @torch.no_grad()
    def ours(self, clip: Tensor, apart: bool = False) -> Tensor:
        """``[rows, 4, F, h, w]`` of a clip in one piece; ``apart``: a call for each row, as the host does it when short
        of memory."""
        from papernodes.patches.frames import joined

        frames, found = clip.shape[2], []
        for rows in [slice(row, row + 1) for row in range(ROWS)] if apart else [slice(None)]:
            pictures = clip[rows].transpose(1, 2).flatten(0, 1).to(self.dtype)
            times = self.times()[rows].repeat_interleave(frames)
            context = self.context[rows].to(self.dtype).repeat_interleave(frames, 0)
            with joined(self.unet, frames, self.motion):
                made = self.unet(pictures, times, context, transformer_options={})
            found.append(made.unflatten(0, (-1, frames)).transpose(1, 2))
        return torch.cat(found)

    def ours_in_windows(self, clip: Tensor) -> list[Tensor]:
        """A clip of any length in the pack's windows of 16 frames, 4 of them shared: ``[F, 4, h, w]`` of each row."""
        from papernodes.patches.frame_windows import FrameWindows, Windows

        handler = FrameWindows(Windows(length=FRAMES, overlap=4))
        frames = clip.shape[2]
        noisy, beside = clip[0, :4].transpose(0, 1), clip[0, 4:].transpose(0, 1)

        def calculate(_, conditions, x, timestep, options):
            window = options["transformer_options"]["context_window"]
            part = torch.cat((x, window.get_tensor(beside)), 1).transpose(0, 1)
            made = self.ours(part[None].expand(ROWS, -1, -1, -1, -1))
            return list(made.transpose(1, 2))

        options = {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.0], device=self.device)}}
        level = torch.ones(frames, device=self.device)
        return handler.execute(calculate, None, [[] for _ in range(ROWS)], noisy, level, options)

    def published(self, clip: Tensor, half: bool) -> Tensor:
        """``[rows, 4, F, h, w]``."""
        network, dtype = (self.published_half, self.dtype) if half else (self.published_single, torch.float32)
        return network(clip.to(dtype), self.times(), self.context.to(dtype))


def run(device: torch.device, tiny: bool) -> tuple[lib.Table, lib.Table]:
    """Times, then memory."""
    setting = Setting(device, TINY if tiny else SD15, 16 if tiny else 64)
    clip = setting.clip(FRAMES)
    size = "in small" if tiny else "512 x 512"
    times = lib.Table(
        name=f"relight-{device.type}",
        title=f"A step of RelightVid, {FRAMES} frames, three rows, {size}, {device.type.upper()}",
        reference="the authors' forward pass, transcribed (`benchmarks/published_relight.py`)",
        columns=["reference in", "ours", "reference", "ours / reference", "differ by"],
        facts=lib.facts(device),
        remarks=[f"Ours in {str(setting.dtype).removeprefix('torch.')}. TF32 as PyTorch sets it: convolutions only."],
    )
    for half in (False, True):
        pair = lib.paired(lambda: setting.ours(clip), lambda half=half: setting.published(clip, half), device)
        found, wanted = setting.ours(clip).float(), setting.published(clip, half).float()
        gap = float((found - wanted).abs().max() / wanted.abs().max())
        dtype = str(setting.dtype if half else torch.float32).removeprefix("torch.")
        shown = [f"{milliseconds:.1f} ms" for milliseconds in (pair.subject, pair.reference)]
        times.add(dtype, *shown, f"{1 / pair.ratio:.3f}", f"{gap:.1e}")
    memory = lib.Table(
        name=f"relight-memory-{device.type}",
        title=f"RelightVid's memory beyond weights, three rows, {size}, {device.type.upper()}, MB",
        reference="the authors' forward pass, transcribed, which knows 32 positions and raises beyond",
        columns=["frames", "ours", "ours, a call for each row", "reference float16", "reference float32"],
        facts=lib.facts(device),
        remarks=[f"Ours at more than 32 frames: windows of {FRAMES}, 4 of them shared with the next."],
    )
    for frames in LENGTHS:
        clip = setting.clip(frames)
        if frames > 32:
            peaks = [lib.peak_bytes(lambda clip=clip: setting.ours_in_windows(clip), device)]
            memory.add(frames, *(f"{peak / 1e6:.0f}" for peak in peaks), "-", "-", "-")
            continue
        calls = [
            lambda clip=clip: setting.ours(clip),
            lambda clip=clip: setting.ours(clip, apart=True),
            lambda clip=clip: setting.published(clip, True),
            lambda clip=clip: setting.published(clip, False),
        ]
        memory.add(frames, *(f"{lib.peak_bytes(call, device) / 1e6:.0f}" for call in calls))
    return times, memory


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the tables")
    parser.add_argument("--tiny", action="store_true", help="a small UNet: whether it runs; writes nothing")
    arguments, _ = parser.parse_known_args()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("relight: left out, SD1.5 at full size with three rows of 16 frames needs a GPU")
        return
    for table in run(device, arguments.tiny):
        if arguments.tiny:
            print(table.markdown())
        else:
            print(table.save(lib.Path(arguments.results)))


if __name__ == "__main__":
    main()
