"""What can be read from a model's states: by probes, by its own output layer, and as sums of what its parts write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records._saved import Saved, by_cell
from fpt_viz.records.parts import Head, words_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitAttribution(Saved):
    """Logits as sums: what each head and MLP, the embedding and the positions add by the direct path, and biases."""

    KIND: ClassVar[str] = "logit_attribution"

    values: Float[Tensor, "example answer term"]
    """In logits; their sum over the terms is ``logits``."""
    logits: Float[Tensor, "example answer"]
    """What is taken apart, as the model computed it."""
    mean: Float[Tensor, " term"]
    """Over examples and answers."""
    interval: Float[Tensor, "term 2"]
    """95 % bootstrap interval of the mean, over examples: low, high."""
    terms: tuple[str, ...]
    """``"embedding"``, ``"position"``, a head (``"L0H3"``), an MLP (``"MLP0"``), or ``"bias"``."""
    answers: tuple[str, ...]
    of: str
    """``"target"``: the logit of the right class. ``"difference"``: it minus that of the best other class. ``"all"``:
    every logit."""
    error: float
    """Largest difference between a logit and the sum of its terms."""
    n_examples: int
    split: str = ""
    """Empty where the examples were given."""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.logits), len(self.answers), len(self.terms))
        if tuple(self.values.shape) != wanted:
            raise RecordError(f"logit attribution of shape {tuple(self.values.shape)}, wanted {wanted}")

    def of_head(self, head: Head) -> Float[Tensor, "example answer"]:
        """What the head, a layer and a number, adds to each logit."""
        return self.values[..., self._place(words_of(head))]

    def of_term(self, term: str) -> Float[Tensor, "example answer"]:
        """What one of :attr:`terms` adds to each logit."""
        return self.values[..., self._place(term)]

    def _place(self, term: str) -> int:
        if term not in self.terms:
            raise ConfigError(f"no term {term!r} in this attribution: there are {', '.join(self.terms)}")
        return self.terms.index(term)

    def to_pandas(self) -> pd.DataFrame:
        """One row a term: its mean over examples and answers, with its interval."""
        import pandas as pd

        low, high = self.interval.T.tolist()
        return pd.DataFrame({"term": self.terms, "mean": self.mean.tolist(), "low": low, "high": high})

    def __repr__(self) -> str:
        return f"LogitAttribution({self.of}, {len(self.terms)} terms, {self.n_examples} examples)"


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeAccuracy(Saved):
    """How well linear probes read a label from a model's states, by layer and place."""

    KIND: ClassVar[str] = "probe_accuracy"

    accuracy: Float[Tensor, "layer place"]
    """Share of held-out examples that are right, mean over seeds."""
    interval: Float[Tensor, "layer place 2"]
    """95 % bootstrap interval over held-out examples, of their mean over seeds."""
    by_seed: Float[Tensor, "seed layer place"]
    """Accuracy of the probe that each seed trained, on the same held-out examples."""
    control: Float[Tensor, "layer place"]
    """Accuracy of the same probes trained on shuffled labels, mean over seeds."""
    control_interval: Float[Tensor, "layer place 2"]
    majority: Float[Tensor, " place"]
    """Share of held-out examples in the class that is most frequent in training, mean over seeds."""
    layers: tuple[int, ...]
    places: tuple[str, ...]
    """``"b0"`` for a token that is probed for the one label there is, ``"b0 -> answer 0"`` where there are several."""
    site: str
    label: str
    """What is read: ``"target"``, or the name of the function that gave the labels."""
    seeds: tuple[int, ...]
    n_train: int
    """Training examples of each probe, before those without the token are left out."""
    n_test: int
    n_classes: int
    n_unfinished: int = 0
    """Probes whose training reached its last iteration."""
    note: str = ""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.layers), len(self.places))
        if tuple(self.accuracy.shape) != wanted:
            raise RecordError(f"probe accuracy of shape {tuple(self.accuracy.shape)}, wanted {wanted}")

    def readable_from(self, accuracy: float = 0.9) -> dict[str, int | None]:
        """Of each place, the first layer from which on every layer's interval lies above ``accuracy``; else None."""
        if not 0 < accuracy < 1:
            raise ConfigError(f"accuracy must lie between 0 and 1, got {accuracy}")
        found: dict[str, int | None] = {}
        for place, lows in zip(self.places, self.interval[..., 0].T.tolist(), strict=True):
            first = None
            for layer, low in zip(reversed(self.layers), reversed(lows), strict=True):
                if low <= accuracy:
                    break
                first = layer
            found[place] = first
        return found

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and place: accuracy, low, high, those of the control, and the majority's."""
        columns = {
            "accuracy": self.accuracy,
            "low": self.interval[..., 0],
            "high": self.interval[..., 1],
            "control": self.control,
            "control_low": self.control_interval[..., 0],
            "control_high": self.control_interval[..., 1],
            "majority": self.majority,
        }
        return by_cell({"layer": self.layers, "place": self.places}, columns)

    def __repr__(self) -> str:
        return (
            f"ProbeAccuracy({self.label} from {self.site}, {len(self.layers)} layers x {len(self.places)} places, "
            f"{len(self.seeds)} seeds)"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LensReadings(Saved):
    """What the trained output layer says of the states between blocks, as if the network ended there."""

    KIND: ClassVar[str] = "lens_readings"

    accuracy: Float[Tensor, "state answer"]
    accuracy_interval: Float[Tensor, "state answer 2"]
    """95 % bootstrap intervals over examples: low, high."""
    logit: Float[Tensor, "state answer"]
    """Mean difference between the right class's logit and the best other one's."""
    logit_interval: Float[Tensor, "state answer 2"]
    overall: Float[Tensor, " state"]
    """Accuracy over all answers."""
    overall_interval: Float[Tensor, "state 2"]
    states: tuple[str, ...]
    """``"input"`` before the first block, then ``"0"``, ``"1"`` ... after each; the last is the model itself."""
    answers: tuple[str, ...]
    chance: float
    split: str
    n_examples: int
    note: str = ""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.states), len(self.answers))
        if tuple(self.accuracy.shape) != wanted:
            raise RecordError(f"lens readings of shape {tuple(self.accuracy.shape)}, wanted {wanted}")

    def to_pandas(self) -> pd.DataFrame:
        """One row a state and answer: accuracy and logit difference with their intervals."""
        columns = {
            "accuracy": self.accuracy,
            "low": self.accuracy_interval[..., 0],
            "high": self.accuracy_interval[..., 1],
            "logit": self.logit,
            "logit_low": self.logit_interval[..., 0],
            "logit_high": self.logit_interval[..., 1],
        }
        return by_cell({"state": self.states, "answer": self.answers}, columns)

    def __repr__(self) -> str:
        return f"LensReadings({len(self.states)} states, {len(self.answers)} answers, {self.n_examples} examples)"
