"""One gradient step of a run, how well a model does, and the file of a run's steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt_viz.errors import RecordError
from fpt_viz.records import store

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does on one split, beside what needs no learning."""

    split: str
    n_examples: int
    """Distinct examples; fewer than asked for where the split holds fewer."""
    accuracy: float
    """Share of right targets, 0 to 1: per bit where an example asks for several, as in the paper."""
    interval: tuple[float, float]
    """95 % bootstrap interval of ``accuracy`` over examples."""
    exact: float
    """Share of examples with every target right."""
    loss: float
    """Mean cross-entropy, in nats a target."""
    chance: float
    """Accuracy of guessing."""
    trivial: dict[str, float] = field(default_factory=dict)
    """Accuracy of each solver that needs no routing, by name."""
    note: str = ""
    """What a reader must know of the task, such as that its input is cut; empty for most."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The evaluation whose ``dataclasses.asdict`` is ``data``."""
        return cls(**{**data, "interval": (data["interval"][0], data["interval"][1])})


@dataclass(frozen=True, kw_only=True)
class Step:
    """One gradient step. Its numbers may still lie on the device and are read when asked for."""

    index: int
    """Zero-based."""
    measured: Mapping[str, float | Tensor] = field(repr=False)
    """``loss``, ``accuracy`` and ``grad_norm`` of the step's batch."""
    learning_rate: float
    n_examples: int
    """In the step's batch."""
    elapsed_seconds: float
    """Of training, over all sittings of the run, evaluation included."""
    validation: Evaluation | None = None
    """After this step, where a check was due."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the batch before the step, in nats a target."""
        return float(self.measured["loss"])

    @property
    def accuracy(self) -> float:
        """Share of right targets of the batch before the step, dropout on."""
        return float(self.measured["accuracy"])

    @property
    def grad_norm(self) -> float:
        """L2 norm of the gradient before clipping."""
        return float(self.measured["grad_norm"])

    def to_json(self) -> str:
        """One line of ``steps.jsonl``."""
        row: dict[str, Any] = {"index": self.index, "loss": self.loss, "accuracy": self.accuracy}
        row |= {"grad_norm": self.grad_norm, "learning_rate": self.learning_rate, "n_examples": self.n_examples}
        row |= {"elapsed_seconds": self.elapsed_seconds}
        if self.validation is not None:
            row["validation"] = asdict(self.validation)
        return json.dumps(row, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Step:
        """The step that :meth:`to_json` wrote."""
        row = json.loads(line)
        measured = {name: row.pop(name) for name in ("loss", "accuracy", "grad_norm")}
        validation = row.pop("validation", None)
        return cls(measured=measured, validation=Evaluation.from_json(validation) if validation else None, **row)


def read_steps(path: Path) -> tuple[Step, ...]:
    """The steps in a ``steps.jsonl``; an error names the line that is not whole."""
    if not path.is_file():
        raise RecordError(f"{path} is missing")
    steps = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            steps.append(Step.from_json(line))
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}, line {number} is not whole: {error}") from error
    return tuple(steps)


def write_steps(path: Path, steps: Iterable[Step]) -> None:
    """Write ``steps`` as lines of JSON, atomically."""
    store.write_bytes(path, "".join(f"{step.to_json()}\n" for step in steps).encode())
