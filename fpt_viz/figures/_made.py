"""Figures that remember what they were drawn from, so that a saved file can say how it is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import functools
import inspect
from pathlib import Path
import tomllib
from typing import Any, ParamSpec

from fpt_viz.errors import FptVizError
from fpt_viz.export import Figure, Recipe
from fpt_viz.export.recipe import Made, as_setting, note
from fpt_viz.records import RunRecord, store
from fpt_viz.records.run import CONFIG, RESULT

Parameters = ParamSpec("Parameters")
MOST_LETTERS = 80
"""Of one argument in words."""


def remembered(function: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Let every figure that ``function`` draws know its arguments by the files that hold them.

    ``function`` is the public one of its file, which is called as it is.
    """
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        try:
            bound = inspect.signature(function).bind(*args, **kwargs)
        except TypeError:  # Python says it better
            return function(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = list(value) if isinstance(value, Iterator) else value  # to be read twice
        figure = function(*bound.args, **bound.kwargs)
        note(figure, _made(function.__name__, parameters, bound.arguments))
        return figure

    return drawn


def _made(name: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]) -> Made:
    """The call of ``name`` with ``arguments``, in words and on the command line."""
    inputs: list[Path] = []
    files: dict[str, Path] = {}
    settings: list[str] = []
    records: list[RunRecord] = []
    lacking: list[str] = []
    for option, value in arguments.items():
        shown = parameters[option].default is inspect.Parameter.empty
        if not shown and (value is None or value is parameters[option].default):
            continue
        runs = _runs(value)
        places = [_folder(run) for run in runs] if runs else [store.file_of(value)]
        whole = [place for place in places if place is not None]
        said = None if runs or shown else as_setting(value)
        if said is not None:
            settings.append(f"{option}={said}")
        elif len(whole) != len(places):
            lacking.append(_lack(option, value))
        elif shown:
            inputs += whole
            records += runs
        else:
            files[option] = whole[0]
    call = f"{name}({', '.join(f'{option}={_words(value)}' for option, value in arguments.items())})"
    if lacking:
        return Made(call=call, why_not="; ".join(lacking), inputs=(*inputs, *files.values()))
    recipe = Recipe(figure=name, inputs=tuple(inputs), settings=tuple(settings), files=files, records=tuple(records))
    return Made(call=call, recipe=recipe)


def _runs(value: Any) -> list[RunRecord]:
    """The runs that ``value`` is or holds; empty where it is something else."""
    if isinstance(value, RunRecord):
        return [value]
    is_list = isinstance(value, list | tuple) and value and all(isinstance(each, RunRecord) for each in value)
    return list(value) if is_list else []


def _folder(run: RunRecord) -> Path | None:
    """The folder of ``run`` if the run is what lies there."""
    try:
        result = store.unsealed(store.read_json(run.path / RESULT), run.path / RESULT)
        config = tomllib.loads((run.path / CONFIG).read_text(encoding="utf-8"))
    except (FptVizError, OSError, ValueError):
        return None
    return run.path if (result, config) == (run.result, run.config) else None


def _lack(option: str, value: Any) -> str:
    """Why ``value`` cannot be said on the command line, and what would help."""
    if hasattr(value, "shape"):
        return f"{option} is an array that lies in no file: numpy.save writes one, for fpt-viz figure"
    if _runs(value):
        return f"{option} are not the runs that lie in their folders"
    if hasattr(value, "save"):
        return f"{option} lies in no file, or in one that was changed since: save it, and draw it after that"
    return f"{option} cannot be said on a command line: {_words(value)}"


def _words(value: Any) -> str:
    """``value`` on one line, cut where it is long."""
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    if isinstance(value, list | tuple) and any(hasattr(each, "shape") for each in value):
        return f"<{len(value)} arrays>"
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
