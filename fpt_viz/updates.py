"""Gradient steps: forward and backward passes, one update, and a stop before numbers that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
import math

import torch
from torch import Tensor, nn

from fpt_viz.config import TrainConfig
from fpt_viz.errors import TrainingError
from fpt_viz.tasks import Batch, Task
from fpt_viz.tasks.base import sent
from fpt_viz.training_state import TrainingState

LOOK_EVERY = 20
"""Steps from one look at the numbers to the next, where a look makes the host wait for the device."""

Forward = Callable[[Batch], AbstractContextManager[Callable[[], Tensor]]]
"""Of a batch, a block in which a function returns its logits; the backward pass belongs into the block."""


class Updates:
    """The gradient steps of one training, on what ``state`` holds.

    On the CPU the numbers of each step are looked at before it counts. Elsewhere a look would wait for the device, so
    the first step whose loss or gradient is not finite, and every later one, is left out on the device itself, and the
    host looks at each :data:`LOOK_EVERY`-th, and before anything is saved.
    """

    def __init__(self, task: Task, state: TrainingState, config: TrainConfig, *, waits: bool | None = None) -> None:
        """See the class.

        Args:
            task: For loss and accuracy.
            state: Whose tensors and optimizer are changed.
            config: For the norm to which gradients are clipped.
            waits: Look at every step; None does on the CPU.
        """
        self.task, self.state, self.config = task, state, config
        self.waits = state.device.type != "cuda" if waits is None else waits
        self._first_bad = torch.full((), -1, device=state.device)
        """The first step whose numbers are not finite; -1 while there is none."""
        if not self.waits:
            state.before_save = self.look

    def take(self, parts: Sequence[Batch], forward: Forward, rate: float) -> dict[str, Tensor]:
        """One gradient step at the learning rate ``rate``.

        Args:
            parts: The batch, cut into what is computed at once.
            forward: How the logits of a part are computed.
            rate: The learning rate.

        Returns:
            The batch's mean loss and accuracy, and the norm of its gradient before clipping: on the device, unread.

        Raises:
            TrainingError: The loss or gradient is not finite; the weights are as before the first such step.
        """
        optimizer, device = self.state.optimizer, self.state.device
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        n_examples = sum(map(len, parts))
        loss, accuracy = torch.zeros((), device=device), torch.zeros((), device=device)
        for part in parts:
            share, targets = len(part) / n_examples, sent(part.targets, device)
            with forward(part) as logits_of:
                logits = logits_of()
                of_part = self.task.loss(logits, targets) * share
                of_part.backward()
            loss += of_part.detach()
            accuracy += self.task.correct(logits.detach(), targets).float().mean() * share
        norm = nn.utils.clip_grad_norm_(self.state.parameters, self.config.max_grad_norm)
        measured = {"loss": loss, "accuracy": accuracy, "grad_norm": norm.detach()}
        self._update(measured)
        return measured

    def _update(self, measured: dict[str, Tensor]) -> None:
        if self.waits:
            for name in ("loss", "grad_norm"):
                _check_finite(name, float(measured[name]), self.state.n_steps)
            self._step()
            return
        finite = torch.isfinite(measured["loss"]) & torch.isfinite(measured["grad_norm"])
        first = torch.logical_not(finite) & (self._first_bad < 0)
        self._first_bad = torch.where(first, self.state.n_steps, self._first_bad)
        self.state.optimizer.found_inf = (self._first_bad >= 0).float()  # type: ignore[attr-defined]  # fused Adam then changes nothing
        self._step()

    def _step(self) -> None:
        """One step of the optimizer, told to whoever asks whether a tensor was written to: fused Adam does not."""
        self.state.optimizer.step()
        for parameter in self.state.parameters:
            torch.autograd.graph.increment_version(parameter)

    def due(self) -> bool:
        """Whether the host looks at the numbers after the step just taken."""
        every = (LOOK_EVERY, self.config.checkpoint_every, self.config.validate_every or LOOK_EVERY)
        n_steps = self.state.n_steps
        return not self.waits and (n_steps == self.config.n_steps or any(n_steps % n == 0 for n in every))

    def look(self) -> None:
        """Wait for the device, and stop if a step was not finite.

        Raises:
            TrainingError: One was.
        """
        first_bad = int(self._first_bad)
        if first_bad >= 0:
            _check_finite("loss or gradient", math.nan, first_bad)


def _check_finite(name: str, value: float, n_steps: int) -> None:
    if not math.isfinite(value):
        what = {"grad_norm": "gradient's norm"}.get(name, name)
        raise TrainingError(
            f"the {what} is {value} at step {n_steps}, and the weights are left as before it: lower "
            "train.learning_rate; where it happens at step 0 with input_init=paper, a zero input makes it, and "
            "input_init=matched cures that"
        )
