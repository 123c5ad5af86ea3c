"""Imagine360's files: a MODEL that samples a panorama with its views, and the encoder of its image tokens."""

from __future__ import annotations

import gc
import logging
import os

from comfy_api.latest import io

from ..networks.imagine360 import Imagine360Network
from ..networks.imagine360_files import (
    EXCHANGE_FILE,
    LORA_FILE,
    PANORAMA_FILE,
    SOURCE,
    VIEWS_FILE,
    Imagine360FileError,
    Report,
    Source,
    read_network,
    training_at,
    whole_branches,
)
from ..networks.imagine360_layout import Training
from ..networks.sam_encoder import SamFileError, read_sam, sam_patcher
from ..patches.imagine360 import model_of, operations_for, weight_dtype
from .demo_adapters import IMAGINE360
from .sockets import CATEGORY_PANORAMA, NothingThere, PnImageEncoder, check_range
from .weight_files import find_weights, list_weights, read_weights

FOLDERS, ENCODER_FOLDERS = ("imagine360", "diffusion_models"), ("imagine360", "sams")
ENCODER_FILE = "sam_vit_b_01ec64.pth"
ENCODER_SOURCE = "https://github.com/facebookresearch/segment-anything"
NONE = "none"
STRONGEST = 2.0

_told: set[str] = set()


def list_files(published: str, word: str, folders: tuple[str, ...], first: tuple[str, ...] = ()) -> list[str]:
    """Files of model folders, those whose name has a word first; the published one's name where none has it.

    Args:
        published: what a workflow can say it lacks.
        word: in the names of likely files.
        folders: the host's names of model folders.
        first: what is listed before the other files, after the likely ones.
    """
    names = list_weights(folders)
    likely = [name for name in names if word in os.path.basename(name).lower()]
    return (likely or [published]) + list(first) + [name for name in names if name not in likely]


class Imagine360Loader(io.ComfyNode):
    """Imagine360's networks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        where = "In models/imagine360, models/diffusion_models or models/unet."
        return io.Schema(
            node_id="PaperNodes_Imagine360Loader",
            display_name="Imagine360 Loader",
            category=CATEGORY_PANORAMA,
            description="Loads Imagine360: the UNets of panorama and views, what they exchange, the image encoder.",
            inputs=[
                io.Combo.Input(
                    "pers_unet",
                    options=list_files(VIEWS_FILE, "pers", FOLDERS, (NONE,)),
                    tooltip=f"The UNet of the perspective views. none: mv_model holds it. {where}",
                ),
                io.Combo.Input(
                    "pano_unet",
                    options=list_files(PANORAMA_FILE, "pano_unet", FOLDERS, (NONE,)),
                    tooltip=f"The UNet of the panorama. none: mv_model holds it. {where}",
                ),
                io.Combo.Input(
                    "mv_model",
                    options=list_files(EXCHANGE_FILE, "mv_model", FOLDERS, tuple(IMAGINE360)),
                    tooltip=f"What panorama and views exchange. UNets in it count before the other two files. {where}",
                ),
                io.Combo.Input(
                    "lora",
                    options=list_files(LORA_FILE, "panolora", FOLDERS, (NONE,)),
                    tooltip=f"Merged into the panorama's UNet. {where}",
                ),
                io.Combo.Input(
                    "image_encoder",
                    options=list_files(ENCODER_FILE, "sam", ENCODER_FOLDERS, (NONE,)),
                    tooltip="SAM ViT-B. In models/sams or models/imagine360. none: no image tokens.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=STRONGEST,
                    step=0.05,
                    round=False,
                    optional=True,
                    tooltip="How much of the LoRA is merged. 1: as trained. 0: the UNet without it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Samples Imagine360 Conditioning's packed latent."),
                PnImageEncoder.Output(display_name="image_encoder", tooltip="For Imagine360 Conditioning."),
            ],
        )

    @classmethod
    def execute(
        cls, pers_unet: str, pano_unet: str, mv_model: str, lora: str, image_encoder: str, lora_strength: float = 1.0
    ) -> io.NodeOutput:
        check_range(lora_strength, "lora_strength", 0.0, STRONGEST)
        chosen = {
            "pers_unet": (pers_unet, VIEWS_FILE, SOURCE, FOLDERS),
            "pano_unet": (pano_unet, PANORAMA_FILE, SOURCE, FOLDERS),
            "mv_model": (mv_model, EXCHANGE_FILE, SOURCE, FOLDERS),
            "lora": (lora, LORA_FILE, SOURCE, FOLDERS),
            "image_encoder": (image_encoder, ENCODER_FILE, ENCODER_SOURCE, ENCODER_FOLDERS),
        }
        if mv_model == NONE:
            raise ValueError(f"'mv_model' is none; choose {EXCHANGE_FILE} of {SOURCE}.")
        # All are looked for before time is spent on the first.
        paths = {
            widget: find_weights(
                folders, name, widget, f"{file} from {source}", IMAGINE360 if widget == "mv_model" else None
            )
            for widget, (name, file, source, folders) in chosen.items()
            if name != NONE
        }
        encoder = _encoder(paths.pop("image_encoder", None), image_encoder)
        try:
            network, training, report = _network(
                paths, {widget: one[0] for widget, one in chosen.items()}, lora_strength
            )
        except Imagine360FileError as error:
            raise ValueError(str(error)) from None
        # The files' own tensors are larger than the network in its dtype.
        gc.collect()
        if mv_model not in _told:
            _told.add(mv_model)
            for note in report.notes:
                logging.info("PaperNodes: %s", note)
            logging.info(
                "PaperNodes: Imagine360: %d weights loaded, %d of the files' never used and dropped.",
                report.used,
                report.dropped,
            )
        return io.NodeOutput(model_of(network, training), encoder)


def _network(
    paths: dict[str, str], names: dict[str, str], lora_strength: float
) -> tuple[Imagine360Network, Training, Report]:
    """The network of the files that widgets have chosen."""

    def read(widget: str) -> Source:
        return Source(names[widget], read_weights(paths[widget], names[widget], widget, SOURCE), widget)

    exchange = read("mv_model")
    training = training_at(paths["mv_model"])
    # They are several GB, and would not count.
    whole = whole_branches(exchange, training)
    views, panorama = (
        read(widget) if widget in paths and role not in whole else None
        for widget, role in (("pers_unet", "views"), ("pano_unet", "panorama"))
    )
    lora = read("lora") if "lora" in paths and panorama is not None else None
    sources = [one for one in (exchange, views, panorama) if one is not None]
    dtype = weight_dtype(sum(value.numel() for one in sources for value in one.tensors.values()))
    network, report = read_network(
        exchange, views, panorama, lora, lora_strength, training, dtype=dtype, operations=operations_for(dtype)
    )
    left = [
        names[widget]
        for widget, used in (("pers_unet", views), ("pano_unet", panorama), ("lora", lora))
        if widget in paths and used is None
    ]
    if left:
        report.notes.append(f"{exchange.name} holds the UNets whole, so {', '.join(left)} are not used.")
    return network, training, report


def _encoder(path: str | None, name: str) -> object:
    """What the second output gives."""
    if path is None:
        return NothingThere(
            "'image_encoder' of Imagine360 Loader is none. Choose SAM's file there, or leave the image_encoder of "
            "Imagine360 Conditioning unconnected."
        )
    try:
        return sam_patcher(read_sam(name, read_weights(path, name, "image_encoder", ENCODER_SOURCE)))
    except SamFileError as error:
        raise ValueError(f"'image_encoder': {error}") from None


NODES = [Imagine360Loader]
