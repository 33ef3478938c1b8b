"""The encoder of T5: bidirectional, RMSNorm before each half of a block (pre-LN), a relative position bias.

Raffel et al., 2020, https://arxiv.org/abs/1910.10683. The bias is added to the scores, which are not scaled; its table
lies in layer 0, serves every layer, and belongs to the group ``attention``. There are no rows of positions to train, so
learned rows, zero at the start, are added to the input and form the ``position`` group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel, T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from fpt_viz.backbones._places import Place, attention, norm
from fpt_viz.backbones.base import Backbone, Preset, assign

__all__ = ["T5"]


class T5(Backbone):
    """A T5 encoder."""

    network_class = T5EncoderModel
    config_class = T5Config
    causal = False
    blocks_path = "encoder.block"
    attention_path = "layer.0.SelfAttention"
    tail_path = "layer.1.DenseReluDense"
    attention_dropout = "dropout"
    projection_path = "layer.0.SelfAttention.o"
    vocabulary_path = "shared"
    final_norm_path = "encoder.final_layer_norm"
    groups: ClassVar = {
        "encoder.block.*.layer.[01].layer_norm.*": "layer_norm",
        "encoder.final_layer_norm.*": "layer_norm",
        "encoder.block.*.layer.0.SelfAttention.*": "attention",
        "encoder.block.*.layer.1.DenseReluDense.*": "feed_forward",
    }
    block_places: ClassVar = {
        "hook_resid_pre": Place("", "input"),
        **norm("ln1", "layer.0.layer_norm"),
        **attention("layer.0.SelfAttention", "layer.0.SelfAttention.o"),
        "hook_attn_out": Place("layer.0.dropout", "output"),
        "hook_resid_mid": Place("layer.0", "output"),
        **norm("ln2", "layer.1.layer_norm"),
        "mlp.hook_pre": Place("layer.1.DenseReluDense.wi", "output"),
        "mlp.hook_post": Place("layer.1.DenseReluDense.dropout", "input"),
        "hook_mlp_out": Place("layer.1.dropout", "output"),
        "hook_resid_post": Place("", "output"),
    }
    presets: ClassVar = {
        "t5-small": Preset(
            config={"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "d_kv": 64, "d_ff": 2048},
            repo_id="google-t5/t5-small",
        ),
        "t5-base": Preset(
            config={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "d_kv": 64, "d_ff": 3072},
            repo_id="google-t5/t5-base",
        ),
        "t5-large": Preset(
            config={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "d_kv": 64, "d_ff": 4096},
            repo_id="google-t5/t5-large",
        ),
        "t5-tiny-random": Preset(
            config={
                "vocab_size": 64,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "d_kv": 8,
                "d_ff": 64,
            },
        ),
    }

    @property
    def limit(self) -> str:
        """Empty: the bias of all distances from 128 tokens on is one, so longer inputs hold no distance that is new."""
        return ""

    @property
    def places(self) -> Mapping[str, Place]:
        """With the two halves of a gated feed-forward layer (T5 v1.1, Flan-T5) where the network has them."""
        if not self.network.config.is_gated_act:
            return self.block_places
        dense = "layer.1.DenseReluDense"
        gated = {
            "mlp.hook_pre": Place(f"{dense}.wi_0", "output"),
            "mlp.hook_pre_linear": Place(f"{dense}.wi_1", "output"),
        }
        return {
            name: place
            for known, found in self.block_places.items()
            for name, place in (gated.items() if known == "mlp.hook_pre" else [(known, found)])
        }

    def skip_block(
        self, hidden_states: Tensor, _mask: Tensor | None = None, position_bias: Tensor | None = None, *_args: Any,
        **_options: Any,
    ) -> tuple[Tensor, Tensor, None]:  # fmt: skip
        """The input, and the bias, which the first block computes for all."""
        if position_bias is None:
            n_tokens = hidden_states.shape[1]
            first = self.attentions[0]
            assert isinstance(first, T5Attention)  # by the family's attention_path
            position_bias = first.compute_bias(n_tokens, n_tokens, device=hidden_states.device)
        return hidden_states, position_bias, None

    def _strip(self, network: PreTrainedModel) -> None:
        assign(network, "shared", None)
        assign(network, "encoder.embed_tokens", None)  # the same table

    def _n_positions(self) -> int | None:
        return None
