"""The commands that read what is saved, and those about this machine."""

from __future__ import annotations

from argparse import Namespace
import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
import os
from pathlib import Path
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from fpt_viz import registry
from fpt_viz.cli.answer import Answer, Table
from fpt_viz.cli.words import noted, percent, span, word
from fpt_viz.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from fpt_viz.records import RunRecord
    from fpt_viz.shipped import Copied

FOLDERS = {"analyses": "analysis"} | {name: name for name in ("tasks", "measures", "figures", "experiments")}
"""What can be listed without importing it, and the folder of it."""


def compare(arguments: Namespace) -> Answer:
    """Several runs, or folders of runs, one row a system; what is not finished, or cannot be read, is told."""
    from fpt_viz.tables import compared

    records, unfinished, refused = _records(arguments.runs)
    rows = compared(records)
    columns = ("system", "task", "seeds", "test accuracy", "95 % interval", "chance", "solved", "steps", "paper")
    cells = [
        (
            row.system,
            row.task,
            word(row.seeds),
            percent(row.mean),
            span([100 * bound for bound in row.interval], 2),
            percent(row.chance),
            *_solved(row.steps_to_solve),
            "-" if row.paper is None else percent(row.paper),
        )
        for row in rows
    ]
    notes = dict.fromkeys(line for row in rows for line in noted(row.note, row.task))
    told = [f"not finished, and not in the table: {path}{why and f' ({why})'}" for path, why in unfinished.items()]
    told += _not_read(refused)
    data = {"rows": [asdict(row) for row in rows], "unfinished": [str(path) for path in unfinished]}
    data["not_read"] = [{"run": str(path), "why": why} for path, why in refused.items()]
    return Answer(data, [Table(columns, cells), *notes, *told])


def _not_read(refused: Mapping[Path, str]) -> list[str]:
    """What is said of runs below a folder that :func:`_records` could not read."""
    return [f"not read: {path}: {why}" for path, why in refused.items()]


def _solved(steps: Sequence[int | None]) -> tuple[str, str]:
    """How many of the runs solved their task, and the median of their steps; one that did not counts as longest."""
    solved = sorted(step for step in steps if step is not None)
    if not solved:
        return f"0 of {len(steps)}", "-"
    middle = (len(steps) - 1) // 2
    return f"{len(solved)} of {len(steps)}", str(solved[middle]) if middle < len(solved) else "-"


def _records(paths: Sequence[Path]) -> tuple[list[RunRecord], dict[Path, str], dict[Path, str]]:
    """The finished runs at ``paths`` or in folders below them; why others there are not finished, or not read.

    Raises:
        RecordError: One of ``paths`` is no run and holds none, is damaged, or holds none that can be read.
    """
    from fpt_viz.records import load_run, store
    from fpt_viz.records.run import RESULT

    records: list[RunRecord] = []
    unfinished: dict[Path, str] = {}
    refused: dict[Path, str] = {}
    for path in paths:
        below = _below(path)
        for folder in below or [path]:
            failure = folder / "failure.json"
            if below and not (folder / RESULT).exists():
                unfinished[folder] = str(store.read_json(failure)["message"]) if failure.exists() else ""
                continue
            try:
                records.append(load_run(folder))
            except RecordError as error:
                if not below:
                    raise
                refused[folder] = str(error)
    if refused and not records:
        raise RecordError(f"no run could be read: {next(iter(refused.values()))}")
    return records, unfinished, refused


def _below(path: Path) -> list[Path]:
    """The runs that the folder ``path`` holds or, where it is an experiment's, names; none of a run itself."""
    from fpt_viz.records.run import CONFIG

    if (path / CONFIG).exists():
        return []
    if not (path / "plan.json").exists():
        return sorted(file.parent for file in path.rglob(CONFIG))
    from fpt_viz.reproduce import load_plan

    return sorted({folder for entry in load_plan(path).entries for folder in entry.runs.values()})


def log(arguments: Namespace) -> Answer:
    """The steps of runs, handed to a tracker."""
    from fpt_viz.tracking import hand_over, tracker

    records, _, refused = _records(arguments.runs)
    for record in records:
        name = record.path.name
        hand_over(record, tracker(arguments.to, name, record.config, folder=arguments.out, project=arguments.project))
    where = arguments.out if arguments.to == "tensorboard" else arguments.project
    line = f"{len(records)} run{'s' if len(records) > 1 else ''} handed to {arguments.to}, in {where}"
    data = {"tracker": arguments.to, "runs": [record.path for record in records], "to": where}
    return Answer(data, [line, *_not_read(refused)])


def list_names(arguments: Namespace) -> Answer:
    """The names of a registry; a backbone's are its presets."""
    if arguments.what == "backbones":
        return _backbones()
    folder = FOLDERS[arguments.what]
    names = registry.names(folder)
    return Answer({"names": names}, [Table(("name", ""), [(name, _summary(folder, name)) for name in names])])


def _summary(folder: str, name: str) -> str:
    """The first line that an entry says of itself, read without running it."""
    told = ast.get_docstring(ast.parse((registry.PACKAGE / folder / f"{name}.py").read_text(encoding="utf-8")))
    return (told or "").partition("\n")[0]


