"""Records of others' making: whatever they name, looking at them runs no code of theirs."""

from __future__ import annotations

import json
from pathlib import Path
import shutil
import tomllib

import pytest
import tomli_w

import fpt_viz as fpt
from fpt_viz import loading, run_folder
from fpt_viz.backbones import _inits
from fpt_viz.config import RunConfig
from fpt_viz.errors import ConfigError, FptVizError, RecordError
from fpt_viz.records.run import CONFIG, LEDGER, RESULT, seal
from fpt_viz.records.store import read_json, unsealed
from fpt_viz.widgets import RunBrowser

PRESET = "bert-tiny-random"
REVISION = "x.py"
FILE = """from pathlib import Path
from fpt_viz.backbones.bert import Bert
from fpt_viz.tasks.bit_xor import BitXor
Path("ran").touch()
__all__ = ["Evil"]
class Evil({base}):
    pass
"""


@pytest.fixture
def mail(run_folder, tmp_path, monkeypatch) -> Path:
    """A sealed run in the folder where the reader is, which files beside it would run in."""
    monkeypatch.chdir(tmp_path)
    return run_folder


def sealed_again(run: Path, *, revision: str | None = None, **sections: dict[str, object] | None) -> None:
    """Let the record tell something else, with its seal in order; a section of None is left out."""
    config = tomllib.loads((run / CONFIG).read_text())
    for name, options in sections.items():
        if options is None:
            del config[name]
        else:
            config[name] |= options
    (run / CONFIG).write_text(tomli_w.dumps(config))
    if revision is not None:
        ledger = read_json(run / LEDGER)
        ledger["backbone"]["revision"] = revision
        (run / LEDGER).write_text(json.dumps(ledger))
    result = unsealed(read_json(run / RESULT), run / RESULT)
    seal(run, {key: value for key, value in result.items() if key != "files"})


def unfinished(run: Path) -> None:
    """Let the run be one that was cut off before its first checkpoint."""
    (run / RESULT).unlink()
    (run / "checkpoint.safetensors").unlink()


def evaluated(run: Path) -> None:
    from fpt_viz.cli import main

    if main(["evaluate", str(run)]):
        raise FptVizError("refused")


def loaded(run: Path) -> None:
    fpt.load_model(fpt.load_run(run))


def resumed(run: Path) -> None:
    unfinished(run)
    fpt.run(RunConfig.load(run / CONFIG), run, resume=True, progress=False)


def resumed_by_command(run: Path) -> None:
    from fpt_viz.cli import main

    unfinished(run)
    if main(["train", "--out", str(run), "--resume"]):
        raise FptVizError("refused")


def taken_as_init(run: Path) -> None:
    fpt.load_backbone(PRESET, str(run))


WAYS = {way.__name__: way for way in (evaluated, loaded, resumed, resumed_by_command, taken_as_init)}


FORGED = [(way, name) for way in WAYS for name in (PRESET, "run/evil") if (way, name) != ("taken_as_init", "run/evil")]
"""The name of a backbone that a run is taken as the start for is the reader's own."""


@pytest.mark.parametrize(("way", "name"), FORGED)
@pytest.mark.parametrize("checked", [True, False], ids=["both-checks", "name-alone"])
def test_a_file_that_name_and_revision_of_a_record_are_together_does_not_run(mail, monkeypatch, way, name, checked):
    Path(f"{name}@{REVISION}").write_text(FILE.format(base="Bert"))
    sealed_again(mail, revision=REVISION, backbone={"name": name})
    if not checked:  # a revision of any form: what the name means is refused by itself
        for module in (loading, run_folder, _inits):
            monkeypatch.setattr(module, "commit_in", lambda told, path: told.get("revision", ""))
    with pytest.raises(FptVizError):
        WAYS[way](mail)
    assert not Path("ran").exists()


def test_a_revision_that_is_no_commit_is_told(mail):
    sealed_again(mail, revision="main")
    with pytest.raises(RecordError, match=r"ledger\.json tells the revision 'main', wanted a commit of the Hub"):
        loaded(mail)


def test_a_config_builds_no_model_of_a_backbone_in_a_file(mail):
    Path("evil.py").write_text(FILE.format(base="Bert"))
    config = RunConfig.load(mail / CONFIG).to_dict()
    config["backbone"]["name"] = "evil.py"
    with pytest.raises(ConfigError, match=r"the backbone evil\.py is the file evil\.py, whose code would run"):
        loading.build_model(RunConfig.from_dict(config))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["compare", "run"], 0),
        (["figure", "training_curves", "run", "-o", "curves.svg"], 0),
        (["paper-kit", "run", "--out", "kit", "--text-only"], 0),
        (["evaluate", "run"], 2),
        (["measure", "head_statistics", "run"], 2),
        (["routing", "run"], 2),
        (["capture", "run"], 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "read" if value == 0 else "refused",
)
def test_the_task_file_that_a_record_names_does_not_run(call, mail, words, code):
    Path("evil.py").write_text(FILE.format(base="BitXor"))
    sealed_again(mail, task={"name": "evil.py"})
    said = call(*words)
    assert said.code == code, said.err
    assert not Path("ran").exists()


def test_neither_a_browser_of_runs_nor_a_resume_runs_the_task_file_of_a_record(call, mail):
    Path("evil.py").write_text(FILE.format(base="BitXor"))
    sealed_again(mail, task={"name": "evil.py"})
    RunBrowser(mail.parent)
    unfinished(mail)
    assert call("train", "--out", mail, "--resume").code == 2
    RunBrowser(mail.parent)
    assert not Path("ran").exists()


@pytest.mark.parametrize("gone", ["task", "backbone", "train"])
def test_a_sealed_config_that_lacks_a_section_is_no_whole_record(mail, gone):
    sealed_again(mail, **{gone: None})
    with pytest.raises(RecordError, match=rf"config\.toml is no whole config of a run: {gone}\."):
        fpt.load_run(mail)


def test_a_run_that_cannot_be_read_is_told_and_the_others_are_compared(call, mail, trained):
    sealed_again(mail, backbone={"name": "evil.py"})
    shutil.copytree(trained, mail.parent / "whole")
    shown, data = call("compare", mail.parent).out, call("compare", mail.parent, "--json").json()
    assert len(data["rows"]) == 1
    assert [Path(one["run"]).name for one in data["not_read"]] == ["run"]
    assert f"not read: {mail}: " in shown
    assert "whose code would run" in shown
    alone = call("compare", mail)
    assert (alone.code, alone.out) == (2, "")
    assert "whose code would run" in alone.err
