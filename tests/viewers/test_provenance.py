"""A saved figure says where it comes from, whether it still matches its runs, and how it is made again."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

import numpy as np
import pytest

from fpt_viz.cli import main
from fpt_viz.errors import RecordError
from fpt_viz.export import SUFFIXES, numbers, provenance
from fpt_viz.records import RunRecord, load_run

pytestmark = pytest.mark.slow  # half a minute or so in all

EMBEDDED = sorted(set(SUFFIXES) - {"csv"} - ({"pgf"} if shutil.which("pdflatex") is None else set()))


@pytest.fixture
def place(runs: list[RunRecord], tmp_path: Path) -> Path:
    """A folder with a copy of the measured run in ``runs/one``."""
    shutil.copytree(runs[0].path, tmp_path / "runs" / "one")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def drawn(capsys, place: Path, name: str = "head_grid", suffix: str = "svg", *more: object) -> Path:
    path = place / "out" / f"figure.{suffix}"
    assert call(capsys, "figure", name, place / "runs/one", "-o", path, *more)[0] == 0
    return path


def retrain(folder: Path) -> None:
    """Let the run's statistics be others, as after another training."""
    path = folder / "head_statistics.safetensors"
    statistics = load_run(folder).statistics()
    statistics.mean_pattern[0, 0, 0, 0] += 0.01
    statistics.save(path)


def test_the_sidecar_says_runs_config_step_seed_versions_numbers_and_command(capsys, place):
    path = drawn(capsys, place, "run_comparison", "pdf", "--preset", "icml", "--dpi", 200)
    told = json.loads(Path(f"{path}.json").read_text())
    [run] = told["inputs"]
    record = load_run(place / "runs/one")
    assert run["path"] == "../runs/one"
    assert (run["run"], run["seed"], run["step"]) == ("xor-pretrained", 0, 60)
    assert run["config_sha256"] == record.result["files"]["config.toml"]
    assert run["versions"]["torch"] == "2.13.0"
    assert {"python", "fpt_viz", "matplotlib", "numpy"} <= set(told["versions"])
    assert told["command"] == "fpt-viz figure run_comparison ../runs/one -o figure.pdf --preset icml --dpi 200"
    assert str(place) not in Path(f"{path}.json").read_text()
    assert told["caption"].startswith("Accuracy on bit_xor")


@pytest.mark.parametrize("suffix", EMBEDDED)
def test_every_kind_of_file_carries_in_itself_what_its_sidecar_says(capsys, place, suffix):
    path = drawn(capsys, place, "head_grid", suffix)
    beside = provenance.read(path)
    provenance.sidecar(path).unlink()
    within = provenance.read(path)
    assert within == {name: value for name, value in beside.items() if name in within}
    assert {"command", "inputs", "numbers_sha256", "source", "versions"} <= set(within)
    assert call(capsys, "figure", "--check", path)[0] == 0


def test_check_finds_a_figure_that_its_run_has_left_behind_and_again_makes_it_match(capsys, place):
    path = drawn(capsys, place, "head_grid", "svg", "--preset", "icml", "--set", "vmax=0.9")
    before = path.read_bytes()
    code, out, _ = call(capsys, "figure", "--check", path)
    assert (code, out) == (0, f"{path} matches its runs\n")
    assert call(capsys, "figure", "--again", path)[1].endswith("the same bytes\n")
    assert path.read_bytes() == before

    retrain(place / "runs/one")
    code, out, _ = call(capsys, "figure", "--check", path)
    assert code == 2
    assert "the numbers drawn are no longer those of its runs" in out
    assert call(capsys, "figure", "--again", path)[1].endswith("other bytes than before\n")
    assert call(capsys, "figure", "--check", path)[0] == 0


def test_check_as_json_tells_what_differs(capsys, place):
    path = drawn(capsys, place)
    path.write_bytes(path.read_bytes() + b"\n")
    code, out, _ = call(capsys, "figure", "--check", path, "--json")
    told = json.loads(out)
    assert (code, told["matches"]) == (2, False)
    assert told["differences"] == [f"{path} is no longer the file that was saved"]


def test_check_says_when_a_run_is_gone(capsys, place):
    path = drawn(capsys, place)
    (place / "runs").rename(place / "elsewhere")
    code, out, _ = call(capsys, "figure", "--check", path)
    assert code == 2
    assert "it cannot be made again: ../runs/one holds no run" in out


