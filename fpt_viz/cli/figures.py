"""The command that draws figures, and tells of those that it has drawn."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
import contextlib
import io
import os
from pathlib import Path
import shlex
from typing import TYPE_CHECKING, Any

from fpt_viz import registry
from fpt_viz.cli.answer import Answer
from fpt_viz.errors import ConfigError, FptVizError, RecordError, UnknownNameError

if TYPE_CHECKING:
    from fpt_viz.export import Figure, Recipe

PAGE = ("preset", "width_mm", "font_size", "font_family", "headed", "max_height_mm", "dpi", "format")
"""Options that say how a figure is drawn, not what."""


def figure(arguments: Namespace) -> Answer:
    """A figure of saved runs, in a file; or whether one that was saved still matches them, or that one again."""
    if arguments.check is not None or arguments.again is not None:
        if arguments.name or arguments.out or (arguments.check and arguments.again):
            raise ConfigError("--check and --again take the file of a saved figure, and nothing beside it")
        if arguments.check is not None:
            return _checked(arguments.check, arguments.parse)
        return _again(arguments.again, arguments.parse)
    missing = [
        word for word, given in (("NAME", arguments.name), ("RUN", arguments.runs), ("-o", arguments.out)) if not given
    ]
    if missing:
        greedy = " (what stands after --set belongs to it)" if arguments.settings else ""
        told = ", ".join(missing)
        raise ConfigError(f"the following arguments are required: {told}{greedy}; see fpt-viz figure --help")
    _check_page(arguments)
    from fpt_viz.export import provenance

    drawn, recipe = _described(arguments)
    path = drawn.save(arguments.out, recipe=recipe, **_page(arguments))
    data = {
        "path": path,
        "title": drawn.title,
        "alt": drawn.alt,
        "caption": drawn.caption(),
        "caveat": drawn.caveat,
        "command": provenance.read(path)["command"],
    }
    return Answer(data, [f"{drawn.title}, saved as {path}", *([drawn.caveat] if drawn.caveat else [])])


def paper_kit(arguments: Namespace) -> Answer:
    """Every figure and table that runs allow, in a folder."""
    from fpt_viz.export import PRESETS
    from fpt_viz.paper_kit import write_kit

    if arguments.preset not in PRESETS:
        raise UnknownNameError("preset", arguments.preset, PRESETS)
    kit = write_kit(arguments.runs, arguments.out, preset=arguments.preset, text_only=arguments.text_only)
    data = {"out": kit.out, "figures": kit.figures, "tables": kit.tables, "skipped": kit.skipped}
    left_out = [f"without {name}: {why}" for name, why in kit.skipped.items()]
    n_figures = 0 if arguments.text_only else len(kit.figures)
    return Answer(data, [f"{n_figures} figures and {len(kit.tables)} tables in {kit.out}", *left_out])


def _page(arguments: Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in PAGE}


def _check_page(arguments: Namespace) -> None:
    """Raise for a preset or file type that is not there, before anything is read."""
    from fpt_viz.export import PRESETS, SUFFIXES

    if arguments.preset not in PRESETS:
        raise UnknownNameError("preset", arguments.preset, PRESETS)
    suffix = arguments.format or arguments.out.suffix.removeprefix(".")
    if suffix.lower() not in SUFFIXES:
        raise UnknownNameError("file type", suffix, SUFFIXES)


def _described(arguments: Namespace) -> tuple[Figure, Recipe]:
    """The figure that ``arguments`` ask for, and how it was made."""
    from fpt_viz.cli.given import for_figure, parsed
    from fpt_viz.export import Recipe

    function = registry.load("figures", arguments.name)
    asked = for_figure(arguments.name, function, arguments.runs, parsed(arguments.settings))
    drawn: Figure = function(*asked.shown, **asked.options)
    recipe = Recipe(
        figure=arguments.name,
        inputs=tuple(arguments.runs),
        settings=tuple(each for each in arguments.settings if each.partition("=")[0].strip() not in asked.files),
        files=asked.files,
        records=asked.records,
    )
    return drawn, recipe


def _checked(path: Path, parse: Callable[..., Any]) -> Answer:
    """Whether the numbers drawn in ``path`` are still those of its runs."""
    from fpt_viz.export import numbers, provenance
    from fpt_viz.records import store

    told = provenance.read(path)
    asked = _asked(path, told, parse)
    differences = []
    if "sha256" in told and store.sha256(path) != told["sha256"]:
        differences.append(f"{path} is no longer the file that was saved")
    try:
        with _inside(path.parent):
            drawn, recipe = _described(asked)
            now = provenance.about(drawn, Path(path.name), recipe=recipe)
        differences += _inputs_that_differ(told, now)
        if numbers.sha256(drawn) != told["numbers_sha256"]:
            differences.append("the numbers drawn are no longer those of its runs")
    except FptVizError as error:
        differences.append(f"it cannot be made again: {error}")
    data = {"path": path, "matches": not differences, "differences": differences, "command": told["command"]}
    if not differences:
        return Answer(data, [f"{path} matches its runs"])
    again = f"fpt-viz figure --again {shlex.quote(str(path))} makes it anew"
    return Answer(data, [f"{path} does not match its runs", *differences, again], exit_code=2)


def _inputs_that_differ(told: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Which runs are others than those that were drawn."""
    before, after = ({each["path"]: each for each in facts.get("inputs", [])} for facts in (told, now))
    found = [f"{path}: the file does not say that it was drawn of it" for path in after if path not in before]
    found += [f"{path}: its command does not draw it" for path in before if path not in after]
    for path in (path for path in before if path in after):
        was, is_now = before[path], after[path]
        for name in ("run", "config_sha256", "step", "seed", "data_revision", "sha256"):
            if was.get(name) != is_now.get(name):
                found.append(f"{path}: {name} was {was.get(name)}, is {is_now.get(name)}")
    return found


