"""A training run as a movie: one slider over its steps moves everything that was captured of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from fpt_viz.errors import ConfigError
from fpt_viz.export import SCALES, Figure, compose
from fpt_viz.figures.base import Head, head_name, listed, number, place_of, run_names, scale_top
from fpt_viz.figures.training_curves import training_curves
from fpt_viz.figures.training_strip import training_strip
from fpt_viz.records import RunRecord
from fpt_viz.widgets import _captured, _curves
from fpt_viz.widgets._captured import Captured
from fpt_viz.widgets._patterns import MEAN
from fpt_viz.widgets.base import Choice, Widget, packed

__all__ = ["TrainingMovie"]

PAYLOAD_BYTES = 4_000_000
"""The most that one example's patterns weigh: all captures, heads and runs."""
OFFLINE_BYTES = 6_000_000
N_OFFLINE = 16
MOST_HEADS = 6
"""Patterns shown at a time, of each run."""
N_STRIP = 6
"""Steps in the figure for paper."""
SPEEDS = (1, 2, 4, 8, 16)
GAINS = {"change": "change from the start", "rms": "root mean square"}


class TrainingMovie(Widget):
    """Loss, accuracy, patterns, routing scores and layer-norm gains, at the step that the slider or a chart says.

    Two runs stand side by side on the same scales. Nothing is asked of Python between steps, so a saved page plays too.
    """

    script = "training_movie.js"
    parts = ("base.js", "paint.js", "curves.js")
    depends = {"frames": ("example",)}  # noqa: RUF012

    frames = traitlets.Dict().tag(sync=True)
    """Every captured step's patterns on one example, or their mean, in 8 bits on one scale."""

    def __init__(
        self,
        record: Any,
        task: Any = None,
        *,
        compare: Any = None,
        heads: Sequence[Head] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Show how ``record`` was trained.

        Args:
            record: A finished run with telemetry, which ``train.telemetry_every=50`` makes.
            task: Not needed: the captures say what they are of.
            compare: A second run of the same task, such as one with random frozen weights.
            heads: Whose patterns are shown first; the two of the highest routing score unless given.
            state: The :attr:`state` of another movie of the same runs.

        Raises:
            RecordError: A run without telemetry, or with damaged captures.
            ConfigError: No run's record, runs that share no scale, or a head of which no pattern was captured.
        """
        records = [record] if compare is None else [record, compare]
        for one in records:
            if not isinstance(one, RunRecord):
                raise ConfigError(
                    f"a movie is made of a run's record, got {type(one).__name__}: TrainingMovie(fpt_viz.load_run(...))"
                )
        self._runs = [Captured(one) for one in records]
        if compare is not None:
            self._runs[0].check_beside(self._runs[1])
        self._heads = _captured.carried(self._runs, PAYLOAD_BYTES)
        self._steps = sorted({step for run in self._runs for step in run.telemetry.steps})
        chosen = [head for head in self._runs[0].ranking() if head in self._heads][:2] if heads is None else heads
        first = {
            "step": self._steps[-1],
            "example": MEAN if self._has_mean else 0,
            "heads": [list(head) for head in chosen],
            "gains": "change",
            "speed": 4,
        }
        super().__init__(first=first, fixed=self._fixed(), state=state)
        self.checked(self.choice)

    @property
    def _has_mean(self) -> bool:
        return all(run.same_queries for run in self._runs)

    @property
    def _n_examples(self) -> int:
        """Examples that can be shown one by one: those of both runs, where they are the same."""
        probes = {run.telemetry.labels for run in self._runs}
        return len(self._runs[0].telemetry.labels) if len(probes) == 1 else 0

    def _fixed(self) -> dict[str, Any]:
        runs = self._runs
        names = run_names([run.record for run in runs])
        levels = _curves.levels_of(run.record.evaluation for run in runs)
        scored = [run.scores for run in runs if run.scores is not None]
        gains = {
            kind: max(float(getattr(run.telemetry, f"gain_{kind}").max()) for run in runs if run.telemetry.norms)
            for kind in GAINS
            if all(run.telemetry.norms for run in runs)
        }
        return {
            "title": f"Training of {listed(names)} on {runs[0].record.config['task']['name']}",
            "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
            "steps": self._steps,
            "heads": [list(head) for head in self._heads],
            "n_examples": self._n_examples,
            "has_mean": self._has_mean,
            "levels": levels,
            "ranges": _curves.ranges_of([run.curves for run in runs], levels),
            "score_top": max((scale_top(one) for one in scored), default=None),
            "gain_top": {kind: max(1.1 * top, 1e-6) for kind, top in gains.items()},
            "gain_words": GAINS,
            "uniform": next((run.uniform for run in runs if run.uniform is not None), None),
            "speeds": list(SPEEDS),
            "most_heads": MOST_HEADS,
            "scales": {name: list(stops) for name, stops in SCALES.items()},
            "styles": _curves.styles(len(runs)),
        }

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it is of these runs."""
        place_of(choice["step"], self._steps, "captured step")
        examples = [*([MEAN] if self._has_mean else []), *range(self._n_examples)]
        place_of(choice["example"], examples, "example")
        if choice["gains"] not in GAINS or choice["speed"] not in SPEEDS:
            raise ConfigError(
                f"gains are shown as one of {', '.join(GAINS)} at a speed of {listed(map(str, SPEEDS))}, got "
                f"{choice['gains']!r} and {choice['speed']!r}"
            )
        heads = [tuple(head) for head in choice["heads"]]
        for head in heads:
            if head not in self._heads:
                raise ConfigError(
                    f"no pattern of {head_name(head)} is at hand; there are those of {_captured.named(self._heads)}. "
                    "train.telemetry_heads says which are captured"
                )
        if len(heads) > MOST_HEADS:
            raise ConfigError(f"at most {MOST_HEADS} heads are shown at a time, got {len(heads)}")
        return choice

    def answer(self, trait: str, choice: Choice) -> Any:
        """All captures of one example, or of the mean."""
        example = choice["example"]
        top = self._top(example)
        return {
            "runs": [packed(_captured.tiles(run, self._heads, example, top)) for run in self._runs],
            "names": [run.names(example, run.bin_size) for run in self._runs],
            "scale": {"low": 0.0, "high": top},
            "bin": self._runs[0].bin_size,
        }

    def _top(self, example: int) -> float:
        """The end of the one scale of all steps, heads and runs."""
        return max(scale_top(run.of_example(example)) for run in self._runs)

    def reply(self, question: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The captured weight of one cell, at half precision; of a binned one, none."""
        if question.get("ask") != "weight":
            return None
        try:
            run, head = self._runs[question["run"]], tuple(question["head"])
            if run.bin_size > 1:
                return None
            weights = run.of_example(self.choice["example"])[run.place_at(question["step"]), run.heads.index(head)]
            value = float(weights[question["r"], question["c"]])
        except (KeyError, IndexError, TypeError, ValueError):
            return None  # a page that is a moment behind
        return {"weight": None if np.isnan(value) else value}

    def offline(self, trait: str) -> Iterable[Choice]:
        """As many examples as a page bears, the one shown first."""
        n_bytes = sum(np.prod(one["shape"]) for one in self.frames["runs"])
        examples = [self.choice["example"], *([MEAN] if self._has_mean else []), *range(self._n_examples)]
        n = max(1, min(N_OFFLINE, int(OFFLINE_BYTES // max(n_bytes, 1))))
        return [{"example": example} for example in list(dict.fromkeys(examples))[:n]]

    def figure(self) -> Figure:
        """The curves of the whole training, and the chosen heads' patterns up to the step shown."""
        choice = self.choice
        curves = training_curves([run.record for run in self._runs])
        heads = [tuple(head) for head in choice["heads"]]
        rows = [(run, head) for head in heads for run in self._runs if head in run.heads]
        if not rows or self._runs[0].bin_size > 1:
            return curves
        steps = _spread([step for step in self._steps if step <= choice["step"]])
        run, example = self._runs[0], choice["example"]
        places = [([one.place_at(step) for step in steps], one.heads.index(head)) for one, head in rows]
        strips = [one.of_example(example)[at, head] for (one, _), (at, head) in zip(rows, places, strict=True)]
        strip = training_strip(
            np.nan_to_num(np.stack(strips, axis=1)),
            steps=steps,
            heads=[
                f"{head_name(head)} {_short(one)}" if len(self._runs) > 1 else head_name(head) for one, head in rows
            ],
            labels=run.names(example, 1)["column_labels"],
            queries=[max(int(token), 0) for token in run.queries[max(example, 0)]],
            about=self.fixed["title"],
        )
        return compose([curves, strip])

    def _alt(self) -> str:
        """What is on screen, without drawing it."""
        choice, told = self.choice, []
        for run, one in zip(self._runs, self.fixed["runs"], strict=True):
            here = [(at, check.accuracy) for at, check in run.curves.checks if at <= choice["step"]]
            said = f"validation accuracy {number(here[-1][1])} at step {here[-1][0]}" if here else "not checked yet"
            if run.scores is not None:
                scores = run.scores[run.place_at(choice["step"])]
                layer, head = (int(i) for i in np.unravel_index(int(scores.argmax()), scores.shape))
                said += f", highest routing score {number(scores[layer, head])} ({head_name((layer, head))})"
            told.append(f"{one['name']}: {said}")
        return f"{self.fixed['title']}, step {choice['step']} of {self._steps[-1]}. {'; '.join(told)}."


def _run(run: Captured, name: str) -> dict[str, Any]:
    """What the page needs of one run, but for its patterns."""
    told, telemetry = run.record, run.telemetry
    return {
        "name": name,
        "curves": run.curves.to_page(),
        "steps": list(telemetry.steps),
        "n_steps": told.result["n_steps"],
        "solved": told.steps_to_solve,
        "shape": list(run.shape),
        "captured": [list(head) for head in run.heads],
        "scores": None if run.scores is None else packed(run.scores),
        "norms": list(telemetry.norms),
        "gains": {kind: packed(getattr(telemetry, f"gain_{kind}").float().numpy()) for kind in GAINS},
    }


def _spread(steps: list[int]) -> list[int]:
    """At most :data:`N_STRIP` of ``steps``, evenly, the first and the last among them."""
    if len(steps) <= N_STRIP:
        return steps
    places = np.linspace(0, len(steps) - 1, N_STRIP).round().astype(int)
    return [steps[int(i)] for i in places]


def _short(run: Captured) -> str:
    """The word that sets a run apart in a row's name."""
    return str(run.record.source["init"])
