"""When in training heads began to route, and layer norms to move."""

from __future__ import annotations

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, Line, Mark, Panel
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import array, head_name, listed, number, origin, scale_top
from fpt_viz.records import Telemetry

__all__ = ["telemetry"]

OTHERS, NORMS, MOST_MOVED = 6, 4, 5
"""The series of what is beside the named heads, whose colours no named head of four has."""


@remembered
def telemetry(record: Telemetry, *, top: int = 4) -> Figure:
    """The routing score of every head over gradient steps, the best ones named, and the change of layer-norm gains.

    Args:
        record: Of a run with ``telemetry_every``.
        top: Heads that are named: the highest routing scores at the last capture.

    Raises:
        ConfigError: ``top`` is not from 1 to 6, which is as many as can be told apart.
    """
    if not 1 <= top <= 6:
        raise ConfigError(f"top must be from 1 to 6, got {top}")
    steps = np.array(record.steps, dtype=float)
    panels, told = [], []
    if record.routing_score is not None:
        panel, finding = _scores(array(record.routing_score), steps, top)
        panels.append(panel)
        told.append(finding)
    if record.norms:
        panel, finding = _gains(record, steps)
        panels.append(panel)
        told.append(finding)
    if not panels:
        raise ConfigError("this telemetry holds neither routing scores nor layer norms: there is nothing to draw")
    finding = " ".join(told)
    note = f"{len(record.labels)} {record.split} examples of {origin(record.source)}, the same at each capture"
    note += "." if record.routing_score is None else f"; pale: the other {record.routing_score[0].numel() - top} heads."
    return Figure(
        title="Heads and layer norms during training",
        alt=f"Line chart over {len(steps)} captures from step {record.steps[0]} to {record.steps[-1]}, of "
        f"{origin(record.source)}. {finding}",
        panels=tuple(panels),
        columns=len(panels),
        note=note,
        finding=finding,
        source={**record.source, "split": record.split},
    )


def _scores(score: np.ndarray, steps: np.ndarray, top: int) -> tuple[Panel, str]:
    """One line a head; the named ones in front."""
    n_heads = score.shape[2]
    flat = score.reshape(len(steps), -1)
    order = np.argsort(-flat[-1], kind="stable").tolist()
    others = order[top:]
    marks: list[Mark] = [
        Line(x=steps, y=flat[:, i], series=OTHERS, faint=True, label=head_name(divmod(i, n_heads))) for i in others
    ]
    told = []
    for series, i in enumerate(order[:top]):
        name = head_name(divmod(i, n_heads))
        marks.append(Line(x=steps, y=flat[:, i], series=series, markers=True, label=name))
        told.append(
            f"{name} {number(flat[0, i])} to {number(flat[-1, i])}, half of its way by step {_half(flat[:, i], steps)}"
        )
    panel = Panel(
        marks=tuple(marks),
        x_title="gradient steps",
        y_title="routing score",
        x_range=(0.0, max(1.0, steps[-1]) * 1.02),
        y_range=(0.0, scale_top(flat)),
    )
    return panel, f"Routing score: {listed(told)}."


def _half(values: np.ndarray, steps: np.ndarray) -> int:
    """The first capture at which ``values`` have done half of their way."""
    way = values[-1] - values[0]
    return int(steps[int(np.argmax((values - values[0]) * np.sign(way) >= abs(way) / 2))])


def _gains(record: Telemetry, steps: np.ndarray) -> tuple[Panel, str]:
    """The mean over norms in a band from the lowest to the highest, and the one that changed most."""
    change = array(record.gain_change)
    most = int(change[-1].argmax())
    mean = change.mean(1)
    marks = (
        Line(
            x=steps,
            y=mean,
            low=change.min(1),
            high=change.max(1),
            series=NORMS,
            label=f"{change.shape[1]} norms, mean and range",
        ),
        Line(x=steps, y=change[:, most], series=MOST_MOVED, markers=True, label=_short(record.norms[most])),
    )
    top = float(change.max())
    panel = Panel(
        marks=marks,
        x_title="gradient steps",
        y_title="change of layer-norm gains",
        x_range=(0.0, max(1.0, steps[-1]) * 1.02),
        y_range=(0.0, 1.05 * top if top else 1.0),
    )
    return panel, f"Layer-norm gains moved by {number(mean[-1])} on average, most in {_short(record.norms[most])}."


def _short(name: str) -> str:
    """The parameter's name without what all of them share."""
    return name.removeprefix("backbone.network.").removeprefix("encoder.").removesuffix(".weight")
