"""Attention by how much there is to be read."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fpt_viz.analysis._values import values_by_head

__all__ = ["value_weighted_attention"]


def value_weighted_attention(
    weights: Float[Tensor, "layer batch head query key"], v: Float[Tensor, "layer batch key kv_head d_head"]
) -> Float[Tensor, "layer batch head query key"]:
    r"""The length of what each query reads from each key: $w_{qk} \lVert v_k \rVert$, in the units of the activations.

    Small where a head rests on a token whose value is nearly zero, however much it attends to it. Rows do not sum to
    1; :func:`attention_rollout` and :func:`routing_graph` normalise what they are given.

    Args:
        weights: Post-softmax attention.
        v: The values as attention reads them, bias included (``hook_v``), on all keys; with grouped keys and values
            one for each group of heads.

    Raises:
        ConfigError: The values are of other layers, examples or tokens.

    Reference:
        Kobayashi et al., 2020, https://arxiv.org/abs/2004.10102, which goes on to the output matrix: see
        :func:`output_weighted_attention`.
    """
    lengths: Tensor = values_by_head(weights, v).norm(dim=-1)
    return weights * lengths[..., None, :].to(weights.dtype)
