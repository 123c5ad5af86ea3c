"""A small Imagine360 of random weights: the published classes at a hundredth of their sizes."""

import torch

CAMERAS = ((0.0, 0.0, 90.0), (120.0, 30.0, 90.0), (-120.0, -30.0, 90.0))
FRAMES, HEIGHT, WIDTH, SIDE = 4, 16, 32, 8
WIDTHS, CONTEXT, FEATURES = (32, 32, 64, 64), 24, 6

UNET = {
    "image_size": 32,
    "in_channels": 9,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 1, 2, 2],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "num_heads": 2,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "adm_in_channels": None,
    "legacy": False,
}


def token_sizes():
    """Sizes of the layers of image tokens."""
    from papernodes.networks.image_tokens import TokenSizes

    return TokenSizes(
        features=FEATURES,
        patch=4,
        width=16,
        attention=16,
        feed_forward=32,
        resampler=16,
        depth=2,
        queries=8,
        resampler_attention=16,
        resampler_feed_forward=32,
        output=CONTEXT,
        sinusoids=8,
        position_hidden=16,
        position=16,
    )


def sizes(**other):
    """BranchSizes of the small network; ``other`` replaces some."""
    from papernodes.networks.motion import ModuleSizes, Place
    from papernodes.networks.panorama_branch import BranchSizes

    places = [Place("down", i, j) for i in range(3) for j in range(2)] + [Place("mid", 0, 0)]
    places += [Place("up", i, j) for i in range(1, 4) for j in range(3)]
    widths = {"down": WIDTHS, "mid": WIDTHS[-1:], "up": WIDTHS[::-1]}
    motion = {place: ModuleSizes(widths[place.side][place.level], 1, 2, 16) for place in places}
    return BranchSizes(**{"unet": UNET, "motion": motion, "tokens": token_sizes(), "groups": 8, **other})


def fill(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights of ordinary sizes in place of what memory held."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("bands"):
                continue
            drawn = torch.randn(value.shape, generator=generator)
            is_gain = value.ndim == 1 and name.endswith("weight")
            value.copy_(1 + 0.1 * drawn if is_gain else drawn * (value[0].numel() ** -0.5 if value.ndim > 1 else 0.1))
    return network.eval().requires_grad_(False)


def network(seed: int = 0, **other):
    """A filled Imagine360Network in float32."""
    from papernodes.networks.imagine360 import Imagine360Network

    return fill(Imagine360Network(sizes(**other)), seed)


def inputs(seed: int = 0, rows: int = 1):
    """latents, timesteps, context and condition of a call."""
    from papernodes.networks.imagine360 import Condition

    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    shapes = (FRAMES, HEIGHT, WIDTH), (len(CAMERAS) * FRAMES, SIDE, SIDE)
    condition = Condition(
        *(drawn(rows, 5, *shape) for shape in shapes),
        CAMERAS,
        anchor_features=drawn(rows, FRAMES, FEATURES, 8, 8),
        frame_features=drawn(rows, FRAMES, FEATURES, 8, 8),
        position=drawn(rows, FRAMES, 6) * 50,
        pitch=drawn(rows, FRAMES) * 20,
    )
    latents = [drawn(rows, 4, *shape) for shape in shapes]
    return latents, torch.full((rows,), 500.0), drawn(rows, 7, CONTEXT), condition
