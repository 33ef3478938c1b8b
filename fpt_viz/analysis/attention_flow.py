"""How much could flow from each input token to a read-out token, were attention the width of pipes."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.analysis._max_flow import LayeredGraph
from fpt_viz.analysis._mixing import HeadFusion, Layers, Mixing, Rooted, refuse_blank, rooted
from fpt_viz.errors import ConfigError

__all__ = ["attention_flow"]

SECONDS_A_FLOW, SECONDS_AN_EDGE = 2e-3, 6e-7
"""Of one flow, from above, on one core of 2023: 1 ms at 10 tokens and 6 layers, 0.4 s at 256 tokens and 12 layers."""


def attention_flow(
    weights: Layers,
    readout: Int[Tensor, "#batch readout"],
    *,
    mask: Bool[Tensor, "batch key"] | None = None,
    heads: HeadFusion = "mean",
    residual_share: float = 0.5,
    sink: int | None = None,
    max_seconds: float = 60.0,
) -> Float[Tensor, "batch readout key"]:
    r"""Attention flow: the largest flow from each input token alone to each read-out token.

    The graph has a node for each token before and after each layer; the edge from key $k$ to query $q$ across layer
    $l$ has the capacity $A_l[q, k]$ of :func:`attention_rollout`'s matrices, with the same options. Unlike rollout's
    shares, the flows of different input tokens are found each for itself and do not add up to 1: they use the same
    edges. A flow is at most 1, since a root's row sums to 1; with one layer it is that row.

    Args:
        weights: Whole patterns of all layers, first to last.
        readout: The tokens into which it flows; -1 for none. One row serves all examples.
        mask: True on real tokens.
        heads: As of :func:`attention_rollout`.
        residual_share: As of :func:`attention_rollout`.
        sink: As of :func:`attention_rollout`.
        max_seconds: The longest that it may take by an estimate from the sizes, a flow for each pair of a read-out
            and an input token.

    Returns:
        In float64, on the CPU; 0 for -1 and for padding. Exact but for capacities being cut to multiples of
        2^-52, which moves a flow by at most that times the edges of its smallest cut. Holds the matrices of one
        example at a time.

    Raises:
        ConfigError: It would take longer than ``max_seconds``; a root reads no other token in any layer; the patterns
            are not whole, or an option is out of its range.

    Reference:
        Abnar and Zuidema, 2020, https://arxiv.org/abs/2005.00928, section 3. See ``docs/flow.md`` for what it misreads.
    """
    mixing = Mixing(heads=heads, residual_share=residual_share, sink=sink)
    given = rooted(weights, readout, mask, mixing)
    _check_time(given, max_seconds)
    found = torch.zeros(*given.readout.shape, given.real.shape[1], dtype=torch.float64)
    for example, part in enumerate(_each_in_float64(given)):
        matrices = [matrix[0].cpu().numpy() for matrix in part.matrices(mixing)][::-1]
        sources = part.real[0].nonzero()[:, 0].tolist()
        for row, root in enumerate(part.readout[0].tolist()):
            if root < 0:
                continue
            graph = LayeredGraph(matrices, root)
            found[example, row, sources] = torch.tensor([graph.largest_flow(s) for s in sources], dtype=torch.float64)
        refuse_blank(found[example : example + 1].to(part.real.device), part, mixing, first=example)
    return found


def _each_in_float64(given: Rooted) -> Iterator[Rooted]:
    for example in range(len(given.real)):
        rows = slice(example, example + 1)
        yield Rooted(tuple(layer[rows].double() for layer in given.layers), given.real[rows], given.readout[rows])


def _check_time(given: Rooted, max_seconds: float) -> None:
    """Raise where the estimate is above ``max_seconds``."""
    n_layers, n_tokens = len(given.layers), given.real.shape[1]
    n_flows = int(((given.readout >= 0).sum(-1) * given.real.sum(-1)).sum())
    seconds = n_flows * (SECONDS_A_FLOW + n_layers * n_tokens**2 * SECONDS_AN_EDGE)
    if seconds > max_seconds:
        raise ConfigError(
            f"attention flow of {n_layers} layers at {n_tokens} tokens, from each token to {given.readout.shape[1]} "
            f"read-out tokens of {len(given.real)} examples, takes about {seconds:,.0f} s ({n_flows:,} flows), over "
            f"max_seconds={max_seconds:g}: give fewer examples or read-out tokens, raise max_seconds, or use "
            "attention_rollout"
        )
