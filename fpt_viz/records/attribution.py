"""What input tokens add to answers, and whether a method that says so depends on what was learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records._saved import Saved, by_cell

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionSanity(Saved):
    """How alike attributions stay while weights are randomised from the output down (Adebayo et al., 2018)."""

    KIND: ClassVar[str] = "attribution_sanity"

    correlation: Float[Tensor, "method stage"]
    """Spearman's rank correlation over tokens, of sizes without sign, with the model as it is; mean over examples,
    answers and draws of random weights. NaN where there is nothing to rank."""
    interval: Float[Tensor, "method stage 2"]
    """95 % bootstrap intervals over examples."""
    signed: Float[Tensor, "method stage"]
    """The same with signs."""
    methods: tuple[str, ...]
    stages: tuple[str, ...]
    """``"output"``, the last layer, ... the first layer, ``"input"``; with each, all before it are random too."""
    threshold: float
    """A method fails if the correlation is as high once all layers are random, or all and the input too."""
    n_examples: int
    baseline: str
    seeds: tuple[int, ...]
    """Of the random weights."""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.methods), len(self.stages))
        if tuple(self.correlation.shape) != wanted:
            raise RecordError(f"sanity correlations of shape {tuple(self.correlation.shape)}, wanted {wanted}")

    def decisive(self, method: str) -> float:
        """The higher correlation of the last two stages: all layers random, and the input with them."""
        if method not in self.methods:
            raise ConfigError(f"{method} was not checked: there are {', '.join(self.methods)}")
        last = [value for value in self.correlation[self.methods.index(method), -2:].tolist() if value == value]
        return max(last, default=float("nan"))

    def passes(self, method: str) -> bool:
        """Whether the attribution of ``method`` depends on the weights; not where there was nothing to rank."""
        return self.decisive(method) < self.threshold

    def label(self, method: str) -> str:
        """``"passes"`` or ``"fails"``, with the number that decides."""
        verdict = "passes" if self.passes(method) else "fails"
        return f"{verdict} the sanity check (rank correlation {self.decisive(method):.2f})"

    def to_pandas(self) -> pd.DataFrame:
        """One row a method and stage: correlation, low, high, the one with signs, and whether the method passes."""
        columns = {
            "correlation": self.correlation,
            "low": self.interval[..., 0],
            "high": self.interval[..., 1],
            "signed": self.signed,
        }
        table = by_cell({"method": self.methods, "stage": self.stages}, columns)
        return table.assign(passes=[self.passes(method) for method in table["method"]])

    def __repr__(self) -> str:
        failing = [method for method in self.methods if not self.passes(method)]
        return f"AttributionSanity({len(self.methods)} methods, failing: {', '.join(failing) or 'none'})"


@dataclass(frozen=True, kw_only=True, eq=False)
class InputAttribution(Saved):
    """What each input value adds to each answer, against a baseline."""

    KIND: ClassVar[str] = "input_attribution"

    values: Float[Tensor, "answer example seq *values"]
    """In logits, signed: above 0 speaks for the answer. ``values[a]`` has the shape of the inputs. Where a method works
    on whole tokens, their values share alike. 0 on padding."""
    difference: Float[Tensor, "answer example"]
    """The number explained on the input minus that on the baseline."""
    complete: Bool[Tensor, "answer example"]
    """Whether the values sum to the difference within 1 %. Integrated gradients, conductance and Shapley values promise
    to; where they do not, they are not to be trusted."""
    n_steps: Int[Tensor, "answer example"]
    """Steps that were taken between baseline and input; 0 for methods without."""
    mask: Bool[Tensor, "example seq"]
    answers: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    """Of each example, one string a token."""
    method: str
    of: str
    """``"target"``: the right class's logit. ``"difference"``: it minus the best other one's."""
    baseline: str
    """In words."""
    layer: int | None = None
    """Of a layer conductance, the block whose output is attributed to."""
    sanity: str = ""
    """Whether the method passes the check of :class:`AttributionSanity`; empty where it was not asked."""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.answers), *self.mask.shape)
        if tuple(self.values.shape[:3]) != wanted:
            raise RecordError(f"attributions of shape {tuple(self.values.shape)} want to begin with {wanted}")

    @property
    def tokens(self) -> Float[Tensor, "answer example seq"]:
        """Summed over the values of each token."""
        return self.values.flatten(3).sum(-1) if self.values.ndim > 3 else self.values

    @property
    def scale(self) -> float:
        """The largest token in size, over all answers and examples: to draw all on one scale from -scale to scale."""
        return float(self.tokens.abs().max())

    @property
    def title(self) -> str:
        """The method as it must be told wherever it is shown: with its verdict, and what is not complete."""
        notes = [self.sanity] if self.sanity else []
        missing = int((~self.complete).sum())
        if missing and self.method in ("integrated_gradients", "layer_conductance", "shapley"):
            notes.append(f"{missing} of {self.complete.numel()} do not add up within 1 %")
        return " ".join([self.method.replace("_", " "), *([f"({'; '.join(notes)})"] if notes else [])])

    def labelled(self, sanity: AttributionSanity) -> InputAttribution:
        """The same with the verdict of ``sanity`` on its method."""
        return replace(self, sanity=sanity.label(self.method))

    def to_pandas(self) -> pd.DataFrame:
        """One row an answer, example and real token."""
        import pandas as pd

        tokens, rows = self.tokens, []
        for a, answer in enumerate(self.answers):
            for e, labels in enumerate(self.labels):
                for t in self.mask[e].nonzero()[:, 0].tolist():
                    rows.append(
                        {
                            "answer": answer, "example": e, "token": t, "label": labels[t],
                            "attribution": float(tokens[a, e, t]),
                        }
                    )  # fmt: skip
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        n_examples, n_tokens = self.mask.shape
        return f"InputAttribution({self.title}, {len(self.answers)} answers, {n_examples} examples x {n_tokens} tokens)"
