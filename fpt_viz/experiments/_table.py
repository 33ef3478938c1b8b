"""An experiment's rows as a table: the same cells for the terminal, HTML, Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Sequence
import re

from fpt_viz.experiments._facts import told_together
from fpt_viz.experiments._rows import Row
from fpt_viz.experiments._systems import BACKBONES, DEEP_LSTMS, LSTMS, NOTED
from fpt_viz.experiments.base import SOURCES, Experiment, Extra, Quantity
from fpt_viz.export import PaperTable

VALUE: dict[Quantity, str] = {
    "accuracy": "Accuracy (%)",
    "gap": "Test (%)",
    "rates": "Test (%)",
    "routing": "Routing score",
    "steps": "Median steps",
}
EXTRA: dict[Extra, tuple[str, ...]] = {"step_seconds": ("Step (ms)",), "sizes": ("Trained", "Total")}
CAP = "At most "
"""How the note begins that tells a table's step caps."""
NUMBERS = (
    "system", "task", "seeds", "value", "low", "high", "paper", "source", "paper_of", "versus", "difference", "p_holm",
    "chance", "trivial", "failed",
)  # fmt: skip


def table_of(
    experiment: Experiment, rows: Sequence[Row], *, scale: str, label: str, notes: Sequence[str] = ()
) -> PaperTable:
    """The table of ``rows``, with ``notes`` and others that say how every number was made."""
    quantity = experiment.quantity
    beside = list(dict.fromkeys(name for row in rows for name, _ in row.beside))
    extras = [name for extra in experiment.extras for name in EXTRA[extra]]
    against = "Ratio" if quantity == "steps" else "Difference"
    columns = (
        "System", "Task", "Seeds", VALUE[quantity], "95 % interval", *beside, "Paper", against, "p (Holm)",
        "Chance (%)", "Without routing (%)", *extras, "Not finished",
    )  # fmt: skip
    cells = tuple(_cells(row, quantity, beside, experiment.extras) for row in rows)
    return PaperTable(
        columns=columns,
        rows=cells,
        numbers=tuple((*_numbers(row), *(dict(row.beside).get(name, "") for name in beside)) for row in rows),
        number_columns=(*NUMBERS, *(name.lower() for name in beside)),
        caption=f"{experiment.title}, scale {scale}. Claim: {experiment.claim}",
        notes=(*_notes(experiment, rows, scale), *notes),
        label=label,
    )


def _cells(row: Row, quantity: Quantity, beside: Sequence[str], extras: Sequence[Extra]) -> tuple[str, ...]:
    others = dict(row.beside)
    chance = "" if row.chance is None else f"{100 * row.chance:.1f}"
    trivial = ", ".join(f"{name.replace('_', ' ')} {100 * value:.1f}" for name, value in row.trivial.items())
    return (
        row.cell.system,
        row.cell.task,
        str(len(row.seeds)),
        _value(row, quantity),
        _interval(row, quantity),
        *(others.get(name, "") for name in beside),
        _published(row, quantity),
        _versus(row, quantity),
        row.no_test if row.p is None else f"{row.p:.2g}",
        chance,
        trivial,
        *(cell for extra in extras for cell in _extra(row, extra)),
        _unfinished(row),
    )


def _number(value: float | None, quantity: Quantity) -> str:
    if value is None:
        return ""
    if quantity == "steps":
        return f"{value:g}"
    return f"{value:.3f}" if quantity == "routing" else f"{100 * value:.1f}"


def _value(row: Row, quantity: Quantity) -> str:
    if quantity == "steps" and row.mean is None and (most := dict(row.beside).get("Most steps taken", "0")) != "0":
        return f"> {most}"
    return _number(row.mean, quantity)


def _interval(row: Row, quantity: Quantity) -> str:
    low, high = row.interval
    if low is None and high is None:
        return ""
    return f"{_number(low, quantity) or 'open'} to {_number(high, quantity) or 'open'}"


def _published(row: Row, quantity: Quantity) -> str:
    published = row.published
    if published is None:
        return ""
    value = f"{published.value:,.0f}" if quantity == "steps" else _number(published.value, quantity)
    return f"{value} [{published.source}]{f' ({published.of})' if published.of else ''}"


def _versus(row: Row, quantity: Quantity) -> str:
    if row.versus is None:
        return ""
    if quantity == "steps":
        return f"{row.versus:.2f}"
    return f"{row.versus:+.3f}" if quantity == "routing" else f"{100 * row.versus:+.1f}"


def _extra(row: Row, extra: Extra) -> tuple[str, ...]:
    if not row.finished:
        return ("",) * len(EXTRA[extra])
    if extra == "sizes":
        return (f"{row.finished[0].n_trained:,}", f"{row.finished[0].n_total:,}")
    times = sorted(facts.step_seconds for facts in row.finished)
    return (f"{1000 * times[len(times) // 2]:.2f}",)


