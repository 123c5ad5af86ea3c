"""A small Imagine360 of random weights: the published classes at a hundredth of their sizes."""

import torch

CAMERAS = ((0.0, 0.0, 90.0), (120.0, 30.0, 90.0), (-120.0, -30.0, 90.0))
FRAMES, HEIGHT, WIDTH, SIDE = 2, 16, 32, 8
WIDTHS, CONTEXT, FEATURES = (32, 32, 32, 64), 24, 6

UNET = {
    "image_size": 32,
    "in_channels": 9,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 1, 1, 2],
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


def inputs(seed: int = 0, rows: int = 1, cameras=CAMERAS, frames=FRAMES, side: int = SIDE):
    """latents, timesteps, context and condition of a call; ``side`` is the views'."""
    from papernodes.networks.imagine360 import Condition

    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    shapes = (frames, HEIGHT, WIDTH), (len(cameras) * frames, side, side)
    condition = Condition(
        *(drawn(rows, 5, *shape) for shape in shapes),
        cameras,
        anchor_features=drawn(rows, frames, FEATURES, 8, 8),
        frame_features=drawn(rows, frames, FEATURES, 8, 8),
        position=drawn(rows, frames, 6) * 50,
        pitch=drawn(rows, frames) * 20,
    )
    latents = [drawn(rows, 4, *shape) for shape in shapes]
    return latents, torch.full((rows,), 500.0), drawn(rows, 7, CONTEXT), condition


def published(network, unused: bool = True) -> dict[str, dict[str, torch.Tensor]]:
    """What the published files of a network would hold: "views", "panorama" and "exchange".

    Args:
        network: of ``network``.
        unused: with what the published classes hold and never use.
    """
    from papernodes.networks.imagine360_layout import exchange_name, published_layout, published_name, unet_names

    names = unet_names(network.sizes.unet)
    branch, blocks = published_layout(network.sizes)
    files = {}
    for role in ("views", "panorama"):
        state = getattr(network, role).state_dict()
        files[role] = {published_name(own, names): value.clone() for own, value in state.items()}
    state = network.exchange.state_dict()
    files["exchange"] = {exchange_name(own, len(UNET["channel_mult"])): value.clone() for own, value in state.items()}
    if unused:
        for role, layout in (("views", branch), ("panorama", branch), ("exchange", blocks)):
            for name, shape in layout.items():
                files[role].setdefault(name, torch.zeros(shape))
    return files


def model(seed: int = 0, training=None, **other):
    """A MODEL of the small network; by default with a schedule that ends before pure noise, where rounding is small."""
    from papernodes.networks.imagine360_layout import Training
    from papernodes.patches.imagine360 import model_of

    return model_of(network(seed, **other), training or Training(zero_terminal=False))


def conditioning(seed: int = 0, rows: int = 1, text_seed: int = 0, draws=None) -> list:
    """A CONDITIONING as Imagine360 Conditioning makes it."""
    import comfy.conds
    from papernodes.patches import imagine360

    _, _, _, condition = inputs(seed, rows)
    held = {
        name: comfy.conds.CONDRegular(getattr(condition, name.removeprefix("imagine360_")))
        for name in (
            imagine360.PANORAMA,
            imagine360.VIEWS,
            imagine360.ANCHOR_FEATURES,
            imagine360.FRAME_FEATURES,
            imagine360.POSITION,
            imagine360.PITCH,
        )
    }
    held[imagine360.CAMERAS] = comfy.conds.CONDConstant(CAMERAS)
    held[imagine360.FPS] = comfy.conds.CONDConstant(8.0)
    if draws is not None:
        held[imagine360.DRAWS] = comfy.conds.CONDConstant(draws)
    text = torch.randn(1, 7, CONTEXT, generator=torch.Generator().manual_seed(text_seed))
    return [[text, {"model_conds": held}]]


def packed(rows: int = 1):
    """The samples of a packed LATENT of zeros."""
    import comfy.nested_tensor

    return comfy.nested_tensor.NestedTensor(
        [
            torch.zeros(rows, 4, FRAMES, HEIGHT, WIDTH),
            torch.zeros(rows, 4, len(CAMERAS) * FRAMES, SIDE, SIDE),
        ]
    )


def sample(model, positive, negative, seed: int = 0, rows: int = 1, cfg: float = 3.0, steps: int = 2):
    """The two parts that Euler steps make of noise, through the host's own guider."""
    import comfy.sample
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    latent = packed(rows)
    noise = comfy.sample.prepare_noise(latent, seed)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=seed).unbind()
