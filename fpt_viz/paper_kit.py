"""All that saved runs allow for a paper: figures, tables, captions, a page of LaTeX, and a Makefile for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
import re
import shlex
from typing import Any

from fpt_viz import registry
from fpt_viz.errors import ConfigError, FptVizError
from fpt_viz.export import Figure, Recipe, provenance
from fpt_viz.export.pages import captions, latex_page, said_of
from fpt_viz.export.recipe import relative
from fpt_viz.export.settings import as_setting
from fpt_viz.records import RunRecord, load_run, store
from fpt_viz.tables import compared, comparison_table

WIDE = {"head_grid", "training_curves", "patch_pair_sheet"}
"""Figures that want both columns of a page."""
WIDE_PRESETS = {
    "paper": "paper-wide", "icml": "icml-wide", "acl": "acl-wide", "nature-single": "nature-double",
    "ieee-single": "ieee-double",
}  # fmt: skip
TABLE_SUFFIXES = ("tex", "md", "html", "csv")
SAVED = {
    "statistics": "head_statistics.safetensors",
    "test": "head_statistics_test.safetensors",
    "maps": "attention_maps.safetensors",
    "ablation": "ablate_heads.json",
    "top_heads": "ablate_top_heads.json",
    "patching": "patch_activations.safetensors",
    "what_moved": "what_moved.safetensors",
    "language_roles": "language_roles.safetensors",
}
"""What may lie beside a run, by its name here."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One figure of the kit."""

    stem: str
    """Its file name without suffix."""
    figure: str
    shown: Any
    """What it is given first."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further records that the command line finds by itself."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further options, which the command line is told."""
    records: tuple[RunRecord, ...]
    files: tuple[str, ...] = ()
    """Of each run, the files beside it that are read."""

    def described(self) -> Figure:
        """The figure, not yet drawn."""
        drawn: Figure = registry.load("figures", self.figure)(self.shown, **self.options, **self.settings)
        return drawn

    def recipe(self) -> Recipe:
        """How the command line makes it."""
        return Recipe(
            figure=self.figure,
            inputs=tuple(record.path for record in self.records),
            settings=tuple(f"{name}={as_setting(value)}" for name, value in self.settings.items()),
            records=self.records,
        )


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What was written, and what could not be."""

    out: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]
    skipped: dict[str, str]
    """Figures that the runs do not allow, and why."""


def write_kit(
    runs: Sequence[str | Path], out: str | Path, *, preset: str = "paper", suffix: str = "pdf", text_only: bool = False
) -> Kit:
    """Write every figure that ``runs`` allow, tables, captions, ``figures.tex`` and a ``Makefile`` into ``out``.

    Args:
        runs: Folders of finished runs.
        out: Where to; what is there of an older kit is replaced.
        preset: Of the figures; those with many panels take its wide form where it has one.
        suffix: The kind of the figures' files; ``figures.tex`` takes in pdf.
        text_only: Write what is not drawn: tables, captions, ``figures.tex`` and the ``Makefile``.

    Raises:
        ConfigError: No run.
        RecordError: Something saved is not whole, or a file cannot be written.
        UnknownNameError: No such preset.
    """
    if not runs:
        raise ConfigError("no run was given: a paper kit is made from finished runs")
    folder, records = Path(out), [load_run(path) for path in runs]
    drawn: dict[str, tuple[Planned, Figure]] = {}
    skipped: dict[str, str] = {}
    for planned in _planned(records, skipped):
        try:
            drawn[planned.stem] = planned, planned.described()
        except FptVizError as error:
            skipped[planned.stem] = str(error)
    paths, commands = [], {}
    for stem, (planned, figure) in drawn.items():
        path = folder / "figures" / f"{stem}.{suffix}"
        page = WIDE_PRESETS.get(preset, preset) if planned.figure in WIDE else preset
        if not text_only:
            figure.save(path, preset=page, recipe=planned.recipe())
        paths.append(path)
        told = provenance.about(figure, path, recipe=planned.recipe(), options=["--preset", page])
        commands[path] = str(told["command"])
    table = comparison_table(records)
    tables = tuple(table.save(folder / "tables" / f"comparison.{each}") for each in TABLE_SUFFIXES)
    figures = {stem: figure for stem, (_, figure) in drawn.items()}
    _write(folder / "captions.md", captions(figures))
    told_all = {stem: said_of(figure) for stem, figure in figures.items()}
    _write(folder / "captions.json", json.dumps(told_all, indent=1, ensure_ascii=False) + "\n")
    _write(folder / "figures.tex", latex_page(figures, suffix))
    plans = {path: planned for path, (planned, _) in zip(paths, drawn.values(), strict=True)}
    _write(folder / "Makefile", _makefile(folder, plans, commands, records=records, preset=preset))
    return Kit(out=folder, figures=tuple(paths), tables=tables, skipped=skipped)


def _write(path: Path, text: str) -> None:
    """Write ``text`` unless it stands there already, so that ``make`` sees what changed."""
    content = text.encode()
    if not (path.is_file() and path.read_bytes() == content):
        store.write_bytes(path, content)


def _planned(records: Sequence[RunRecord], skipped: dict[str, str]) -> Iterator[Planned]:
    """Every figure that the runs may allow: of each task's runs together, then of each run."""
    tasks = list(dict.fromkeys(record.config["task"]["name"] for record in records))
    for task in tasks:
        those = tuple(record for record in records if record.config["task"]["name"] == task)
        yield from _of_many(those, f"-{task}" if len(tasks) > 1 else "")
    stems = _stems(records)
    for record, stem in zip(records, stems, strict=True):
        yield from _of_one(record, f"-{stem}" if len(records) > 1 else "", skipped)


