"""Curves that grow while a model trains in the notebook, which stays free for other cells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
import inspect
from time import perf_counter
from typing import Any
from weakref import WeakValueDictionary

import traitlets

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure
from fpt_viz.records import RunRecord, Step
from fpt_viz.widgets import _curves
from fpt_viz.widgets._curves import Curves
from fpt_viz.widgets.base import Choice, Widget

__all__ = ["LiveTraining"]

MOST_A_SECOND = 4
"""Updates of the page."""
NO_LOOP = (
    "No event loop runs here (plain Python and no notebook), so nothing trains by itself: .run() takes the steps, and "
    "returns when they are all taken."
)
WORDS = {
    "waiting": "not begun",
    "running": "training",
    "stopped": "stopped",
    "finished": "finished",
    "failed": "failed",
    "closed": "closed",
}


_OF_MODEL: WeakValueDictionary[int, LiveTraining] = WeakValueDictionary()
"""Who trains which model, by the model's id: a cell that is run again must not train it twice at a time."""


class LiveTraining(Widget):
    """Takes the steps of a training loop one at a time, between other cells, and draws them.

    A task on the kernel's own event loop asks for one step, then lets everything else have its turn; while a cell or a
    step computes, the other waits. So the weights are those of a plain loop: the steps are the same, in the same order
    and thread, and ``train`` keeps a random state of its own. A notebook that goes on before training has ended sees
    the model as it then is: ``await live.wait()`` waits for the end.
    """

    script = "live_training.js"
    parts = ("base.js", "curves.js")
    depends = {"progress": ("running",)}  # noqa: RUF012
    _status = "waiting"  # a widget that could not be made is closed all the same

    progress = traitlets.Dict().tag(sync=True)
    """Curves so far, and where the training stands."""

    def __init__(
        self,
        source: Any,
        task: Any = None,
        *,
        n_steps: int | None = None,
        running: bool = True,
        title: str = "Training",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to take the steps of ``source``.

        Args:
            source: What ``fpt_viz.train(...)`` returns, or any iterator of steps. Each step goes to whoever asks for
                it, so nobody else may iterate over it.
            task: For the lines of chance and of solvers without routing, where no check on validation brings them.
            n_steps: How many steps there will be, for the axis; what the config of ``train`` says unless given.
            running: Whether it begins at once.
            title: Above the curves, and in the figure.
            state: The :attr:`state` of another one.

        Raises:
            ConfigError: ``source`` is no iterator of steps.
        """
        if isinstance(source, RunRecord):
            raise ConfigError("this run has ended, TrainingMovie shows it: LiveTraining wants fpt_viz.train(...)")
        if not isinstance(source, Iterable):
            raise ConfigError(
                f"wanted an iterator of steps, got {type(source).__name__}: LiveTraining(fpt_viz.train(model))"
            )
        self._source: Iterator[Step] = iter(source)
        self._taken: list[Step] = []
        self._curves = Curves()
        self._trained, self._n_steps = _model_and_length(self._source)
        self._n_steps = n_steps or self._n_steps
        self._given_up = False
        self._levels = [] if task is None else _curves.levels_of_task(task)
        self._taking, self._pushed = False, 0.0
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        first = {"running": running}
        super().__init__(first=first, fixed={"title": title, "styles": _curves.styles(1)}, state=state)

    # What a reader of the notebook uses.

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step taken so far."""
        return tuple(self._taken)

    @property
    def status(self) -> str:
        """``waiting``, ``running``, ``stopped``, ``finished``, ``failed`` or ``closed``."""
        return self._status

    @property
    def error(self) -> BaseException | None:
        """What a step raised; None as long as all went well."""
        return self._error

    def stop(self) -> None:
        """Take no further step; the one under way, if any, is taken whole."""
        self.choose(running=False)

    def go_on(self) -> None:
        """Go on where it stopped."""
        self.choose(running=True)

    def run(self, n_steps: int | None = None) -> None:
        """Take steps here and now, all that there are or ``n_steps`` more; for plain Python, where no loop runs.

        Raises:
            ConfigError: It trains already on the notebook's loop.
        """
        if self._task is not None:
            raise ConfigError("it trains already, between cells: await live.wait() for its end, or live.stop() first")
        last = None if n_steps is None else len(self._taken) + n_steps
        self._claim()
        self._now("running")
        while self._status == "running" and (last is None or len(self._taken) < last):
            self._take_one()
        if self._status == "running":
            self._now("stopped")
        if isinstance(self._error, KeyboardInterrupt):
            raise self._error

    async def wait(self) -> None:
        """Until it has stopped, finished or failed; other cells wait, and buttons work."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Take no further step and take the widget off the page; a second time changes nothing.

        The iterator stays where it is, for whoever wants to go on with it.
        """
        if self._status in ("waiting", "running", "stopped"):
            self._status = "closed"
        super().close()

    # How it works.

    def checked(self, choice: Choice) -> Choice:
        """``choice``, which may be to stop or to go on."""
        if not isinstance(choice["running"], bool):
            raise ConfigError(f"running must be True or False, got {choice['running']!r}")
        self.forget()
        return choice

    def answer(self, trait: str, choice: Choice) -> Any:
        """Where the training stands."""
        levels = self._all_levels()
        ranges = _curves.ranges_of([self._curves], levels)
        if self._n_steps:
            ranges["step"][1] = float(max(self._n_steps, ranges["step"][1]))
        return {
            "curves": self._curves.to_page(),
            "levels": levels,
            "ranges": ranges,
            "status": self._status,
            "words": self._words(),
            "can_stop": self._status == "running",
            "can_go_on": self._status in ("waiting", "stopped"),
        }

    def _take(self, choice: Choice, told: str, answers: Mapping[str, Any] | None = None) -> None:
        """Take a choice, then do what it says."""
        if choice["running"] and self._status in ("waiting", "stopped"):
            told = told or self._begin()
        elif not choice["running"] and self._status == "running":
            self._now("stopped", push=False)
        self._refresh()
        super()._take(choice, told or self._complaint())  # the refresh has answered

    def _begin(self) -> str:
        """Start the task; what to say where none can run."""
        if self._task is not None:  # stopped a moment ago, its task not yet at its end
            self._now("running", push=False)
            return ""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return NO_LOOP
        self._claim()
        self._now("running", push=False)
        self._task = loop.create_task(self._follow())
        return ""

    def _claim(self) -> None:
        """Be the only one that trains its model."""
        self._error, self._given_up = None, False
        if self._trained is None:
            return
        other = _OF_MODEL.get(id(self._trained))
        if other is not None and other is not self and other.status == "running":
            other._given_up = True
            other.stop()
        _OF_MODEL[id(self._trained)] = self

    async def _follow(self) -> None:
        """One step, then everybody else's turn."""
        try:
            while self._status == "running":
                self._take_one()
                await asyncio.sleep(0)
        finally:
            self._task = None
            if self._status == "running":  # the loop is being shut down
                self._now("stopped")

    def _take_one(self) -> None:
        """Take one step, or note why there is none."""
        if self._taking:
            return  # a step that itself runs the loop
        self._taking = True
        try:
            step = next(self._source)
            if not isinstance(step, Step):
                raise ConfigError(f"wanted an iterator of steps, and it gave {type(step).__name__}")
            self._curves.add(step)
            self._taken.append(step)
        except StopIteration:
            self._now("finished")
        except (Exception, KeyboardInterrupt) as error:  # whatever a step raises belongs into the widget
            self._error = error
            self._now("stopped" if _is_taken_elsewhere(error) else "failed")
        finally:
            self._taking = False
        if perf_counter() - self._pushed >= 1 / MOST_A_SECOND:
            self._push()

    def _now(self, status: str, *, push: bool = True) -> None:
        if self._status != "closed":
            self._status = status
            if push:
                self._push()

    def _refresh(self) -> None:
        self.forget()
        self._pushed = perf_counter()
        self.progress = self.answer("progress", self.choice)

    def _push(self) -> None:
        """Show the page how far it is."""
        if self._status == "closed":
            return
        self._refresh()
        self._settling = True
        try:
            with self.hold_sync():
                going = self._status == "running"
                if self._status != "waiting" and self.choice.get("running") != going:
                    self.choice = {**self.choice, "running": going}
                self.notice, self.alt = self._complaint(), self._alt()
        finally:
            self._settling = False

    def _complaint(self) -> str:
        """What went wrong, in words; empty for nothing."""
        error = self._error
        if error is None and self._given_up:
            return "Stopped, as another widget began to train the same model; going on here would train on from there."
        if error is None:
            return ""
        at = f"after {len(self._taken)} steps"
        if isinstance(error, KeyboardInterrupt):
            return f"Interrupted within a step, {at}, which ended the iterator: train anew, or from a saved state."
        if _is_taken_elsewhere(error):
            return f"Somebody else is taking a step of the same iterator ({at}): a step goes to one alone. {error}"
        return f"Training failed {at}: {type(error).__name__}: {error}"

    def _all_levels(self) -> list[list[Any]]:
        if self._curves.checks:
            return _curves.levels_of([self._curves.checks[-1][1]])
        return self._levels

    def _words(self) -> str:
        words = f"{WORDS[self._status]}, {len(self._taken)} steps"
        if self._n_steps:
            words += f" of {self._n_steps}"
        if self._taken:
            seconds = self._taken[-1].elapsed_seconds
            words += f", {seconds:.1f} s, loss {self._curves.loss[-1]:.3f}"
        if self._curves.checks:
            at, check = self._curves.checks[-1]
            words += f", validation accuracy {check.accuracy:.3f} at step {at}"
        return words

    def _alt(self) -> str:
        """What is on screen, without drawing it."""
        return f"{self.fixed['title']}: curves of accuracy and loss against gradient steps. {self._words()}."

    def figure(self) -> Figure:
        """The curves so far."""
        return _curves.figure_of(self._curves, self._all_levels(), title=self.fixed["title"], said=self._words())


def _is_taken_elsewhere(error: BaseException) -> bool:
    return isinstance(error, ValueError) and "already executing" in str(error)


def _model_and_length(source: Iterator[Step]) -> tuple[Any, int | None]:
    """The model that a generator such as that of ``train`` trains, and its number of steps; None where not told."""
    told = inspect.getgeneratorlocals(source) if inspect.isgenerator(source) else {}
    n_steps = getattr(told.get("config"), "n_steps", None)
    return told.get("model"), n_steps if isinstance(n_steps, int) else None
