"""What an engine is: jobs in, outcomes out, in whatever order they end.

An engine decides where runs execute and nothing else: which runs there are, and what is made of them, is decided
above it. Every run lies in its own folder, so an engine keeps no state: what is finished is seen on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from fpt_viz.config import RunConfig

Status = Literal["finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured on a finished run's model, and saved beside the run."""

    name: str
    """An entry of ``measures`` that takes a split."""
    split: str = "validation"
    n_examples: int = 512
    """Asked for; all there are where the split holds fewer."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, and where it goes."""

    config: RunConfig
    folder: Path
    """Its own. A run that was cut off there goes on, a finished one is left as it is."""
    measures: tuple[Measure, ...] = ()
    """Taken after training, unless they are saved there already."""
    most_weight_bytes: int | None = None
    """Trained weights that take more on the disk are removed once all is measured; their checksums stay. None keeps
    all."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: Status
    seconds: float
    """From its start to its end, as its worker saw it."""
    error: str = ""
    """What went wrong, in a sentence; also in ``failure.json`` of the run's folder."""


@runtime_checkable
class Engine(Protocol):
    """Executes jobs; one that fails does not stop the others."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Execute every job, each outcome given as soon as it is there, in any order.

        Jobs may be drawn lazily. Closing the iterator, Ctrl-C included, saves what runs and ends it.

        Raises:
            KeyboardInterrupt: After Ctrl-C; everything is saved.
        """
        ...
