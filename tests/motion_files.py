"""Motion files in miniature: AnimateDiff's names in chosen sizes, with random weights."""

import torch
from papernodes.kernels.frames import clips_of, frames_of

SD15_WIDTHS = (320, 640, 1280, 1280)
DEMO_WIDTHS = (48, 96, 96, 96)


def block_places(levels=4, mid=True) -> list[tuple[str, int]]:
    """Names of the modules of a UNet with two blocks a level, and the level whose width they have."""
    down = [(f"down_blocks.{i}.motion_modules.{j}", i) for i in range(levels) for j in range(2)]
    up = [(f"up_blocks.{i}.motion_modules.{j}", levels - 1 - i) for i in range(levels) for j in range(3)]
    return down + [("mid_block.motion_modules.0", levels - 1)] * mid + up


def module_shapes(width: int, positions: int) -> dict[str, tuple[int, ...]]:
    """The 28 weights of a module with one block of two attentions (specs: RelightVid 4.2)."""
    shapes = {}
    for layer in ("norm", "proj_in", "proj_out"):
        shapes[f"{layer}.weight"] = (width,) if layer == "norm" else (width, width)
        shapes[f"{layer}.bias"] = (width,)
    block = "transformer_blocks.0"
    for number in range(2):
        attention = f"{block}.attention_blocks.{number}"
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes[f"{attention}.{projection}.weight"] = (width, width)
        shapes[f"{attention}.to_out.0.bias"] = (width,)
        shapes[f"{attention}.pos_encoder.pe"] = (1, positions, width)
        for kind in ("weight", "bias"):
            shapes[f"{block}.norms.{number}.{kind}"] = (width,)
    shapes |= {f"{block}.ff.net.0.proj.weight": (8 * width, width), f"{block}.ff.net.0.proj.bias": (8 * width,)}
    shapes |= {f"{block}.ff.net.2.weight": (width, 4 * width), f"{block}.ff.net.2.bias": (width,)}
    shapes |= {f"{block}.ff_norm.weight": (width,), f"{block}.ff_norm.bias": (width,)}
    return {f"temporal_transformer.{name}": shape for name, shape in shapes.items()}


def shapes_of(widths, positions=32, mid=True) -> dict[str, tuple[int, ...]]:
    """All of a file's names and shapes."""
    return {
        f"{place}.{name}": shape
        for place, level in block_places(len(widths), mid)
        for name, shape in module_shapes(widths[level], positions).items()
    }


def zero_file(widths=SD15_WIDTHS, positions=32, mid=True, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """The full layout in no memory: every weight is one zero, expanded."""
    return {
        name: torch.zeros((), dtype=dtype).expand(shape) for name, shape in shapes_of(widths, positions, mid).items()
    }


def random_file(widths=DEMO_WIDTHS, positions=32, mid=True, seed=0, shapes=None) -> dict[str, torch.Tensor]:
    """Weights about as large as trained ones: norms near 1, layers that keep the size of what they are given."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in (shapes or shapes_of(widths, positions, mid)).items():
        value = torch.randn(shape, generator=generator)
        if name.endswith(".pe"):
            state[name] = value * 0.5
        elif len(shape) == 2:
            state[name] = value * shape[1] ** -0.5
        else:
            state[name] = 0.1 * value + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return state


class PerFrame(torch.nn.Module):
    """Diffusers' module takes its first norm over all frames; AnimateDiff and RelightVid take it over each."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, clips):
        return clips_of(self.norm(frames_of(clips)), clips.shape[2])
