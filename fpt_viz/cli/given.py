"""What a function is given on the command line: its options as text, and what a run has saved for it.

A figure's first parameter says by its type what the figure shows; further parameters of such a type that have a default
are filled where the run has it. A measure gets the model, its task and its options; ``ranking`` comes from the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import inspect
from pathlib import Path
import shlex
import tomllib
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.records import (
    AblationEffects,
    AttentionMaps,
    HeadStatistics,
    LanguageRoles,
    PatchingEffects,
    PatternShift,
    RunRecord,
    Telemetry,
    TopHeadsEffects,
)


class Saved(NamedTuple):
    """Something that may lie beside a run."""

    what: str
    read: Callable[[RunRecord], Any]
    """Gives None where it is not there."""
    command: str
    """Makes it; ``RUN`` stands for the run's folder."""


SAVED: dict[type, Saved] = {
    HeadStatistics: Saved("head statistics", RunRecord.statistics, "statistics RUN"),
    AttentionMaps: Saved("captured attention", RunRecord.maps, "capture RUN"),
    AblationEffects: Saved("effects of cutting single heads", RunRecord.ablation, "ablate RUN"),
    PatchingEffects: Saved("effects of patching", RunRecord.patching, "measure patch_activations RUN"),
    TopHeadsEffects: Saved("effects of cutting the best heads", RunRecord.top_heads, "measure ablate_top_heads RUN"),
    PatternShift: Saved("shares in what moved each head", RunRecord.what_moved, "measure what_moved RUN"),
    LanguageRoles: Saved("roles of the heads in language", RunRecord.language_roles, "measure language_roles RUN"),
    Telemetry: Saved(
        "captures made during training",
        RunRecord.telemetry,
        "train RUN/config.toml --out RUN-telemetry --set telemetry_every=50",
    ),
}
EMPTY = inspect.Parameter.empty
ON_TEST = Saved("head statistics on test", lambda record: record.statistics("test"), "statistics RUN")
"""What a parameter called ``test`` is given."""


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as a mapping; a value is read as TOML, and is a text where it is no TOML.

    Raises:
        ConfigError: A text of another form.
    """
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE, got {setting!r}; what is no setting must stand before --set")
        found[name.strip()] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    plain = list(read) == ["value"] and isinstance(read["value"], bool | int | float | str | list)
    return read["value"] if plain else text


def for_figure(
    name: str,
    figure: Callable[..., Any],
    records: Sequence[RunRecord],
    settings: Mapping[str, Any],
    *,
    arrays: Sequence[Path] = (),
) -> tuple[list[Any], dict[str, Any]]:
    """The positional and keyword arguments of ``figure``; ``arrays`` are files in the place of runs.

    Where statistics are shown, a setting ``split`` says which; those on validation unless it is there.

    Raises:
        RecordError: What it shows is not saved beside the run; the message names the command that makes it.
        ConfigError: Several runs for a figure that shows one, or an option of the wrong type.
        UnknownNameError: No such option.
    """
    hints = get_type_hints(figure)
    parameters = inspect.signature(figure).parameters
    first, *others = parameters
    shown_by = [first, *(one for one in others if _saved_types(hints[one]) and parameters[one].default is EMPTY)]
    others = [other for other in others if other not in shown_by]
    from_runs = {other for other in others if _saved_types(hints[other])}
    settings = {option: _loaded(value, hints.get(option)) for option, value in settings.items()}
    of_split = HeadStatistics in _saved_types(hints[first]) and "split" not in parameters
    split = settings.pop("split", None) if of_split else None
    options = checked_options(name, hints, settings, [other for other in others if other not in from_runs])
    if arrays:
        if not _takes_arrays(hints[first]) or len(arrays) + len(records) > 1:
            raise ConfigError(f"{name} shows {'one array' if _takes_arrays(hints[first]) else 'runs, not arrays'}")
        return [read_array(arrays[0])], options
    if not _saved_types(hints[first]) and RunRecord not in _members(hints[first]):
        raise ConfigError(f"{name} shows an array that no run holds: give it as a .npy file in the place of the run")
    if RunRecord in _members(hints[first]):
        return [list(records)], options
    if len(records) != len(shown_by):
        raise ConfigError(f"{name} shows {('one run', 'two runs')[len(shown_by) - 1]}, got {len(records)}")
    pairs = zip(shown_by, records, strict=True)
    shown = [_first_saved(name, _saved_types(hints[parameter]), record, split=split) for parameter, record in pairs]
    also = {other: _saved(other, hints[other]).read(records[0]) for other in from_runs}
    return shown, options | {other: value for other, value in also.items() if value is not None}


def read_array(path: Path) -> Any:
    """The numbers in a ``.npy`` file; nothing in it is run.

    Raises:
        RecordError: There is none, or it holds no numbers.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as an array: {error}; numpy.save writes one") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise RecordError(f"{path} holds no array of numbers")
    return found


