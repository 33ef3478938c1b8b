"""Values beside the patterns that weigh them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fpt_viz.errors import ConfigError


def values_by_head(
    weights: Float[Tensor, "layer batch head query key"], v: Float[Tensor, "layer batch key kv_head d_head"]
) -> Float[Tensor, "layer batch head key d_head"]:
    """``v`` by the heads that read it: where heads share values, each of a group gets them.

    Raises:
        ConfigError: The two are not of the same layers, examples or tokens.
    """
    n_layers, n_batch, n_heads, _n_queries, n_keys = weights.shape
    n_kv = v.shape[3]
    if tuple(v.shape[:3]) != (n_layers, n_batch, n_keys) or n_heads % n_kv:
        raise ConfigError(
            f"values of shape {tuple(v.shape)} were given beside patterns of shape {tuple(weights.shape)}: wanted "
            f"[{n_layers} {n_batch} {n_keys} kv_head d_head], with a kv_head for each head or group of heads; stack "
            'cache["v", layer] of the layers'
        )
    return v.movedim(3, 2).repeat_interleave(n_heads // n_kv, dim=2)
