"""Worker processes on this machine, each on its own cores, that take runs from one list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from time import perf_counter

from fpt_viz.engines._job import failure_in, job_as_data, note_failure
from fpt_viz.engines.base import Job, Outcome
from fpt_viz.errors import ConfigError, FptVizError

__all__ = ["Local"]

MOST_TRIES = 3
"""Of a job whose worker dies under it; each goes on from the last checkpoint."""
LONGEST_SAVE_SECONDS = 60.0
"""For a worker that was asked to save its run and stop."""
ENDED_BY_ITSELF = (0, -signal.SIGTERM)
"""Exit codes of a worker that was asked to: SIGTERM ends it where there is nothing to save, before and after training.
"""


class WorkerError(FptVizError):
    """A worker that ended in the middle of a run."""

    exit_code = 1


class Local:
    """``workers`` processes, each pinned to its share of the cores, with as many threads as it has cores."""

    def __init__(self, *, workers: int | None = None, threads: int | None = None, device: str | None = None) -> None:
        """Set up without starting anything.

        Args:
            workers: None: one a core, or one where the device is a GPU.
            threads: Of each worker; None: the cores divided by the workers.
            device: As in :func:`fpt_viz.train.run`.
        """
        for name, value in (("workers", workers), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.cores = _cores()
        self.n_workers = workers or (1 if _on_gpu(device) else len(self.cores))
        self.n_threads = threads or max(1, len(self.cores) // self.n_workers)
        self.device = device
        self.n_cut_off = 0
        """Runs that the last :meth:`run`, when it was stopped, ended before they had saved."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Execute ``jobs``: a worker that ends one takes the next. One whose worker dies is tried again."""
        waiting = iter(jobs)
        again: deque[tuple[Job, int]] = deque()
        workers: dict[int, _Worker] = {}
        self.n_cut_off = 0

        def feed(place: int) -> None:
            job, tries = again.popleft() if again else (next(waiting, None), 0)
            if job is None:
                return
            worker = workers.get(place)
            if worker is None:
                worker = workers[place] = _Worker(self._share(place), self.n_threads, self.device)
                selector.register(worker.answers, selectors.EVENT_READ, place)
            worker.give(job, tries + 1)

        with selectors.DefaultSelector() as selector:
            try:
                for place in range(self.n_workers):
                    feed(place)
                while any(worker.job for worker in workers.values()):
                    for key, _ in selector.select():
                        worker = workers[key.data]
                        outcome = worker.outcome()
                        if outcome is None:
                            selector.unregister(worker.answers)
                            del workers[key.data]
                            code, words = worker.close()
                            outcome = _after_death(worker, code, words, again)
                        feed(key.data)  # before the outcome is given: no core waits for whoever reads it
                        if outcome is not None:
                            yield outcome
            finally:
                self._end(list(workers.values()))

    def _end(self, workers: list[_Worker]) -> None:
        """Let idle workers end, and busy ones save first; count those that did not."""
        for worker in workers:
            if worker.job is not None:
                worker.process.terminate()
            assert worker.process.stdin is not None  # a pipe was asked for
            with contextlib.suppress(OSError):
                worker.process.stdin.close()
        try:
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(LONGEST_SAVE_SECONDS)
        finally:  # a second Ctrl-C waits for nothing
            for worker in workers:
                if worker.job is not None and worker.process.poll() not in ENDED_BY_ITSELF:
                    self.n_cut_off += 1
                worker.process.kill()
                worker.close()

    def _share(self, place: int) -> list[int]:
        """The cores of the worker at ``place``; none where there are fewer cores than workers."""
        each = len(self.cores) // self.n_workers
        return self.cores[place * each : (place + 1) * each]


class _Worker:
    """A process that does one job at a time."""

    def __init__(self, cores: list[int], n_threads: int, device: str | None) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads))
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process has ended)
        # A session of its own: Ctrl-C reaches the parent alone, which lets every worker save.
        self.process = subprocess.Popen(  # noqa: S603 (our own interpreter, no shell)
            [sys.executable, "-P", "-m", "fpt_viz.engines._worker", ",".join(map(str, cores)), device or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=os.environ | threads,
            start_new_session=True,
        )
        assert self.process.stdout is not None  # a pipe was asked for
        self.answers = self.process.stdout
        self.job: Job | None = None
        self.tries = 0

    def give(self, job: Job, tries: int) -> None:
        self.job, self.tries, self.started = job, tries, perf_counter()
        assert self.process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):  # a worker that has died is seen when its answer ends
            self.process.stdin.write(json.dumps(job_as_data(job)).encode() + b"\n")
            self.process.stdin.flush()

    def outcome(self) -> Outcome | None:
        """How the job ended; None where the process has ended instead."""
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            return None
        assert self.job is not None  # nothing is said unasked
        job, self.job = self.job, None
        return Outcome(job=job, **json.loads(line))

    def close(self) -> tuple[int, str]:
        """Wait for the process, which ends or has ended; its exit code and the last line it said on stderr."""
        assert self.process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        code = self.process.wait()
        self.answers.close()
        with self.said:
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""


def _after_death(worker: _Worker, code: int, words: str, again: deque[tuple[Job, int]]) -> Outcome | None:
    """Have the job of a dead ``worker`` tried again, or give it up."""
    job = worker.job
    if job is None:
        return None
    if worker.tries < MOST_TRIES:
        again.append((job, worker.tries))
        return None
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    error = WorkerError(
        f"the worker {how} in each of {MOST_TRIES} tries{f'; its last words: {words}' if words else ''}"
    )
    note_failure(job.folder, error)
    message = str((failure_in(job.folder) or {})["message"])
    return Outcome(job=job, status="failed", seconds=perf_counter() - worker.started, error=message)


def _cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _on_gpu(device: str | None) -> bool:
    if device is not None:
        return device.partition(":")[0] != "cpu"
    import torch

    return torch.cuda.is_available()
