"""A worker process: jobs come in on stdin, one line of JSON each, and outcomes go out on stdout.

Started by the engine ``local`` as ``python -m fpt_viz.engines._worker CORES DEVICE``. Where its parent dies in the
middle of a run, stdin ends: the run is saved and the worker ends too.
"""

from __future__ import annotations

import contextlib
from io import TextIOWrapper
import json
import os
import queue
import signal
import sys
import threading


def main(cores: str, device: str) -> None:
    """Work until stdin ends.

    Args:
        cores: Numbers of the cores to stay on, with commas; empty for any.
        device: As in :func:`fpt_viz.train.run`; empty for its default.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it; then the work is done all the same
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    answers = _own_stdout()
    from fpt_viz.engines._job import carry_out, job_from_data  # after the cores: torch looks at them

    lines: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(lines, busy), daemon=True).start()
    while (line := lines.get()) is not None:
        busy.set()
        outcome = carry_out(job_from_data(json.loads(line)), device=device or None, progress=False)
        busy.clear()
        answer = {"status": outcome.status, "seconds": outcome.seconds, "error": outcome.error}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _listen(lines: queue.Queue[str | None], busy: threading.Event) -> None:
    """Hand on what comes in; where it ends while a run goes on, ask that run to save itself and stop."""
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _own_stdout() -> TextIOWrapper:
    """The pipe to the parent, which nothing else may write into: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and says what to do
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(*sys.argv[1:])
    os._exit(0)  # all is on the disk; threads of libraries need not be waited for
