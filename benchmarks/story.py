"""Identity attention on SDXL: what it costs a step, and a five-frame story against the paper's own procedure.

The UNet has SDXL's size and random weights, in bfloat16 on a GPU. The reference is written from the paper's
description: a whole generation of the identity alone whose keys and values of every cross attention and step are kept
on the device, then every frame with those appended for the positive row, under a mask that leaves only the begin token
and the identity's words of them. Its dense softmax is replaced by PyTorch's attention, in the reference's favour.
"""

import argparse

import torch
from torch import Tensor

from . import lib

FRAMES, TEXT, IDENTITY = 5, 77, 12
SDXL = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
    "use_linear_in_transformer": True, "context_dim": 2048, "num_heads": -1, "num_head_channels": 64,
    "num_classes": "sequential", "adm_in_channels": 2816, "use_spatial_transformer": True, "legacy": False,
    "use_checkpoint": False,
}  # fmt: skip
TINY = SDXL | {
    "model_channels": 64, "transformer_depth": [0, 0, 1, 1, 1, 1], "context_dim": 64, "adm_in_channels": 64,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1], "transformer_depth_middle": 1,
}  # fmt: skip


class Setting:
    """A UNet, its inputs, and a sampler of Euler steps with guidance."""

    def __init__(self, device: torch.device, config: dict, latent: int, steps: int):
        import comfy.ops
        from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

        self.device, self.steps = device, steps
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        torch.manual_seed(0)
        self.unet = UNetModel(**config, device=device, dtype=dtype, operations=comfy.ops.disable_weight_init).eval()
        for parameter in self.unet.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        self.noise = torch.randn(1, 4, latent, latent, device=device, dtype=dtype)
        self.texts = torch.randn(FRAMES + 2, TEXT, config["context_dim"], device=device, dtype=dtype)
        self.texts[:, : 1 + IDENTITY] = self.texts[:1, : 1 + IDENTITY]  # the prompts begin alike
        self.adm = torch.randn(1, config["adm_in_channels"], device=device, dtype=dtype).expand(2, -1)
        self.blocks = [("middle", 0)]
        for name, count in (("input", len(self.unet.input_blocks)), ("output", len(self.unet.output_blocks))):
            self.blocks += [(name, number) for number in range(count)]
        self.rows = torch.zeros(2, 1, TEXT, device=device)
        self.rows[1, 0, : 1 + IDENTITY] = torch.tensor(2.0).log()

    @torch.no_grad()
    def call(self, x: Tensor, step: int, text: int, options: dict) -> Tensor:
        """One guided prediction, negative and positive in one batch."""
        times = torch.full((2,), 999.0 * (1 - step / self.steps), device=self.device)
        context = torch.stack([self.texts[-1], self.texts[text]])
        negative, positive = self.unet(
            x.expand(2, -1, -1, -1), times, context, y=self.adm, transformer_options=options
        ).chunk(2)
        return negative + 5.0 * (positive - negative)

    def biased(self) -> dict:
        """The options of one call with the identity's bias."""
        from patches.regional import options_with_bias

        return options_with_bias(self.rows, {}, self.unet)

    def picture(self, text: int, options_of) -> Tensor:
        """A latent after all steps; ``options_of`` gives the options of a step."""
        x = self.noise
        for step in range(self.steps):
            x = x - self.call(x, step, text, options_of(step)) / self.steps
        return x

    def ours(self) -> Tensor:
        """Five frames with the bias."""
        return torch.cat([self.picture(frame, lambda step: self.biased()) for frame in range(FRAMES)])

    def published(self) -> Tensor:
        """The identity's generation with its keys and values kept, then five frames with them appended."""
        kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.picture(FRAMES, self._replacing(lambda key, q, k, v, options: self._keep(kept, key, q, k, v, options)))
        return torch.cat(
            [
                self.picture(
                    frame,
                    self._replacing(lambda key, q, k, v, options: self._append(kept[key], q, k, v, options)),
                )
                for frame in range(FRAMES)
            ]
        )

    def _replacing(self, attend):
        def options_of(step: int) -> dict:
            layer = iter(range(1 << 20))

            def replacement(q, k, v, options):
                return attend((step, next(layer)), q, k, v, options)

            return {"patches_replace": {"attn2": dict.fromkeys(self.blocks, replacement)}}

        return options_of

    @staticmethod
    def _keep(kept: dict, key: tuple[int, int], q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        from comfy.ldm.modules.attention import optimized_attention

        kept[key] = (k, v)
        return optimized_attention(q, k, v, options["n_heads"])

    @staticmethod
    def _append(kept: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        from comfy.ldm.modules.attention import optimized_attention

        heads, mask = options["n_heads"], torch.ones(1, q.shape[1], 2 * TEXT, device=q.device, dtype=q.dtype)
        mask[..., TEXT + 1 + IDENTITY :] = 0.0
        longer = (torch.cat((own[1:], identity[1:]), 1) for own, identity in ((k, kept[0]), (v, kept[1])))
        negative = optimized_attention(q[:1], k[:1], v[:1], heads)
        return torch.cat((negative, optimized_attention(q[1:], *longer, heads, mask=mask.log())))


def run(device: torch.device, steps: int, tiny: bool) -> lib.Table:
    """Times both; the stories once each after the calls have warmed up."""
    setting = Setting(device, TINY if tiny else SDXL, 16 if tiny else 128, steps)
    plain = lib.paired(
        lambda: setting.call(setting.noise, 0, 0, setting.biased()),
        lambda: setting.call(setting.noise, 0, 0, {}),
        device,
    )
    table = lib.Table(
        name=f"story-{device.type}",
        title=f"Identity attention, SDXL's UNet {'in small' if tiny else 'at 1024 x 1024'}, {device.type.upper()}",
        reference="a step: plain sampling; a story: the paper's procedure, transcribed (`benchmarks/story.py`)",
        columns=["what", "ours", "reference", "ours / reference", "ours peak MB", "reference peak MB"],
        facts=lib.facts(device),
        remarks=[
            f"A story is {FRAMES} frames of {steps} guided Euler steps, timed in turn with the reference, three times.",
            "Peaks are what a story takes beyond weights and inputs.",
        ],
    )
    shown = [f"{milliseconds:.1f} ms" for milliseconds in (plain.subject, plain.reference)]
    table.add("one step", *shown, f"{1 / plain.ratio:.3f}", "-", "-")
    ours, published = setting.ours(), setting.published()
    gap = float((ours - published).float().abs().max() / ours.float().abs().max())
    table.remarks.append(f"The latents of both differ by {gap:.1e} of the largest number.")
    del ours, published
    story = lib.paired(setting.ours, setting.published, device, repeats=3, warm_up=0)
    peaks = [lib.peak_bytes(call, device) for call in (setting.ours, setting.published)]
    shown = [f"{milliseconds / 1000:.1f} s" for milliseconds in (story.subject, story.reference)]
    shown += [f"{1 / story.ratio:.3f}", *(f"{peak / 1e6:.0f}" if peak else "-" for peak in peaks)]
    table.add("a story", *shown)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the table")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tiny", action="store_true", help="a small UNet and 2 steps: whether it runs; writes nothing")
    arguments, _ = parser.parse_known_args()
    from demo.bare_machine import use_host

    use_host()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("story: left out, SDXL at full size needs a GPU")
        return
    table = run(device, 2 if arguments.tiny else arguments.steps, arguments.tiny)
    if arguments.tiny:
        print(table.markdown())
    else:
        print(table.save(lib.Path(arguments.results)))


if __name__ == "__main__":
    main()
