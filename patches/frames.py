"""A clip on an image UNet: frames are the batch, joined by shared group norms and by motion modules between the blocks.

Guo et al., AnimateDiff, ICLR 2024; Fang et al., RelightVid, 2025. The frames of one row (of one condition) always stay
in one call of the network, which may hold several rows.

The UNet is shared by every clone of its MODEL, so it is changed for the duration of a call and no longer: hooks on the
layers that a module follows, and around the norms, removed when the call ends, however it ends. Names and weights stay
as they are, so patches of other kinds, low-VRAM loading and other clones see nothing of it. (The host's injections
outlast the run, and a clone of the loaded MODEL takes them out of the UNet when it is forgotten.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import comfy.conds
import comfy.context_windows
import comfy.model_patcher
import comfy.patcher_extension
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample, VideoResBlock
from torch import Tensor, nn

from ..kernels.frames import clips_of, frames_of
from ..networks.motion import MotionNetwork, Place
from .frame_windows import FrameWindows, Windows

KEY = "papernodes_motion"
FRAMES = "papernodes_frames"
"""Where a condition says how many frames its clips have."""


class MotionModelError(Exception):
    """A MODEL, a clip or a conditioning does not fit motion modules; the message is for the person at the graph."""


def with_motion(
    model: object,
    network: MotionNetwork | None,
    scale: float = 1.0,
    joint_norm: bool = True,
    windows: Windows | None = None,
) -> object:
    """A MODEL that samples the frames of a clip together.

    Args:
        model: a ModelPatcher of an SD1.5; it stays as it is.
        network: the motion modules; None = none, only the norms.
        scale: how much of what the modules add is added; 0 = exactly as without them.
        joint_norm: the norms of the residual blocks and the last one take mean and variance over all frames of a clip,
            as RelightVid was trained; False = over each frame, as AnimateDiff's second and third version were. The
            spatial transformers' norms are per frame in either case. This does not depend on ``scale``.
        windows: how clips longer than a window are cut; None = not, or as the MODEL that came in has it.

    Returns:
        A clone, the modules' weights beside it in a ModelPatcher of their own.

    Raises:
        MotionModelError: see check_base; modules that do not fit the UNet; windows longer than they know positions.
    """
    check_base(model)
    clip_model = model.clone()
    if network is not None:
        _check_fit(model.model.diffusion_model, network)
        if windows is not None and windows.length > network.positions:
            raise MotionModelError(
                f"The context length is {windows.length} frames, and the motion modules know {network.positions} "
                f"positions. Set it to at most {network.positions}."
            )
        beside = comfy.model_patcher.ModelPatcher(network, model.load_device, model.offload_device)
        clip_model.set_additional_models(KEY, [beside])
    if windows is not None:
        clip_model.model_options["context_handler"] = FrameWindows(windows)
        # The host's own: memory is needed for a window, not for the clip.
        comfy.context_windows.create_prepare_sampling_wrapper(clip_model)

    def check_clips(executor, noise, *arguments, **rest):
        for frames in _clip_lengths(executor.class_obj, noise.shape[0]):
            _check_length(frames, network)
        return executor(noise, *arguments, **rest)

    def join(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **rest):
        options = {} if transformer_options is None else transformer_options
        frames = _frames_in_call(x.shape[0], options, rest.pop(FRAMES, None))
        _check_length(frames, network)
        with joined(executor.class_obj.diffusion_model, frames, network, scale, joint_norm):
            return executor(x, t, c_concat, c_crossattn, control, options, **rest)

    wrappers = comfy.patcher_extension.WrappersMP
    clip_model.add_wrapper_with_key(wrappers.OUTER_SAMPLE, KEY, check_clips)
    clip_model.add_wrapper_with_key(wrappers.APPLY_MODEL, KEY, join)
    return clip_model


def motion_of(model: object) -> MotionNetwork:
    """The motion modules that a MODEL samples with.

    Args:
        model: a ModelPatcher.

    Raises:
        MotionModelError: it has none.
    """
    beside = model.get_additional_models_with_key(KEY)
    if not beside:
        raise MotionModelError("'model' has no motion modules. Connect Motion Modules before it.")
    return beside[0].model


def with_motion_patches(model: object, patches: Mapping[str, object], strength: float) -> object:
    """A MODEL whose motion modules are changed as by the host's own patches of weights.

    Args:
        model: a ModelPatcher from with_motion; it stays as it is, though both share the modules.
        patches: names of the modules' weights -> adapters, see ModelPatcher.add_patches.
        strength: of the patches; 0 = exactly as without them.

    Returns:
        A clone. The host patches the modules when it loads them and undoes it for the next clone.

    Raises:
        MotionModelError: a MODEL without motion modules.
    """
    motion_of(model)
    changed = model.clone()
    if strength != 0:
        # The clone's ModelPatcher of the modules is a clone, too.
        changed.get_additional_models_with_key(KEY)[0].add_patches(patches, strength)
    return changed


def with_frames(conditioning: list, frames: int) -> list:
    """A CONDITIONING that says how many frames a clip has, for batches that hold several clips.

    Args:
        conditioning: it stays as it is; without this the whole batch is one clip.
        frames: of each clip, at least 1; the batch is a multiple of it.
    """
    held = comfy.conds.CONDConstant(int(frames))
    return [
        [text, {**extra, "model_conds": {**extra.get("model_conds", {}), FRAMES: held}}] for text, extra in conditioning
    ]


def check_base(model: object) -> None:
    """Raises MotionModelError unless a MODEL is an SD1.5 without motion modules."""
    if KEY in model.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {}):
        raise MotionModelError("'model' has motion modules already. Connect the MODEL from before them.")
    unet = getattr(model.model, "diffusion_model", None)
    if not isinstance(unet, UNetModel):
        raise MotionModelError(
            f"'model' is a {type(model.model).__name__}, which is no SD1.5 UNet. Connect an SD1.5 checkpoint."
        )
    if unet.num_classes is not None:
        raise MotionModelError(
            "'model' is an SDXL-class UNet; these motion modules were trained on SD1.5. Connect an SD1.5 checkpoint."
        )
    if any(isinstance(module, VideoResBlock) for module in unet.modules()):
        raise MotionModelError("'model' is a video model with time in it already. Connect an SD1.5 checkpoint.")


@contextlib.contextmanager
def joined(
    unet: UNetModel, frames: int, network: MotionNetwork | None, scale: float = 1.0, joint_norm: bool = True
) -> Iterator[None]:
    """Within it, calls of a UNet join the frames of their clips; afterwards it is as it was.

    Args:
        unet: the host's, called with ``[clips * frames, C, h, w]``.
        frames: of each clip.
        network, scale, joint_norm: see with_motion.
    """
    with contextlib.ExitStack() as hooks:
        if joint_norm and frames > 1:
            for norm in _norms(unet):
                # A group norm takes its statistics over all that lies behind the channels.
                before = norm.register_forward_pre_hook(lambda _, given: (clips_of(given[0], frames), *given[1:]))
                hooks.callback(before.remove)
                hooks.callback(norm.register_forward_hook(lambda _, given, result: frames_of(result)).remove)
        if network is not None and scale != 0:
            for place, module in network.by_place().items():
                # The loop's variable is bound now, as the hook runs later.
                def move(_, given, result: Tensor, module: nn.Module = module) -> Tensor:
                    return module(result, frames, scale)

                hooks.callback(layer_before(unet, place).register_forward_hook(move).remove)
        yield


def _norms(unet: UNetModel) -> list[nn.Module]:
    """The group norms that see whole clips."""
    blocks = [module for module in unet.modules() if isinstance(module, ResBlock)]
    return [norm for block in blocks for norm in (block.in_layers[0], block.out_layers[0])] + [unet.out[0]]


def layer_before(unet: UNetModel, place: Place) -> nn.Module | None:
    """The layer whose result a module takes; None where the UNet has no such block.

    SD1.5 has two blocks a level on the way down and three on the way up, so block j of level i is input block
    1 + 3 i + j (a downsampler ends each level) and output block 3 i + j, where an upsampler may follow the module. In
    the middle it runs between the attention and the second residual block.
    """
    down = list(unet.num_res_blocks)
    if place.side == "mid":
        layers = [] if unet.middle_block is None or place.number else list(unet.middle_block)[:2]
    else:
        counts = down if place.side == "down" else [count + 1 for count in reversed(down)]
        if place.level >= len(counts) or place.number >= counts[place.level]:
            return None
        if place.side == "down":
            layers = unet.input_blocks[1 + sum(counts[: place.level]) + place.level + place.number]
        else:
            layers = unet.output_blocks[sum(counts[: place.level]) + place.number]
    found = [layer for layer in layers if not isinstance(layer, (Upsample, Downsample))]
    return found[-1] if found else None


def _check_fit(unet: UNetModel, network: MotionNetwork) -> None:
    """Raises MotionModelError unless each module has its block, of its width."""
    for place, module in network.by_place().items():
        layer = layer_before(unet, place)
        if layer is None:
            raise MotionModelError(f"The motion file has {place.name}, and 'model' has no such block.")
        width = layer.out_channels if isinstance(layer, ResBlock) else layer.in_channels
        if width != module.sizes.width:
            raise MotionModelError(
                f"The motion file does not fit 'model': {place.name} is {module.sizes.width} wide, the UNet's block "
                f"{width}. A motion file for SD1.5 needs an SD1.5 checkpoint."
            )


def _clip_lengths(guider: object, batch: int) -> set[int]:
    """Frames that the modules will see at a time, by what the conditions and the windows say."""
    handler = guider.model_options.get("context_handler")
    cut = handler is not None and getattr(handler, "dim", None) == 0 and batch > handler.context_length
    found = set()
    for conditions in guider.conds.values():
        for condition in conditions:
            held = condition.get("model_conds", {}).get(FRAMES)
            frames = batch if held is None else held.cond
            if frames < 1 or batch % frames:
                raise MotionModelError(
                    f"A conditioning says that a clip has {frames} frames, and the latent holds {batch}, which is no "
                    "multiple of that. Connect a latent of whole clips."
                )
            if cut and frames != batch:
                raise MotionModelError(
                    f"The latent holds {batch // frames} clips of {frames} frames, and context windows cut one clip. "
                    "Sample one clip at a time."
                )
            found.add(handler.context_length if cut else frames)
    return found


def _frames_in_call(batch: int, transformer_options: dict, said: int | None) -> int:
    """Frames of a clip in a call of the network.

    Args:
        batch: pictures in the call.
        transformer_options: the host's, which name the rows of the call.
        said: what the conditions say, None without.
    """
    rows = len(transformer_options.get("cond_or_uncond", ()))
    if rows == 0 or batch % rows:
        raise MotionModelError(f"The network was called with {batch} pictures for {rows} rows, so clips are not known.")
    frames = batch // rows
    # Within a window the batch is cut, and what a condition says counts for the whole clip.
    if said is None or "context_window" in transformer_options:
        return frames
    if said < 1 or frames % said:
        raise MotionModelError(f"A row of {frames} pictures does not divide into clips of {said} frames.")
    return said


def _check_length(frames: int, network: MotionNetwork | None) -> None:
    if network is not None and frames > network.positions:
        raise MotionModelError(
            f"A clip of {frames} frames: the motion modules know {network.positions} positions. Set a context length "
            f"of at most {network.positions}, which samples longer clips in overlapping windows."
        )
