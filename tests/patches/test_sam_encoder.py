"""SAM's image encoder: against transformers' own, the published layout, what pictures become, wrong files."""

import comfy.ops
import numpy as np
import pytest
import torch
from papernodes.networks.checkpoints import read_weights
from papernodes.networks.sam_encoder import (
    DEVIATION,
    MEAN,
    PREFIX,
    SamEncoder,
    SamFileError,
    SamSizes,
    encode_pictures,
    prepared,
    read_sam,
)
from sam_files import TINY, sam, sam_state


def transformers_encoder(state, sizes):
    """Another's implementation with the same weights."""
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    config = SamVisionConfig(
        hidden_size=sizes.width,
        output_channels=sizes.channels,
        num_hidden_layers=len(sizes.windows),
        num_attention_heads=sizes.heads,
        mlp_dim=sizes.inner,
        image_size=sizes.edge,
        patch_size=sizes.patch,
        window_size=min(sizes.windows),
        global_attn_indexes=[index for index, window in enumerate(sizes.windows) if window == sizes.grid],
    )
    names = (("blocks.", "layers."), (".norm", ".layer_norm"), ("embed.proj.", "embed.projection."))
    necks = (("neck.0", "neck.conv1"), ("neck.1", "neck.layer_norm1"), ("neck.2", "neck.conv2"))
    weights = {}
    for key, weight in state.items():
        if key.startswith(PREFIX):
            key = key.removeprefix(PREFIX)
            for own, theirs in (*names, *necks, ("neck.3", "neck.layer_norm2")):
                key = key.replace(own, theirs)
            weights[key] = weight
    encoder = SamVisionEncoder(config).eval()
    encoder.load_state_dict(weights)
    return encoder


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_agrees_with_transformers(seed):
    state = sam_state(seed=seed)
    encoder, other = read_sam("a.pth", state), transformers_encoder(state, TINY)
    pictures = torch.rand(2, 28, 20, 3, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = other(prepared(pictures, TINY.edge)).last_hidden_state
    found = encoder.features(pictures)
    assert found.shape == (2, 8, 7, 7) and found.std() > 0.1
    assert torch.allclose(found, expected, atol=2e-5)
    patcher = sam(seed=seed)
    parts, together = (encode_pictures(patcher, pictures, at_once=count) for count in (1, 2))
    assert parts.dtype == torch.float16 and torch.allclose(parts.float(), found, atol=3e-3)
    assert torch.allclose(parts, together, atol=3e-3)


def test_published_layout():
    encoder = SamEncoder(device="meta")
    state = encoder.state_dict()
    assert len(state) == 177 and sum(weight.numel() for weight in state.values()) == 89_670_912
    shapes = {key: list(weight.shape) for key, weight in state.items()}
    assert shapes["pos_embed"] == [1, 64, 64, 768] and shapes["patch_embed.proj.weight"] == [768, 3, 16, 16]
    assert shapes["blocks.0.attn.rel_pos_w"] == [27, 64] and shapes["blocks.11.attn.rel_pos_h"] == [127, 64]
    assert [index for index in range(12) if shapes[f"blocks.{index}.attn.rel_pos_h"][0] == 127] == [2, 5, 8, 11]
    assert shapes["blocks.3.attn.qkv.weight"] == [2304, 768] and shapes["blocks.3.mlp.lin1.weight"] == [3072, 768]
    assert shapes["neck.0.weight"] == [256, 768, 1, 1] and "neck.0.bias" not in shapes
    read = read_sam("sam.pth", {"module." + PREFIX + key: weight for key, weight in state.items()})
    assert read.sizes == SamSizes() and read.sizes.edge == 1024
    kinds = {type(module) for module in read.modules() if not list(module.children())}
    assert kinds == {getattr(comfy.ops.manual_cast, name) for name in ("Conv2d", "Linear", "LayerNorm")}


def test_pictures_as_sam_sees_them():
    """The longer side is scaled by whole bytes, as PIL does it, what is left is zero after the normalisation."""
    from PIL import Image

    bytes_ = torch.randint(0, 256, (20, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = prepared(bytes_[None].float() / 255, 28)
    scaled = np.array(Image.fromarray(bytes_.numpy()).resize((28, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    expected = (torch.from_numpy(scaled) - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    assert found.shape == (1, 3, 28, 28) and not found[:, :, 16:].any()
    # Half a step between bytes is rounded up here and down there.
    assert (found[0, :, :16] - expected.movedim(-1, 0)).abs().max() < 1.01 / min(DEVIATION)
    whole = prepared(torch.ones(1, 28, 28, 3) * 2, 28)
    assert torch.allclose(whole[0, 0], torch.tensor((255 - MEAN[0]) / DEVIATION[0]))


def test_wrong_files(tmp_path):
    state = sam_state()
    torch.save(state, tmp_path / "sam.pth")
    assert read_sam("sam.pth", read_weights(tmp_path / "sam.pth")).sizes == TINY, "a pickle, of which tensors are read"
    bare = {key.removeprefix(PREFIX): weight for key, weight in state.items() if key.startswith(PREFIX)}
    assert read_sam("encoder.safetensors", bare).sizes == TINY
    large = {**bare, "patch_embed.proj.weight": torch.empty(1280, 3, 16, 16, device="meta")}
    lacking = {key: weight for key, weight in state.items() if "blocks.1.mlp.lin2" not in key}
    wide = {**state, PREFIX + "neck.3.weight": torch.zeros(9)}
    for weights, words in (
        ({}, "holds no weights"),
        ({"vision_encoder.layers.0.attn.qkv.weight": torch.zeros(1)}, "transformers' names"),
        ({"image_encoder.trunk.pos_embed": torch.zeros(1)}, "SAM 2"),
        ({"vision_model.embeddings": torch.zeros(1)}, "CLIP"),
        ({"conv_in.weight": torch.zeros(1)}, "it lacks pos_embed.*holds conv_in.weight"),
        (large, "ViT-H.*1280 wide"),
        (lacking, "lacks blocks.1.mlp.lin2.bias, blocks.1.mlp.lin2.weight"),
        ({**state, PREFIX + "blocks.7.norm1.weight": torch.zeros(1)}, "more than that, blocks.7.norm1.weight"),
        (wide, r"neck.3.weight has shape \[9\]; expected \[8\]"),
    ):
        with pytest.raises(SamFileError, match=f"^some.pth.*{words}.*Use sam_vit_b_01ec64.pth from"):
            read_sam("some.pth", weights)
