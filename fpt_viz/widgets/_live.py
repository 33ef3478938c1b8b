"""What widgets that run a model ask of whatever they are handed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records import LiveModel, RunRecord


def live_model(source: Any, widget: str) -> LiveModel:
    """``source``, if it is a model that can be run.

    Raises:
        ConfigError: It is less than that; the message says how to get one.
    """
    if isinstance(source, LiveModel):
        return source
    if isinstance(source, RunRecord):
        raise ConfigError(
            f"{widget} runs the model, and was given the record of the run in {source.path}: load its model, "
            f"{widget}(fpt_viz.load_model(record))"
        )
    raise ConfigError(
        f"{widget} runs the model, and was given {type(source).__name__}, which cannot be run: give it a model, such "
        "as fpt_viz.load_model(record) or the one that was trained"
    )


def logits_of(model: LiveModel, batch: Any) -> Tensor:
    """The logits on ``batch``, in eval mode and without gradients, whatever the mode of the model."""
    return model.run_with_cache(batch.inputs, batch.mask, names_filter=[])[0]


def device_of(model: Any) -> Any:
    """Where the model computes."""
    return next(iter(model.parameters())).device
