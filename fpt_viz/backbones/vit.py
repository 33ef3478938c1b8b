"""ViT: bidirectional, learned positions of image patches, a layer norm before each half of a block (pre-LN).

Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929. Our input layer takes the place of the patch projection and
of the class token; token i of a task has the position of patch i, row by row from the top left.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

from jaxtyping import Float
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ViTConfig, ViTModel

from fpt_viz.backbones._places import Place, attention, norm
from fpt_viz.backbones.base import Backbone, Preset, assign

__all__ = ["Vit"]


class Vit(Backbone):
    """A ViT encoder without patch projection, class token and pooler."""

    network_class = ViTModel
    config_class = ViTConfig
    network_options: ClassVar = {"add_pooling_layer": False}
    inputs_name = "pixel_values"
    causal = False
    blocks_path = "layers"
    attention_path = "attention"
    tail_path = "mlp"
    attention_dropout = "attention_dropout"
    projection_path = "attention.o_proj"
    vocabulary_path = "embeddings"
    position_path = "embeddings.position_embeddings"
    final_norm_path = "layernorm"
    groups: ClassVar = {
        "embeddings.position_embeddings.*": "position",
        "layers.*.layernorm_*": "layer_norm",
        "layernorm.*": "layer_norm",
        "layers.*.attention.*": "attention",
        "layers.*.mlp.*": "feed_forward",
    }
    block_places: ClassVar = {
        "hook_resid_pre": Place("", "input"),
        **norm("ln1", "layernorm_before"),
        **attention("attention", "attention.o_proj"),
        "hook_attn_out": Place("attention", "output"),
        "hook_resid_mid": Place("layernorm_after", "input", stream=True),
        **norm("ln2", "layernorm_after"),
        "mlp.hook_pre": Place("mlp.fc1", "output"),
        "mlp.hook_post": Place("mlp.fc2", "input"),
        "hook_mlp_out": Place("mlp", "output"),
        "hook_resid_post": Place("", "output"),
    }
    presets: ClassVar = {
        "vit-base": Preset(
            config={
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                "image_size": 224,
                "patch_size": 16,
            },
            repo_id="google/vit-base-patch16-224-in21k",
        ),
        "vit-large": Preset(
            config={
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "image_size": 224,
                "patch_size": 16,
            },
            repo_id="google/vit-large-patch16-224-in21k",
        ),
        "vit-tiny-random": Preset(
            config={
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "image_size": (40, 64),  # 160 patches
                "patch_size": 4,
            },
        ),
    }

    def _token_rms(self, network: PreTrainedModel) -> float:
        """That of a patch whose pixels are independent, with mean 0 and variance 1, as ViT's images roughly have."""
        projection = network.get_submodule("embeddings.patch_embeddings.projection")
        assert isinstance(projection, nn.Conv2d) and projection.bias is not None  # by transformers
        weight, bias = projection.weight.detach().float(), projection.bias.detach().float()
        return float((weight.flatten(1).pow(2).sum(1) + bias.pow(2)).mean().sqrt())

    def _strip(self, network: PreTrainedModel) -> None:
        """Keep the positions and the dropout of the embeddings; the class token's position goes with the token."""
        positions = network.get_parameter("embeddings.position_embeddings").detach()[0, 1:].clone()
        dropout = network.get_submodule("embeddings.dropout")
        assign(network, "embeddings", _Vectors(positions, dropout))


class _Vectors(nn.Module):
    """In the place of a ViT's embeddings: takes vectors instead of pixels and adds the positions of the patches."""

    def __init__(self, positions: Float[Tensor, "patch hidden"], dropout: nn.Module) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding.from_pretrained(positions, freeze=False)
        self.dropout = dropout

    @property
    def patch_embeddings(self) -> SimpleNamespace:
        """Where the network looks up the type of the numbers that it computes with."""
        return SimpleNamespace(projection=self.position_embeddings)

    def forward(
        self, vectors: Float[Tensor, "batch seq hidden"], **_options: object
    ) -> Float[Tensor, "batch seq hidden"]:
        """``vectors`` with their positions; the network's options say what to do with pixels, which there are none."""
        places = torch.arange(vectors.shape[1], device=vectors.device)[None]
        return torch.as_tensor(self.dropout(vectors + self.position_embeddings(places)))
