"""``fpt-viz lab``: notebooks and records reach the reader whole, nothing of the reader's is lost, and JupyterLab opens
on the first notebook."""

from __future__ import annotations

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import urllib.request
from uuid import uuid4
import zipfile

from jupyter_client.blocking import BlockingKernelClient
from lab_server import url_once_it_answers
import pytest
import zmq

from fpt_viz import shipped
from fpt_viz.cli import looking
from fpt_viz.errors import SourceError
from fpt_viz.records import load_run
from fpt_viz.shipped import FIRST, checkout, copy_to

RUN = "data/results/notebooks/xor-pretrained"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package as a wheel has it, and what it carries."""
    package = tmp_path_factory.mktemp("installed") / "fpt_viz"
    for name in (
        FIRST, "notebooks/02_next.ipynb", "data/RESULTS.md", f"{RUN}/config.toml",
        f"{RUN}/telemetry/step_0.safetensors",
    ):  # fmt: skip
        path = package / "_shipped" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"ours: {name}")
    (package / "_shipped/data/results/table_1").mkdir()
    (package / "_shipped/data/results/table_1/table.md").write_text("ours: a table")
    return package


@pytest.fixture
def installed(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code here believes that it runs from that wheel."""
    monkeypatch.setattr(shipped, "PACKAGE", untouched)
    return untouched / "_shipped"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class HandedOverError(Exception):
    """Nothing runs after it in this process."""


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """What would have taken this process's place."""
    given: list[tuple[str, list[str], dict[str, str]]] = []

    def hand_over(*words: object) -> None:
        given.append(words)
        raise HandedOverError

    monkeypatch.setattr(os, "execve", hand_over)
    monkeypatch.setenv("FPT_VIZ_TRACEBACK", "1")
    return given


def test_all_is_copied_where_notebooks_find_it(installed, tmp_path):
    copied = copy_to(tmp_path / "lab")
    assert files_in(tmp_path / "lab") == files_in(installed)
    assert sorted(copied.new) == [
        "data/RESULTS.md", "data/results/notebooks/xor-pretrained", "data/results/table_1", FIRST,
        "notebooks/02_next.ipynb",
    ]  # fmt: skip
    again = copy_to(tmp_path / "lab")
    assert (again.new, again.kept, sorted(again.same)) == ([], [], sorted(copied.new))


def test_what_the_reader_changed_stays_and_is_told(installed, tmp_path):
    copy_to(tmp_path)
    (tmp_path / FIRST).write_text("mine")
    (tmp_path / RUN / "config.toml").write_text("mine")
    (tmp_path / RUN / "telemetry/step_0.safetensors").unlink()
    (tmp_path / "notebooks/10_my_own.ipynb").write_text("mine")
    before = files_in(tmp_path)
    copied = copy_to(tmp_path)
    assert files_in(tmp_path) == before
    assert sorted(copied.kept) == [RUN, FIRST]


def test_what_was_taken_away_comes_back_and_a_run_stays_of_one_version(installed, tmp_path):
    copy_to(tmp_path)
    (tmp_path / "notebooks/02_next.ipynb").unlink()
    (tmp_path / RUN / "ablate_heads.json").write_text("measured by the reader")
    copied = copy_to(tmp_path)
    assert copied.new == ["notebooks/02_next.ipynb"]
    assert copied.kept == []  # what the reader measured lies beside the run, which is the same


def test_a_copy_that_was_cut_off_leaves_no_half_record(installed, tmp_path, monkeypatch):
    copied_files = []

    def failing(source: Path, target: Path) -> None:
        if "telemetry" in str(source):
            raise OSError(28, "No space left on device")
        copied_files.append(target)
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr("fpt_viz.shipped.shutil.copyfile", failing)
    with pytest.raises(shipped.ConfigError, match="cannot be copied to .* No space left on device .* name another"):
        copy_to(tmp_path)
    assert any(path.name == "config.toml" for path in copied_files)
    assert not (tmp_path / RUN).exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_copies_can_be_written_to_where_the_installation_cannot(installed, tmp_path):
    (installed / FIRST).chmod(0o444)
    copy_to(tmp_path)
    assert (tmp_path / FIRST).stat().st_mode & 0o200


@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_a_place_that_is_no_folder_is_one_line_with_the_cure(call, installed, tmp_path, name):
    (tmp_path / "taken").write_text("mine")
    said = call("lab", tmp_path / name, "--copy-only")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert re.search(r"is a file: name a folder|Not a directory .* name another folder: fpt-viz lab DIR", said.err)


def test_a_place_that_may_not_be_written_to_is_one_line_with_the_cure(call, installed, tmp_path, monkeypatch):
    def refused(*_given: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "lab"))

    monkeypatch.setattr("fpt_viz.shipped.tempfile.TemporaryDirectory", refused)
    said = call("lab", tmp_path / "lab", "--copy-only")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "Permission denied" in said.err
    assert "name another folder: fpt-viz lab DIR" in said.err


def test_an_installation_without_notebooks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "fpt_viz")
    with pytest.raises(SourceError, match="carries no notebooks: install the wheel"):
        copy_to(tmp_path / "lab")


