"""Passes that hold the same examples several times, one replica a patch, and what comes of all patches.

Both unpatched runs are made with as many replicas, so a patch is compared with arithmetic of the same shape: one that
changes nothing has an effect of exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Bool, Float64, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.measures._patching import Comparison
from fpt_viz.tap import starting_at
from fpt_viz.tasks import Batch

N_RESAMPLES = 2000
CELLS_AT_ONCE = 1024
"""Effects whose intervals are made together: 33 MB of resampled ratios."""

Activations = dict[str, Tensor]


class Replicas:
    """Some examples, ``n`` times in one pass; each replica takes a patch of its own."""

    def __init__(self, comparison: Comparison, examples: Int[Tensor, " example"], *, n: int) -> None:
        self.comparison, self.n = comparison, n
        self.examples, self.rows = examples, examples.repeat(n)
        model = comparison.model
        device = next(model.parameters()).device
        both = comparison.clean[self.rows].to(device), comparison.corrupted[self.rows].to(device)
        self.base, self.donor = both if comparison.asked.direction == "noise" else both[::-1]
        """The batch that is patched, and the batch whose activations are written into it."""
        mask = comparison.clean.mask
        self.n_real = None if mask is None else mask[examples].sum(1)
        """Of each example, its real tokens."""

    def both_runs(self, base: Sequence[str], donor: Sequence[str]) -> tuple[Activations, Activations]:
        """The activations of these names in the unpatched runs; both runs are kept to measure changes from."""
        names = list(dict.fromkeys([*base, *donor]))  # the same taps, and so the same kernel, in both
        self._base_scores, of_base = self._run(self.base, names, base)
        self._donor_scores, of_donor = self._run(self.donor, names, donor)
        return of_base, of_donor

    def _run(self, batch: Batch, names: Sequence[str], kept: Sequence[str]) -> tuple[Tensor, Activations]:
        found: Activations = {}

        def keep(activation: Tensor, hook: HookPoint) -> None:
            if hook.name in kept:
                found[hook.name] = activation

        with self.comparison.model.hooks([(names, keep)]):
            logits = self.comparison.model(batch.inputs, batch.mask)
        return self.comparison.score(logits, self.rows), found

    def patched(self, layer: int, residual: Tensor, hooks: Sequence[tuple[str, Hook]]) -> Float64[Tensor, "replica b"]:
        """What ``hooks`` change of the metric in each replica and example, in a run that begins at ``layer``."""
        model = self.comparison.model
        with model.hooks(hooks), starting_at(model, layer, residual):
            logits = model(self.base.inputs, self.base.mask)
        return (self.comparison.score(logits, self.rows) - self._base_scores).reshape(self.n, -1)

    def gap(self) -> Float64[Tensor, "replica b"]:
        """The clean run's metric minus the corrupted one's."""
        gap = (self._donor_scores - self._base_scores).reshape(self.n, -1)
        return -gap if self.comparison.asked.direction == "noise" else gap

    def chunks(self, patches: Sequence[Any]) -> Iterator[list[Any]]:
        """``patches`` in lists of at most one a replica."""
        for start in range(0, len(patches), self.n):
            yield list(patches[start : start + self.n])


def written(donor: Tensor, where: Bool[Tensor, "replica ..."]) -> Hook:
    """A hook that writes the entries ``where`` of ``donor`` into each replica's own.

    Args:
        donor: Of the same shape as the activation.
        where: For each replica, over the activation's axes after the batch; axes of size 1 stand for all. Replicas
            that have no patch are left as they are.
    """

    def write(activation: Tensor, hook: HookPoint) -> Tensor:
        n = len(where)
        shape = (n, 1, *where.shape[1:], *[1] * (activation.ndim - where.ndim))
        chosen = where.reshape(shape).to(activation.device)
        return torch.where(chosen, donor.unflatten(0, (n, -1)), activation.unflatten(0, (n, -1))).flatten(0, 1)

    return write


def parts_of(comparison: Comparison, n_patches: int) -> Iterator[Replicas]:
    """The examples in pieces of up to ``batch_size``, with as many replicas as fit in that and are of use."""
    size = comparison.asked.batch_size
    for start in range(0, len(comparison.clean), size):
        examples = torch.arange(start, min(start + size, len(comparison.clean)))
        yield Replicas(comparison, examples, n=max(1, min(size // len(examples), n_patches)))


class Tally:
    """By cell, each example's change and gap; their ratio of means is the effect."""

    def __init__(self, shape: tuple[int, ...], n_examples: int) -> None:
        self.shape = shape
        self.change = torch.zeros(n_examples, *shape, dtype=torch.float64)
        self.gap = torch.zeros(n_examples, *shape, dtype=torch.float64)

    def add(self, cell: tuple[int, ...], examples: Tensor, change: Tensor, gap: Tensor) -> None:
        """What a patch did to ``examples``; others do not count in this cell."""
        place: tuple[Any, ...] = (examples, *cell)
        self.change[place] = change
        self.gap[place] = gap

    def effects(self, direction: str, *, seed: int) -> dict[str, Any]:
        """The fields ``values`` and ``intervals`` of the record; NaN where a cell has no example."""
        change, gap = self.change.flatten(1), self.gap.flatten(1)
        start = 1.0 if direction == "noise" else 0.0
        values = change.sum(0) / gap.sum(0)
        intervals = ratio_interval(change, gap, seed=seed)
        return {
            "values": (start + values).reshape(self.shape),
            "intervals": (start + intervals).reshape(*self.shape, 2),
        }


def ratio_interval(
    above: Float64[Tensor, "example cell"],
    below: Float64[Tensor, "example cell"],
    *,
    seed: int,
    confidence: float = 0.95,
) -> Float64[Tensor, "cell 2"]:
    """Percentile bootstrap interval, for each cell, of a ratio of means over the same examples.

    Both means are resampled together. Wide where the lower one comes near 0; NaN where it is 0 in every resample.
    """
    n = len(above)
    drawn = torch.randint(n, (N_RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(N_RESAMPLES, n, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    tail = (1 - confidence) / 2
    found = []
    for a, b in zip(above.split(CELLS_AT_ONCE, dim=1), below.split(CELLS_AT_ONCE, dim=1), strict=True):
        ratios = ((times @ a) / (times @ b)).numpy()
        blank = np.isnan(ratios).all(0)
        ratios[:, blank] = 0.0
        of_cells = np.nanquantile if np.isnan(ratios).any() else np.quantile
        bounds = np.asarray(of_cells(ratios, [tail, 1 - tail], axis=0))
        bounds[:, blank] = np.nan
        found.append(torch.from_numpy(bounds.T.copy()))
    return torch.cat(found)


def chosen(what: str, wanted: Sequence[int] | None, n: int) -> list[int]:
    """``wanted`` as numbers from 0 to ``n`` - 1; None for all. Negative ones count from the last.

    Raises:
        ConfigError: There is none of that number, or none is named.
    """
    if wanted is None:
        return list(range(n))
    if not wanted:
        raise ConfigError(f"no {what} is chosen: there are 0 to {n - 1}; None takes all")
    for number in wanted:
        if not -n <= number < n:
            raise ConfigError(f"no {what} {number}: there are 0 to {n - 1}")
    return [number % n for number in wanted]
