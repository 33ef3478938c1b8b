"""What a network's heads did with words before it was trained on the task, beside what they do in the task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.errors import RecordError, UnknownNameError
from fpt_viz.records._saved import Saved, by_cell

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageRoles(Saved):
    """Each head's roles in language, in the frozen network as it came, and its routing score in the trained model."""

    KIND: ClassVar[str] = "language_roles"

    roles: tuple[str, ...]
    """Those of :func:`fpt_viz.analysis.role_scores`, then ``"offset"``: attention at the one offset, other than 0, that
    the head prefers; and ``"needed_offset"``: at the offset that the task needs, where it needs one alone."""
    score: Float[Tensor, "role layer head"]
    """Mean attention on the role's keys over the words that have any, 0 to 1."""
    interval: Float[Tensor, "role layer head 2"]
    """95 % bootstrap interval over pieces of the text: low, high."""
    uniform: Float[Tensor, " role"]
    """The score of a head that attends to every visible token alike."""
    random: Float[Tensor, "role layer head"]
    """The scores of the same architecture with random weights."""
    offsets: tuple[int, ...]
    """From query to key: -1 is the token before."""
    by_offset: Float[Tensor, "offset layer head"]
    """Mean attention at each offset, over the words that have a token there."""
    needed_offset: int | None
    """From a query to what it needs, in the task; None where that differs or the task does not say."""
    routing_score: Float[Tensor, "layer head"] | None = None
    """Of the trained model; None, as all below, where the task has no needs (images)."""
    correlation: Float[Tensor, " role"] | None = None
    """Rank correlation of each role with the routing score, over heads."""
    correlation_interval: Float[Tensor, "role 2"] | None = None
    """95 % bootstrap intervals over heads."""
    p: Float[Tensor, " role"] | None = None
    """Of a permutation test over heads, for each role alone."""
    within: Float[Tensor, " role"] | None = None
    """The same correlation of ranks among the heads of each layer: what the layer alone predicts is not in it."""
    within_interval: Float[Tensor, "role 2"] | None = None
    within_p: Float[Tensor, " role"] | None = None
    text: str
    """What was read."""
    n_pieces: int
    """Pieces of the text, each read on its own."""
    n_tokens: int
    """Tokens in a piece, special ones counted."""
    causal: bool
    n_examples: int
    """Of the task, for the routing score."""
    split: str
    seed: int
    note: str = ""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.roles) != len(self.score) or len(self.offsets) != len(self.by_offset):
            raise RecordError(
                f"language roles of shape {tuple(self.score.shape)} and {tuple(self.by_offset.shape)}, wanted "
                f"{len(self.roles)} roles and {len(self.offsets)} offsets first"
            )

    def of(self, role: str) -> Float[Tensor, "layer head"]:
        """The scores of one role."""
        if role not in self.roles:
            raise UnknownNameError("role", role, self.roles)
        return self.score[self.roles.index(role)]

    @property
    def preferred_offset(self) -> Tensor:
        """Of each head, the offset other than 0 with the most attention, ``[layer head]``."""
        others = [i for i, offset in enumerate(self.offsets) if offset]
        return torch.tensor(self.offsets)[others][self.by_offset[others].argmax(0)]

    def to_pandas(self) -> pd.DataFrame:
        """One row a head, the highest routing scores first: each role's score, the preferred offset, routing score."""
        n_layers, n_heads = self.score.shape[1:]
        axes = {"layer": range(n_layers), "head": range(n_heads)}
        columns = {**dict(zip(self.roles, self.score, strict=True)), "preferred_offset": self.preferred_offset}
        if self.routing_score is None:
            return by_cell(axes, columns)
        table = by_cell(axes, {**columns, "routing_score": self.routing_score})
        return table.sort_values("routing_score", ascending=False, kind="stable", ignore_index=True)

    def correlations(self) -> pd.DataFrame:
        """One row a role: its rank correlation with the routing score, over all heads and within layers.

        Raises:
            RecordError: The task has no needs, so no head has a routing score.
        """
        import pandas as pd

        if self.correlation is None or self.correlation_interval is None or self.within_interval is None:
            raise RecordError(
                f"{self.source.get('task', 'this task')} does not say what a query needs, so its heads have no routing "
                "score for a role to go with"
            )
        table: dict[str, Any] = {"role": self.roles, "uniform": self.uniform.tolist()}
        for name, interval in (("correlation", self.correlation_interval), ("within", self.within_interval)):
            p = self.p if name == "correlation" else self.within_p
            values = getattr(self, name)
            assert p is not None  # with the correlations
            table |= {name: values.tolist(), f"{name}_low": interval[:, 0].tolist()}
            table |= {f"{name}_high": interval[:, 1].tolist(), f"{name}_p": p.tolist()}
        return pd.DataFrame(table)

    def __repr__(self) -> str:
        n_layers, n_heads = self.score.shape[1:]
        beside = "" if self.routing_score is None else f", beside routing scores on {self.source.get('task', 'a task')}"
        return f"LanguageRoles({len(self.roles)} roles of {n_layers} x {n_heads} heads on {self.text}{beside})"
