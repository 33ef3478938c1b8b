"""Longformer: bidirectional, each query sees a band of keys; learned positions, a norm after each half (post-LN).

Beltagy et al., 2020, https://arxiv.org/abs/2004.05150. No token has global attention, so the projections that only
such tokens use are left out. The band is computed in windows that must be full: each attention layer fills up the last
one by itself, so nothing outside it ever meets a token that is not of the task.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LongformerConfig, LongformerModel, PreTrainedConfig, PreTrainedModel
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from fpt_viz import kernel
from fpt_viz.backbones._places import BERT_GROUPS, BERT_PLACES
from fpt_viz.backbones.base import Backbone, Preset, assign

__all__ = ["Longformer"]


class Longformer(Backbone):
    """A Longformer encoder without pooler and without global attention."""

    network_class = LongformerModel
    config_class = LongformerConfig
    network_options: ClassVar = {"add_pooling_layer": False}
    attention_kernel = "eager"
    causal = False
    blocks_path = "encoder.layer"
    attention_path = "attention.self"
    attention_dropout = "dropout"
    projection_path = "attention.output.dense"
    vocabulary_path = "embeddings.word_embeddings"
    position_path = "embeddings.position_embeddings"
    embedding_norm_path = "embeddings.LayerNorm"
    groups = BERT_GROUPS
    block_places = BERT_PLACES
    presets: ClassVar = {
        "longformer-base": Preset(
            config={
                "vocab_size": 50265,
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                "max_position_embeddings": 4098,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
                "attention_window": 512,
            },
            repo_id="allenai/longformer-base-4096",
        ),
        "longformer-tiny-random": Preset(
            config={
                "vocab_size": 64,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "max_position_embeddings": 162,  # the first two are of no token
                "attention_window": 4,
            },
        ),
    }

    def __init__(self, network: PreTrainedModel, *args: Any) -> None:
        super().__init__(network, *args)
        for module in self.attentions:
            module.__class__ = _Banded

    @property
    def reach(self) -> int | None:
        """Half the widest window."""
        return max(int(window) for window in self.network.config.attention_window) // 2

    @classmethod
    def set_depth(cls, config: PreTrainedConfig, n_layers: int) -> None:
        """Also of the windows, where each block has its own; blocks beyond them have that of the last."""
        super().set_depth(config, n_layers)
        if not isinstance(config.attention_window, int):
            windows = list(config.attention_window)
            config.attention_window = (windows + windows[-1:] * n_layers)[:n_layers]

    def skip_block(self, hidden_states: Tensor, *_args: Any, **_options: Any) -> tuple[Tensor]:
        """The input, in a tuple."""
        return (hidden_states,)

    def _strip(self, network: PreTrainedModel) -> None:
        """Also of the first rows of positions, which stand for padding, and of what global attention needs."""
        super()._strip(network)
        assert self.position_path is not None  # as above
        table = network.get_submodule(self.position_path)
        assert isinstance(table, nn.Embedding)  # by transformers
        used = table.weight.detach()[network.config.pad_token_id + 1 :].clone()
        assign(network, self.position_path, nn.Embedding.from_pretrained(used, freeze=False))
        for block in network.get_submodule(self.blocks_path).children():
            for name in ("query_global", "key_global", "value_global"):
                assign(block, f"{self.attention_path}.{name}", None)

    def _last_states(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        """As the network's own forward pass, less its padding and the offset of its positions."""
        places = torch.arange(vectors.shape[1], device=vectors.device).expand(vectors.shape[:2])
        states = self.network.get_submodule("embeddings")(inputs_embeds=vectors, position_ids=places)
        hidden = states.new_zeros(states.shape[:2])
        if mask is not None:
            hidden = hidden.masked_fill(~mask, torch.finfo(states.dtype).min)
        found = self.network.get_submodule("encoder")(states, attention_mask=hidden)
        return torch.as_tensor(found.last_hidden_state)


class _Banded(LongformerSelfAttention):
    """Longformer's attention for sequences of any length; where it is tapped, by the tap's kernel under a band."""

    def forward(  # type: ignore[override]  # the encoder gives all of them, by name
        self, hidden_states: Tensor, *, attention_mask: Tensor, is_index_masked: Tensor, **options: Any
    ) -> tuple[Tensor, ...]:
        """In place of the forward pass that takes whole windows only."""
        if self in kernel.TAPS:
            return (self._tapped(hidden_states, is_index_masked),)
        n_tokens = hidden_states.shape[1]
        missing = -n_tokens % (2 * self.one_sided_attn_window_size)
        hidden = torch.finfo(attention_mask.dtype).min
        found: tuple[Tensor, ...] = super().forward(  # type: ignore[no-untyped-call]
            functional.pad(hidden_states, (0, 0, 0, missing)),
            attention_mask=functional.pad(attention_mask, (0, missing), value=hidden),
            is_index_masked=functional.pad(is_index_masked, (0, missing), value=True),
            **options,
        )
        return tuple(part[:, :n_tokens] for part in found)

    def _tapped(self, hidden_states: Tensor, padding: Tensor) -> Tensor:
        """The same in the tap's kernel, ``[batch seq hidden]``; a padded query sees itself, so that it sees a key."""
        query, key, value = (
            projection(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        places = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        distance = (places[:, None] - places).abs()
        visible = (distance <= self.one_sided_attn_window_size) & (~padding[:, None, :] | (distance == 0))
        dropout = self.dropout if self.training else 0.0
        z, _ = kernel.attend(self, query, key, value, visible[:, None], dropout=dropout, scaling=self.head_dim**-0.5)
        return z.flatten(-2)
