"""By which edges, layer by layer, read-out tokens get what they have of the input tokens."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.analysis._mixing import Layers, Mixing, Rooted, by_examples, refuse_blank, rooted
from fpt_viz.analysis._routing_graph import RoutingGraph
from fpt_viz.errors import ConfigError

__all__ = ["routing_graph"]

SAME_STRENGTH = 1e-7
"""Edges whose flows differ by less than this share of them are kept or left out together."""


def routing_graph(
    weights: Layers,
    readout: Int[Tensor, "#batch readout"],
    *,
    share: float = 0.9,
    mask: Bool[Tensor, "batch key"] | None = None,
    heads: Literal["mean"] | Float[Tensor, "layer head"] = "mean",
    residual_share: float = 0.5,
    sink: int | None = None,
    max_edges: int = 100_000,
) -> RoutingGraph:
    r"""The fewest strong edges that carry ``share`` of the flow from input tokens to read-out tokens.

    What flows over the edge from key $k$ to query $q$ in layer $l$ is $r_l(q) A_l[q, k]$, where $r_l$ is attention
    rollout down to that layer: the share of each token in what is read out (each read-out token of an example, and
    each example, counts alike). Edges weaker than one threshold are left out: the highest at which those that are left
    still carry ``share`` from end to end. So are edges that are then on no path.

    Args:
        weights: Whole patterns of all layers, first to last, or value-weighted ones. Tokens are matched by place, so
            give one example, or examples whose tokens play the same parts.
        readout: The tokens to which it flows; -1 for none. One row serves all examples.
        share: Of the flow, to be kept; above 0, at most 1.
        mask: True on real tokens.
        heads: The weight of each head; ``"mean"`` for all alike. A maximum has no shares of heads.
        residual_share: As of :func:`attention_rollout`.
        sink: As of :func:`attention_rollout`.
        max_edges: The most edges that it may have; attention that is spread thinly needs nearly all there are.

    Returns:
        Its edges with their flow, attention and shares of heads. Reads ``weights`` twice; holds a matrix a layer (48
        MB for 12 layers at 1,024 tokens) and, of each edge that is kept, a number a head.

    Raises:
        ConfigError: It would have more than ``max_edges``; a root reads no other token in any layer, no example has a
            root, the patterns are not whole, or an option is out of its range.

    Reference:
        The flow is attention rollout's: Abnar and Zuidema, 2020, https://arxiv.org/abs/2005.00928.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share must be above 0 and at most 1, got {share}")
    if not isinstance(heads, Tensor) and heads != "mean":
        raise ConfigError(
            f'heads must be "mean" or weights [layer head], got {heads!r}: only sums have shares of heads'
        )
    mixing = Mixing(heads=heads, residual_share=residual_share, sink=sink)
    given = rooted(weights, readout, mask, mixing)
    flows, reach = _flows(given, mixing)
    kept, carried = _pruned(flows, reach[-1].sum(0), share)
    if (n_kept := int(kept.sum())) > max_edges:
        raise ConfigError(
            f"{n_kept:,} of {kept.numel():,} edges carry {share:.1%} of the flow, over max_edges={max_edges:,}: lower "
            "share, weigh fewer heads, or raise max_edges"
        )
    parts = [_edges(given, mixing, layer, kept[layer], reach[layer + 1]) for layer in range(len(flows))]
    order = [(layer, part.flow.argsort(descending=True, stable=True)) for layer, part in enumerate(parts)]
    in_order = [_Edges(*(values[rows] for values in part)) for part, (_, rows) in zip(parts, order, strict=True)]
    together = _Edges(*(torch.cat(values) for values in zip(*in_order, strict=True)))
    return RoutingGraph(
        layer=torch.cat([torch.full_like(rows, layer) for layer, rows in order]),
        **together._asdict(),
        inputs=reach[0].sum(0),
        readout=reach[-1].sum(0),
        carried=carried,
        n_layers=len(flows),
    )


class _Edges(NamedTuple):
    """Edges of one layer."""

    source: Int[Tensor, " edge"]
    target: Int[Tensor, " edge"]
    flow: Float[Tensor, " edge"]
    attention: Float[Tensor, " edge"]
    residual: Float[Tensor, " edge"]
    heads: Float[Tensor, "edge head"]