def _of_many(records: tuple[RunRecord, ...], after: str) -> Iterator[Planned]:
    """The figures that compare runs of one task."""
    rows = compared(records)
    seeds = {"over_seeds": True} if any(len(row.seeds) > 1 for row in rows) else {}
    published = [math.nan if row.paper is None else row.paper for row in rows]
    paper: dict[str, Any] = {}
    if any(row.paper is not None for row in rows) and (seeds or len(rows) == len(records)):
        [source] = {row.source for row in rows if row.source}
        paper = {"paper": published, "paper_source": source}

    def plan(name: str, settings: Mapping[str, Any] | None = None) -> Planned:
        return Planned(stem=name + after, figure=name, shown=list(records), settings=settings or {}, records=records)

    yield plan("training_curves", seeds)
    yield plan("run_comparison", seeds | paper)
    yield plan("steps_to_solve")
    if len({record.config["train"].get("learning_rate") for record in records}) > 1:
        yield plan("learning_rate_sweep")
    if len({tuple(record.config.get("trained", ())) for record in records}) > 1:
        yield plan("group_ablation")


def _of_one(record: RunRecord, after: str, skipped: dict[str, str]) -> Iterator[Planned]:
    """The figures of what lies beside one run."""
    validation, test, maps = record.statistics(), record.statistics("test"), record.maps()
    ablation, top, patching = record.ablation(), record.top_heads(), record.patching()
    scored = validation is not None and validation.routing_score is not None
    head: dict[str, Any] = {}
    if scored and validation is not None and maps is not None:
        here = [(a, b) for a, b in validation.ranking() if a in maps.layers and b in maps.heads]
        head = {"layer": here[0][0], "head": here[0][1]} if here else {}
    elif maps is not None:
        head = {"layer": maps.layers[0], "head": maps.heads[0]}

    def plan(name: str, shown: Any, *files: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Planned:
        given = {option: value for option, value in options.items() if value is not None}
        return Planned(
            stem=name + after,
            figure=name,
            shown=shown,
            options=given,
            settings=settings or {},
            records=(record,),
            files=tuple(SAVED[each] for each in files),
        )

    def missing(command: str, *names: str) -> None:
        for name in names:
            skipped[name + after] = f"not saved beside the run: fpt-viz {command} {record.path}"

    if validation is not None:
        yield plan("head_grid", validation, "statistics")
        if scored:
            yield plan("routing_table", validation, "statistics", "test", test=test)
    else:
        missing("statistics", "head_grid", "routing_table")
    if ablation is not None:
        yield plan("ablation_effects", ablation, "ablation", "statistics", stats=validation)
        yield plan("head_ranking", ablation, "ablation")
    else:
        missing("ablate", "ablation_effects", "head_ranking")
    if top is not None:
        yield plan("top_heads", top, "top_heads")
    else:
        missing("measure ablate_top_heads", "top_heads")
    if patching is not None:
        yield plan("patching_heatmap", patching, "patching")
    else:
        missing("measure patch_activations", "patching_heatmap")
    shift, roles, captures = record.what_moved(), record.language_roles(), record.telemetry()
    if shift is not None:
        yield plan("pattern_shift", shift, "what_moved", telemetry=captures)
    else:
        missing("measure what_moved", "pattern_shift")
    if roles is not None:
        yield plan("language_roles", roles, "language_roles")
    else:
        missing("measure language_roles", "language_roles")
    if captures is not None:
        yield plan("telemetry", captures)
    if maps is None:
        missing("capture", "attention_heatmap", "head_view", "routing_graph")
        return
    if maps.geometry.boxes:
        yield plan("patch_overlay", maps, "maps", settings=head)
        yield plan("patch_pair_sheet", maps, "maps", settings=head)
    else:
        yield plan("attention_heatmap", maps, "maps", settings=head)
        yield plan("head_view", maps, "maps", settings=head)
    yield plan("routing_graph", maps, "maps")


def _stems(records: Sequence[RunRecord]) -> list[str]:
    """A file name's end for each run: its folder's name, with its number where two share one."""
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "-", record.path.resolve().name) for record in records]
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names)]