def _unfinished(row: Row) -> str:
    return row.cell.why_not or "; ".join(told_together(row.failed))


def _numbers(row: Row) -> tuple[object, ...]:
    published = row.published
    return (
        row.cell.system,
        row.cell.task,
        " ".join(map(str, row.seeds)),
        row.mean,
        *row.interval,
        None if published is None else published.value,
        None if published is None else published.source,
        None if published is None else published.of,
        row.cell.versus,
        row.versus,
        row.p,
        row.chance,
        " ".join(f"{name}={value!r}" for name, value in row.trivial.items()),
        _unfinished(row),
    )


def _notes(experiment: Experiment, rows: Sequence[Row], scale: str) -> list[str]:
    quantity = experiment.quantity
    tests = {
        "steps": "a log-rank test, two-sided, exact permutation, of steps to the goal",
        "routing": "a paired t-test over common seeds, two-sided, of the routing score",
    }.get(quantity, "a paired t-test over common seeds, two-sided, of test accuracy")
    rivals = dict.fromkeys(row.cell.versus for row in rows if row.cell.versus)
    found = [_how(quantity)]
    if rivals:
        what = "Ratio: of medians to" if quantity == "steps" else "Difference: of means from"
        found.append(
            f"{what} {', '.join(rivals)} on the same task. {_tests(tests, sum(row.p is not None for row in rows))}"
        )
    ours = _ours(rows)
    for note in experiment.notes:
        if note == NOTED["laptop"]:
            found += [ours] if scale == "laptop" and ours else []
        elif note:
            found.append(note)
    found += _caps(rows)
    found += ["Tiny random networks and a few steps: these numbers mean nothing."] if scale == "smoke" else []
    keys = dict.fromkeys(row.published.source for row in rows if row.published)
    keys |= {key: None for key in re.findall(r"\[(\w+)\]", experiment.claim) if key in SOURCES}
    found += [f"[{key}] {SOURCES[key]}." for key in keys]
    found += list(
        dict.fromkeys(f"{row.cell.task}: {f.test.note}." for row in rows for f in row.finished if f.test.note)
    )
    failures = [(row, failure) for row in rows for failure in row.failed if failure.message]
    found += [f"{row.cell.system} on {row.cell.task}, {f.who}: {f.message}" for row, f in failures]
    return found


def _ours(rows: Sequence[Row]) -> str:
    """On which backbone the rows are, where that is not the paper's; an LSTM is told by its system's name."""
    apart = (*LSTMS.values(), *DEEP_LSTMS.values())
    names = dict.fromkeys(row.cell.config.backbone.name for row in rows if row.cell.config is not None)
    others = [name for name in names if name not in apart]
    if not others or BACKBONES["laptop"] in others:
        return NOTED["laptop"]
    return f"Ours is {', '.join(others)}; the paper's is GPT-2 with 12 layers." if others != ["gpt2"] else ""


def _caps(rows: Sequence[Row]) -> list[str]:
    """The most gradient steps that a run takes, by task."""
    tasks: dict[int, dict[str, None]] = {}
    for row in rows:
        if row.cell.config is not None:
            tasks.setdefault(row.cell.config.train.n_steps, {})[row.cell.task] = None
    told = "; ".join(f"{n_steps:,} steps: {', '.join(names)}" for n_steps, names in sorted(tasks.items()))
    return [f"{CAP}{told}."] if told else []


def _tests(test: str, n_tests: int) -> str:
    if not n_tests:
        return "No test: that takes three seeds of each, with differences that are not all alike."
    many = f"corrected by Holm's method for the {n_tests} tests of this table" if n_tests > 1 else "the only one here"
    return f"p: {test}, with at least three seeds of each; {many}."


def _how(quantity: Quantity) -> str:
    over = (
        "Intervals are over seeds (Student's t), or over the first seed's examples where there is one seed, or all are "
        "alike."
    )
    if quantity == "steps":
        return (
            "Gradient steps to the goal on validation: solved is every target right in two checks in a row. Median and "
            "95 % interval by Kaplan and Meier: a run that never got there, or diverged, is censored at the steps that "
            "it took, and a bound that is open lies beyond them. Test accuracy is the mean after the last step."
        )
    if quantity == "routing":
        return (
            "Routing score: attention of the head that is best on validation, on the tokens that a query needs, on "
            "test; mean over seeds. Uniform: needed of visible tokens. Permuted: the same attention against other "
            f"queries' needs. First layer: mean over its heads. {over}"
        )
    return f"Test accuracy, mean over the seeds that finished. {over} What did not finish is in the last column."
