"""One-Prompt-One-Story: a story's prompts, and the reweighting of their words."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.singular_values import EXPRESS, MODES, SUPPRESS, Curve
from ..kernels.story_text import Prompt, make_prompts, read_frames, read_identities
from ..patches.story import (
    PROMPT,
    Reweighting,
    check_reweightable,
    encode_story,
    find_text,
    place_texts,
    reweight,
)
from ..patches.text_tokens import TextError, fit_rows, read_text, tokens_of
from .sockets import CATEGORY_STORY, check_choice, check_range, read_widget

MODE_OFF = "off"
PROMPT_MODES = (*MODES, MODE_OFF)
LARGEST_ALPHA, LARGEST_BETA = 1.0, 10.0


def curve_inputs() -> list[io.Float.Input]:
    """The four numbers of the two curves."""
    found = []
    for name, curve, what in (
        ("express", EXPRESS, "the text to be shown"),
        ("suppress", SUPPRESS, "the other texts"),
    ):
        found.append(
            io.Float.Input(
                f"{name}_alpha",
                default=curve.alpha,
                min=-LARGEST_ALPHA,
                max=LARGEST_ALPHA,
                step=0.001,
                round=False,
                tooltip=(
                    f"For {what}: singular values s become beta * s * exp(-alpha * s). Below 0 the large ones grow, "
                    "above 0 they shrink. Its effect depends on the text encoder; the default was chosen for SDXL."
                ),
            )
        )
        found.append(
            io.Float.Input(
                f"{name}_beta",
                default=curve.beta,
                min=0.0,
                max=LARGEST_BETA,
                step=0.01,
                round=False,
                tooltip=f"For {what}: what all singular values are multiplied by. 1 keeps them, 0 removes the text.",
            )
        )
    return found


def read_curves(express_alpha: float, express_beta: float, suppress_alpha: float, suppress_beta: float) -> dict:
    """The two curves, checked."""
    values = {
        "express": (express_alpha, express_beta),
        "suppress": (suppress_alpha, suppress_beta),
    }
    for name, (alpha, beta) in values.items():
        check_range(alpha, f"{name}_alpha", -LARGEST_ALPHA, LARGEST_ALPHA)
        check_range(beta, f"{name}_beta", 0.0, LARGEST_BETA)
    return {name: Curve(*pair) for name, pair in values.items()}


class StoryPrompts(io.ComfyNode):
    """Builds and encodes a story's prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_StoryPrompts",
            display_name="Story Prompts",
            category=CATEGORY_STORY,
            description=(
                "One conditioning for each frame of a story whose characters stay the same. All frames stand in one "
                "prompt; in each conditioning its own frame's words are made stronger and the others' weaker."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="The model's text encoder; SD1.5, SD2 and SDXL in all modes."),
                io.String.Input(
                    "identity",
                    multiline=True,
                    default="a red fox with a scarf",
                    tooltip=(
                        "What stays the same. For several characters a line each: 'Anna: a red fox'. The prompts begin "
                        "with it."
                    ),
                ),
                io.String.Input(
                    "frames",
                    multiline=True,
                    default="in a forest\non a beach\nin the snow",
                    tooltip=(
                        "A line for each frame: what happens and where. 'Anna, Bob: in a forest' says who is in it; "
                        "without names everyone is."
                    ),
                ),
                io.Int.Input(
                    "window",
                    default=10,
                    min=1,
                    max=1000,
                    tooltip=(
                        "At most so many frames stand in one prompt. A longer story gets windows: each prompt begins "
                        "with its own frame and goes round. Fewer are taken where a prompt would reach 77 words."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=list(PROMPT_MODES),
                    default=MODES[0],
                    tooltip=(
                        "svr: the end of the text is reweighted with the words. svr-eot: it is only made weaker. off: "
                        "the prompts are encoded as they are."
                    ),
                ),
                *curve_inputs(),
                io.Boolean.Input(
                    "keep_pooled",
                    default=True,
                    tooltip="The pooled output (SDXL) of the whole prompt, the same in all frames. Off: zeros.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    is_output_list=True,
                    tooltip="A list with one conditioning for each frame; what is connected runs once for each.",
                ),
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="A list of the frames' texts, for Story Sheet.",
                ),
                io.String.Output(
                    display_name="report", tooltip="Tokens, windows, and which words were found where, to be looked at."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: object,
        identity: str,
        frames: str,
        window: int,
        mode: str,
        express_alpha: float,
        express_beta: float,
        suppress_alpha: float,
        suppress_beta: float,
        keep_pooled: bool,
    ) -> io.NodeOutput:
        check_choice(mode, "mode", PROMPT_MODES)
        check_range(window, "window", 1, 1000)
        curves = read_curves(express_alpha, express_beta, suppress_alpha, suppress_beta)
        identities = read_widget(read_identities, "identity", identity)
        lines = read_widget(read_frames, "frames", frames, identities)
        prompts = make_prompts(identities, lines, window)
        how = None if mode == MODE_OFF else Reweighting(mode, **curves)
        try:
            conditionings = encode_story(clip, prompts, how, keep_pooled)
            report = describe(clip, prompts, mode)
        except TextError as error:
            raise ValueError(f"Story Prompts: {error}") from None
        return io.NodeOutput(conditionings, [text for _, text in lines], report)


