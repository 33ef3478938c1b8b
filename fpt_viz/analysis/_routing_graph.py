"""A graph of what flows from input tokens to read-out tokens, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingGraph:
    """Edges from ``source`` before ``layer`` to ``target`` after it, by layer and falling flow.

    The node (layer, token) is a token's state before that layer; (n_layers, token) is what is read out.
    """

    layer: Int[Tensor, " edge"]
    source: Int[Tensor, " edge"]
    """Token before the layer: the key."""
    target: Int[Tensor, " edge"]
    """Token after the layer: the query."""
    flow: Float[Tensor, " edge"]
    """Share of what reaches the read-out tokens that passes here; all edges of a layer, pruned ones too, sum to 1."""
    attention: Float[Tensor, " edge"]
    """Of the target on the source, heads together, mean over examples; all of a target's edges sum to 1 unless it is
    padding in some."""
    residual: Float[Tensor, " edge"]
    """The part of ``flow`` that stays in the residual stream; 0 between different tokens."""
    heads: Float[Tensor, "edge head"]
    """The part of ``flow`` that each head moves; with ``residual`` they sum to it."""
    inputs: Float[Tensor, " token"]
    """Of each input token, its share in the read-out tokens, before pruning."""
    readout: Float[Tensor, " token"]
    """Of each token, its share among the read-out tokens; sums to 1."""
    carried: float
    """Share of the flow that goes from an input to a read-out token by these edges alone."""
    n_layers: int

    def __repr__(self) -> str:
        return (
            f"RoutingGraph({len(self.layer)} edges of {self.n_layers} layers x {len(self.inputs)} tokens, "
            f"{self.carried:.1%} of the flow)"
        )
