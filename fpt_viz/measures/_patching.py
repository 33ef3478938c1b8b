"""What the measures that patch are told, and what it means: a clean and a corrupted batch, one number an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float64, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch, Task

Metric = Callable[[Tensor, Batch], Any]
"""Of the logits of one example, ``[1 readout ...]``, and its clean example as a batch: one number."""
NamedMetric = Literal["target_contrast", "logit_difference"]
Direction = Literal["denoise", "noise"]
SAME = 1e-6
"""Relative to the larger one: metrics of two runs that differ by less agree."""

Score = Callable[[Tensor, Int[Tensor, " row"]], Float64[Tensor, " row"]]
"""Of logits, and the example that each row of them is of: the metric, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every patching measure is told; see ``patch_activations``."""

    batch: Batch | None
    corrupted: Batch | None
    corruption: str | None
    corrupt_position: int | None
    direction: str
    metric: Metric | str | None
    n_examples: int
    split: str
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise UnknownNameError("direction", self.direction, get_args(Direction))
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.batch is None and self.corrupted is not None:
            raise ConfigError("a corrupted batch was given without the clean one: give it as batch")
        if self.corrupted is not None and self.corruption is not None:
            raise ConfigError(f"give a corrupted batch or the name of a corruption, not both (got {self.corruption!r})")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The examples on which the clean and the corrupted run differ, and how that is measured."""

    model: FrozenPretrainedTransformer
    asked: Asked
    clean: Batch
    corrupted: Batch
    score: Score
    metric: str
    corruption: str
    n_dropped: int
    means: tuple[float, float]
    """The metric on the clean and on the corrupted run."""

    def told(self) -> dict[str, Any]:
        """The fields of the record that do not depend on what is patched."""
        return {
            "metric": self.metric,
            "corruption": self.corruption,
            "direction": self.asked.direction,
            "clean": self.means[0],
            "corrupted": self.means[1],
            "split": self.asked.split if self.asked.batch is None else "given",
            "n_examples": len(self.clean),
            "n_dropped": self.n_dropped,
            "source": self.model.source,
        }


def compared(model: FrozenPretrainedTransformer, task: Task | None, asked: Asked) -> Comparison:
    """The pair of batches that ``asked`` means, without the examples on which both runs agree.

    Raises:
        ConfigError: No example is left, or the two batches are no pair.
        UnknownNameError: No such corruption, metric or split.
    """
    task = task or model.task
    clean, corrupted, corruption = _pair(task, asked)
    name, score = _scorer(task, asked.metric, clean, corrupted)
    found = []
    for batch in (clean, corrupted):
        rows = torch.arange(len(batch)).split(asked.batch_size)
        found.append(torch.cat([score(_logits(model, batch[part]), part) for part in rows]))
    differ = (found[0] - found[1]).abs() > SAME * torch.maximum(found[0].abs(), found[1].abs()).clamp(min=1.0)
    kept = differ.nonzero()[:, 0]
    if not len(kept):
        raise ConfigError(
            f"on none of {len(clean)} examples does {name} differ between the clean and the corrupted run "
            f"({corruption}), so there is nothing to restore: choose another corruption or metric"
        )
    means = [float(values[kept].mean()) for values in found]
    if abs(means[0] - means[1]) <= SAME * max(1.0, *map(abs, means)):
        raise ConfigError(
            f"{name} is {means[0]:.3g} on average on both runs of {len(kept)} examples ({corruption}), so no scale "
            "leads from one to the other: choose another corruption or metric"
        )
    return Comparison(
        model=model,
        asked=asked,
        clean=clean[kept],
        corrupted=corrupted[kept],
        score=lambda logits, rows: score(logits, kept[rows]),
        metric=name,
        corruption=corruption,
        n_dropped=len(clean) - len(kept),
        means=(means[0], means[1]),
    )


def _pair(task: Task, asked: Asked) -> tuple[Batch, Batch, str]:
    """The clean and the corrupted batch, on the CPU and without columns of padding, and what the corruption is."""
    clean = task.distinct(asked.n_examples, asked.split, asked.seed) if asked.batch is None else asked.batch.to("cpu")
    if not len(clean):
        raise ConfigError(f"an empty batch of {task.name} was given: patching wants at least 1 example")
    clean = clean.trimmed()
    if asked.corrupted is None:
        how = asked.corruption or next(iter(task.corruptions))
        rng = torch.Generator().manual_seed(asked.seed)
        corrupted = task.corrupted(clean, how, rng, position=asked.corrupt_position).batch
        return clean, corrupted, how if asked.corrupt_position is None else f"{how} at {asked.corrupt_position}"
    corrupted = asked.corrupted.to("cpu").trimmed()
    for what in ("inputs", "targets"):
        shapes = [tuple(getattr(batch, what).shape) for batch in (clean, corrupted)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"the {what} of batch and corrupted have shapes {shapes[0]} and {shapes[1]}: example by example and "
                "token by token, one must be the other changed"
            )
    masks = [torch.ones(clean.inputs.shape[:2]) if b.mask is None else b.mask.float() for b in (clean, corrupted)]
    if not torch.equal(*masks):
        raise ConfigError("batch and corrupted have different masks: corrupted examples must be as long as clean ones")
    return clean, corrupted, "given"


def _logits(model: FrozenPretrainedTransformer, batch: Batch) -> Tensor:
    batch = batch.to(next(model.parameters()).device)
    return torch.as_tensor(model(batch.inputs, batch.mask))


# ---------------------------------------------------------------------------------------------------------------------
# One number an example


def _scorer(task: Task, metric: Metric | str | None, clean: Batch, corrupted: Batch) -> tuple[str, Score]:
    """The metric's name, and the metric."""
    differ = (clean.targets != corrupted.targets).flatten(1)
    if metric is None:
        metric = "target_contrast" if differ.any() else "logit_difference"
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), _own(metric, clean)
    if metric not in get_args(NamedMetric):
        raise UnknownNameError("metric", metric, get_args(NamedMetric))
    if metric == "logit_difference":

        def difference(logits: Tensor, rows: Tensor) -> Tensor:
            values = task.logit_difference(logits, clean.targets[rows].to(logits.device))
            return values.double().flatten(1).mean(1).cpu()

        return metric, difference
    if not differ.any():
        raise ConfigError(
            "target_contrast compares the clean target with the corrupted one, and this corruption changes no target: "
            "use metric='logit_difference' or one of your own"
        )

    def contrast(logits: Tensor, rows: Tensor) -> Tensor:
        flat = logits.double().cpu().flatten(1, -2)
        both = [flat.gather(2, batch.targets[rows].flatten(1)[..., None])[..., 0] for batch in (clean, corrupted)]
        counts = differ[rows].sum(1)
        return ((both[0] - both[1]) * differ[rows]).sum(1) / counts.clamp(min=1)

    return metric, contrast


def _own(metric: Metric, clean: Batch) -> Score:
    """A user's metric, called on one example at a time so that intervals over examples can be made."""

    def scored(logits: Tensor, rows: Tensor) -> Tensor:
        found = []
        for i, row in enumerate(rows.tolist()):
            value = torch.as_tensor(metric(logits[i : i + 1], clean[row : row + 1].to(logits.device)))
            if value.numel() != 1:
                raise ConfigError(
                    f"the metric returned shape {tuple(value.shape)} for one example, wanted one number: end it with "
                    ".mean(), or pick one of its entries"
                )
            if not bool(value.isfinite()):
                raise ConfigError(f"the metric returned {float(value)} for an example: it must be finite")
            found.append(float(value))
        return torch.tensor(found, dtype=torch.float64)

    return scored
