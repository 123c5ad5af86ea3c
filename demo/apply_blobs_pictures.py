"""Draws the pictures of Apply Blobs and Blob Text Schedule in web/docs, and the README's of layouts that move:
``python -m demo.apply_blobs_pictures``.
"""

import itertools

import torch
from PIL import Image

from demo.bare_machine import use_host, use_pack
from demo.blob_adapter_pictures import layout_picture
from demo.blob_scenes import seen_ellipses
from demo.eval import layout_video
from demo.eval.image_models import CHECKPOINTS, SIZE, STEPS, noise_levels, schedule
from demo.eval.layout_models import SCHEDULER, LayoutModels
from demo.eval.layout_report import ARMS, CFG, MASKED, MASKED_SCENE, PLAIN, padded_captions, prompts_of, scenes_of
from demo.media_pictures import MEDIA, sheet
from demo.story_pictures import save
from demo.world.captions import object_captions
from demo.world.render import render

SEED, SHOWN, VIDEO_SEED = 841_000_077, 3, 861_000_000
FRAMES, ANCHORS = 6, ("a happy red plain ball with a hat", "a happy teal plain star with a hat")
SCENE = "in a meadow, lit from the left"


def draw_layouts(models: LayoutModels) -> None:
    """A layout, the prompt alone, and Apply Blobs with either prompt, for a few layouts."""
    scenes = scenes_of(SHOWN, SEED)
    ellipses, present = seen_ellipses(scenes, SIZE)
    rows = {"layout": torch.stack([layout_picture(*some) for some in zip(ellipses, present, strict=True)])}
    prompts, own = prompts_of(scenes, SEED), padded_captions(scenes)
    told = {"prompt alone": PLAIN, "Apply Blobs": MASKED, "the same, prompt of the scene": MASKED_SCENE}
    for name, key in told.items():
        arm = ARMS[key]
        rows[name] = models.draw(prompts[arm.prompt], own, ellipses, present, SEED, arm, CFG)
    shown = [(pictures[k].movedim(0, -1), name) for k in range(SHOWN) for name, pictures in rows.items()]
    pictures, words = zip(*shown, strict=True)
    save("ApplyBlobs", list(pictures), list(words), len(rows))


@torch.no_grad()
def draw_schedule(models: LayoutModels) -> None:
    """One blob whose caption changes, as frames of the image model from the same noise."""
    from papernodes.patches.blob_captions import between_anchors
    from papernodes.patches.blobs import BlobSettings, blob_text, options_with_blobs

    image = models.image
    first, last = models.caption_states(ANCHORS)
    changing = between_anchors(((0, first), (FRAMES - 1, last)), FRAMES)
    ellipses = torch.tensor([0.5, 0.55, 0.24, 0.24, 0.0]).expand(FRAMES, 1, 5)
    shared = image.encode_prompts([SCENE])[0].float()
    states, text = blob_text(
        shared, [changing], (ellipses, torch.ones(FRAMES, 1, dtype=torch.bool)), BlobSettings(), 154
    )
    noise = torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(1)).expand(
        FRAMES, -1, -1, -1
    )
    empty = image.encode_prompts([""])[0].repeat(2, 1)
    both = torch.stack([states] * FRAMES + [empty] * FRAMES)
    levels, sigmas = noise_levels().log(), schedule(SCHEDULER, STEPS).tolist()
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    for now, later in itertools.pairwise(sigmas):
        time = float((levels - torch.tensor(now).log()).abs().argmin())
        scaled = (x / (now * now + 1) ** 0.5).repeat(2, 1, 1, 1)
        rows = [text] * FRAMES + [None] * FRAMES
        options = options_with_blobs(rows, {}, image.unet, scaled.shape, frames=FRAMES)
        error = image.unet(scaled, torch.full((2 * FRAMES,), time), both, transformer_options=options)
        wanted, other = error.chunk(2)
        x = x + (other + CFG * (wanted - other)) * (later - now)
    pictures = image.decode(x)
    save("BlobTextSchedule", list(pictures.movedim(1, -1)), [f"frame {k}" for k in range(FRAMES)], FRAMES // 2)


def draw_clips() -> None:
    """Four frames each of clips: rendered, which is where their ellipses are from; by the prompt alone; with blobs."""
    model, scenes = (
        layout_video.LayoutVideo(CHECKPOINTS, torch.device("cpu")),
        layout_video.scenes_of(SHOWN, VIDEO_SEED),
    )
    still, times = scenes.at(slice(0, 1)), [0, 5, 11, 16]
    ellipses, present = layout_video.clip_ellipses(scenes, model.device)
    told = prompts_of(still, VIDEO_SEED)
    given = (told["whole"], told["scene"], object_captions(still), ellipses, present, VIDEO_SEED)
    rows = [render(scenes, SIZE, SIZE).frames[:, times]]
    for name in (layout_video.PLAIN, layout_video.APART):
        drawn = model.draw(*given, layout_video.ARMS[name], layout_video.CFG)
        rows.append(drawn[:, times].float() / 255)
    tiles = torch.cat([row.flatten(0, 1) for row in rows])
    Image.fromarray(sheet(tiles, SHOWN * len(times))).save(MEDIA / "layouts_moving.webp", quality=80, method=6)
    print(f"layouts_moving.webp: {(MEDIA / 'layouts_moving.webp').stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draws all."""
    use_host()
    use_pack()
    models = LayoutModels(torch.device("cpu"), {}, CHECKPOINTS)
    draw_layouts(models)
    draw_schedule(models)
    draw_clips()


if __name__ == "__main__":
    main()
