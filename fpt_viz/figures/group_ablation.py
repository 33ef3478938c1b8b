"""Which groups of parameters have to learn."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, Mark, Panel, VLine
from fpt_viz.figures._made import remembered
from fpt_viz.figures._seeds import HOW, System, points, systems
from fpt_viz.figures.base import as_runs, interval, listed, merged_levels, number, percent, source_of
from fpt_viz.records import RunRecord

__all__ = ["group_ablation"]


@remembered
def group_ablation(runs: RunRecord | Iterable[RunRecord]) -> Figure:
    """Test accuracy by which parameter groups were trained, with intervals, beside what needs no routing.

    The mean over seeds where there are several; most groups first.

    Raises:
        ConfigError: No run, runs of different tasks, a run given twice, or one set of groups only.
    """
    records = as_runs(runs)
    trained = {_groups(record) for record in records}
    if len(trained) < 2:
        raise ConfigError(
            "this figure compares which parameter groups learn; all of these runs train "
            f"{listed(sorted(trained.pop())) if trained else 'the same'}: train others with --train"
        )
    found = sorted(systems(records, apart=("trained",)), key=lambda s: (s.name, -len(_groups(s.records[0]))))
    several = len({system.name for system in found}) > 1
    names = tuple(_name(system, several=several) for system in found)
    means = np.array([system.mean for system in found])
    marks: list[Mark] = [VLine(at=at, label=name) for at, name in merged_levels(r.evaluation for r in records)[:1]]
    text = tuple(percent(mean) for mean in means.tolist())
    rows = np.arange(len(found))
    marks += filter(None, points(found, means, rows, across=True, label="test accuracy", text=text))
    panel = Panel(
        marks=tuple(marks),
        x_title="test accuracy",
        y_title="trained",
        x_range=(0.0, 1.18),
        y_range=(len(found) - 0.4, -0.6),
        x_ticks=((0.0, 0.25, 0.5, 0.75, 1.0), ("0", "0.25", "0.5", "0.75", "1")),
        y_ticks=(tuple(float(i) for i in rows), names),
        n_lines=2 * len(found) + 1,
    )
    told = [
        f"{name}: {number(system.mean)} (95 % interval {interval(system.interval)}, {system.seeds})"
        for name, system in zip(names, found, strict=True)
    ]
    finding = f"{'; '.join(told)}."
    task = records[0].config["task"]["name"]
    return Figure(
        title=f"Accuracy on {task} by what is trained",
        alt=f"Dot chart of test accuracy by trained parameter groups. {finding}",
        panels=(panel,),
        note=f"{HOW}.",
        finding=finding,
        source=source_of(records),
    )


def _groups(record: RunRecord) -> tuple[str, ...]:
    return tuple(record.config.get("trained", ()))


def _name(system: System, *, several: bool) -> str:
    groups = ", ".join(group.replace("_", " ") for group in _groups(system.records[0])) or "nothing"
    return f"{system.name}: {groups}" if several else groups
