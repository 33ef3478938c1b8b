"""One offline page about one or several runs: what was trained, how well it does, what its heads read and do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fpt_viz.errors import UnknownNameError
from fpt_viz.export import Figure
from fpt_viz.figures.ablation_effects import ablation_effects
from fpt_viz.figures.attention_heatmap import attention_heatmap
from fpt_viz.figures.base import OutcomeName, array, as_runs, head_name, listed, run_names, scale_top
from fpt_viz.figures.head_grid import head_grid
from fpt_viz.figures.routing_table import routing_table
from fpt_viz.figures.run_comparison import run_comparison
from fpt_viz.figures.top_heads import top_heads
from fpt_viz.figures.training_curves import training_curves
from fpt_viz.records import HeadStatistics, Ledger, RunRecord, store
from fpt_viz.records.run import CONFIG

OUTCOMES_SHOWN: tuple[OutcomeName, ...] = ("accuracy", "logit")
"""Of an ablation: what is asked for, and what moves before it does."""
NO_CAUSAL_CHECK = (
    "No head of these runs was ablated, so nothing here shows which heads the answer depends on: the pictures above "
    "say what the heads read, and no more."
)

_Statistics = tuple[HeadStatistics, HeadStatistics] | None
"""Of one run, on validation and on test; None where none were given."""
_Missing = tuple[str, str]
"""What was not measured, in words, and the command that measures it (or nothing)."""


def write_report(
    path: str | Path,
    runs: Sequence[RunRecord],
    *,
    title: str,
    summary: Sequence[str] = (),
    statistics: Mapping[str, tuple[HeadStatistics, HeadStatistics]] | None = None,
) -> Path:
    """Write one HTML page about ``runs``, which opens offline: no CDN, no request, 5 MB (it brings plotly.js).

    What was measured and saved beside a run is shown; what was not is said in words.

    Args:
        path: The file to write.
        runs: Of one task, the one to read first at the front.
        title: Of the page.
        summary: What a reader should take away, one sentence each.
        statistics: By name of a run (``RunRecord.name``), its head statistics on validation, which rank the heads, and
            on test, which are reported. A run that is not named shows the statistics saved beside it.

    Raises:
        ConfigError: There is no run, or the runs are of different tasks.
        UnknownNameError: ``statistics`` names a run that is not among ``runs``.
        RecordError: Something saved beside a run is not whole, or the page cannot be written.
    """
    records = as_runs(runs)
    names = run_names(records)
    for name in statistics or {}:
        if name not in names:
            raise UnknownNameError("run in this report", name, names)
    page = _Page()
    given = [(statistics or {}).get(name) for name in names]
    top = _common_scale(records, given)
    shown = [_run(page, *each, vmax=top) for each in zip(records, names, given, strict=True)]
    fields = {
        "title": title,
        "summary": [*summary, *dict.fromkeys(record.note for record in records if record.note)],
        "split": records[0].evaluation.split,
        "comparison": page.drawn(run_comparison(records)),
        "curves": page.drawn(training_curves(records)) if any(record.steps for record in records) else None,
        "runs": shown,
        "causal_check": _causal_check(records, names),
        "plotly_js": _plotly_js(),
    }
    template = _environment().get_template("report.html")
    store.write_bytes(Path(path), template.render(fields).encode())
    return Path(path)


@dataclass(frozen=True)
class _Drawn:
    """A figure as the template wants it."""

    html: str
    """Safe: the fragment escapes all the words it is given."""
    title: str
    note: str
    alt: str


class _Page:
    """Draws figures with ids that are unique on one page."""

    def __init__(self) -> None:
        self.n_figures = 0

    def drawn(self, figure: Figure) -> _Drawn:
        self.n_figures += 1
        fragment = figure.html_fragment(f"figure-{self.n_figures}", columns=1)
        return _Drawn(fragment, figure.title, figure.note, figure.alt)


def _environment() -> Environment:
    """Jinja with every value escaped, and an error for a name that the template misspells."""
    environment = Environment(loader=PackageLoader("fpt_viz"), autoescape=True, undefined=StrictUndefined)
    filters: dict[str, Callable[..., str]] = {
        "percent": lambda value: f"{100 * value:.1f} %",
        "count": lambda value: f"{value:,}",
    }
    environment.filters.update(filters)
    return environment


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _common_scale(records: Sequence[RunRecord], given: Sequence[_Statistics]) -> float | None:
    """One end of the colour scale for the head grids of all runs; None where there is no grid."""
    ranked = [pair[0] if pair else record.statistics() for record, pair in zip(records, given, strict=True)]
    tops = [scale_top(array(each.mean_pattern)) for each in ranked if each is not None]
    return max(tops, default=None)


def _run(page: _Page, record: RunRecord, name: str, statistics: _Statistics, *, vmax: float | None) -> dict[str, Any]:
    """What the page says of one run."""
    ledger = record.ledger
    reading, reading_missing = _reading(page, record, statistics, vmax=vmax)
    doing, doing_missing = _doing(page, record, statistics)
    return {
        "name": name,
        "test": record.evaluation,
        "n_steps": len(record.steps),
        "steps_to_solve": record.steps_to_solve,
        "frozen_intact": record.result.get("frozen_intact"),
        "n_trained": ledger.n_trained,
        "n_total": ledger.n_total,
        "trained_share": f"{100 * ledger.n_trained / max(1, ledger.n_total):.2g} %",
        "n_frozen_tensors": sum(not row.trained for row in ledger.rows),
        "groups": _groups(ledger),
        "tensors": ledger.rows,
        "backbone": _facts(ledger.backbone),
        "environment": _facts(record.environment),
        "config": (record.path / CONFIG).read_text(encoding="utf-8"),
        "reading": reading,
        "reading_missing": reading_missing,
        "doing": doing,
        "doing_missing": doing_missing,
    }


def _groups(ledger: Ledger) -> list[dict[str, Any]]:
    """Tensors and values by parameter group, in the ledger's order."""
    groups: dict[str, dict[str, Any]] = {}
    for row in ledger.rows:
        group = groups.setdefault(row.group, {"name": row.group, "n_tensors": 0, "trained": 0, "frozen": 0})
        group["n_tensors"] += 1
        group["trained" if row.trained else "frozen"] += row.n_values
    return list(groups.values())


