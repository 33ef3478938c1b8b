"""The largest flow through a graph of layers, exact to the last digits of a float64."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

from jaxtyping import Float, Int
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

FRACTION_BITS = 52
"""Capacities are taken as multiples of 2^-52."""
DIGIT_BITS = 29
"""scipy computes in 32 bits; half of a capacity may come back on top of another."""


class LayeredGraph:
    """Tokens by layers: an edge from each token before a layer to each after it, up to one root after the last.

    scipy's maximum flow takes whole numbers of 32 bits. So the capacities are cut into digits: a first flow is found in
    their leading 29 bits, and what it leaves over, along with what it could send back, is the graph for the next bits.
    After the last bits no path is left in the graph of all of them, so the flow is the largest there is, at capacities
    rounded down to multiples of 2^-52. The error is at most 2^-52 times the edges of the smallest cut, since that
    cut's value moves by no more.
    """

    def __init__(self, matrices: Sequence[Float[np.ndarray, "query key"]], root: int) -> None:
        """``matrices`` are of the layers, first to last; capacities are from 0 to 1."""
        n_tokens = len(matrices[0])
        self.root = len(matrices) * n_tokens
        tails, heads, capacities = [], [], []
        for layer, matrix in enumerate(matrices):
            last = layer == len(matrices) - 1
            used = matrix[root : root + 1] if last else matrix
            query, key = used.nonzero()
            tails.append(key + layer * n_tokens)
            heads.append(query + (layer + 1) * n_tokens)
            capacities.append(used[query, key])
        tail, head = np.concatenate(tails), np.concatenate(heads)
        whole = np.floor(np.ldexp(np.concatenate(capacities), FRACTION_BITS)).astype(np.int64)
        there_and_back = np.concatenate([tail, head]), np.concatenate([head, tail])
        order = np.lexsort(there_and_back[::-1])
        tails_in_order, self._heads = there_and_back[0][order], there_and_back[1][order].astype(np.int32)
        self._capacities = np.concatenate([whole, np.zeros_like(whole)])[order]
        starts = np.searchsorted(tails_in_order, np.arange(self.root + 2))
        self._starts = starts.astype(np.int32)  # scipy before 1.14 takes no 64-bit indices
        self.n_edges = len(tail)

    def largest_flow(self, source: int) -> float:
        """From input token ``source`` to the root."""
        left, total, shift = self._capacities.copy(), 0, FRACTION_BITS - DIGIT_BITS
        while True:
            flow, value = self._augment(left >> shift, source)
            left -= flow << shift
            total += value << shift
            if shift == 0:
                return float(np.ldexp(float(total), -FRACTION_BITS))
            # What a cut has left is below 2^shift for each of its edges, and must fit into the next digits.
            shift = max(0, shift - (DIGIT_BITS - ceil(log2(max(2, self.n_edges)))))

    def _augment(self, capacities: Int[np.ndarray, " edge"], source: int) -> tuple[Int[np.ndarray, " edge"], int]:
        """The flow along each edge, less what comes back, and what reaches the root."""
        bounded = np.minimum(capacities, 2**DIGIT_BITS).astype(np.int32)
        graph = csr_array((bounded, self._heads, self._starts), shape=(self.root + 1, self.root + 1))
        result = maximum_flow(graph, source, self.root)
        return result.flow.data.astype(np.int64), int(result.flow_value)
