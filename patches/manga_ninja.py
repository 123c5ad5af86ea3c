"""MangaNinja on a MODEL: self attention to the tokens of a reference picture, and to where points were matched.

Liu et al.: MangaNinja: Line Art Colorization with Precise Reference Following, CVPR 2025.

A second UNet sees the reference once (``reference_bank``). Each CONDITIONING says what its rows attend to (``tagged``):
nothing, the reference, or the reference with the points; the three are put together by a guider (``dual_guidance``).
"""

from __future__ import annotations

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, VideoResBlock
from torch import Tensor

from ..kernels.matched_points import MatchedPoints, point_map
from ..networks.manga_ninja import MangaNinja
from ..networks.point_net import PointNet
from .reference_attention import NO_REFERENCE, WITH_POINTS, Place, ReferenceRows, keep_tokens
from .rows import is_active, set_row_values, text_length

KEY = "papernodes_manga_ninja"
"""Name of the role in a CONDITIONING, and of what is put on a MODEL."""

PIXELS = 8
"""Of a side, for one of the latent's."""


class MangaNinjaModelError(Exception):
    """A MODEL, a latent or a conditioning does not fit MangaNinja; the message is for the person at the graph."""


def tagged(conditioning: list, role: int) -> list:
    """A CONDITIONING whose rows attend by a role.

    Args:
        conditioning: it stays as it is. One without a tag is NO_REFERENCE.
        role: one of reference_attention.ROLES.
    """
    return [[text, {**extra, KEY: role}] for text, extra in conditioning]


def roles_of(conditioning: list) -> set[int]:
    """The roles of a CONDITIONING's entries."""
    return {extra.get(KEY, NO_REFERENCE) for _, extra in conditioning}


def has_reference(model: object) -> bool:
    """Whether a MODEL has MangaNinja."""
    return KEY in model.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {})


def places_of(unet: UNetModel) -> dict[Place, int]:
    """Each self attention of a UNet -> how wide its tokens are."""
    blocks = [
        *((("input", number), block) for number, block in enumerate(unet.input_blocks)),
        *([] if unet.middle_block is None else [(("middle", 0), unet.middle_block)]),
        *((("output", number), block) for number, block in enumerate(unet.output_blocks)),
    ]
    return {
        (*where, index): transformer.attn1.to_q.in_features
        for where, block in blocks
        for layer in block
        if isinstance(layer, SpatialTransformer)
        for index, transformer in enumerate(layer.transformer_blocks)
    }


def text_width(model: object) -> int:
    """How wide the text is that a MODEL's UNet attends to."""
    return model.model.model_config.unet_config["context_dim"]


def check_fit(model: object, network: MangaNinja) -> None:
    """Raises MangaNinjaModelError unless a MODEL is an SD1.5 without MangaNinja, for which the files were trained."""
    if has_reference(model):
        raise MangaNinjaModelError("'model' has MangaNinja already. Connect the MODEL from before it.")
    unet = checked_unet(model)
    theirs, ours = places_of(network.reference.model.diffusion_model), places_of(unet)
    widths, text = (text_width(network.reference), text_width(model))
    if theirs != ours or widths != text:
        raise MangaNinjaModelError(
            f"The reference UNet does not fit 'model': {_described(theirs, widths)}, 'model' {_described(ours, text)}. "
            "For an SD1.5 (MangaNinja's denoising_unet) choose MangaNinja's reference_unet in MangaNinja Loader, for "
            "Demo Checkpoint's image model the file papernodes_demo_manga_ninja_reference."
        )
    _check_points_fit(unet, network.points.model)


def checked_unet(model: object) -> UNetModel:
    """The UNet of a MODEL of SD1.5's kind.

    Raises:
        MangaNinjaModelError: another family.
    """
    unet = getattr(model.model, "diffusion_model", None)
    use = "Connect MangaNinja's denoising_unet or another SD1.5."
    if not isinstance(unet, UNetModel):
        raise MangaNinjaModelError(f"'model' is a {type(model.model).__name__}, which is no SD1.5 UNet. {use}")
    if unet.num_classes is not None:
        raise MangaNinjaModelError(f"'model' is an SDXL-class UNet; MangaNinja was trained on SD1.5. {use}")
    if any(isinstance(module, VideoResBlock) for module in unet.modules()):
        raise MangaNinjaModelError(f"'model' is a video model with time in it already. {use}")
    if text_width(model) == 1024:
        raise MangaNinjaModelError(f"'model' is an SD2-class UNet; MangaNinja was trained on SD1.5. {use}")
    return unet


def _described(places: dict[Place, int], text: int) -> str:
    widths = f", {min(places.values())} to {max(places.values())} wide," if places else ""
    return f"has {len(places)} self attentions{widths} and text {text} wide"


