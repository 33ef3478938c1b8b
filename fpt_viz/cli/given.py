"""What a function is given on the command line: its options as text, and what a run has saved for it.

A figure's first parameter says by its type what the figure shows; further parameters of such a type that have a default
are filled where the run has it. A measure gets the model, its task and its options; ``ranking`` comes from the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import inspect
from pathlib import Path
import shlex
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.export.settings import fits, read_setting
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
    load_run,
)
from fpt_viz.records.files import is_record, load_record


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
        found[name.strip()] = read_setting(text.strip())
    return found


class Asked(NamedTuple):
    """What a figure is given."""

    shown: list[Any]
    options: dict[str, Any]
    files: dict[str, Path]
    """Those of the options that were read from a file."""
    records: tuple[RunRecord, ...]
    """The runs that were read."""


def for_figure(name: str, figure: Callable[..., Any], inputs: Sequence[Path], settings: Mapping[str, Any]) -> Asked:
    """The positional and keyword arguments of ``figure``.

    ``inputs`` are folders of runs, from which what the figure shows is read; or, in their place, the file of one record
    or of one array. Where statistics of a run are shown, a setting ``split`` says which; those on validation unless it
    is there.

    Raises:
        RecordError: What it shows is not saved beside the run; the message names the command that makes it.
        ConfigError: Several runs for a figure that shows one, a file of something else, or an option of the wrong type.
        UnknownNameError: No such option.
    """
    hints = get_type_hints(figure)
    parameters = inspect.signature(figure).parameters
    first, *others = parameters
    shown_by = [first, *(one for one in others if _saved_types(hints[one]) and parameters[one].default is EMPTY)]
    others = [other for other in others if other not in shown_by]
    from_runs = {other for other in others if _saved_types(hints[other])}
    given = [_read(path) for path in inputs]
    records = [each for each in given if isinstance(each, RunRecord)]
    files = {option: Path(value) for option, value in settings.items() if _names_file(value, hints.get(option))}
    settings = {**settings, **{option: _loaded(path) for option, path in files.items()}}
    of_split = HeadStatistics in _saved_types(hints[first]) and "split" not in parameters and bool(records)
    split = settings.pop("split", None) if of_split else None
    options = checked_options(name, hints, settings, [one for one in others if one not in from_runs or one in files])
    if RunRecord in _members(hints[first]):
        if len(records) < len(given):
            raise ConfigError(f"{name} shows runs, not arrays or other files: give the folders of runs")
        return Asked([records], options, files, tuple(records))
    if any(map(_is_array, given)) or not _saved_types(hints[first]):
        return Asked([_one_array(name, hints[first], given)], options, files, ())
    if len(given) != len(shown_by):
        raise ConfigError(f"{name} shows {('one run', 'two runs')[len(shown_by) - 1]}, got {len(given)}")
    shown = [
        _shown(name, _saved_types(hints[parameter]), each, path, split=split)
        for parameter, each, path in zip(shown_by, given, inputs, strict=True)
    ]
    if isinstance(given[0], RunRecord):
        also = {other: _saved(other, hints[other]).read(given[0]) for other in from_runs if other not in files}
        options |= {other: value for other, value in also.items() if value is not None}
    return Asked(shown, options, files, tuple(records))


def _read(path: Path) -> Any:
    """The run in the folder ``path``, or what the file ``path`` holds."""
    if path.suffix == ".npy" and not path.is_dir():
        return read_array(path)
    return load_record(path) if is_record(path) else load_run(path)


def _one_array(name: str, hint: Any, given: Sequence[Any]) -> Any:
    """The array that is shown, where it is all that was given."""
    if not _takes_arrays(hint):
        raise ConfigError(f"{name} shows runs, not arrays")
    if len(given) > 1:
        raise ConfigError(f"{name} shows one array, got {len(given)} runs or files")
    if not _is_array(given[0]):
        raise ConfigError(f"{name} shows an array that no run holds: give it as a .npy file in the place of the run")
    return given[0]


def _shown(name: str, types: Sequence[type], given: Any, path: Path, *, split: str | None) -> Any:
    """What is shown of ``given``: the first of ``types`` beside a run, or a record that is one of them."""
    if isinstance(given, RunRecord):
        return _first_saved(name, types, given, split=split)
    if not isinstance(given, tuple(types)):
        wanted = " or ".join(SAVED[kind].what for kind in types)
        raise ConfigError(f"{name} shows {wanted}; {path} holds {SAVED[type(given)].what}")
    return given


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


def _is_array(value: Any) -> bool:
    return hasattr(value, "ndim")


def _names_file(value: Any, hint: Any) -> bool:
    """Whether a setting names the file of an array or record, for an option that takes one."""
    if not isinstance(value, str):
        return False
    array = value.endswith(".npy") and _takes_arrays(hint)
    return array or (bool(_saved_types(hint)) and is_record(Path(value)))


def _loaded(path: Path) -> Any:
    return read_array(path) if path.suffix == ".npy" else load_record(path)


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
        if not fits(value, hints[option]):
            wanted = hints[option].__name__ if isinstance(hints[option], type) else str(hints[option])
            raise ConfigError(f"{option} of {of} must be {wanted.replace('typing.', '')}, got {value!r}")
    return dict(settings)


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
