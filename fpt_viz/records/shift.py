"""Where the change of each head's pattern since the start of training came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records._saved import Saved

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternShift(Saved):
    """Shapley shares of the trained parameter groups in the change of each head's pattern and routing score."""

    KIND: ClassVar[str] = "pattern_shift"

    groups: tuple[str, ...]
    """Of parameters upstream of attention."""
    moved: tuple[bool, ...]
    """Whether each group differs from the start; the share of one that does not is exactly 0."""
    heads: tuple[tuple[int, int], ...]
    """Layer and head, the order of the arrays."""
    share: Float[Tensor, "group head"]
    """Signed; adds up to 1 over the groups. Below 0: against the change. NaN for a head whose pattern did not move."""
    share_interval: Float[Tensor, "group head 2"]
    """95 % bootstrap interval over examples: low, high."""
    change: Float[Tensor, " head"]
    """Size of the change: the mean share of a row's attention that went to other keys, 0 to 1."""
    change_interval: Float[Tensor, "head 2"]
    score_start: Float[Tensor, " head"] | None = None
    """Routing score with every group at its start; None, as all below, where the task has no needs."""
    score_end: Float[Tensor, " head"] | None = None
    score_part: Float[Tensor, "group head"] | None = None
    """What each group adds to the routing score; adds up to ``score_end - score_start``."""
    score_interval: Float[Tensor, "group head 2"] | None = None
    queries: str
    """The rows of the pattern: ``"readout"``, ``"all"`` or token numbers."""
    n_examples: int
    split: str
    seed: int
    source: dict[str, Any] = field(default_factory=dict)

    def of(self, layer: int, head: int) -> dict[str, float]:
        """The share of each group in one head's change.

        Raises:
            RecordError: The head was not measured.
        """
        if (layer, head) not in self.heads:
            known = ", ".join(f"L{one}H{other}" for one, other in self.heads)
            raise RecordError(f"no head L{layer}H{head} was measured: there are {known}")
        return dict(zip(self.groups, self.share[:, self.heads.index((layer, head))].tolist(), strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """One row a head and group, the heads that changed most first; score columns only where there is a score."""
        import pandas as pd

        rows = []
        for h in self.change.argsort(descending=True, stable=True).tolist():
            for g, group in enumerate(self.groups):
                layer, head = self.heads[h]
                row: dict[str, Any] = {"layer": layer, "head": head, "change": float(self.change[h]), "group": group}
                row |= {"share": float(self.share[g, h])}
                row |= dict(zip(("low", "high"), self.share_interval[g, h].tolist(), strict=True))
                if self.score_part is not None and self.score_interval is not None:
                    row |= {"score_part": float(self.score_part[g, h])}
                    row |= dict(zip(("score_low", "score_high"), self.score_interval[g, h].tolist(), strict=True))
                rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return (
            f"PatternShift({', '.join(self.groups)}; {len(self.heads)} heads, {self.n_examples} {self.split} examples)"
        )
