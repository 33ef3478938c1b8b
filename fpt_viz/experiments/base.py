"""What an experiment is: cells of a table, each a system on a task with its seeds, and what is read from their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from fpt_viz.config import RunConfig
from fpt_viz.engines.base import Measure
from fpt_viz.errors import ConfigError

Scale = Literal["smoke", "laptop", "paper"]
"""Seconds on tiny random networks; embedded backbones and local data; the paper's backbones, data and steps."""
SCALES: tuple[Scale, ...] = get_args(Scale)
Quantity = Literal["accuracy", "steps", "gap", "routing", "rates"]
"""What a table is about: test accuracy, steps to a threshold, accuracy on train against test, attention on the tokens
that are needed, or test accuracy at the learning rate that is best on validation."""
Extra = Literal["step_seconds", "sizes"]
"""A further column: the time of a gradient step, or the number of values that learn and that there are."""

SOURCES = {
    "S1": "Lu et al., 2021 (v2), by a third-party reading note",
    "BAIR": "the authors' blog post of 23 March 2021, its text",
    "CALC": "our calculation from the heat map in the authors' blog post of 23 March 2021",
    "R": "Rothermel et al., 2021, by a third-party reading note",
}
"""Whose numbers stand beside ours, by key."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A value that others report."""

    value: float
    """Accuracy or attention from 0 to 1, or gradient steps."""
    source: str = "S1"
    """A key of :data:`SOURCES`."""
    on_train: float | None = None
    """The same on the training examples, where a table is about both."""
    of: str = ""
    """What it is a value of, where that is not this very task: a larger or another data set."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One system on one task: runs that differ in nothing but the seed."""

    system: str
    task: str
    """Its name in the table."""
    config: RunConfig | None = None
    """Of each seed's run, the seed apart; None where it is not run at this scale."""
    seeds: tuple[int, ...] = ()
    published: Published | None = None
    versus: str = ""
    """The system on the same task that it is tested against; empty for none."""
    starts_from: RunConfig | None = None
    """A run that comes before: its trained network is what this one starts from."""
    measures: tuple[Measure, ...] = ()
    threshold: float | None = None
    """Validation accuracy, 0 to 1, that counts as reached; None: every target right in two checks in a row."""
    why_not: str = ""
    """Why it is not run at this scale."""

    def __post_init__(self) -> None:
        if (self.config is None) == (not self.why_not):
            raise ConfigError(f"{self.system} on {self.task}: give a config, or say why it is not run")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table or figure: its cells at each scale, and how they are read."""

    title: str
    claim: str
    """What the source says that the numbers show; shown with its key, to be held against ours."""
    cells: Callable[[Scale], Sequence[Cell]]
    """In the order of the table's rows."""
    quantity: Quantity = "accuracy"
    extras: tuple[Extra, ...] = ()
    own_backbones: bool = False
    """Whether it is about certain backbones, so that no other can take their place."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """What a reader must know besides, such as what ours does otherwise than the paper."""