def _check_points_fit(unet: UNetModel, points: PointNet) -> None:
    """Raises MangaNinjaModelError unless the embeddings of points are as wide as the UNet's attentions."""
    have = {block[0].out_channels for block in points.blocks}
    need = set(places_of(unet).values())
    if not need <= have:
        raise MangaNinjaModelError(
            f"The point net does not fit 'model': its stages are {', '.join(map(str, sorted(have)))} wide and the "
            f"UNet's attentions {', '.join(map(str, sorted(need)))}. For an SD1.5 choose MangaNinja's point_net in "
            "MangaNinja Loader, for Demo Checkpoint's image model the file papernodes_demo_manga_ninja_points."
        )


@torch.no_grad()
def reference_bank(reference: object, latents: Tensor, context: Tensor) -> dict[Place, Tensor]:
    """What a UNet's self attentions see of a picture: one call at timestep 0, without noise.

    Args:
        reference: a ModelPatcher of a UNet; loaded by the host and left as it is.
        latents: [1, 4, h, w], scaled by the latent format.
        context: [1, T, C], what the cross attentions see.

    Returns:
        Place -> [1, L, C], L the tokens of that level, in the network's dtype, on the host's device for what lies
        between nodes.
    """
    comfy.model_management.load_models_gpu([reference], memory_required=reference.memory_required(latents.shape))
    base, device = reference.model, reference.load_device
    dtype = call_dtype(base)
    found: dict[Place, Tensor] = {}
    options = keep_tokens(found, reference.model_options.get("transformer_options", {}))
    base.diffusion_model(
        latents.to(device, dtype),
        torch.zeros(latents.shape[0], device=device),
        context=context.to(device, dtype),
        transformer_options=options,
    )
    kept = comfy.model_management.intermediate_device()
    return {place: tokens.to(kept) for place, tokens in found.items()}


def call_dtype(base: object) -> torch.dtype:
    """What the host hands the network of a BaseModel in."""
    return base.get_dtype() if base.manual_cast_dtype is None else base.manual_cast_dtype


def with_reference(
    model: object,
    bank: dict[Place, Tensor],
    size: tuple[int, int],
    points_net: object,
    points: MatchedPoints | None = None,
    strength: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
) -> object:
    """A MODEL whose rows attend to a reference as their CONDITIONING's tags say.

    Args:
        model: a ModelPatcher that check_fit let pass; it stays as it is.
        bank: from reference_bank.
        size: height and width of the reference, pixels, multiples of 8.
        points_net: a ModelPatcher of the PointNet; the host loads it with the model.
        points: pairs of points, for all frames or for each; None = maps of zeros, which the network was trained with
            and which are not the same as rows without points.
        strength: how many times each token of the reference counts, and (up to 1) how much of the points' embeddings
            is added; 0 = exactly as without reference.
        start, end: the part of the sampling in which it holds, 0 to 1.

    Raises:
        MangaNinjaModelError: the MODEL has MangaNinja, or the bank does not fit it.
    """
    if has_reference(model):
        raise MangaNinjaModelError("'model' has MangaNinja already. Connect the MODEL from before it.")
    places = places_of(checked_unet(model))
    if {place: tokens.shape[-1] for place, tokens in bank.items()} != places:
        raise MangaNinjaModelError("The bank's self attentions are not those of 'model'.")
    coloured = model.clone()
    coloured.set_additional_models(KEY, [points_net])
    held = _Reference(bank, size, points_net.model, points, strength)

    def read(condition: dict, base_model: object, timestep: Tensor) -> Tensor | None:
        if strength == 0 or KEY not in condition or not is_active(start, end, base_model, timestep):
            return None
        return torch.full((1, text_length(condition) or 1), float(condition[KEY]))

    def check(executor, noise, *arguments, **rest):
        _check_run(executor.class_obj.conds, noise.shape[0], points)
        return executor(noise, *arguments, **rest)

    set_row_values(coloured, KEY, read, held.options)
    coloured.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, check)
    coloured.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, KEY, held.forget)
    return coloured


def _check_run(conditions: dict[str, list[dict]], frames: int, points: MatchedPoints | None) -> None:
    """Raises MangaNinjaModelError for what a guider is about to sample and cannot."""
    tags = [one for kind in conditions.values() for one in kind or () if one.get(KEY, NO_REFERENCE) != NO_REFERENCE]
    if not tags:
        raise MangaNinjaModelError(
            "No conditioning of this run says that it sees the reference. Connect positive, middle and negative of "
            "MangaNinja Apply to MangaNinja Guider, and its GUIDER to SamplerCustomAdvanced."
        )
    if points is None:
        return
    if len(points.frames) not in (1, frames):
        raise MangaNinjaModelError(
            f"'points' are of {len(points.frames)} frames and the latent holds {frames}. Connect points of one "
            "picture, which serve all frames, or of as many frames as the latent has."
        )
    if points.count and any(one[KEY] == WITH_POINTS and "area" in one for one in tags):
        raise MangaNinjaModelError(
            "A conditioning with points is set to an area of the picture, where the points' places are not known. "
            "Use a mask (ConditioningSetMask) in place of an area, or disconnect 'points'."
        )