def test_copying_alone_opens_nothing(call, installed, handed_over, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = call("lab", "--copy-only", "--json").json()
    assert (told["folder"], len(told["new"]), told["kept"]) == ("fpt_viz_lab", 5, [])
    (tmp_path / "fpt_viz_lab" / FIRST).write_text("mine")
    said = call("lab", "--copy-only")
    assert f"kept as they are, though not what this version ships: {FIRST}" in said.out
    assert handed_over == []


def test_jupyterlab_opens_on_the_first_notebook_of_the_copy(call, installed, handed_over, monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_TOKEN", "")
    with pytest.raises(HandedOverError):
        call("lab", tmp_path / "lab")
    [(program, argv, environment)] = handed_over
    assert program == sys.executable
    assert f"--ServerApp.root_dir={(tmp_path / 'lab').resolve()}" in argv
    assert f"--LabApp.default_url=/lab/tree/{FIRST}" in argv
    assert "--ip=127.0.0.1" in argv
    assert not any("token" in word.lower() or "0.0.0.0" in word for word in argv)
    assert "JUPYTER_TOKEN" not in environment  # an empty one would switch the token off


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such sockets")
@pytest.mark.parametrize(("n_too_many", "transport"), [(0, "ipc"), (1, "tcp")])
def test_kernels_are_reached_through_sockets_only_where_their_paths_fit(
    call, installed, handed_over, monkeypatch, tmp_path, n_too_many, transport
):
    socket = f"/kernel-{uuid4()}-ipc-5"
    folder = "/" + "r" * (zmq.IPC_PATH_MAX_LEN - len(socket) - 1 + n_too_many)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
    with pytest.raises(HandedOverError):
        call("lab", tmp_path / "lab")
    assert f"--KernelManager.transport={transport}" in handed_over[0][1]


@pytest.mark.slow
def test_a_kernel_starts_where_the_home_folder_has_a_long_path(tmp_path):
    home = tmp_path / ("a_long_name_" * 8)
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON", "XDG"))}
    environment = kept | {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_TOKEN": "abc"}
    log = tmp_path / "lab.log"
    code = "from fpt_viz.cli import main; raise SystemExit(main(['lab', 'lab']))"
    with log.open("wb") as written:
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment | {"BROWSER": "true"}, cwd=tmp_path, stdout=written, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        url = url_once_it_answers(server, home, "abc", log)
        asked = urllib.request.Request(f"{url}api/kernels", b"{}", {"Authorization": "token abc"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            name = json.loads(answer.read())["id"]
        client = BlockingKernelClient(connection_file=str(home / f"runtime/kernel-{name}.json"))
        client.load_connection_file()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
        finally:
            client.stop_channels()
            client.context.destroy()
    finally:
        server.terminate()  # it stops its kernel, too
        server.wait(30)


@pytest.mark.parametrize(
    ("here", "words"), [(".", ["lab/notebooks"]), ("lab", []), ("lab/notebooks", ["."]), (".", ["lab"])]
)
def test_a_copy_is_found_again_from_where_the_reader_stands(
    call, installed, handed_over, monkeypatch, tmp_path, here, words
):
    copy_to(tmp_path / "lab")
    monkeypatch.chdir(tmp_path / here)
    with pytest.raises(HandedOverError):
        call("lab", *words)
    assert f"--ServerApp.root_dir={(tmp_path / 'lab').resolve()}" in handed_over[0][1]
    assert files_in(tmp_path / "lab") == files_in(installed)


def test_a_checkout_opens_its_own_notebooks_and_copies_nothing(
    call, handed_over, monkeypatch, tmp_path, repository, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HandedOverError):
        call("lab")
    assert f"--ServerApp.root_dir={repository.resolve()}" in handed_over[0][1]
    assert list(tmp_path.iterdir()) == []


def test_without_jupyterlab_the_cure_is_told_and_the_copies_are_there(
    call, installed, handed_over, monkeypatch, tmp_path
):
    monkeypatch.delenv("FPT_VIZ_TRACEBACK", raising=False)
    monkeypatch.setattr(looking, "find_spec", lambda name: None)
    said = call("lab", tmp_path / "lab")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "pip install jupyterlab" in said.err
    assert (tmp_path / "lab" / FIRST).is_file()
    assert handed_over == []


def test_the_records_of_the_checkout_are_copied_whole(tmp_path):
    top = checkout()
    assert top is not None
    copy_to(tmp_path)
    runs = sorted(path.parent for path in (tmp_path / "data/results/notebooks").glob("*/config.toml"))
    assert runs
    for folder in runs:
        assert load_run(folder).evaluation == load_run(top / folder.relative_to(tmp_path)).evaluation
    ours = {name for name in files_in(top / "notebooks") if re.fullmatch(r"[^/]+\.ipynb", name)}
    assert set(files_in(tmp_path / "notebooks")) == ours


@pytest.mark.slow
def test_a_wheel_carries_what_lab_copies(tmp_path, repository):
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", repository)
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import fpt_viz, json; from fpt_viz.cli import main; from fpt_viz.shipped import checkout; "
        "assert checkout() is None; raise SystemExit(main(['lab', 'lab', '--copy-only', '--json']))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    ours = copy_to(tmp_path / "ours")
    assert files_in(tmp_path / "lab") == files_in(tmp_path / "ours")
    assert ours.kept == []
