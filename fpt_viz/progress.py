"""A live line about a run on the terminal; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fpt_viz.records import Step

UPDATE_SECONDS = 0.25
"""Between two looks at a step's numbers, which may lie on the device."""


@contextlib.contextmanager
def shown(title: str, n_steps: int, done: int, *, visible: bool | None = None) -> Iterator[Callable[[Step], None]]:
    """A bar on stderr with loss, accuracy, examples a second and time left; gives a function to call with each step.

    Args:
        title: Stands before the bar.
        n_steps: At the end of the bar.
        done: Steps taken in earlier sittings.
        visible: None shows it where stderr is a terminal.
    """
    console = Console(stderr=True)
    if not (console.is_terminal if visible is None else visible):
        yield lambda step: None
        return
    numbers = "loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.3f}  {task.fields[speed]:,.0f} examples/s"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(numbers),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        row = bar.add_task(title, total=n_steps, completed=done, loss=float("nan"), accuracy=float("nan"), speed=0.0)
        last: list[float] = []  # elapsed seconds at the last look, examples since

        def update(step: Step) -> None:
            if not last:  # of a resumed run the clock starts at the end of this step, which then counts for nothing
                last[:] = [step.elapsed_seconds, -step.n_examples] if step.index else [0.0, 0.0]
            last[1] += step.n_examples
            passed = step.elapsed_seconds - last[0]
            if passed >= UPDATE_SECONDS or step.index + 1 == n_steps:
                speed = last[1] / max(passed, 1e-9)
                bar.update(row, completed=step.index + 1, loss=step.loss, accuracy=step.accuracy, speed=speed)
                last[:] = [step.elapsed_seconds, 0.0]

        yield update
