"""What measures share: the outcome of each example, from which every mean and interval is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import ConfigError
from fpt_viz.intervene import checked_parts, cutting
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects
from fpt_viz.records.parts import Part, layer_of
from fpt_viz.reference import N_REFERENCE, Ablation, StandIns
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
        yield batch[start : start + batch_size].trimmed().to(device)


def check_batch_size(batch_size: int) -> None:
    """Raise where no example would be in a batch."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")


def _outcome(model: FrozenPretrainedTransformer, task: Task, part: Batch) -> Outcomes:
    return outcomes_of(model(part.inputs, part.mask), task, part.targets)


def outcomes_of(logits: Tensor, task: Task, targets: Tensor) -> Outcomes:
    """How ``logits`` do on each example."""
    per_target = (
        task.correct(logits, targets).double(),
        _cross_entropy(logits, targets),
        task.logit_difference(logits, targets).double(),
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
    sets: Sequence[Sequence[Part]],
    *,
    kind: Ablation,
    n_examples: int,
    split: str,
    seed: int,
    batch_size: int = 256,
    reference: Batch | None = None,
) -> AblationEffects:
    """The effect of cutting each of ``sets``, paired by example with the model as it is.

    Sets that begin in the same layer share forward passes, each in its own replica of the batch, and nothing below
    that layer is computed twice. Memory: the residual stream of every layer on ``batch_size`` examples.
    """
    if not sets or not all(sets):
        raise ConfigError("nothing to ablate: name at least one head in each set")
    task = task or model.task
    checked = [checked_parts(model, parts) for parts in sets]
    told = "" if kind == "zero" else _told(task, reference)
    if reference is None and kind != "zero":
        reference = task.distinct(N_REFERENCE, "train", seed)
    stand_ins = StandIns.of(model, {part for parts in checked for part in parts}, kind, reference=reference)
    batch = task.distinct(n_examples, split, seed)
    donors = stand_ins.donors(len(batch), torch.Generator().manual_seed(seed))
    whole_parts: list[Outcomes] = []
    cut_parts: list[list[Outcomes]] = [[] for _ in sets]
    with inspecting(model):
        for start, part in zip(range(0, len(batch), batch_size), _parts(model, batch, batch_size), strict=True):
            residuals: dict[int, Tensor] = {}
            with model.hooks([(_is_resid_pre, _keeper(residuals))]):
                whole_parts.append(_outcome(model, task, part))
            who = None if donors is None else donors[start : start + len(part)]
            for first, chunk in _chunks(checked, n_replicas=max(1, batch_size // len(part))):
                cut = cutting([checked[i] for i in chunk], stand_ins, who)
                with model.hooks(cut), starting_at(model, first, _replicated(residuals[first], len(chunk))):
                    found = _outcome(model, task, _replicas(part, len(chunk)))
                for i, one in zip(chunk, _pieces(found, len(chunk)), strict=True):
                    cut_parts[i].append(one)
    return _effects(
        _joined(whole_parts),
        [_joined(found) for found in cut_parts],
        sets=tuple(checked),
        ablation=kind,
        split=split,
        seed=seed,
        reference=told,
        source=model.source,
    )


def _chunks(sets: Sequence[Sequence[Part]], *, n_replicas: int) -> Iterator[tuple[int, list[int]]]:
    """The first layer that sets change, and the indices of up to ``n_replicas`` such sets."""
    by_first: dict[int, list[int]] = {}
    for i, parts in enumerate(sets):
        by_first.setdefault(min(map(layer_of, parts)), []).append(i)
    for first, indices in sorted(by_first.items()):
        for start in range(0, len(indices), n_replicas):
            yield first, indices[start : start + n_replicas]


def _replicated(tensor: Tensor, n: int) -> Tensor:
    """``tensor`` ``n`` times along its first axis."""
    return tensor if n == 1 else tensor.repeat(n, *[1] * (tensor.ndim - 1))


def _replicas(part: Batch, n: int) -> Batch:
    mask = None if part.mask is None else _replicated(part.mask, n)
    return Batch(_replicated(part.inputs, n), _replicated(part.targets, n), mask)


def _pieces(found: Outcomes, n: int) -> Iterator[Outcomes]:
    """The outcomes of each of ``n`` replicas."""
    for values in zip(*(values.unflatten(0, (n, -1)) for values in found), strict=True):
        yield Outcomes(*values)


def _told(task: Task, reference: Batch | None) -> str:
    """The reference set in words."""
    n_examples = min(N_REFERENCE, task.n_examples("train") or N_REFERENCE)
    which = f"{n_examples} train examples" if reference is None else f"{len(reference)} examples that were given"
    return f"{which} of {task.name}, token by token"


def _effects(
    whole: Outcomes, cut: Sequence[Outcomes], *, sets: tuple[tuple[Part, ...], ...], seed: int, **told: Any
) -> AblationEffects:
    """What each cut changed, with paired intervals."""
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
        sets=sets,
        accuracy_drop=means["accuracy"],
        accuracy_interval=intervals["accuracy"],
        loss_rise=means["loss"],
        loss_interval=intervals["loss"],
        logit_drop=means["logit"],
        logit_interval=intervals["logit"],
        baseline_accuracy=float(whole.accuracy.mean()),
        baseline_loss=float(whole.loss.mean()),
        baseline_logit=float(whole.logit.mean()),
        n_examples=len(whole.accuracy),
        **told,
    )


def _is_resid_pre(name: str) -> bool:
    return name.endswith(".hook_resid_pre")


def _keeper(kept: dict[int, Tensor]) -> Hook:
    """A hook that keeps what it is shown, by layer."""

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[hook.layer()] = activation

    return keep
