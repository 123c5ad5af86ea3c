"""A story's noise before it is drawn, and its pictures on one sheet afterwards."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.contact_sheet import contact_sheet
from ..patches.noise_objects import story_noise
from .sockets import CATEGORY_STORY, MAX_SEED, check_range

MOST_FRAMES = 4096


class StoryNoise(io.ComfyNode):
    """A NOISE for each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_StoryNoise",
            display_name="Story Noise",
            category=CATEGORY_STORY,
            description="A noise for each frame of a story: the same for all, as in the paper, or more or less alike.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Of the noise that the frames share: RandomNoise with this seed.",
                ),
                io.Int.Input("frames", default=3, min=1, max=MOST_FRAMES, tooltip="How many frames the story has."),
                io.Float.Input(
                    "same",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "How much of the noise all frames share. 1: all, so that pose and layout stay alike. 0: none. "
                        "The first frame always has the seed's own noise."
                    ),
                ),
            ],
            outputs=[
                io.Noise.Output(
                    display_name="noise", is_output_list=True, tooltip="A list for SamplerCustomAdvanced, one a frame."
                )
            ],
        )

    @classmethod
    def execute(cls, seed: int, frames: int, same: float) -> io.NodeOutput:
        check_range(frames, "frames", 1, MOST_FRAMES)
        check_range(same, "same", 0.0, 1.0)
        return io.NodeOutput(story_noise(seed, frames, same))


class StorySheet(io.ComfyNode):
    """All pictures on one sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_StorySheet",
            display_name="Story Sheet",
            category=CATEGORY_STORY,
            description="Lays a story's pictures out on one sheet with their captions, to look at or to share.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="A list of images, one a frame; of a batch every image is a panel."),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    tooltip="A list of texts, from Story Prompts; or lines in the widget. Missing ones stay empty.",
                ),
                io.Int.Input("columns", default=0, min=0, max=100, tooltip="Panels in a row; 0 chooses."),
                io.Int.Input(
                    "gap", default=8, min=0, max=256, tooltip="Pixels between the panels and round the sheet."
                ),
            ],
            outputs=[io.Image.Output(display_name="sheet", tooltip="One image, panels at the first image's size.")],
        )

    @classmethod
    def execute(cls, images: list, captions: list[str], columns: list[int], gap: list[int]) -> io.NodeOutput:
        check_range(columns[0], "columns", 0, 100)
        check_range(gap[0], "gap", 0, 256)
        texts = captions[0].splitlines() if len(captions) == 1 and len(images) != 1 else list(captions)
        if len(texts) > len(images) and any(text.strip() for text in texts[len(images) :]):
            raise ValueError(
                f"'captions' holds {len(texts)} texts for {len(images)} images; connect the captions of the Story "
                "Prompts that made them."
            )
        pictures, below = [], []
        for number, batch in enumerate(images):
            if batch.ndim != 4:
                raise ValueError(f"'images' holds a shape {list(batch.shape)}; expected [batch, height, width, 3].")
            pictures += list(batch)
            below += [texts[number] if number < len(texts) else ""] * batch.shape[0]
        return io.NodeOutput(contact_sheet(pictures, below, columns=columns[0], gap=gap[0]))


NODES = [StoryNoise, StorySheet]
