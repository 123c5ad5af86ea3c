"""A second, tiny pack for the tests' server: conditions without a text encoder, nodes that fail, wait and show text."""

import time

import comfy.model_management
import torch
from comfy_api.latest import ComfyExtension, io


class RandomConditioning(io.ComfyNode):
    """Random numbers in the shape of a text encoder's answer, so that models can be sampled without one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PaperNodesTest_RandomConditioning",
            category="papernodes/test",
            inputs=[
                io.Int.Input("dim", default=768, min=1, max=1 << 16),
                io.Int.Input("tokens", default=77, min=1, max=1 << 16),
                io.Int.Input("pooled_dim", default=0, min=0, max=1 << 16, tooltip="0: no pooled output"),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1),
                io.Boolean.Input("attention_mask", default=False, optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, dim, tokens, pooled_dim, seed, attention_mask=False):
        generator = torch.Generator().manual_seed(seed)
        extra = {}
        condition = torch.randn(1, tokens, dim, generator=generator)
        if pooled_dim:
            extra["pooled_output"] = torch.randn(1, pooled_dim, generator=generator)
        if attention_mask:
            extra["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
        return io.NodeOutput([[condition, extra]])


class Fail(io.ComfyNode):
    """Raises while it runs, or refuses its input before that."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PaperNodesTest_Fail",
            category="papernodes/test",
            is_output_node=True,
            inputs=[io.String.Input("message", default="on purpose"), io.Boolean.Input("early", default=False)],
            outputs=[],
        )

    @classmethod
    def validate_inputs(cls, early):
        return "refused on purpose" if early else True

    @classmethod
    def execute(cls, message, early):
        raise ValueError(message)


class Wait(io.ComfyNode):
    """Does nothing for a while, and stops at once when it is interrupted."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PaperNodesTest_Wait",
            category="papernodes/test",
            is_output_node=True,
            not_idempotent=True,
            inputs=[io.Float.Input("seconds", default=1.0, min=0.0, max=600.0)],
            outputs=[],
        )

    @classmethod
    def execute(cls, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
        return io.NodeOutput()


class Name(io.ComfyNode):
    """Shows a text, as nodes do that make no files."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PaperNodesTest_Name",
            category="papernodes/test",
            is_output_node=True,
            inputs=[
                io.String.Input("text", default=""),
                io.Float.Input("number", default=0.5),
                io.Boolean.Input("flag", default=False),
                io.Combo.Input("choice", options=["one", "two"]),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, text, number, flag, choice):
        return io.NodeOutput(ui={"text": [f"{text}|{number}|{flag}|{choice}"]})


class TestExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self):
        return [RandomConditioning, Fail, Wait, Name]


async def comfy_entrypoint() -> TestExtension:
    """ComfyUI's way in."""
    return TestExtension()
