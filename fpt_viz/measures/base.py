"""What measures share: the outcome of each example, from which every mean and interval is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import ConfigError
from fpt_viz.intervene import ablated
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects
from fpt_viz.tap import inspecting, starting_at
from fpt_viz.tasks import Batch, Task


class Outcomes(NamedTuple):
    """Of each example, in float64 on the CPU, the mean over its targets."""

    accuracy: Float[Tensor, " batch"]
    """Share of right targets."""
    loss: Float[Tensor, " batch"]
    """Cross-entropy, in nats a target."""
    logit: Float[Tensor, " batch"]
    """The correct class's logit minus the best other one's."""


def outcomes(model: FrozenPretrainedTransformer, task: Task, batch: Batch, *, batch_size: int = 256) -> Outcomes:
    """How ``model`` does on each example of ``batch``, in eval mode; costs one forward pass over it."""
    with inspecting(model):
        return _joined([_outcome(model, task, part) for part in _parts(model, batch, batch_size)])


def _parts(model: FrozenPretrainedTransformer, batch: Batch, batch_size: int) -> Iterator[Batch]:
    """``batch`` in pieces, on the model's device."""
    check_batch_size(batch_size)
    device = next(model.parameters()).device
    for start in range(0, len(batch), batch_size):
        yield batch[start : start + batch_size].to(device)


def check_batch_size(batch_size: int) -> None:
    """Raise where no example would be in a batch."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")


def _outcome(model: FrozenPretrainedTransformer, task: Task, part: Batch) -> Outcomes:
    logits = model(part.inputs, part.mask)
    per_target = (
        task.correct(logits, part.targets).double(),
        _cross_entropy(logits, part.targets),
        task.logit_difference(logits, part.targets).double(),
    )
    return Outcomes(*(values.flatten(1).mean(1).cpu() for values in per_target))


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of several batches as those of one."""
    return Outcomes(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each target, in float64."""
    log_shares = logits.double().log_softmax(-1)
    return -log_shares.gather(-1, targets.reshape(*logits.shape[:-1], 1)).reshape(targets.shape)


def cut_and_compare(
    model: FrozenPretrainedTransformer,
    task: Task | None,
    sets: Sequence[tuple[tuple[int, int], ...]],
    *,
    kind: Literal["zero"],
    n_examples: int,
    split: str,
    seed: int,
    batch_size: int = 256,
) -> AblationEffects:
    """The effect of cutting each of ``sets``, paired by example with the model as it is.

    Nothing below the first layer that a set changes is computed twice. Memory: the residual stream of every layer on
    ``batch_size`` examples.
    """
    if not sets or not all(sets):
        raise ConfigError("nothing to ablate: name at least one head in each set")
    task = task or model.task
    batch = task.distinct(n_examples, split, seed)
    whole_parts: list[Outcomes] = []
    cut_parts: list[list[Outcomes]] = [[] for _ in sets]
    with inspecting(model):
        for part in _parts(model, batch, batch_size):
            residuals: dict[int, Tensor] = {}
            with model.hooks([(_is_resid_pre, _keeper(residuals))]):
                whole_parts.append(_outcome(model, task, part))
            for found, heads in zip(cut_parts, sets, strict=True):
                first = min(layer for layer, _head in heads)
                with ablated(model, heads, kind), starting_at(model, first, residuals[first]):
                    found.append(_outcome(model, task, part))
    whole, cut = _joined(whole_parts), [_joined(found) for found in cut_parts]
    changes = {
        "accuracy": torch.stack([whole.accuracy - one.accuracy for one in cut], dim=1),
        "loss": torch.stack([one.loss - whole.loss for one in cut], dim=1),
        "logit": torch.stack([whole.logit - one.logit for one in cut], dim=1),
    }
    means = {name: tuple(change.mean(0).tolist()) for name, change in changes.items()}
    intervals = {
        name: tuple((low, high) for low, high in bootstrap_interval(change, seed=seed).tolist())
        for name, change in changes.items()
    }
    return AblationEffects(
        sets=tuple(sets),
        accuracy_drop=means["accuracy"],
        accuracy_interval=intervals["accuracy"],
        loss_rise=means["loss"],
        loss_interval=intervals["loss"],
        logit_drop=means["logit"],
        logit_interval=intervals["logit"],
        baseline_accuracy=float(whole.accuracy.mean()),
        baseline_loss=float(whole.loss.mean()),
        baseline_logit=float(whole.logit.mean()),
        ablation=kind,
        split=split,
        n_examples=len(batch),
        source=model.source,
    )


def _is_resid_pre(name: str) -> bool:
    return name.endswith(".hook_resid_pre")


def _keeper(kept: dict[int, Tensor]) -> Hook:
    """A hook that keeps what it is shown, by layer."""

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[hook.layer()] = activation

    return keep
