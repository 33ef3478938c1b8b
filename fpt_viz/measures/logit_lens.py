"""What the trained output layer says of the states between blocks."""

from __future__ import annotations

from jaxtyping import Float, Float64
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.kernel import HookPoint
from fpt_viz.measures._answers import answer_names, pieces, rows_at
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import LensReadings
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task

__all__ = ["logit_lens"]


def logit_lens(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    n_examples: int = 512,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
) -> LensReadings:
    """Accuracy and logit difference of the output layer on what each block gives, as if the network ended there.

    In pre-LN families the state goes through the final norm first; in post-LN families each block ends in its own. The
    reading after the last block is the model's own. A state that reads badly may still hold the answer in another
    form: a probe tells.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        n_examples: Asked for; where the split holds fewer, all of it is used once, and the true number is recorded.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: Of the choice of examples and the bootstrap.
        batch_size: Examples in one forward pass.

    Cost: one forward pass over the examples. Memory: the states at the read-out tokens of ``batch_size`` examples.

    Raises:
        ConfigError: Fewer than one example, or none in a batch.
        UnknownNameError: No such split.

    Reference:
        nostalgebraist, 2020, "interpreting GPT: the logit lens"; here with the layer that the task trained.
    """
    task = task or model.task
    batch = task.distinct(n_examples, split, seed)
    with inspecting(model):
        read = [_readings(model, task, part) for part in pieces(model, batch, batch_size)]
    right, logit = (torch.cat(parts) for parts in zip(*read, strict=True))  # [example state answer]
    return LensReadings(
        accuracy=right.mean(0).float(),
        accuracy_interval=bootstrap_interval(right, seed=seed).float(),
        logit=logit.mean(0).float(),
        logit_interval=bootstrap_interval(logit, seed=seed).float(),
        overall=right.mean((0, 2)).float(),
        overall_interval=bootstrap_interval(right.mean(2), seed=seed).float(),
        states=("input", *map(str, range(model.backbone.n_layers))),
        answers=answer_names(task),
        chance=task.chance,
        split=split,
        n_examples=len(batch),
        note=task.note,
        source=model.source,
    )


def _readings(
    model: FrozenPretrainedTransformer, task: Task, part: Batch
) -> tuple[Float64[Tensor, "batch state answer"], Float64[Tensor, "batch state answer"]]:
    """Whether each answer is right, and by how much, from every state."""
    right, logit = [], []
    for state in _states(model, part):
        logits = model.output(state).unflatten(-1, task.output_shape)
        right.append(task.correct(logits, part.targets).flatten(1).double().cpu())
        logit.append(task.logit_difference(logits, part.targets).flatten(1).double().cpu())
    return torch.stack(right, 1), torch.stack(logit, 1)


def _states(model: FrozenPretrainedTransformer, part: Batch) -> list[Float[Tensor, "batch readout hidden"]]:
    """What the output layer is shown, were each state the last: at the read-out tokens, before the first block too."""
    backbone = model.backbone
    post_ln = "hook_normalized_resid_post" in backbone.places
    after = "hook_normalized_resid_post" if post_ln else "hook_resid_post"
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.{after}" for layer in range(backbone.n_layers))]
    rows = model.readout_tokens(part.inputs.shape[1], part.mask)
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[hook.name] = rows_at(activation, rows)

    with model.hooks([(names, keep)]):
        model(part.inputs, part.mask)
    norm = backbone.final_norm()
    return [kept[name] if norm is None else norm(kept[name]) for name in names]