def describe(clip: object, prompts: list[Prompt], mode: str) -> str:
    """Tokens, windows and where each text stands, in words."""
    first = prompts[0]
    held = len(first.frames)
    lines = [
        f"{len(prompts)} frame{'s' * (len(prompts) > 1)}, {held} in each prompt"
        + (" (windows that go round)" if held < len(prompts) else "")
        + f", mode {mode}"
    ]
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts, 1):
        lines.append("")
        again = seen.setdefault(prompt.text, number)
        expressed = f"frame {number} shows {prompt.texts[prompt.shown]!r}"
        if again != number:
            lines.append(f"{expressed}; prompt and places as in frame {again}")
            continue
        places = place_texts(clip, prompt)
        lines.append(f"{expressed}; {len(prompt.text.split())} words: {prompt.text}")
        for place in places:
            encoded = place.encoded
            size = f"{len(encoded.tokens)} tokens in {encoded.chunks} chunk{'s' * (encoded.chunks > 1)}"
            lines.append(f"  {encoded.encoder}: {size}, {len(encoded.ends)} rows of end and padding")
            named = [("identity", text) for text in prompt.identities] + [("frame", text) for text in prompt.texts]
            rows_of = [*place.identities, *place.texts]
            for (what, text), rows in zip(named, rows_of, strict=True):
                lines.append(f"    {what} {text!r}: rows {rows[0]} to {rows[-1]}")
    return "\n".join(lines)


class SingularValueReweight(io.ComfyNode):
    """Makes some words of a conditioning stronger and others weaker."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_SingularValueReweight",
            display_name="Singular Value Reweight",
            category=CATEGORY_STORY,
            description=(
                "Expresses one text of a prompt and suppresses others, by the singular values of their embeddings: the "
                "step of Story Prompts by itself, for a prompt of your own."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that made the conditioning: SD1.5, SD2 or SDXL."),
                io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode with the same prompt."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a red fox in a forest on a beach",
                    tooltip="The prompt that the conditioning was made of, word for word.",
                ),
                io.String.Input(
                    "express",
                    multiline=True,
                    default="in a forest",
                    tooltip="The text of the prompt to make stronger; empty for none. Its first occurrence counts.",
                ),
                io.String.Input(
                    "suppress",
                    multiline=True,
                    default="on a beach",
                    tooltip="Texts of the prompt to make weaker, a line each; empty for none.",
                ),
                *curve_inputs(),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The same prompt, reweighted.")],
        )

    @classmethod
    def execute(
        cls,
        clip: object,
        conditioning: list,
        prompt: str,
        express: str,
        suppress: str,
        express_alpha: float,
        express_beta: float,
        suppress_alpha: float,
        suppress_beta: float,
    ) -> io.NodeOutput:
        curves = read_curves(express_alpha, express_beta, suppress_alpha, suppress_beta)
        how = Reweighting(MODES[0], **curves)
        suppressed = [line.strip() for line in suppress.splitlines() if line.strip()]
        try:
            check_reweightable(clip)
            texts = read_text(clip, prompt)
            wanted = {text: tokens_of(clip, text) for text in [*suppressed, *([express] if express.strip() else [])]}
            steps = [
                (
                    encoded,
                    [[cls._rows(encoded, wanted[text], "suppress", text) for text in suppressed]],
                    [cls._rows(encoded, wanted[express], "express", express) if express.strip() else []],
                )
                for encoded in texts
            ]
            found = []
            for states, options in conditioning:
                fit_rows(texts, states.shape[1])
                found.append([reweight(clip, states, steps, how), {**options, PROMPT: prompt}])
        except TextError as error:
            raise ValueError(f"Singular Value Reweight: {error}") from None
        return io.NodeOutput(found)

    @staticmethod
    def _rows(encoded, tokens: dict, name: str, text: str) -> list[int]:
        rows = find_text(encoded, tokens[encoded.encoder])
        if not rows:
            raise TextError(
                f"'{name}' says {text.strip()!r}, which is not in the prompt: its words must stand there one after "
                "the other, whole and with the same signs between them (capitals do not matter)."
            )
        return rows


NODES = [StoryPrompts, SingularValueReweight]