def _takes_arrays(hint: Any) -> bool:
    import numpy as np

    return any(getattr(member, "array_type", member) is np.ndarray for member in _members(hint))


def _loaded(value: Any, hint: Any) -> Any:
    """The array that a ``.npy`` file holds, for an option that takes one."""
    named = isinstance(value, str) and value.endswith(".npy")
    return read_array(Path(value)) if named and _takes_arrays(hint) else value


def for_measure(
    name: str, measure: Callable[..., Any], record: RunRecord, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of ``measure``, which is given the model first.

    Raises:
        RecordError: It needs a ranking of the heads, and the run has no statistics.
        ConfigError: An option of the wrong type.
        UnknownNameError: No such option.
    """
    hints = get_type_hints(measure)
    own = [p for p in inspect.signature(measure).parameters if p not in ("model", "task", "ranking")]
    options = checked_options(name, hints, settings, own)
    if "ranking" in hints:
        options["ranking"] = _first_saved(name, [HeadStatistics], record).ranking()
    return options


def checked_options(
    of: str, hints: Mapping[str, Any], settings: Mapping[str, Any], known: Sequence[str]
) -> dict[str, Any]:
    """``settings``, each one of the ``known`` options and of the type that ``hints`` says."""
    for option, value in settings.items():
        if option not in known:
            raise UnknownNameError(f"option of {of}", option, known)
        if not _fits(value, hints[option]):
            wanted = hints[option].__name__ if isinstance(hints[option], type) else str(hints[option])
            raise ConfigError(f"{option} of {of} must be {wanted.replace('typing.', '')}, got {value!r}")
    return dict(settings)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if getattr(hint, "array_type", None) is not None:  # a shape of jaxtyping's
        return hasattr(value, "ndim")
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    plain = origin or hint
    is_text = isinstance(value, str)
    return isinstance(value, plain) and (plain is str) == is_text


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _saved_types(hint: Any) -> list[type]:
    return [member for member in _members(hint) if member in SAVED]


def _saved(parameter: str, hint: Any) -> Saved:
    return ON_TEST if parameter == "test" else SAVED[_saved_types(hint)[0]]


def _first_saved(name: str, types: Sequence[type], record: RunRecord, *, split: str | None = None) -> Any:
    """The first of ``types`` that lies beside the run; with a ``split``, the statistics on it."""
    wanted = SAVED[types[0]]
    readers = [SAVED[kind].read for kind in types]
    if split is not None:
        wanted = SAVED[HeadStatistics]._replace(what=f"head statistics on {split}")
        readers = [lambda record: record.statistics(split)]
    for read in readers:
        found = read(record)
        if found is not None:
            return found
    raise RecordError(
        f"{name} needs {wanted.what}, and there are none beside the run in {record.path}: "
        f"fpt-viz {wanted.command.replace('RUN', shlex.quote(str(record.path)))} makes them"
    )
