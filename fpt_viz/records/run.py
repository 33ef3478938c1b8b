"""What a training run leaves behind, and how it is read back without its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
import re
import tomllib
from typing import TYPE_CHECKING, Any

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records.attention import AttentionMaps
from fpt_viz.records.effects import AblationEffects, TopHeadsEffects
from fpt_viz.records.language import LanguageRoles
from fpt_viz.records.ledger import Ledger
from fpt_viz.records.patching import PatchingEffects
from fpt_viz.records.shift import PatternShift
from fpt_viz.records.statistics import HeadStatistics
from fpt_viz.records.steps import Evaluation, Step, read_steps
from fpt_viz.records.telemetry import Telemetry, load_telemetry

if TYPE_CHECKING:
    import pandas as pd

CONFIG, STEPS, RESULT = "config.toml", "steps.jsonl", "result.json"
ADAPTER, ADAPTER_INITIAL = "adapter.safetensors", "adapter_initial.safetensors"
LEDGER, ENVIRONMENT = "ledger.json", "environment.json"
CHECKPOINT, LOCK = "checkpoint.safetensors", "writer.lock"
INITS = ("pretrained", "random", "statistics")
"""What a backbone's weights can be at the start of a run; any other text is the folder of a run that left them."""
NEEDED = (("task", "name", str), ("backbone", "name", str), ("backbone", "init", str), ("train", "seed", int))
"""What every ``config.toml`` says."""
TOLD = ("run_id", "status", "n_steps", "steps_to_solve", "evaluation", "frozen_intact", "files")
"""What every ``result.json`` says."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""The one kind of revision that a record tells."""
SEALED = (CONFIG, STEPS, ADAPTER, ADAPTER_INITIAL, LEDGER, ENVIRONMENT)
"""The files whose checksums ``result.json`` holds."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A finished run, as its folder tells it."""

    path: Path
    config: dict[str, Any]
    """``config.toml``: task, backbone, trained groups and how it was optimised."""
    steps: tuple[Step, ...]
    ledger: Ledger
    environment: dict[str, Any]
    """Versions, device and threads."""
    result: dict[str, Any]
    """Status, evaluation on test, steps to solve, frozen_intact."""

    @property
    def name(self) -> str:
        """What sets the run apart in a legend, such as ``minilm pretrained seed 0``."""
        backbone, layers = self.config["backbone"], self.config["backbone"].get("n_layers")
        depth = f" {layers} layers" if layers else ""
        return f"{backbone['name']} {init_name(backbone['init'])}{depth} seed {self.config['train']['seed']}"

    @property
    def evaluation(self) -> Evaluation:
        """On the test split, after the last step."""
        return Evaluation.from_json(self.result["evaluation"])

    @property
    def steps_to_solve(self) -> int | None:
        """Steps taken at the first of two checks in a row with every validation target right; None if never."""
        solved = self.result["steps_to_solve"]
        return None if solved is None else int(solved)

    @property
    def note(self) -> str:
        """What a reader of the accuracy must know of the task, such as that its input is cut; empty for most."""
        return str(self.result.get("note", ""))

    @property
    def data(self) -> dict[str, Any]:
        """Where the task's data came from: layout, SHA-256 by file, the Hub's commit; empty for a generated task."""
        return dict(self.result.get("data", {}))

    @property
    def source(self) -> dict[str, Any]:
        """What a figure or capture of this run says of where it comes from."""
        config = self.config
        note = {"note": self.note} if self.note else {}
        return note | {
            "run": self.result["run_id"],
            "task": config["task"]["name"],
            "backbone": config["backbone"]["name"],
            "init": init_name(config["backbone"]["init"]),
            "seed": config["train"]["seed"],
            "step": self.result["n_steps"],
        }

    def statistics(self, split: str = "validation") -> HeadStatistics | None:
        """The head statistics of ``split`` saved beside the run, if there are any."""
        path = self.path / f"head_statistics{'' if split == 'validation' else f'_{split}'}.safetensors"
        return HeadStatistics.load(path) if path.exists() else None

    def maps(self) -> AttentionMaps | None:
        """The attention captured beside the run, if there is any."""
        path = self.path / "attention_maps.safetensors"
        return AttentionMaps.load(path) if path.exists() else None

    def ablation(self) -> AblationEffects | None:
        """The effect of each head's ablation saved beside the run, if it was measured."""
        path = self.path / "ablate_heads.json"
        return AblationEffects.load(path) if path.exists() else None

    def patching(self) -> PatchingEffects | None:
        """The effects of patching activations saved beside the run, if they were measured.

        Those of the usual options; where there are none, the newest of others, such as ``site=z``.
        """
        usual = self.path / "patch_activations.safetensors"
        others = sorted(self.path.glob("patch_activations_*.safetensors"), key=lambda path: path.stat().st_mtime)
        path = next((path for path in (usual, *reversed(others)) if path.exists()), None)
        return None if path is None else PatchingEffects.load(path)

    def top_heads(self) -> TopHeadsEffects | None:
        """The effect of cutting the best routing heads saved beside the run, if it was measured."""
        path = self.path / "ablate_top_heads.json"
        return TopHeadsEffects.load(path) if path.exists() else None

    def what_moved(self) -> PatternShift | None:
        """What moved each head since the start, as saved beside the run, if it was measured."""
        path = self.path / "what_moved.safetensors"
        return PatternShift.load(path) if path.exists() else None

    def language_roles(self) -> LanguageRoles | None:
        """What the heads did with words before, as saved beside the run, if it was measured."""
        path = self.path / "language_roles.safetensors"
        return LanguageRoles.load(path) if path.exists() else None

    def telemetry(self) -> Telemetry | None:
        """What was captured while it trained, from step 0; None where ``telemetry_every`` was 0.

        Raises:
            RecordError: A capture is missing, damaged or of another run; the message names its file.
        """
        return load_telemetry(self.path, self.config["train"].get("telemetry_every", 0), self.result["n_steps"])

    def to_pandas(self) -> pd.DataFrame:
        """One row a step; ``validation_accuracy`` is NaN where no check was due."""
        import pandas as pd

        rows = []
        for step in self.steps:
            row = json.loads(step.to_json())
            validation = row.pop("validation", None)
            row["validation_accuracy"] = validation["accuracy"] if validation else float("nan")
            row["validation_loss"] = validation["loss"] if validation else float("nan")
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"RunRecord({self.name}, {len(self.steps)} steps, test accuracy {self.evaluation.accuracy:.4f}{note})"