class _Reference:
    """A reference, and what of it lies on the device while a run lasts."""

    def __init__(
        self,
        bank: dict[Place, Tensor],
        size: tuple[int, int],
        network: PointNet,
        points: MatchedPoints | None,
        strength: float,
    ) -> None:
        self.bank, self.size, self.network, self.points, self.strength = bank, size, network, points, strength
        self.held: dict[tuple, object] = {}
        self.sampled: tuple[int, int] | None = None

    def forget(self, *_) -> None:
        """The run is over."""
        self.held = {}
        self.sampled = None

    def options(self, values: Tensor, options: dict, base_model: object, latents: Tensor) -> dict:
        """transformer_options of a call.

        Args:
            values: [rows, T], the role of each row.
            options: the host's; not changed.
            base_model: the host's BaseModel.
            latents: [rows, 4, h, w].
        """
        roles = [round(role) for role in values[:, 0].tolist()]
        if not any(roles):
            return options
        kind = latents.device, call_dtype(base_model)
        target: list[Tensor] = []
        reference: list[Tensor] = []
        if WITH_POINTS in roles:
            height, width = (side * PIXELS for side in latents.shape[2:])
            self._check_size(height, width)
            target = self._of_window(self._embedded("target", height, width, kind), options)
            reference = self._of_window(self._embedded("reference", *self.size, kind), options)
        bank = self._kept(("bank", *kind), lambda: {place: some.to(*kind) for place, some in self.bank.items()})
        window = options.get("context_window")
        frames = None if window is None else tuple(window.index_list)
        # One for all steps: it keeps the sums of the bank and the points.
        rows = self._kept(
            ("rows", *roles, *latents.shape, *kind, frames),
            lambda: ReferenceRows(bank, roles, target, reference, self.strength),
        )
        return rows.options(options)

    def _check_size(self, height: int, width: int) -> None:
        """Points belong to places of the whole picture, so all calls of a run must see all of it."""
        self.sampled = self.sampled or (height, width)
        if self.points is not None and self.points.count and (height, width) != self.sampled:
            raise MangaNinjaModelError(
                f"The network was called with {width}x{height} pixels after {self.sampled[1]}x{self.sampled[0]}: the "
                "picture is sampled in tiles, where the points' places are not known. Disconnect 'points', or leave "
                "out what makes the tiles."
            )

    def _kept(self, key: tuple, make) -> object:
        if key not in self.held:
            self.held[key] = make()
        return self.held[key]

    def _embedded(self, side: str, height: int, width: int, kind: tuple) -> list[Tensor]:
        """The points of one picture for each level of the UNet, each [1 or F, L, C]."""

        def make() -> list[Tensor]:
            device, dtype = kind
            frames = [None] if self.points is None else self.points.frames
            share = min(self.strength, 1.0)
            levels: list[list[Tensor]] = []
            for pairs in frames:  # one by one, as the first layers of a picture are larger than what comes of it
                empty = pairs is None
                drawn = torch.zeros(1, 1, height, width) if empty else point_map(pairs, side, height, width)
                levels.append([(tokens * share).to(dtype) for tokens in self.network(drawn.to(device))])
            return [torch.cat(parts) for parts in zip(*levels, strict=True)]

        return self._kept((side, height, width, *kind), make)

    def _of_window(self, levels: list[Tensor], options: dict) -> list[Tensor]:
        """Of points of each frame those of the frames in a context window."""
        window = options.get("context_window")
        if window is None or levels[0].shape[0] == 1:
            return levels
        return [level[window.index_list] for level in levels]


def dual_guidance(reference_scale: float, point_scale: float) -> tuple[float, float]:
    """The numbers with which DualCFGGuider (regular) guides as MangaNinja does.

    With u, r and p the predictions without reference, with it, and with the points, MangaNinja takes the mean of
    u + g_ref (r - u) and r + g_pt (p - r):

        u (1 - g_ref) / 2 + r (1 + g_ref - g_pt) / 2 + p g_pt / 2

    DualCFGGuider takes u + cfg_cond2_negative (r - u) + cfg_conds (p - r), which is the same for the numbers below.

    Args:
        reference_scale: g_ref, 9 in the authors' demonstration.
        point_scale: g_pt, 15 there.

    Returns:
        cfg_conds = g_pt / 2, cfg_cond2_negative = (1 + g_ref) / 2.
    """
    return point_scale / 2, (1 + reference_scale) / 2
