"""Whatever record a file holds, by what the file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fpt_viz.errors import RecordError
from fpt_viz.records import _maps_file, patching, statistics, store, telemetry
from fpt_viz.records.attention import AttentionMaps
from fpt_viz.records.effects import AblationEffects, TopHeadsEffects
from fpt_viz.records.language import LanguageRoles
from fpt_viz.records.patching import PatchingEffects
from fpt_viz.records.run import CONFIG, load_run
from fpt_viz.records.shift import PatternShift
from fpt_viz.records.statistics import HeadStatistics

KINDS: dict[str, Any] = {
    _maps_file.KIND: AttentionMaps,
    statistics.KIND: HeadStatistics,
    patching.KIND: PatchingEffects,
    **{kind.KIND: kind for kind in (AblationEffects, TopHeadsEffects, LanguageRoles, PatternShift)},
}
"""What figures are drawn of, by the kind that its file names."""
SUFFIXES = (".safetensors", ".json")


def is_record(path: Path) -> bool:
    """Whether ``path`` names a saved record, or the folder of a run's captures, and not a run."""
    if path.is_dir():  # whatever its name ends in
        return path.name == telemetry.FOLDER and not (path / CONFIG).exists()
    return path.suffix in SUFFIXES


def can_load(path: Path) -> bool:
    """Whether :func:`load_record` reads ``path``: by its name, and by the kind that it says it is."""
    try:
        return is_record(path) and (path.is_dir() or store.kind_of(path) in KINDS)
    except RecordError:
        return False


def load_record(path: Path) -> Any:
    """The record in the file ``path``; in a run's ``telemetry`` folder, its captures.

    Raises:
        RecordError: There is none, it is damaged, or no figure is drawn of its kind.
    """
    if path.is_dir():
        found = load_run(path.resolve().parent).telemetry()
        if found is None:
            raise RecordError(f"the run that {path} lies in made no captures")
        return found
    kind = store.kind_of(path)
    if kind not in KINDS:
        raise RecordError(f"{path} holds {kind or 'no record'}; figures are drawn of {', '.join(sorted(KINDS))}")
    return KINDS[kind].load(path)
