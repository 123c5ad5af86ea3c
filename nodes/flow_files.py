"""Load Flow and Save Flow: .flo, .npy and .safetensors inside ComfyUI's input and output folders."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..kernels.flow import DIRECTIONS, Flow
from ..kernels.flow_format import SUFFIXES, read_flow, write_flow
from .paths import find_file, list_files, numbered_files, output_target, written_together
from .sockets import CATEGORY_FLOW, PnFlow, check_choice, check_flow

FORMATS = (".safetensors", ".npy", ".flo")
FROM_FILE = "from file"


class LoadFlow(io.ComfyNode):
    """Reads a flow from the input or output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LoadFlow",
            display_name="Load Flow",
            category=CATEGORY_FLOW,
            description="Reads a flow that Save Flow or another program wrote: .safetensors, .npy or .flo.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list_files(SUFFIXES),
                    tooltip=(
                        "A file in ComfyUI's input folder, or in its output folder where the name ends in [output]. "
                        "Put a file there and press R to see it in the list."
                    ),
                ),
                io.Boolean.Input(
                    "sequence",
                    default=False,
                    tooltip=(
                        "For .flo, which holds one pair of frames: also reads the files that follow by number, "
                        "flow_0001.flo, flow_0002.flo, and so on."
                    ),
                ),
                io.Combo.Input(
                    "direction",
                    options=[FROM_FILE, *DIRECTIONS],
                    default=FROM_FILE,
                    optional=True,
                    tooltip=(
                        "Which way the vectors point. .safetensors files of Save Flow say so themselves; .npy and .flo "
                        "cannot and are taken as forward unless you choose."
                    ),
                ),
            ],
            outputs=[PnFlow.Output(display_name="flow", tooltip="For Warp Noise and Flow To Image.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if file is None:  # linked: not known yet
            return True
        try:
            find_file(file, SUFFIXES)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, sequence: bool, direction: str = FROM_FILE) -> str:
        """Changes when a file's content does, so that a file written anew is read anew."""
        digest = hashlib.sha256()
        for path in cls._paths(file, sequence):
            state = path.stat()
            digest.update(f"{path}:{state.st_mtime_ns}:{state.st_size};".encode())
        return digest.hexdigest()

    @classmethod
    def execute(cls, file: str, sequence: bool, direction: str = FROM_FILE) -> io.NodeOutput:
        check_choice(direction, "direction", (FROM_FILE, *DIRECTIONS))
        paths = cls._paths(file, sequence)
        progress = comfy.utils.ProgressBar(len(paths))
        flows = []
        for path in paths:
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                flows.append(read_flow(path))
            except ValueError as error:
                raise ValueError(f"'file': {error}") from None
            progress.update(1)
        flow = _joined(flows, paths)
        if direction != FROM_FILE:
            flow = Flow(flow.vectors, direction, flow.occlusion)
        return io.NodeOutput(flow.to(comfy.model_management.intermediate_device()))

    @staticmethod
    def _paths(file: str, sequence: bool) -> list[Path]:
        path = find_file(file, SUFFIXES)
        return numbered_files(path) if sequence else [path]


class SaveFlow(io.ComfyNode):
    """Writes a flow to the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_SaveFlow",
            display_name="Save Flow",
            category=CATEGORY_FLOW,
            description="Writes a flow to ComfyUI's output folder, for Load Flow or another program.",
            inputs=[
                PnFlow.Input("flow", tooltip="From Optical Flow or Load Flow."),
                io.String.Input(
                    "filename_prefix",
                    default="flows/flow",
                    tooltip=(
                        "File name, with a sub-folder if you like; a number is added so that nothing is overwritten."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    tooltip=(
                        ".safetensors keeps everything: vectors, direction, occlusion. .npy keeps the vectors as one "
                        "array [frames - 1, 2, height, width]. .flo is the Middlebury format, one file for each pair."
                    ),
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, flow: Flow, filename_prefix: str, format: str) -> io.NodeOutput:
        check_flow(flow)
        check_choice(format, "format", FORMATS)
        folder, name, subfolder = output_target(filename_prefix)
        pairs = flow.frames - 1
        endings = [f"{pair:04}.flo" for pair in range(pairs)] if format == ".flo" else [format]
        names = [name + ending for ending in endings]
        if flow.direction != DIRECTIONS[0] and format != ".safetensors":
            logging.warning(
                "Save Flow: %s files cannot say that a flow is %s; choose that direction in Load Flow.",
                format,
                flow.direction,
            )
        progress = comfy.utils.ProgressBar(len(names))
        with written_together([folder / each for each in names]) as temporary:
            for pair, path in enumerate(temporary):
                comfy.model_management.throw_exception_if_processing_interrupted()
                path.write_bytes(write_flow(flow, format, pair=pair if format == ".flo" else None))
                progress.update(1)
        # A list of files in the host's own words, so that whatever runs the workflow can fetch them.
        return io.NodeOutput(ui={"flows": [{"filename": n, "subfolder": subfolder, "type": "output"} for n in names]})


def _joined(flows: list[Flow], paths: list[Path]) -> Flow:
    """One flow of several that follow each other.

    Raises:
        ValueError: their sizes or directions differ.
    """
    first = flows[0]
    for flow, path in zip(flows[1:], paths[1:], strict=True):
        if flow.size != first.size:
            raise ValueError(
                f"'file': {path.name} is {flow.size[1]} x {flow.size[0]} pixels, but {paths[0].name} is "
                f"{first.size[1]} x {first.size[0]}; the files of a sequence must have one size."
            )
        if flow.direction != first.direction:
            raise ValueError(
                f"'file': {path.name} is a {flow.direction} flow, but {paths[0].name} is {first.direction}; the files "
                "of a sequence must have one direction."
            )
    if len(flows) == 1:
        return first
    occlusion = None
    if any(flow.occlusion is not None for flow in flows):
        occlusion = torch.cat(
            [torch.zeros_like(f.vectors[:, 0]) if f.occlusion is None else f.occlusion for f in flows]
        )
    return Flow(torch.cat([flow.vectors for flow in flows]), first.direction, occlusion)


NODES = [LoadFlow, SaveFlow]
