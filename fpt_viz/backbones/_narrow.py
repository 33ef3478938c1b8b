"""Hooks on the token-wise half of a block that let it compute chosen tokens alone."""

from __future__ import annotations

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn


def take_rows(states: Float[Tensor, "batch seq hidden"], rows: Int[Tensor, "_ readout"]) -> Tensor:
    """The tokens ``rows`` of each example; unlike ``gather``, keeps no ``states`` for the backward pass."""
    return states[_examples(states), rows]


class Narrowed:
    """The tokens ``rows`` of a block's second half: before it the rest is cut off, after it the rest is zero."""

    def __init__(self, rows: Int[Tensor, "_ readout"]) -> None:
        self.rows = rows
        self._n_tokens = 0

    def take(self, _module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The rows of everything that a module is given."""
        self._n_tokens = given[0].shape[1]
        return tuple(take_rows(states, self.rows) for states in given)

    def put(
        self, _module: nn.Module, _given: object, found: Float[Tensor, "batch readout hidden"]
    ) -> Float[Tensor, "batch seq hidden"]:
        """What a module returned, in a whole sequence that is zero elsewhere: to be added to the residual stream."""
        whole = found.new_zeros(len(found), self._n_tokens, found.shape[-1])
        return whole.index_put((_examples(found), self.rows), found)


def _examples(states: Tensor) -> Tensor:
    return torch.arange(len(states), device=states.device)[:, None]
