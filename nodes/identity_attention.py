"""Identity Attention: more of a picture's attention to the words that say who is in it."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.story_text import read_identities
from ..patches.regional import CROSS, UNET, add_key_bias, family_of
from ..patches.story import PROMPT, append_identity, bias_identity, identity_rows
from .sockets import CATEGORY_STORY, check_choice, check_range, read_widget

METHODS = ("bias", "append")
LARGEST_STRENGTH, LARGEST_DROPOUT = 20.0, 0.95


class IdentityAttention(io.ComfyNode):
    """Lets a picture attend more to the words that say who is in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_IdentityAttention",
            display_name="Identity Attention",
            category=CATEGORY_STORY,
            description=(
                "The picture attends more to the words of the identity. Takes all conditionings of a story at once "
                "and costs nothing while sampling. Works with UNets, SD3, Flux, Chroma, Wan, LTXV and HunyuanVideo."
            ),
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled; LoRAs and other patches may follow."),
                io.Clip.Input("clip", tooltip="The text encoder that made the conditioning."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The positive conditionings, from Story Prompts; others if they begin with the identity.",
                ),
                io.String.Input(
                    "identity",
                    multiline=True,
                    default="a red fox with a scarf",
                    tooltip="The same text as in Story Prompts; with names, each conditioning gets who is in it.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=LARGEST_STRENGTH,
                    step=0.05,
                    round=False,
                    tooltip="The identity's words weigh 1 + strength times as much. 0 is off, 1 is the paper.",
                ),
                io.Float.Input(
                    "dropout",
                    default=0.0,
                    min=0.0,
                    max=LARGEST_DROPOUT,
                    step=0.05,
                    round=False,
                    tooltip="How often a place of the picture is left without the extra weight, drawn anew each time.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="From here: 0 is the first step."
                ),
                io.Float.Input(
                    "end_percent", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="To here: 1 is the last step."
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip=(
                        "Two forms of the same. bias: more weight on the words. append: the words once more at the end "
                        "of the text, as the paper has it; slower with a negative prompt of another length."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Obeys the conditionings; sample with both."),
                io.Conditioning.Output(
                    display_name="conditioning", is_output_list=True, tooltip="As many as came in, in the same order."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list,
        clip: list,
        conditioning: list,
        identity: list[str],
        strength: list[float],
        dropout: list[float],
        start_percent: list[float],
        end_percent: list[float],
        method: list[str],
    ) -> io.NodeOutput:
        model, clip, method = model[0], clip[0], method[0]
        strength, dropout, start, end = strength[0], dropout[0], start_percent[0], end_percent[0]
        check_choice(method, "method", METHODS)
        check_range(strength, "strength", 0.0, LARGEST_STRENGTH)
        check_range(dropout, "dropout", 0.0, LARGEST_DROPOUT)
        check_range(start, "start_percent", 0.0, 1.0)
        check_range(end, "end_percent", 0.0, 1.0)
        if start >= end:
            raise ValueError(f"'start_percent' is {start:g} and 'end_percent' is {end:g}; the end must come later.")
        identities = list(read_widget(read_identities, "identity", identity[0]).values())
        if strength == 0:
            return io.NodeOutput(model, conditioning)
        try:
            return io.NodeOutput(
                cls._model(model, method, strength, dropout),
                [
                    cls._mark(clip, number, one, identities, (strength, dropout, start, end), method)
                    for number, one in enumerate(conditioning, 1)
                ],
            )
        except ValueError as error:
            raise ValueError(f"Identity Attention: {error}") from None

    @staticmethod
    def _model(model: object, method: str, strength: float, dropout: float) -> object:
        family = family_of(model)
        if method == "append" and family not in (UNET, CROSS):
            raise ValueError(
                "in this model text and picture share one attention, where words at the end of the text are not the "
                "same as more weight. Set 'method' to bias."
            )
        return model if method == "append" and strength == 1 and dropout == 0 else add_key_bias(model)

    @staticmethod
    def _mark(clip, number: int, conditioning: list, identities: list[str], settings: tuple, method: str) -> list:
        found = []
        for entry in conditioning:
            rows = identity_rows(clip, entry, identities)
            if not rows:
                prompt = entry[1].get(PROMPT)
                where = f"the prompt of conditioning {number}, {prompt!r}" if prompt else f"conditioning {number}"
                how = "" if prompt else " at the beginning of its prompt"
                raise ValueError(
                    f"the identity {' / '.join(identities)!r} was not found{how} in {where}. Its words must stand "
                    "there whole, one after the other, with the same signs between them (capitals do not matter); "
                    "use the same CLIP and the same text as in Story Prompts."
                )
            marked = append_identity if method == "append" else bias_identity
            made = marked(entry, rows, *settings)
            found += made if method == "append" else [made]
        return found


NODES = [IdentityAttention]