def _backbones() -> Answer:
    from fpt_viz.backbones import preset_names

    rows = []
    for name, family in preset_names().items():
        preset = registry.load("backbones", family).presets[name]
        weights = "random only" if name.endswith("-random") else f"random only, or a folder as {family}:FOLDER"
        weights = f"Hub, {preset.repo_id}, or a folder as {family}:FOLDER" if preset.repo_id else weights
        weights = f"package {preset.weights.package}" if preset.weights else weights
        rows.append((name, family, word(preset.config.get("num_hidden_layers", preset.config.get("n_layer"))), weights))
    return Answer({"names": [row[0] for row in rows]}, [Table(("name", "family", "layers", "weights"), rows)])


def doctor(arguments: Namespace) -> Answer:
    """What works on this machine; with ``--data``, whether a data set is here and whole."""
    from fpt_viz.cli.training import set_data_dir
    from fpt_viz.doctor import check_data, examined

    set_data_dir(arguments)
    checks = examined() if arguments.data is None else check_data(arguments.data)
    rows = [(check.name, check.status, check.found) for check in checks]
    cures = [f"{check.name}: {check.lost} Cure: {check.cure}" for check in checks if check.status != "ok"]
    sick = any((check.essential or arguments.data) and check.status != "ok" for check in checks)
    lost = "the main job cannot run here" if arguments.data is None else f"the data set {arguments.data} is not ready"
    return Answer(
        {"ok": not sick, "checks": [asdict(check) for check in checks]},
        [Table(("check", "status", "found"), rows), *cures, lost if sick else "ready"],
        exit_code=2 if sick else 0,
    )


def lab(arguments: Namespace) -> Answer:
    """JupyterLab on the first notebook, in this process's place; copies of the notebooks where a folder is named.

    It listens on loopback alone; the token is its own, and it alone shows it.

    Raises:
        ConfigError: The folder cannot be written to, or there is no JupyterLab.
    """
    from fpt_viz.shipped import FIRST, copy_to

    if arguments.json and not arguments.copy_only:
        raise ConfigError("--json tells what was copied: give --copy-only with it; JupyterLab answers to no program")
    place = _lab_place(arguments.folder)
    copied = copy_to(place)
    told = _told_of_copies(copied)
    if arguments.copy_only:
        data = {"folder": place, "new": copied.new, "same": copied.same, "kept": copied.kept}
        return Answer(data, [*told, f"open them with fpt-viz lab {shlex.quote(str(place))}"])
    if find_spec("jupyterlab") is None:
        raise ConfigError(
            f"there is no JupyterLab in this environment: {sys.executable} -m pip install jupyterlab; the notebooks "
            f"are in {place / 'notebooks'}"
        )
    print(*told, sep="\n", flush=True)
    _become_jupyterlab(place, f"lab/tree/{FIRST}")


def _lab_place(folder: Path | None) -> Path:
    """Where the notebooks lie, or go: the folder that was named, else that of the checkout, else one of our name."""
    from fpt_viz.shipped import FIRST, checkout

    if folder is not None:
        whole = folder.resolve()
        return whole.parent if whole / Path(FIRST).name == whole.parent / FIRST and whole.is_dir() else folder
    here = Path()
    return checkout() or (here if (here / FIRST).is_file() else Path("fpt_viz_lab"))


def _told_of_copies(copied: Copied) -> list[str]:
    """What was copied and what was not, in lines for people."""
    from fpt_viz.shipped import NOTEBOOKS, RESULTS

    if not copied.new and not copied.kept:
        return [f"notebooks and records in {copied.folder} are those of this version"]
    n_notebooks, n_records = (sum(name.startswith(f"{at}/") for name in copied.new) for at in (NOTEBOOKS, RESULTS))
    lines = [f"{n_notebooks} notebooks and {n_records} records copied to {copied.folder}"]
    if copied.kept:
        lines.append(f"kept as they are, though not what this version ships: {', '.join(copied.kept)}")
        lines.append("to have the shipped ones, rename or remove yours and call again, or name another folder")
    return lines


def _become_jupyterlab(root: Path, opens: str) -> NoReturn:
    """Replace this process by a JupyterLab over ``root`` that opens at ``opens``."""
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--ServerApp.root_dir={root.resolve()}"]
    command += [f"--LabApp.default_url=/{opens}"]
    if hasattr(os, "geteuid"):  # POSIX
        command += [f"--KernelManager.transport={_transport()}", *(["--allow-root"] if os.geteuid() == 0 else [])]
    environment = dict(os.environ)
    if not environment.get("JUPYTER_TOKEN"):
        environment.pop("JUPYTER_TOKEN", None)  # an empty one would open the server to every local process
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 (our own interpreter, no shell)


LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes that the path of a Unix socket may have."""
NAME_OF_SOCKET = "/kernel-01234567-89ab-cdef-0123-456789abcdef-ipc-5"
"""What jupyter_client adds to the folder of the running kernels."""


def _transport() -> str:
    """How JupyterLab reaches its kernels: through sockets that only the user may open, where their paths fit.

    Elsewhere, as with a long home folder, by TCP on loopback: messages are signed, so nobody else has code run, but
    other users of the machine could read what a kernel prints.
    """
    asked = [sys.executable, "-m", "jupyter", "--runtime-dir"]
    folder = subprocess.run(asked, capture_output=True, check=False).stdout.strip()  # noqa: S603 (our own interpreter)
    return "ipc" if folder and len(folder) + len(NAME_OF_SOCKET) <= LONGEST_SOCKET else "tcp"
