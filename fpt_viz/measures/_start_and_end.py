"""What training changed, group by group, and a model that is partly as it was at its start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.freeze import NEW_POSITIONS, group_of
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import store
from fpt_viz.records.run import ADAPTER_INITIAL

ALWAYS_TOLD = ("input", "position", "layer_norm")
"""What the paper trains upstream of attention: told also where it was not trained, with a share of 0."""
ORDER = ("input", "position", NEW_POSITIONS, "layer_norm", "feed_forward", "attention", "token")
"""Of the groups in a record; the output layer is not upstream of any pattern."""


@dataclass(frozen=True, kw_only=True)
class StartAndEnd:
    """The trained tensors upstream of attention, at the start of training and now."""

    model: FrozenPretrainedTransformer
    groups: tuple[str, ...]
    """All that are told of."""
    moved: dict[str, tuple[str, ...]]
    """The tensors that differ from the start, by group; groups that are as they were are left out."""
    start: dict[str, Tensor]
    end: dict[str, Tensor]

    @classmethod
    def of(cls, model: FrozenPretrainedTransformer, start: Mapping[str, Tensor] | None) -> StartAndEnd:
        """What moved in ``model`` since ``start``; None reads the start that its run kept.

        Raises:
            ConfigError: There is no start, it is another model's, or nothing upstream of attention differs from it.
            RecordError: The file of the run's start is missing or damaged.
        """
        trained, table = model.trained_tensors(), model.parameter_groups()
        start = dict(_start_of(model) if start is None else start)
        _check_fits(start, trained)
        group = {name: group_of(name, table) for name in trained}
        differs = [name for name, now in trained.items() if not torch.equal(start[name].to(now), now)]
        moved = {g: tuple(name for name in differs if group[name] == g) for g in ORDER}
        moved = {g: names for g, names in moved.items() if names}
        if not moved:
            raise ConfigError(
                f"no trained tensor upstream of attention differs from the start (trained: "
                f"{', '.join(model.trained)}; step {model.step}), so no pattern moved and nothing can be shared out: "
                "give a trained model, one of whose input, position or layer_norm learned"
            )
        there = {group_of(name, table) for name, _ in model.named_parameters()}
        told = tuple(g for g in ORDER if g in moved or (g in ALWAYS_TOLD and g in there))
        names = [name for members in moved.values() for name in members]
        end = {name: trained[name].detach().clone() for name in names}
        return cls(model=model, groups=told, moved=moved, start={n: start[n].to(end[n]) for n in names}, end=end)

    @contextlib.contextmanager
    def mixing(self) -> Iterator[Callable[[Collection[str]], None]]:
        """A function that puts the named groups where training left them and all others at their start.

        The model is as it was on leaving the block, also after an error.
        """
        parameters = self.model.trained_tensors()

        def put(groups: Collection[str]) -> None:
            for group, names in self.moved.items():
                values = self.end if group in groups else self.start
                _write(parameters, {name: values[name] for name in names})

        try:
            yield put
        finally:
            _write(parameters, self.end)


@torch.no_grad()
def _write(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)


def _start_of(model: FrozenPretrainedTransformer) -> dict[str, Tensor]:
    """The trained tensors before the first step, from the folder of the model's run."""
    if model.run_path is None:
        raise ConfigError(
            f"the start of this model of {model.task.name} is not known: it was loaded from no run. Load it with "
            "load_model(load_run(FOLDER)), or give start=, its trained_tensors() cloned before training"
        )
    path = model.run_path / ADAPTER_INITIAL
    if not path.is_file():
        raise RecordError(
            f"{path} is missing, and with it the start of the run: restore it, or train again with --overwrite"
        )
    return store.read_tensors(path, "adapter")[0]


def _check_fits(start: Mapping[str, Tensor], trained: Mapping[str, nn.Parameter]) -> None:
    """Raise where ``start`` is of another model than the one whose ``trained`` tensors are given."""
    if set(start) != set(trained):
        odd = sorted(set(start) ^ set(trained))
        raise ConfigError(
            f"the start holds {len(start)} tensors and the model trains {len(trained)}; they differ in "
            f"{', '.join(odd[:3])}: give the start of this very model"
        )
    for name, tensor in start.items():
        if tensor.shape != trained[name].shape:
            raise ConfigError(
                f"{name} has shape {tuple(tensor.shape)} at the start and {tuple(trained[name].shape)} now: give the "
                "start of this very model"
            )