def _makefile(
    folder: Path,
    plans: Mapping[Path, Planned],
    commands: Mapping[Path, str],
    *,
    records: Sequence[RunRecord],
    preset: str,
) -> str:
    """Rules that remake a figure when what it shows has changed, and the text when any run has."""
    names = [path.relative_to(folder).as_posix() for path in plans]
    rules = []
    for path, name in zip(plans, names, strict=True):
        needed = " ".join(_escaped(relative(each, folder)) for each in _needed(plans[path]))
        command = commands[path].removeprefix("fpt-viz ").replace("$", "$$")
        rules.append(f"{_escaped(name)}: {needed}\n\tcd figures && $(FPT_VIZ) {command}\n")
    whole = " ".join(_escaped(relative(record.path / "result.json", folder)) for record in records)
    given = shlex.join([relative(record.path, folder) for record in records]).replace("$", "$$")
    again = f"$(FPT_VIZ) paper-kit {given} --out . --preset {preset} --text-only"
    figures = " ".join(map(_escaped, names))
    return (
        "# Remakes what changed: make, make figures, make text.\n"
        "FPT_VIZ ?= fpt-viz\nLATEX ?= pdflatex -interaction=nonstopmode -halt-on-error\n\n"
        f"FIGURES := {figures}\n\n.PHONY: all figures text\nall: figures.pdf\nfigures: $(FIGURES)\n\n"
        f"figures.pdf: figures.tex $(FIGURES) tables/comparison.tex\n\t$(LATEX) figures.tex\n\n"
        f"text:\n\t{again}\n\ntables/comparison.tex: {whole}\n\t{again}\n\n" + "\n".join(rules)
    )


def _needed(planned: Planned) -> list[Path]:
    """The files whose change makes the figure another."""
    named = [record.path / name for record in planned.records for name in ("result.json", *planned.files)]
    return [path for path in named if path.is_file()]


def _escaped(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "\\ ").replace("#", "\\#").replace(":", "\\:")
