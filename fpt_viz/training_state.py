"""All that a training run needs to go on where it was: trained tensors, optimizer, random states and counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from typing import Any

import torch
from torch import Tensor

from fpt_viz.config import TrainConfig
from fpt_viz.errors import RecordError
from fpt_viz.model import FrozenPretrainedTransformer

MOMENTS = ("exp_avg", "exp_avg_sq")
N_RIGHT_CHECKS = 2
"""Checks in a row with every validation target right, for a task to count as solved."""


class TrainingState:
    """Where the training of ``model`` stands; mutable, and kept up to date by :func:`fpt_viz.train`."""

    def __init__(self, model: FrozenPretrainedTransformer, config: TrainConfig) -> None:
        self.trained = model.trained_tensors()
        self.parameters = list(self.trained.values())
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, fused=self.device.type in ("cpu", "cuda")
        )
        self.data_rng = torch.Generator().manual_seed(config.seed)
        """Draws the examples."""
        self.n_steps = 0
        """Gradient steps taken."""
        self.elapsed_seconds = 0.0
        self.n_right_checks = 0
        """Checks in a row, up to the last, with every validation target right."""
        self.first_right_check: int | None = None
        """Steps taken at the first of them."""
        self.steps_to_solve: int | None = None
        self.n_cached = 0
        """Training examples whose features were kept, where the output layer alone learns."""
        self.n_parts = 1
        """Parts that each batch is computed in, as decided when the training started."""
        self.before_save: Callable[[], None] = _nothing
        """Called before the state is saved; raises where it must not be."""
        self._rng = _rng_of_seed(config.seed, self.device)

    @contextlib.contextmanager
    def own_rng(self) -> Iterator[None]:
        """The run's own random state within the block, for dropout; the caller's is put back."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            _set_rng(self._rng, self.device)
            yield
            self._rng = _get_rng(self.device)

    def note_check(self, *, solved: bool) -> None:
        """Count a check on the validation split; ``solved`` says that every target was right."""
        if not solved:
            self.n_right_checks, self.first_right_check = 0, None
            return
        self.n_right_checks += 1
        self.first_right_check = self.first_right_check or self.n_steps
        if self.n_right_checks >= N_RIGHT_CHECKS and self.steps_to_solve is None:
            self.steps_to_solve = self.first_right_check

    def done(self, config: TrainConfig) -> bool:
        """Whether the run stops here because its task is solved."""
        return config.stop_when_solved and self.steps_to_solve is not None

    def _counter(self, steps: Tensor) -> Tensor:
        """Adam's count of steps where it wants it: on the GPU, where it counts there."""
        return steps.to(self.device) if self.device.type == "cuda" else steps

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is a tensor, by name.

        Raises:
            TrainingError: A step since the last look was not finite.
        """
        self.before_save()
        found = {f"trained.{name}": parameter.detach() for name, parameter in self.trained.items()}
        for name, parameter in self.trained.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"adam.{key}.{name}"] = torch.as_tensor(value)
        found |= {f"rng.{name}": value for name, value in self._rng.items()}
        return found | {"rng.data": self.data_rng.get_state()}

    def fields(self) -> dict[str, Any]:
        """Everything else, as plain data."""
        names = ("n_steps", "elapsed_seconds", "n_right_checks", "first_right_check", "steps_to_solve")
        return {name: getattr(self, name) for name in names}

    def restore(self, tensors: dict[str, Tensor], fields: dict[str, Any], where: str) -> None:
        """Become the state that was saved as ``tensors`` and ``fields``.

        Raises:
            RecordError: They are of another model or device; ``where`` names the file.
        """
        known = {f"trained.{name}" for name in self.trained}
        if known != {name for name in tensors if name.startswith("trained.")}:
            raise RecordError(f"{where} holds other trained tensors than the config describes")
        if set(self._rng) != {name.removeprefix("rng.") for name in tensors if name.startswith("rng.")} - {"data"}:
            raise RecordError(f"{where} was saved on another kind of device than {self.device.type}: resume it there")
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"trained.{name}"])
        for name, parameter in self.trained.items():
            if f"adam.step.{name}" in tensors:
                moments = {key: tensors[f"adam.{key}.{name}"].to(self.device) for key in MOMENTS}
                self.optimizer.state[parameter] = {"step": self._counter(tensors[f"adam.step.{name}"]), **moments}
        self._rng = {name: tensors[f"rng.{name}"] for name in self._rng}
        self.data_rng.set_state(tensors["rng.data"])
        for name, value in fields.items():
            setattr(self, name, value)


def _nothing() -> None:
    """What is called where nothing is to be done."""


def _rng_of_seed(seed: int, device: torch.device) -> dict[str, Tensor]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _get_rng(device)


def _get_rng(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_rng(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
