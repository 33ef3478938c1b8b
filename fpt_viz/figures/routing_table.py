"""Which heads read what the task needs."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from fpt_viz.errors import ConfigError
from fpt_viz.export import Figure, Mark, Panel, Points, VLine
from fpt_viz.figures._made import remembered
from fpt_viz.figures.base import Head, array, head_name, interval, listed, number, origin
from fpt_viz.records import HeadStatistics

__all__ = ["routing_table"]


@remembered
def routing_table(validation: HeadStatistics, test: HeadStatistics | None = None, *, top: int = 10) -> Figure:
    """The heads with the highest routing score: ranked on one split, reported on another, beside two baselines.

    Args:
        validation: Ranks the heads.
        test: Of the same model on examples that the ranking has not seen. Without it the scores shown are those that
            the ranking chose, which are a little too high; the note says so.
        top: Heads to show.

    Raises:
        RecordError: The task has no needs, so there are no scores.
        ConfigError: The two statistics are of models of different shape, or ``top`` is below 1.
    """
    ranking = validation.ranking()
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    shown = validation if test is None else test
    shown.ranking()  # the error for a task without needs
    if shown.entropy.shape != validation.entropy.shape:
        raise ConfigError(
            f"the statistics are of different models: {tuple(validation.entropy.shape)} and "
            f"{tuple(shown.entropy.shape)} layers and heads"
        )
    heads = ranking[:top]
    marks = _marks(validation, test, heads)
    labels = tuple(head_name(head) for head in heads)
    right = max(float(np.max(mark.x if mark.high is None else mark.high)) for mark in marks if isinstance(mark, Points))
    panel = Panel(
        marks=marks,
        x_title="routing score (mean attention on the tokens that a query needs)",
        y_title="head",
        x_range=(0.0, min(1.05, right * 1.04)),
        y_range=(len(heads) - 0.4, -0.6),
        y_ticks=(tuple(float(i) for i in range(len(heads))), labels),
        n_lines=len(heads) + 1,
    )
    how = f"ranked on {validation.n_examples} {validation.split} examples"
    note = f"{len(heads)} of {len(ranking)} heads of {origin(validation.source)}, {how}" + (
        f"; circles: on {shown.n_examples} {shown.split} examples, with 95 % bootstrap intervals."
        if test is not None
        else ", which are also those shown: the highest scores are a little too high, having been chosen for it."
    )
    return Figure(
        title=f"Heads that route, by score on the {shown.split} split",
        alt=_alt(validation, shown, heads),
        panels=(panel,),
        note=note,
        finding=_found(shown, heads),
        source=dict(validation.source),
    )


def _marks(validation: HeadStatistics, test: HeadStatistics | None, heads: list[Head]) -> tuple[Mark, ...]:
    shown = validation if test is None else test
    rows = np.arange(len(heads))
    scores, bounds = _scores(shown, heads)
    marks: list[Mark] = []
    if shown.uniform is not None:
        marks.append(VLine(at=shown.uniform, label=f"attending to all alike ({number(shown.uniform)})"))
    if shown.permuted is not None:
        wrong = np.array([float(shown.permuted[head]) for head in heads])
        marks.append(Points(x=wrong, y=rows, series=4, label="needs of other queries (permuted)"))
    if test is not None:
        ranked, _ = _scores(validation, heads)
        marks.append(Points(x=ranked, y=rows, series=1, hollow=True, label=validation.split))
    text = tuple(f"{score:.2f}" for score in scores)
    low, high = (None, None) if bounds is None else (bounds[:, 0], bounds[:, 1])
    ends = [mark.x for mark in marks if isinstance(mark, Points)] + [scores, *([] if high is None else [high])]
    shown_at = {"low": low, "high": high, "text": text, "text_x": np.max(np.stack(ends), axis=0)}
    marks.append(Points(x=scores, y=rows, across=True, label=shown.split, **shown_at))
    return tuple(marks)


def _scores(
    statistics: HeadStatistics, heads: list[Head]
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, "head 2"] | None]:
    assert statistics.routing_score is not None  # ranking() has checked it
    scores = np.array([float(statistics.routing_score[head]) for head in heads])
    if statistics.routing_interval is None:
        return scores, None
    return scores, np.stack([array(statistics.routing_interval[head]) for head in heads]).astype(float)


def _alt(validation: HeadStatistics, shown: HeadStatistics, heads: list[Head]) -> str:
    return (
        f"Dot chart of the {len(heads)} heads with the highest routing score on {validation.split}, "
        f"of {origin(validation.source)}. {_found(shown, heads)}"
    )


def _found(shown: HeadStatistics, heads: list[Head]) -> str:
    """The scores of the first heads and their baselines."""
    scores, bounds = _scores(shown, heads)
    named = []
    for i, head in enumerate(heads[:5]):
        around = f", 95 % interval {interval(bounds[i].tolist())}" if bounds is not None else ""
        named.append(f"{head_name(head)} {number(float(scores[i]))}{around}")
    baselines = [f"attending to all alike {number(shown.uniform)}"] if shown.uniform is not None else []
    if shown.permuted is not None:
        first = float(shown.permuted[heads[0]])
        baselines.append(f"the needs of other queries {number(first)} for {head_name(heads[0])}")
    words = f"Score on {shown.split}: {listed(named)}."
    return words + (f" Baselines: {listed(baselines)}." if baselines else "")
