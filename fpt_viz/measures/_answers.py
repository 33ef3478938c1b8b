"""What measures that explain an answer share: which numbers are explained, their names, and batches to explain."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch, Task

EXPLAINED = ("target", "difference", "all")


def checked_of(of: str, known: tuple[str, ...] = EXPLAINED) -> str:
    """``of``, if it is one of ``known``."""
    if of not in known:
        raise UnknownNameError("logit to explain", of, known)
    return of


def coefficients(
    task: Task, logits: Float[Tensor, "batch readout *outputs"], targets: Int[Tensor, " batch *target"], of: str
) -> Float[Tensor, "batch answer number classes"]:
    """What the logits of each answer are multiplied by and summed, to give the numbers that are explained.

    Of a difference, the best other class is the one that is best here, and stays it whatever is changed later: so the
    number is linear in the logits.
    """
    n_classes = task.n_classes
    flat = logits.detach().reshape(len(logits), -1, n_classes)
    if of == "all":
        return torch.eye(n_classes, dtype=flat.dtype, device=flat.device).expand(*flat.shape[:2], -1, -1)
    right = targets.reshape(len(logits), -1, 1).to(flat.device)
    found = torch.zeros_like(flat).scatter(-1, right, 1.0)
    if of == "difference":
        best = flat.scatter(-1, right, -torch.inf).argmax(-1, keepdim=True)
        found = found.scatter(-1, best, -1.0)
    return found[:, :, None]


def answer_names(task: Task) -> tuple[str, ...]:
    """One name an answer: that of the token that gives it where inputs are of one length; numbered where it gives many.

    Where examples differ in length there is no such token, and answers are numbered.
    """
    n_each = torch.Size(task.output_shape[:-1]).numel()
    last = task.token_names()[-task.n_readout :]
    if n_each == 1:
        return tuple(last)
    return tuple(f"{name}.{i}" for name in last for i in range(n_each))


def given_or_drawn(
    model: FrozenPretrainedTransformer, batch: Batch | None, n_examples: int, split: str, seed: int
) -> tuple[Batch, str]:
    """``batch``, or distinct examples of the model's own task, and the split that they are of; empty where given."""
    if batch is None:
        return model.task.distinct(n_examples, split, seed), split
    if not len(batch):
        raise ConfigError(f"an empty batch of {model.task.name} was given: give at least 1 example")
    return batch, ""


def pieces(model: FrozenPretrainedTransformer, batch: Batch, batch_size: int) -> Iterator[Batch]:
    """``batch`` in pieces, on the model's device, without columns that are padding in all of a piece."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    device = next(model.parameters()).device
    for start in range(0, len(batch), batch_size):
        yield batch[start : start + batch_size].trimmed().to(device)


def rows_at(activation: Tensor, tokens: Int[Tensor, "batch row"]) -> Tensor:
    """Of each example of ``activation``, ``[batch pos ...]``, the rows of ``tokens``."""
    examples = torch.arange(len(activation), device=activation.device)[:, None]
    return activation[examples, tokens.expand(len(activation), -1)]