def init_name(init: str) -> str:
    """What a reader is told of ``init``: the name itself, or ``from FOLDER`` without the folders above it."""
    return init if init in INITS else f"from {Path(init).name}"


def found_init(init: str, near: Path) -> str:
    """``init`` as it can be loaded for a run in the folder ``near``.

    A run's folder may have been named from another place: it is looked for from here, then from each folder above
    ``near``, then beside it.
    """
    if init in INITS or Path(init).is_dir():
        return init
    above = [folder / init for folder in near.absolute().parents]
    return next((str(folder) for folder in [*above, near.parent / Path(init).name] if folder.is_dir()), init)


def seal(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json``: the result, with the checksum of every other file of the run and of itself."""
    files = {name: store.sha256(folder / name) for name in SEALED}
    store.write_json(folder / RESULT, store.sealed({**result, "files": files}))


def load_run(path: str | Path) -> RunRecord:
    """The finished run in the folder ``path``; every file is checked against the checksum taken at its end.

    Raises:
        RecordError: The folder holds no run, an unfinished one, or one with a missing, truncated or altered file; the
            message names the file.
    """
    folder = Path(path)
    before = store.stamp_of(*(folder / name for name in (*SEALED, RESULT)))
    if not (folder / CONFIG).exists():
        raise RecordError(f"{folder} holds no run: {CONFIG} is missing")
    if not (folder / RESULT).exists():
        raise RecordError(
            f"the run in {folder} is not finished ({RESULT} is missing): go on with fpt-viz train "
            f"--out {folder} --resume"
        )
    result = _read_result(folder / RESULT)
    for name, checksum in result["files"].items():
        found = store.sha256(folder / name) if (folder / name).exists() else None
        if found is None:
            raise RecordError(f"{folder / name} is missing; the run was sealed with it")
        if found != checksum:
            raise RecordError(
                f"{folder / name} was truncated or altered after the run: SHA-256 {found[:12]}..., "
                f"sealed as {checksum[:12]}...; restore it, or train again with --overwrite"
            )
    config = _read_config(folder / CONFIG)
    backbone = config["backbone"]["name"]
    if any(part.endswith(".py") for part in backbone.split(":")):
        raise RecordError(
            f"{folder} names the file {backbone} as its backbone, whose code would run: no run is read so"
        )
    record = RunRecord(
        path=folder,
        config=config,
        steps=read_steps(folder / STEPS),
        ledger=Ledger.load(folder / LEDGER),
        environment=store.read_json(folder / ENVIRONMENT),
        result=result,
    )
    return store.note(record, folder, before)


def _read_result(path: Path) -> dict[str, Any]:
    """The ``result.json`` of a run, with what everything that reads a run asks of it."""
    result = store.unsealed(store.read_json(path), path)
    lacking = [name for name in TOLD if name not in result]
    if lacking:
        raise RecordError(f"{path} is no whole result of a run: {', '.join(lacking)} missing")
    try:
        Evaluation.from_json(result["evaluation"])
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path} tells no whole evaluation ({type(error).__name__}: {error})") from error
    return result


def _read_config(path: Path) -> dict[str, Any]:
    """The ``config.toml`` of a run, with what everything that reads a run asks of it."""
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise RecordError(f"{path} is no TOML: {error}") from error
    for section, option, kind in NEEDED:
        table = config.get(section)
        if not isinstance(table, dict) or not isinstance(table.get(option), kind):
            raise RecordError(
                f"{path} is no whole config of a run: {section}.{option} is missing or no {kind.__name__}"
            )
    return config


def commit_in(told: Mapping[str, Any], path: Path) -> str:
    """The commit of the Hub that ``told`` of weights or data in ``path`` names; empty where they are not the Hub's.

    Raises:
        RecordError: ``revision`` is anything else, such as the end of a file's name: a record names nothing to load.
    """
    revision = told.get("revision") or ""
    if revision and not (isinstance(revision, str) and COMMIT.fullmatch(revision)):
        raise RecordError(f"{path} tells the revision {revision!r}, wanted a commit of the Hub: 40 digits from 0 to f")
    return str(revision)
