"""Checkpoints of ViT, T5 and Longformer as they are published, with heads and decoders that a backbone leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import (
    LongformerForMaskedLM,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    ViTForImageClassification,
    ViTModel,
)

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.errors import SourceError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task

PUBLISHED = {
    "longformer": (LongformerForMaskedLM, "longformer.", "longformer.encoder.layer.0.attention.self.query.weight"),
    "t5": (T5ForConditionalGeneration, "", "decoder.block.0.layer.1.EncDecAttention.q.weight"),
    "vit": (ViTForImageClassification, "vit.", "vit.encoder.layer.0.attention.attention.query.weight"),
    "vit with pooler": (ViTModel, "", "pooler.dense.weight"),
}
"""The class of the whole network, where the backbone lies in it, and a tensor as its file calls it."""


def published(kind: str, folder: Path) -> PreTrainedModel:
    family, (network_class, _, stored) = kind.split()[0], PUBLISHED[kind]
    backbone_class = registry.load("backbones", family)
    torch.manual_seed(1)
    network = network_class(backbone_class.config_class(**backbone_class.presets[f"{family}-tiny-random"].config))
    network.save_pretrained(folder)
    assert stored in load_file(folder / "model.safetensors")
    return network


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_backbone_of_a_published_network_is_that_part_of_it(kind, tmp_path):
    network, family = published(kind, tmp_path), kind.split()[0]
    prefix = PUBLISHED[kind][1]

    found = load_backbone(f"{family}:{tmp_path}").network.state_dict()

    wanted = network.state_dict()
    moved = {name for name in found if "position_embeddings" in name}
    assert len(found) > 25
    for name in set(found) - moved:
        assert torch.equal(found[name], wanted[prefix + name]), name
    for name in moved:
        table = wanted[prefix + name.removesuffix(".weight")][0] if family == "vit" else wanted[prefix + name]
        first = {"vit": 1, "longformer": 2}[family]  # rows of the class token and of padding come first
        assert torch.equal(found[name], table[first:])


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_first_layers_of_a_published_network_can_be_kept_alone(kind, tmp_path):
    published(kind, tmp_path)
    family = kind.split()[0]
    whole, short = (load_backbone(f"{family}:{tmp_path}", n_layers=n).network.state_dict() for n in (None, 2))
    assert set(short) < set(whole)
    assert all(torch.equal(short[name], whole[name]) for name in short)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_network_that_lacks_a_tensor_of_the_backbone_is_an_error(kind, tmp_path):
    published(kind, tmp_path)
    file, family = tmp_path / "model.safetensors", kind.split()[0]
    tensors = load_file(file)
    name = next(name for name in tensors if ".1." in name and not name.startswith("decoder"))
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"1 tensors missing or of another shape"):
        load_backbone(f"{family}:{tmp_path}")


def test_windows_that_differ_between_layers_are_kept_with_their_layers(tmp_path):
    kind = registry.load("backbones", "longformer")
    options = {**kind.presets["longformer-tiny-random"].config, "attention_window": [2, 4, 8]}
    LongformerForMaskedLM(kind.config_class(**options)).save_pretrained(tmp_path)

    backbone = load_backbone(f"longformer:{tmp_path}")
    short = load_backbone(f"longformer:{tmp_path}", n_layers=2)
    model = FrozenPretrainedTransformer(backbone, load_task("bit_xor"))
    maps = model.capture(model.task.distinct(2, "test"), queries=None)

    assert (backbone.reach, short.reach) == (4, 2)
    distance = (torch.arange(10) - torch.arange(10)[:, None]).abs()
    for layer, reach in enumerate((1, 2, 4)):
        assert torch.equal((maps.weights[layer] > 0).all(0).all(0), distance <= reach)


@torch.no_grad()
def test_a_gated_t5_tells_both_halves_of_its_feed_forward_layer(tmp_path):
    """T5 v1.1 and Flan-T5; here d_kv x heads is not the hidden size, as in some of them."""
    config = T5Config(
        vocab_size=16, d_model=24, d_kv=8, num_heads=2, d_ff=40, num_layers=2, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).save_pretrained(tmp_path)
    model = FrozenPretrainedTransformer(load_backbone(f"t5:{tmp_path}"), load_task("bit_xor", n_bits=2)).eval()
    inputs = model.task.distinct(3, "test").inputs

    logits, cache = model.run_with_cache(inputs)

    torch.testing.assert_close(model(inputs), logits, atol=1e-5, rtol=0)
    gelu = torch.nn.functional.gelu(cache["pre", 1], approximate="tanh")
    torch.testing.assert_close(gelu * cache["pre_linear", 1], cache["post", 1], atol=1e-6, rtol=0)
    down = model.backbone.blocks[1].get_submodule("layer.1.DenseReluDense.wo")
    torch.testing.assert_close(down(cache["post", 1]), cache["mlp_out", 1], atol=1e-6, rtol=0)
    assert model.backbone.projection(0).shape == (2, 8, 24)
    assert cache["z", 0].shape == (3, 4, 2, 8)
