"""GPT-2: causal, learned positions, a layer norm before each half of a block (pre-LN). The paper's own backbone.

Radford et al., 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

from typing import ClassVar

from transformers import GPT2Config, GPT2Model

from fpt_viz.backbones._places import Place, attention, norm
from fpt_viz.backbones.base import Backbone, Preset

__all__ = ["Gpt2"]


class Gpt2(Backbone):
    """A GPT-2 decoder without language-model head."""

    network_class = GPT2Model
    config_class = GPT2Config
    causal = True
    blocks_path = "h"
    attention_path = "attn"
    tail_path = "mlp"
    projection_path = "attn.c_proj"
    vocabulary_path = "wte"
    position_path = "wpe"
    final_norm_path = "ln_f"
    groups: ClassVar = {
        "wpe.*": "position",
        "h.*.ln_[12].*": "layer_norm",
        "ln_f.*": "layer_norm",
        "h.*.attn.*": "attention",
        "h.*.mlp.*": "feed_forward",
    }
    block_places: ClassVar = {
        "hook_resid_pre": Place("", "input"),
        **norm("ln1", "ln_1"),
        **attention("attn", "attn.c_proj"),
        "hook_attn_out": Place("attn", "output"),
        "hook_resid_mid": Place("ln_2", "input", stream=True),
        **norm("ln2", "ln_2"),
        "mlp.hook_pre": Place("mlp.c_fc", "output"),
        "mlp.hook_post": Place("mlp.act", "output"),
        "hook_mlp_out": Place("mlp", "output"),
        "hook_resid_post": Place("", "output"),
    }
    presets: ClassVar = {
        "gpt2": Preset(config={"n_layer": 12, "n_head": 12, "n_embd": 768}, repo_id="openai-community/gpt2"),
        "gpt2-medium": Preset(
            config={"n_layer": 24, "n_head": 16, "n_embd": 1024}, repo_id="openai-community/gpt2-medium"
        ),
        "gpt2-large": Preset(
            config={"n_layer": 36, "n_head": 20, "n_embd": 1280}, repo_id="openai-community/gpt2-large"
        ),
        "gpt2-xl": Preset(config={"n_layer": 48, "n_head": 25, "n_embd": 1600}, repo_id="openai-community/gpt2-xl"),
        "gpt2-tiny-random": Preset(
            config={
                "n_layer": 3,
                "n_head": 4,
                "n_embd": 32,
                "n_positions": 160,
                "vocab_size": 64,
                "bos_token_id": None,  # GPT-2's own lie outside so small a vocabulary
                "eos_token_id": None,
            },
        ),
    }
