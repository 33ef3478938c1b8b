"""Runs one after the other, in this process: nothing to start, and easy to debug."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fpt_viz.engines._job import carry_out
from fpt_viz.engines.base import Job, Outcome
from fpt_viz.errors import ConfigError

__all__ = ["InProcess"]


class InProcess:
    """One job at a time, with torch as it is set up here."""

    def __init__(self, *, workers: int | None = None, threads: int | None = None, device: str | None = None) -> None:
        """Set up without starting anything.

        Args:
            workers: None or 1: there is one process.
            threads: Of torch; None leaves them.
            device: As in :func:`fpt_viz.train.run`.
        """
        if workers not in (None, 1):
            raise ConfigError(f"the engine in_process is one process, got workers={workers}: take --engine local")
        self.threads, self.device = threads, device

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Execute ``jobs`` in their order."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        for job in jobs:
            yield carry_out(job, device=self.device)
