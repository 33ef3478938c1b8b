"""Attention by how much it writes."""

from __future__ import annotations

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.analysis._values import values_by_head
from fpt_viz.errors import ConfigError

__all__ = ["output_weighted_attention"]


def output_weighted_attention(
    weights: Float[Tensor, "layer batch head query key"],
    v: Float[Tensor, "layer batch key kv_head d_head"],
    projection: Float[Tensor, "layer head d_head hidden"],
) -> Float[Tensor, "layer batch head query key"]:
    r"""The length of what each query writes of each key: $\lVert w_{qk} v_k W_O \rVert$ of each head alone.

    Kobayashi et al.'s $\lVert \alpha f(x) \rVert$, in the units of the residual stream. 0 for a head whose output
    matrix is zero, whatever its pattern. The output bias belongs to no head and no key, and is not in it.

    Args:
        weights: Post-softmax attention.
        v: The values as attention reads them, bias included (``hook_v``), on all keys.
        projection: W_O of each head: ``torch.stack([backbone.projection(i) for i in layers])``.

    Returns:
        Rows do not sum to 1. A head's terms may point against each other or against another head's, so the length of
        their sum is not the sum of their lengths. Needs, beside the result, what one head writes of all tokens.

    Raises:
        ConfigError: The values are of other layers, examples or tokens, or W_O of other layers or heads.

    Reference:
        Kobayashi et al., 2020, https://arxiv.org/abs/2004.10102, section 2.
    """
    by_head = values_by_head(weights, v)
    _check_projection(by_head, projection)
    lengths = torch.empty_like(by_head[..., 0])
    for layer in range(len(projection)):
        for head in range(projection.shape[1]):
            written = by_head[layer, :, head] @ projection[layer, head].to(by_head.dtype)
            lengths[layer, :, head] = written.norm(dim=-1)
    return weights * lengths[..., None, :].to(weights.dtype)


def _check_projection(
    by_head: Float[Tensor, "layer batch head key d_head"], projection: Float[Tensor, "its_layer its_head its_d hidden"]
) -> None:
    n_layers, _n_batch, n_heads, _n_keys, d_head = by_head.shape
    if tuple(projection.shape[:3]) != (n_layers, n_heads, d_head):
        raise ConfigError(
            f"output matrices of shape {tuple(projection.shape)} were given, wanted [{n_layers} {n_heads} {d_head} "
            "hidden]: torch.stack([backbone.projection(i) for i in layers])"
        )
