"""Plan Blobs: a layout from a prompt, by rules or by a language model."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..kernels.blob_dialogue import plan_by_model
from ..kernels.blob_layout import LARGEST_SIDE, blobs_to_json
from ..kernels.blob_placing import plan_by_rules
from ..kernels.blob_plan import ANGLE_ZEROS
from .endpoint import EndpointError, ask, endpoint_from_environment
from .sockets import CATEGORY_BLOBS, MAX_SEED, PnBlobs, check_choice, check_range

RULES, ENDPOINT = "rules", "endpoint"
PLANNERS = (RULES, ENDPOINT)
MOST_ROUNDS = 4


class PlanBlobs(io.ComfyNode):
    """Where the things of a prompt stand."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PlanBlobs",
            display_name="Plan Blobs",
            category=CATEGORY_BLOBS,
            description=(
                "Lays out the things that a prompt names: by rules, offline, for counts, sizes and 'a left of b', or "
                "by a language model that you have set up."
            ),
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a big red ball left of a small blue cube",
                    tooltip="What is to be seen. The rules read simple English.",
                ),
                io.Combo.Input(
                    "planner",
                    options=list(PLANNERS),
                    default=RULES,
                    tooltip=(
                        "rules: no model, no network. endpoint: a language model at the address in the environment "
                        "variables PAPERNODES_ENDPOINT_URL and PAPERNODES_ENDPOINT_KEY; the prompt is sent there."
                    ),
                ),
                *(
                    io.Int.Input(name, default=512, min=16, max=LARGEST_SIDE, tooltip=f"Pixels of the picture {where}.")
                    for name, where in (("width", "across"), ("height", "down"))
                ),
                io.Combo.Input(
                    "angle_zero",
                    options=list(ANGLE_ZEROS),
                    default=ANGLE_ZEROS[0],
                    tooltip=(
                        "For endpoint: what the model is told that angle 0 is, an ellipse that stands or one that "
                        "lies, and how its answer is read. Try the other one if ellipses come out turned."
                    ),
                ),
                io.String.Input(
                    "model",
                    default="",
                    optional=True,
                    tooltip="For endpoint: the model's name. Empty = that of PAPERNODES_ENDPOINT_MODEL.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Of all that the prompt leaves open. A language model may heed it or not.",
                ),
            ],
            outputs=[
                PnBlobs.Output(display_name="blobs", tooltip="The layout, of one frame, from the farthest thing on."),
                io.String.Output(
                    display_name="log", tooltip="How the prompt, or the answer, was understood, and what was not."
                ),
                io.String.Output(
                    display_name="layout",
                    tooltip="The layout as JSON, the text that Blob Layout's 'layout' takes when linked.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, prompt: str, planner: str, width: int, height: int, angle_zero: str, seed: int, model: str = ""
    ) -> io.NodeOutput:
        check_choice(planner, "planner", PLANNERS)
        check_choice(angle_zero, "angle_zero", ANGLE_ZEROS)
        for name, side in (("width", width), ("height", height)):
            check_range(side, name, 1, LARGEST_SIDE)
        if not prompt.strip():
            raise ValueError("'prompt' is empty; write what is to be seen, such as 'three red balls'.")
        try:
            if planner == RULES:
                layout, log = plan_by_rules(prompt, width, height, seed)
            else:
                layout, log = asked(prompt, width, height, angle_zero, model, seed)
        except EndpointError:
            raise
        except ValueError as error:
            raise ValueError(f"'prompt': {error}") from None
        return io.NodeOutput(layout, "\n".join(log), blobs_to_json(layout))


def asked(prompt: str, width: int, height: int, angle_zero: str, model: str, seed: int):
    """A layout and its log, by the language model of the environment."""
    endpoint = endpoint_from_environment(model)
    progress = comfy.utils.ProgressBar(MOST_ROUNDS)
    check = comfy.model_management.throw_exception_if_processing_interrupted

    def once(messages: list[dict[str, str]]) -> str:
        check()
        answer = ask(endpoint, messages, seed, check)
        progress.update(1)
        return answer

    return plan_by_model(prompt, width, height, angle_zero, once)


NODES = [PlanBlobs]
