"""The paper kit: all that runs allow, a page that compiles, and a Makefile that remakes what changed and no more."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from fpt_viz.cli import main
from fpt_viz.errors import ConfigError
from fpt_viz.export import provenance
from fpt_viz.paper_kit import write_kit
from fpt_viz.records import RunRecord, load_run

pytestmark = pytest.mark.slow  # a minute or so in all

NEEDS_TEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no TeX: apt-get install texlive-latex-recommended texlive-pictures"
)


@pytest.fixture(scope="module")
def place(runs: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the measured run and of the other, and a kit of both; not to be written to."""
    folder = tmp_path_factory.mktemp("paper 1")  # make must bear the blank
    for record in runs:
        shutil.copytree(record.path, folder / "runs" / record.path.name)
    write_kit([folder / "runs/pretrained", folder / "runs/random"], folder / "kit", preset="icml")
    return folder


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A copy of it all, for one test alone."""
    shutil.copytree(place, tmp_path / "own 2")
    return tmp_path / "own 2"


def test_the_kit_has_every_figure_that_the_runs_allow(place):
    stems = {path.stem for path in (place / "kit/figures").glob("*.pdf")}
    assert stems == {
        "training_curves", "run_comparison", "steps_to_solve", "head_grid-pretrained", "routing_table-pretrained",
        "ablation_effects-pretrained", "head_ranking-pretrained", "top_heads-pretrained",
        "attention_heatmap-pretrained", "head_view-pretrained", "routing_graph-pretrained",
    }  # fmt: skip
    assert {path.name for path in (place / "kit/tables").iterdir()} == {
        f"comparison.{s}" for s in ["tex", "md", "html", "csv"]
    }
    told = json.loads((place / "kit/captions.json").read_text())
    assert set(told) == stems
    assert all(entry["alt"] and entry["caption_latex"] for entry in told.values())


def test_every_figure_of_the_kit_matches_its_runs_by_its_own_command(own, capsys):
    for path in sorted((own / "kit/figures").glob("*.pdf")):
        told = provenance.read(path)
        assert str(own.parent) not in json.dumps(told)
        assert main(["figure", "--check", str(path)]) == 0, capsys.readouterr().out
    before = (own / "kit/figures/attention_heatmap-pretrained.pdf").read_bytes()
    assert main(["figure", "--again", str(own / "kit/figures/attention_heatmap-pretrained.pdf")]) == 0
    assert (own / "kit/figures/attention_heatmap-pretrained.pdf").read_bytes() == before


def test_what_is_not_there_is_named_with_the_command_that_makes_it(place, tmp_path):
    kit = write_kit([place / "runs/random"], tmp_path / "kit", text_only=True)
    assert f"fpt-viz statistics {place}/runs/random" in kit.skipped["head_grid"]
    assert f"fpt-viz capture {place}/runs/random" in kit.skipped["head_view"]
    assert not (tmp_path / "kit/figures").exists()


def test_the_same_runs_give_the_same_kit(place, tmp_path):
    again = place / "again"
    write_kit([place / "runs/pretrained", place / "runs/random"], again, preset="icml")
    files = [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert len(files) > 20
    for name in files:
        if name.name != "Makefile":
            assert (again / name).read_bytes() == (place / "kit" / name).read_bytes(), name
    shutil.rmtree(again)


@NEEDS_TEX
def test_figures_tex_compiles_and_shows_every_caption(own):
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "figures.tex"],
        cwd=own / "kit",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-1500:]
    words = subprocess.run(["pdftotext", "figures.pdf", "-"], cwd=own / "kit", capture_output=True, text=True).stdout
    for entry in json.loads((own / "kit/captions.json").read_text()).values():
        assert entry["title"].split()[0] in words
    assert "Test accuracy of 2 systems" in " ".join(words.split())


@pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt-get install make")
@pytest.mark.slow
def test_make_remakes_what_changed_and_nothing_else(own):
    kit = own / "kit"
    program = kit / "fpt-viz"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom fpt_viz.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)

    def made() -> str:
        named = str(program).replace(" ", "\\ ")
        own_environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = ["make", "figures", f"FPT_VIZ={named}"]
        done = subprocess.run(command, cwd=kit, capture_output=True, text=True, env=own_environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    now = max(path.stat().st_mtime for path in own.rglob("*"))
    for path in (kit / "figures").iterdir():
        os.utime(path, (now, now))
    assert " figure " not in made()
    path = own / "runs/pretrained/head_statistics.safetensors"
    before = {each.name: each.read_bytes() for each in (kit / "figures").glob("*.pdf")}
    statistics = load_run(own / "runs/pretrained").statistics()
    statistics.mean_pattern[0, 0] = statistics.mean_pattern[0, 0].flip(-1)
    statistics.routing_score[1, 2] = 0.77
    statistics.save(path)
    os.utime(path, (now + 10, now + 10))
    said = made()
    assert said.count(" figure ") == 3
    for name in ("routing_table", "head_grid", "ablation_effects"):  # what reads that file
        assert f" figure {name} " in said
    changed = {name for name, content in before.items() if (kit / "figures" / name).read_bytes() != content}
    assert changed == {"routing_table-pretrained.pdf", "head_grid-pretrained.pdf"}  # the same five heads are dotted


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run was given"):
        write_kit([], tmp_path)


def test_an_unknown_preset_is_one_line(place, tmp_path, capsys):
    assert main(["paper-kit", str(place / "runs/random"), "--out", str(tmp_path / "kit"), "--preset", "icmll"]) == 2
    assert "Did you mean 'icml'" in capsys.readouterr().err
    assert not (tmp_path / "kit").exists()