def test_a_figure_moved_with_its_runs_is_still_made_again(capsys, place):
    path = drawn(capsys, place)
    moved = place.parent / f"{place.name}-moved"
    place.rename(moved)
    assert call(capsys, "figure", "--check", moved / path.relative_to(place))[0] == 0


def test_a_figure_of_an_array_is_checked_and_made_again_too(capsys, tmp_path):
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])
    np.save(tmp_path / "shares.npy", shares)
    path = tmp_path / "figure.svg"
    assert call(capsys, "figure", "rollout", tmp_path / "shares.npy", "-o", path, "--set", 'labels=["a", "b"]')[0] == 0
    assert call(capsys, "figure", "--check", path)[0] == 0
    np.save(tmp_path / "shares.npy", shares[::-1])
    assert call(capsys, "figure", "--check", path)[0] == 2


def test_an_image_is_given_as_a_file_of_its_own(capsys, place):
    from_conftest = load_run(place / "runs/one").maps()
    assert from_conftest is not None
    np.save(place / "image.npy", np.zeros((4, 4)))
    code, _, err = call(
        capsys,
        "figure",
        "patch_overlay",
        place / "runs/one",
        "-o",
        place / "a.svg",
        "--set",
        f"image={place}/image.npy",
    )
    assert code == 2
    assert "these tokens are no image patches" in err


BAD: dict[str, list[str]] = {
    "there is no figure": ["--check", "none.pdf"],
    "says nothing of how it was made": ["--check", "plain.svg"],
    "take the file of a saved figure, and nothing beside it": ["head_grid", "--check", "plain.svg"],
    "was saved from Python, by rollout(shares=<ndarray": ["--again", "bare.svg"],
    "names another command than fpt-viz figure": ["--again", "other.svg"],
    "which is not run unasked": ["--check", "code.svg"],
    "writes elsewhere": ["--again", "away.svg"],
    "required: NAME, RUN, -o": [],
    "shows an array that no run holds": ["rollout", "runs/one", "-o", "a.svg"],
    "shows runs, not arrays": ["head_grid_", "x.npy", "-o", "a.svg"],
    "cannot be read as an array": ["rollout", "plain.npy", "-o", "a.svg"],
    "Did you mean 'icml'": ["head_grid", "runs/one", "-o", "a.svg", "--preset", "iclm"],
    "no file type 'gif'": ["head_grid", "runs/one", "-o", "a.svg", "--format", "gif"],
    "width_mm must lie between": ["head_grid", "runs/one", "-o", "a.svg", "--width-mm", "2"],
}


@pytest.mark.parametrize("message", sorted(BAD))
def test_bad_input_is_one_line_that_says_what_would_do(capsys, place, gallery, monkeypatch, message):
    monkeypatch.chdir(place)
    Path("plain.svg").write_text("<svg/>")
    Path("plain.npy").write_text("no array")
    np.save("x.npy", np.zeros(3))
    gallery["rollout"].save("bare.svg")
    for name, command in {
        "other": "rm -r runs",
        "code": "fpt-viz figure code.py runs/one -o code.svg",
        "away": "fpt-viz figure head_grid runs/one -o ../away.svg",
    }.items():
        gallery["rollout"].save(f"{name}.svg")
        facts = json.loads(Path(f"{name}.svg.json").read_text()) | {"command": command}
        Path(f"{name}.svg.json").write_text(json.dumps(facts))
    words = ["training_curves" if word == "head_grid_" else word for word in BAD[message]]
    code, out, err = call(capsys, "figure", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert Path("runs/one").is_dir()
    assert not Path("a.svg").exists()


def test_the_digest_is_of_the_numbers_and_not_of_the_drawing(gallery):
    figure = gallery["head_grid"]
    changed = type(figure)(**{**vars(figure), "title": "Another", "note": "", "columns": 2})
    assert numbers.sha256(changed) == numbers.sha256(figure)
    assert len({numbers.sha256(each) for each in gallery.values()}) == len(gallery)


def test_a_sidecar_of_something_else_is_an_error(gallery, tmp_path):
    path = gallery["rollout"].save(tmp_path / "figure.svg")
    provenance.sidecar(path).write_text("[1]")
    with pytest.raises(RecordError, match="is no file that fpt_viz wrote"):
        provenance.read(path)
