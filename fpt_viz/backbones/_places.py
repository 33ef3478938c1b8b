"""Where the activations of a block lie: what a family declares, and the tap reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fpt_viz.kernel import PATTERN, QK, ROT_QK, SCORES, Z


@dataclass(frozen=True)
class Place:
    """Where an activation lies: at one of the modules of a block, or inside it."""

    module: str
    """Path of the module below the block; empty for the block itself."""
    side: Literal["input", "output", "rows", "kernel", "scale", "normalized", "result"]
    """The module's input or output; an output that is one for all examples (``rows``); inside the attention kernel;
    inside a norm, the divisor or the quotient, before gain and bias; or what each head adds in the output projection.
    """
    n_heads: Literal["", "n_heads", "n_kv_heads"] = ""
    """Set where the activation is cut into heads: ``[batch pos head d_head]``."""
    stream: bool = False
    """The module's input also goes on beside it, as the residual stream: what is written reaches both."""


def norm(name: str, path: str) -> dict[str, Place]:
    """The two activations of the norm at ``path``, which TransformerLens calls ``name``."""
    return {f"{name}.hook_scale": Place(path, "scale"), f"{name}.hook_normalized": Place(path, "normalized")}


def attention(path: str, projection: str) -> dict[str, Place]:
    """The activations of the attention at ``path`` whose queries and keys reach the kernel as they were projected."""
    names = (*QK, "attn.hook_v", SCORES, PATTERN, Z)
    return {name: Place(path, "kernel") for name in names} | {"attn.hook_result": Place(projection, "result")}


def rotary_attention(path: str, *, query: str, key: str, value: str, projection: str) -> dict[str, Place]:
    """The same where the kernel gets rotated queries and keys, and they are projected by modules of their own."""
    return {
        "attn.hook_q": Place(query, "output", "n_heads"),
        "attn.hook_k": Place(key, "output", "n_kv_heads"),
        "attn.hook_v": Place(value, "output", "n_kv_heads"),
        **{name: Place(path, "kernel") for name in (*ROT_QK, SCORES, PATTERN, Z)},
        "attn.hook_result": Place(projection, "result"),
    }


BERT_GROUPS: Mapping[str, str] = {
    "embeddings.token_type_embeddings.*": "token",
    "embeddings.position_embeddings.*": "position",
    "*LayerNorm.*": "layer_norm",
    "encoder.layer.*.attention.self.*": "attention",
    "encoder.layer.*.attention.output.dense.*": "attention",
    "encoder.layer.*.intermediate.dense.*": "feed_forward",
    "encoder.layer.[0-9].output.dense.*": "feed_forward",
    "encoder.layer.[0-9][0-9].output.dense.*": "feed_forward",
}
"""Of a BERT encoder's parameters, and of those that are named as its are (Longformer)."""
BERT_PLACES: Mapping[str, Place] = {
    "hook_resid_pre": Place("", "input"),
    **attention("attention.self", "attention.output.dense"),
    "hook_attn_out": Place("attention.output.dropout", "output"),
    "hook_resid_mid": Place("attention.output.LayerNorm", "input"),
    **norm("ln1", "attention.output.LayerNorm"),
    "hook_normalized_resid_mid": Place("attention.output.LayerNorm", "output"),
    "mlp.hook_pre": Place("intermediate.dense", "output"),
    "mlp.hook_post": Place("intermediate", "output"),
    "hook_mlp_out": Place("output.dropout", "output"),
    "hook_resid_post": Place("output.LayerNorm", "input"),
    **norm("ln2", "output.LayerNorm"),
    "hook_normalized_resid_post": Place("output.LayerNorm", "output"),
}
"""In a block of such an encoder."""
