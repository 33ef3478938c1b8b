"""One run of a movie: what was captured of its heads while it trained, in the numbers that are drawn."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
import numpy as np
import torch

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.figures.base import Head, array, head_name
from fpt_viz.records import RunRecord
from fpt_viz.records.telemetry import Telemetry
from fpt_viz.widgets import _patterns
from fpt_viz.widgets._curves import Curves
from fpt_viz.widgets._patterns import MEAN

WHOLE_TOKENS = 64
"""Patterns of more tokens than this are binned."""
RECIPE = "fpt-viz train ... --set train.telemetry_every=50, or TrainConfig(telemetry_every=50)"


class Captured:
    """A run with its captures."""

    def __init__(self, record: RunRecord) -> None:
        """Read the captures beside ``record``.

        Raises:
            RecordError: There are none, one is missing or damaged, or a number in them is not finite.
        """
        telemetry = record.telemetry()
        if telemetry is None:
            raise RecordError(
                f"nothing was captured while the run in {record.path} trained, so there is no movie of it: train it "
                f"with {RECIPE}"
            )
        self.record, self.telemetry = record, telemetry
        _check_finite(record, telemetry)
        self.curves = Curves(record.steps)
        self.queries = array(telemetry.queries)
        self.size = telemetry.patterns.shape[-2:]
        """Queries and keys of a pattern."""
        self._of_example: dict[int, Float[np.ndarray, "step pair query key"]] = {}
        self.scores = None if telemetry.routing_score is None else array(telemetry.routing_score).astype(np.float32)
        n_layers, n_heads = (1 + max(head[place] for head in telemetry.heads) for place in (0, 1))
        self.shape = self.scores.shape[1:] if self.scores is not None else (n_layers, n_heads)
        statistics = record.statistics()
        self.uniform = None if statistics is None else statistics.uniform

    @property
    def heads(self) -> tuple[Head, ...]:
        """Those whose patterns were captured."""
        return self.telemetry.heads

    @property
    def same_queries(self) -> bool:
        """Whether all examples read for the same tokens, so that a mean over them says something."""
        return bool((self.queries == self.queries[:1]).all())

    def ranking(self) -> list[Head]:
        """The captured heads, highest routing score at the last capture first; without scores, in their order."""
        scores = self.scores
        if scores is None:
            return list(self.heads)
        return sorted(self.heads, key=lambda head: -float(scores[-1][head]))

    def place_at(self, step: int) -> int:
        """The last capture up to ``step``."""
        return max(int(np.searchsorted(self.telemetry.steps, step, side="right")) - 1, 0)

    def of_example(self, example: int) -> Float[np.ndarray, "step pair query key"]:
        """The patterns on one example, or their mean; NaN in rows of no token. The last two asked for are kept."""
        if example not in self._of_example:
            whole = self.telemetry.patterns
            # The mean is taken step by step: all of it in single precision would not fit where half precision does.
            picked = torch.stack([one.float().mean(1) for one in whole]) if example == MEAN else whole[:, :, example]
            weights = array(picked.float())
            blank = (self.queries[max(example, 0)] < 0)[None, None, :, None]
            while len(self._of_example) > 1:
                self._of_example.pop(next(iter(self._of_example)))
            self._of_example[example] = np.where(blank, np.float32(np.nan), weights)
        return self._of_example[example]

    def labels(self, example: int) -> list[str]:
        """One text a token; of the mean, its place only."""
        texts = self.telemetry.labels[max(example, 0)]
        changing = example == MEAN and len(set(self.telemetry.labels)) > 1
        return [text.split("=")[0] for text in texts] if changing else list(texts)

    def names(self, example: int, size: int) -> dict[str, Any]:
        """What rows and columns of ``size`` tokens each stand for."""
        labels, rows = self.labels(example), [int(token) for token in self.queries[max(example, 0)]]
        n_keys = self.size[1]
        labels += [""] * (n_keys - len(labels))  # padding of a shorter example
        grouped = [[token for token in rows[r : r + size] if token >= 0] for r in range(0, len(rows), size)]
        return {
            "row_labels": [_span(labels, tokens) for tokens in grouped],
            "column_labels": [_span(labels, list(range(c, min(c + size, n_keys)))) for c in range(0, n_keys, size)],
        }

    @property
    def bin_size(self) -> int:
        """Tokens that share a cell."""
        return -(-max(self.size) // WHOLE_TOKENS)

    def check_beside(self, other: Captured) -> None:
        """Raise unless both can be shown on one scale.

        Raises:
            ConfigError: They are of different tasks or token counts.
        """
        ours, theirs = (run.record.config["task"] for run in (self, other))
        if ours != theirs:
            raise ConfigError(
                f"the runs share no scale: {self.record.name} is of {_task(ours)}, {other.record.name} of "
                f"{_task(theirs)}"
            )
        shapes = [tuple(run.size) for run in (self, other)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"the runs' patterns are of other sizes, {shapes[0][0]} queries by {shapes[0][1]} keys and "
                f"{shapes[1][0]} by {shapes[1][1]}, so they cannot be shown side by side"
            )


def _task(task: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={value}" for name, value in task.get("options", {}).items())
    return f"{task['name']}{f' ({options})' if options else ''}"


def _span(labels: list[str], tokens: list[int]) -> str:
    if not tokens:
        return ""
    return labels[tokens[0]] if len(tokens) == 1 else f"{labels[tokens[0]]} … {labels[tokens[-1]]}"


def _check_finite(record: RunRecord, telemetry: Telemetry) -> None:
    found = {"attention weights": telemetry.patterns, "layer-norm gains": telemetry.gain_rms}
    if telemetry.routing_score is not None:
        found["routing scores"] = telemetry.routing_score
    for what, values in found.items():
        n_bad = int((~values.isfinite()).sum())
        if n_bad:
            raise RecordError(f"{n_bad} of {values.numel()} {what} captured in {record.path} are NaN or infinite")


def carried(runs: list[Captured], budget: int) -> list[Head]:
    """The heads whose patterns go to the page: as many as ``budget`` bytes bear, the best of the first run first."""
    size = runs[0].bin_size
    rows, keys = (-(-n // size) for n in runs[0].size)
    each = sum(len(run.telemetry.steps) for run in runs) * rows * keys
    n = max(1, budget // max(each, 1))
    ranked = list(dict.fromkeys(head for run in runs for head in run.ranking()))
    return sorted(ranked[:n])


def tiles(run: Captured, heads: list[Head], example: int, top: float) -> np.ndarray:
    """8-bit patterns ``[step head row column]``; blank where a head was not captured."""
    weights = _patterns.binned(run.of_example(example), run.bin_size)
    n_steps, _, rows, columns = weights.shape
    found = np.full((n_steps, len(heads), rows, columns), np.nan, dtype=np.float32)
    for place, head in enumerate(heads):
        if head in run.heads:
            found[:, place] = weights[:, run.heads.index(head)]
    return _patterns.quantised(found, 0.0, top)


def named(heads: list[Head]) -> str:
    """``"L0H9, L3H5"``."""
    return ", ".join(head_name(head) for head in heads)
