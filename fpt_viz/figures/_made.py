"""Figures that remember what they were drawn from, so that a saved file can say how it is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
import functools
import inspect
from pathlib import Path
import reprlib
import tomllib
from typing import Any, ParamSpec, get_type_hints

from fpt_viz.errors import FptVizError
from fpt_viz.export import Figure, Recipe
from fpt_viz.export.recipe import Made, note
from fpt_viz.export.settings import as_setting, fits, read_setting
from fpt_viz.records import RunRecord, store
from fpt_viz.records.files import can_load, is_record
from fpt_viz.records.run import CONFIG, RESULT
from fpt_viz.records.store import Stamp

Parameters = ParamSpec("Parameters")
MOST_LETTERS = 80
"""Of one argument in words."""
_REPR = reprlib.Repr()
"""Reads no more of a value than is shown."""
_REPR.maxstring = _REPR.maxother = MOST_LETTERS
_REPR.maxlist = _REPR.maxtuple = MOST_LETTERS // 8


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
        note(figure, _made(function, parameters, bound.arguments))
        return figure

    return drawn


def _made(
    function: Callable[..., Figure], parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> Made:
    """The call of ``function`` with ``arguments``, in words and on the command line."""
    name, hints = function.__name__, _hints(function)
    inputs: list[Path] = []
    files: dict[str, Path] = {}
    settings: list[str] = []
    records: list[RunRecord] = []
    lacking: list[str] = []
    stamp: Stamp = ()
    for option, value in arguments.items():
        shown = parameters[option].default is inspect.Parameter.empty
        if not shown and (value is None or value is parameters[option].default):
            continue
        runs = _runs(value)
        places = [_noted_run(run) for run in runs] if runs else [store.noted(value)]
        whole = [place for place in places if place is not None]
        stamp += tuple(each for _, stamps in whole for each in stamps)
        said = None if runs or shown else as_setting(value)
        if said is not None and (option not in hints or fits(read_setting(said), hints[option])):
            settings.append(f"{option}={said}")
        elif len(whole) != len(places) or not all(_readable(path, is_run=bool(runs)) for path, _ in whole):
            lacking.append(_lack(option, value))
        elif shown:
            inputs += [path for path, _ in whole]
            records += [replace(run, path=path) for run, (path, _) in zip(runs, whole, strict=False)]
        else:
            files[option] = whole[0][0]
    call = f"{name}({', '.join(f'{option}={_words(value)}' for option, value in arguments.items())})"
    if lacking:
        return Made(call=call, why_not="; ".join(lacking), inputs=(*inputs, *files.values()), stamp=stamp)
    recipe = Recipe(figure=name, inputs=tuple(inputs), settings=tuple(settings), files=files, records=tuple(records))
    return Made(call=call, recipe=recipe, stamp=stamp)


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters of ``function``; none where it names what cannot be found."""
    try:
        return get_type_hints(function)
    except NameError:
        return {}


def _runs(value: Any) -> list[RunRecord]:
    """The runs that ``value`` is or holds; empty where it is something else."""
    if isinstance(value, RunRecord):
        return [value]
    is_list = isinstance(value, list | tuple) and value and all(isinstance(each, RunRecord) for each in value)
    return list(value) if is_list else []


def _noted_run(run: RunRecord) -> tuple[Path, Stamp] | None:
    """The folder of ``run`` and its stamp, if the run was read from there and is what lies there."""
    found = store.noted(run)
    if found is None:
        return None
    try:  # its dictionaries can be changed in place
        result = store.unsealed(store.read_json(found[0] / RESULT), found[0] / RESULT)
        config = tomllib.loads((found[0] / CONFIG).read_text(encoding="utf-8"))
    except (FptVizError, OSError, ValueError):
        return None
    return found if (result, config) == (run.result, run.config) else None


def _readable(path: Path, *, is_run: bool) -> bool:
    """Whether the command line takes ``path`` for what it is."""
    return not is_record(path) if is_run else can_load(path)


def _lack(option: str, value: Any) -> str:
    """Why ``value`` cannot be said on the command line, and what would help."""
    if hasattr(value, "shape"):
        return f"{option} is an array that lies in no file: numpy.save writes one, for fpt-viz figure"
    if _runs(value):
        return f"{option} are not the runs that lie in their folders"
    place = store.file_of(value)
    if place is not None and hasattr(value, "save"):
        cure = "save it as .safetensors, a table as .json, and draw it after that"
        return f"{option} lies in {place.name}, which the command line takes for no record: {cure}"
    if hasattr(value, "save"):
        return f"{option} lies in no file, or in one that was changed since: save it, and draw it after that"
    return f"{option} cannot be said on a command line: {_words(value)}"


def _words(value: Any) -> str:
    """``value`` on one line, cut where it is long."""
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    if isinstance(value, list | tuple) and any(hasattr(each, "shape") for each in value[:MOST_LETTERS]):
        return f"<{len(value)} arrays>"
    text = " ".join(_REPR.repr(value).split())
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