def _facts(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``entries`` as names and words; what is empty is left out."""
    said = []
    for name, value in entries.items():
        if value is None or value in ("", [], {}):
            continue
        words = value if isinstance(value, str) else json.dumps(value, default=str)
        if isinstance(value, list | tuple):
            words = "; ".join(map(str, value))
        said.append((name.replace("_", " "), words))
    return said


def _reading(
    page: _Page, record: RunRecord, statistics: _Statistics, *, vmax: float | None
) -> tuple[list[_Drawn], list[_Missing]]:
    """Figures of what the heads read, and what of that was not measured."""
    validation, test = statistics or (record.statistics(), record.statistics("test"))
    maps = record.maps()
    drawn: list[_Drawn] = []
    missing: list[_Missing] = []
    if validation is None:
        missing.append(("No head statistics were saved beside this run.", "statistics"))
    else:
        drawn.append(page.drawn(head_grid(validation, vmax=vmax)))
    best = validation.ranking()[0] if validation is not None and validation.routing_score is not None else None
    if maps is None:
        missing.append(("No attention was captured from this run.", "capture"))
    elif best is not None and (best[0] not in maps.layers or best[1] not in maps.heads):
        words = f"The head with the highest routing score, {head_name(best)}, is not among those captured."
        missing.append((words, ""))
    else:
        layer, head = best or (maps.layers[0], maps.heads[0])
        drawn.append(page.drawn(attention_heatmap(maps, layer=layer, head=head)))
    if validation is not None and best is None:
        missing.append(("This task has no known needs of its queries, so its heads have no routing score.", ""))
    elif validation is not None:
        drawn.append(page.drawn(routing_table(validation, test)))
    return drawn, missing


def _doing(page: _Page, record: RunRecord, statistics: _Statistics) -> tuple[list[_Drawn], list[_Missing]]:
    """Figures of what cutting heads changed, and what of that was not measured."""
    single, together = record.ablation(), record.top_heads()
    drawn: list[_Drawn] = []
    missing: list[_Missing] = []
    if single is None:
        missing.append(("The effect of cutting single heads was not measured on this run.", "ablate"))
    else:
        stats = statistics[0] if statistics else record.statistics()
        drawn += [page.drawn(ablation_effects(single, stats=stats, outcome=outcome)) for outcome in OUTCOMES_SHOWN]
    if together is None:
        missing.append(("The heads with the highest routing scores were not cut together on this run.", ""))
    else:
        drawn += [page.drawn(top_heads(together, outcome=outcome)) for outcome in OUTCOMES_SHOWN]
    return drawn, missing


def _causal_check(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """What was checked by intervention, in words."""
    checked = [name for record, name in zip(records, names, strict=True) if record.ablation() or record.top_heads()]
    if not checked:
        return NO_CAUSAL_CHECK
    without = [name for name in names if name not in checked]
    words = (
        f"In {listed(checked)}, heads were cut (their output set aside as each caption says) and the examples answered "
        "again; a drop in accuracy is what the answer owed to them. One head alone may cost little although it routes, "
        "because others can stand in for it: compare with the heads cut together, and those with random sets as large."
    )
    return words + (f" Nothing was cut in {listed(without)}." if without else "")