def _again(path: Path, parse: Callable[..., Any]) -> Answer:
    """The figure at ``path``, made anew by the command that it carries."""
    told_of = path if path.is_file() else None
    from fpt_viz.export import provenance
    from fpt_viz.records import store

    told = provenance.read(path)
    asked = _asked(path, told, parse)
    before = store.sha256(path) if told_of else None
    with _inside(path.parent):
        drawn, recipe = _described(asked)
        drawn.save(asked.out, recipe=recipe, **_page(asked))
    same = store.sha256(path) == before
    data = {"path": path, "same_bytes": same, "command": told["command"]}
    return Answer(data, [f"{drawn.title}, saved as {path}", "the same bytes" if same else "other bytes than before"])


def _asked(path: Path, told: dict[str, Any], parse: Callable[..., Any]) -> Namespace:
    """The arguments of the command that made ``path``."""
    command = told.get("command")
    if not command:
        call = f", by {told['call']}" if told.get("call") else ""
        raise RecordError(
            f"{path} was saved from Python{call}, and no command makes it: {told.get('no_command', 'it names none')}"
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise RecordError(f"{path} names a command that cannot be read ({error}): {command}") from error
    if words[:2] != ["fpt-viz", "figure"]:
        raise RecordError(f"{path} names another command than fpt-viz figure: {command}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # of --help
            asked: Namespace = parse(words[1:])[1]
    except SystemExit:
        raise RecordError(f"{path} names a command that draws no figure: {command}") from None
    except (FptVizError, ValueError) as error:
        raise RecordError(f"{path} names a command that cannot be read ({error}): {command}") from error
    if str(asked.name).endswith(".py"):
        raise RecordError(f"{path} was drawn by code of your own, {asked.name}, which is not run unasked: {command}")
    drawn = asked.name is not None and asked.runs and asked.out is not None
    if asked.check is not None or asked.again is not None or not drawn:
        raise RecordError(f"{path} names a command that draws no figure: {command}")
    if asked.out.name != str(asked.out):
        raise RecordError(f"{path} names a command that writes elsewhere: {command}")
    asked.out = Path(path.name)  # the file may have been renamed
    return asked


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in ``folder``, where a figure's own paths are right."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
