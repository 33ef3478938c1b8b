"""What widgets that run a model ask of whatever they are handed."""

from __future__ import annotations

from typing import Any

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
