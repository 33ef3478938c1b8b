"""How well a model does on one split, beside what needs no learning."""

from __future__ import annotations

import torch

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.measures.base import Outcomes, outcomes
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Evaluation
from fpt_viz.tasks import Task

__all__ = ["evaluate"]


def evaluate(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    n_examples: int = 1024,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
) -> Evaluation:
    """Accuracy and loss of ``model`` on distinct examples of a split, in eval mode.

    Args:
        model: Its mode and random state are as before afterwards.
        task: None for the model's own.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples.
        batch_size: Examples in one forward pass.
    """
    task = task or model.task
    batch = task.distinct(n_examples, split, seed)
    return summarise(outcomes(model, task, batch, batch_size=batch_size), task, split)


def summarise(found: Outcomes, task: Task, split: str) -> Evaluation:
    """The evaluation that ``found``, the outcomes on examples of ``split``, amount to."""
    low, high = bootstrap_interval(found.accuracy).tolist()
    return Evaluation(
        split=split,
        n_examples=len(found.accuracy),
        accuracy=float(found.accuracy.mean()),
        interval=(low, high),
        exact=float((found.accuracy == 1).to(torch.float64).mean()),
        loss=float(found.loss.mean()),
        chance=task.chance,
        trivial=task.trivial,
        note=task.note,
    )