def _flows(given: Rooted, mixing: Mixing) -> tuple[Float[Tensor, "layer query key"], Float[Tensor, "state batch key"]]:
    """The flow over each edge, and the share of each token of each example in what is read, before and after layers."""
    n_layers, (n_batch, n_keys) = len(given.layers), given.real.shape
    per_root = given.roots()
    n_roots = (given.readout >= 0).sum(-1)
    n_rooted = int((n_roots > 0).sum())
    if not n_rooted:
        raise ConfigError("no example has a read-out token: all are -1")
    flows = per_root.new_zeros(n_layers, n_keys, n_keys)
    reach = per_root.new_zeros(n_layers + 1, n_batch, n_keys)
    for examples, part in by_examples(given):
        rows = part.roots()
        each = 1.0 / (n_roots[examples].clamp(min=1) * n_rooted)[:, None]
        reach[n_layers, examples] = rows.sum(1) * each
        for layer, matrix in zip(reversed(range(n_layers)), part.matrices(mixing), strict=True):
            flows[layer] += torch.einsum("bq,bqk->qk", reach[layer + 1, examples], matrix)
            rows = rows @ matrix
            reach[layer, examples] = rows.sum(1) * each
        refuse_blank(rows, part, mixing, first=examples.start)
    return flows, reach


def _pruned(
    flows: Float[Tensor, "layer query key"], top: Float[Tensor, " key"], share: float
) -> tuple[Bool[Tensor, "layer query key"], float]:
    """Which edges to keep, and the share of the flow that goes all the way by them."""
    into = [flow.sum(-1) for flow in flows]

    def arriving(threshold: float) -> list[Float[Tensor, " key"]]:
        """What arrives from above at each state, the last first, by edges of ``threshold`` or more."""
        found = [top]
        for flow, total in zip(reversed(flows.unbind()), reversed(into), strict=True):
            passed_on = torch.where(total > 0, found[-1] / total, 0.0)
            found.append(passed_on @ torch.where(flow >= threshold, flow, 0.0))
        return found

    low, high = (1 - share) / flows.numel(), float(flows.max())  # all below low together are less than what may go
    while low and high / low > 1 + SAME_STRENGTH:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(arriving(middle)[-1].sum()) >= share else (low, middle)
    passing = arriving(low)[::-1]
    kept = (flows >= low) & (flows > 0)
    from_input = torch.ones_like(top, dtype=torch.bool)
    for layer in range(len(flows)):
        kept[layer] &= (passing[layer + 1] > 0)[:, None] & from_input
        from_input = kept[layer].any(-1)
    return kept, float(passing[0].sum())


def _edges(
    given: Rooted, mixing: Mixing, layer: int, kept: Bool[Tensor, "query key"], reach: Float[Tensor, "batch key"]
) -> _Edges:
    """The edges that are ``kept``, and what each head moves; ``reach`` is of the states after the layer."""
    target, source = kept.nonzero(as_tuple=True)
    n_heads = given.layers[layer].shape[1]
    share = mixing.head_weights(layer, n_heads)
    assert share is not None  # a maximum was refused
    share = (share / share.sum().clamp(min=1e-30)).to(reach)
    attention, residual = reach.new_zeros(len(source)), reach.new_zeros(len(source))
    by_head = reach.new_zeros(len(source), n_heads)
    for examples, part in by_examples(given):
        weights, real, after = part.layers[layer], part.real, reach[examples]
        fused, scale = mixing.attention(layer, weights, real)
        seen = fused[:, target, source] * scale[:, target]
        moved = torch.where(seen > 0, after[:, target] * scale[:, target] * (1 - mixing.residual_share), 0.0)
        attention += seen.sum(0) / len(given.real)
        for head, part_of_all in enumerate(share.tolist()):
            reads = torch.where(seen > 0, weights[:, head, target, source], 0.0).to(reach.dtype)
            by_head[:, head] += part_of_all * (moved * reads).sum(0)
        stays = torch.where(scale == 0, 1.0, mixing.residual_share) * after
        residual += torch.where(source == target, stays.sum(0)[target], 0.0)
    return _Edges(source, target, residual + by_head.sum(-1), attention, residual, by_head)
