"""A run on the Hub's main branches goes on at the commits that it was started on, wherever those are by then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import shutil

from hub_server import COMMIT, FakeHub
from made_images import Made, write_idx, write_parquet
import pytest
import torch
from transformers import GPT2Config, GPT2Model

import fpt_viz as fpt
from fpt_viz.data_sets import places
from fpt_viz.errors import RunFolderError, SourceError
from fpt_viz.records import store
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import _images

DATA, MODEL = "datasets/ylecun/mnist", "models/org/tiny-gpt2"
NEWER = "f" * 40
CONFIG = fpt.RunConfig.from_dict(
    {
        "task": {"name": "mnist", "options": {"n_validation": 4}},
        "backbone": {"name": "gpt2:org/tiny-gpt2"},
        "train": {"n_steps": 5, "batch_size": 4, "checkpoint_every": 2},
    }
)
INIT = {"pretrained": CONFIG, "random": replace(CONFIG, backbone=replace(CONFIG.backbone, init="random"))}


def put(server: FakeHub, folder: Path, *, seed: int, commit: str, n_inner: int = 64) -> None:
    """Let both main branches be at ``commit``, with weights and images that ``seed`` draws."""
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=64, vocab_size=40, n_inner=n_inner)
    GPT2Model(config).save_pretrained(folder / "model")
    write_parquet(Made("mnist", seed=seed), folder / "data")
    data = folder / "data" / "mnist"
    server.commit = commit
    server.files = {
        MODEL: {path.name: path.read_bytes() for path in (folder / "model").iterdir()},
        DATA: {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*.parquet")},
    }


def forget() -> None:
    """What a new process does not know."""
    for kept in (_images._located, _images._published, _images._rows):
        kept.cache_clear()


@pytest.fixture(autouse=True)
def server(hub_server, tmp_path, monkeypatch) -> FakeHub:
    monkeypatch.delenv("FPT_VIZ_DATA", raising=False)
    monkeypatch.setattr(places, "SYSTEM", tmp_path / "none")
    put(hub_server, tmp_path / "old", seed=1, commit=COMMIT)
    forget()
    yield hub_server
    forget()


def cut_off(out: Path, *, after: int, config: fpt.RunConfig = CONFIG) -> None:
    """A run that fails in its step ``after``."""
    add = RunFolder.add

    def adding(self, step):
        if step.index == after:
            raise RuntimeError("cut off")
        add(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "add", adding)
        with pytest.raises(RuntimeError, match="cut off"):
            fpt.run(config, out)
    forget()


@pytest.mark.parametrize("init", INIT)
@pytest.mark.parametrize("after", [0, 3], ids=["before-a-checkpoint", "after-a-checkpoint"])
def test_a_resumed_run_keeps_the_commits_of_weights_and_data(server, tmp_path, after, init):
    unbroken = fpt.run(INIT[init], tmp_path / "unbroken")
    cut_off(tmp_path / "run", after=after, config=INIT[init])
    put(server, tmp_path / "new", seed=2, commit=NEWER, n_inner=32)

    record = fpt.run(INIT[init], tmp_path / "run", resume=True)

    assert record.ledger.backbone["revision"] == record.data["revision"] == COMMIT
    assert record.data == unbroken.data
    assert record.config == unbroken.config  # which names no commit, as the user did not
    found, wanted = (store.read_tensors(one.path / "adapter.safetensors", "adapter")[0] for one in (record, unbroken))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not any(NEWER in asked for asked in server.asked)
    forget()
    anew = fpt.run(INIT[init], tmp_path / "anew")
    assert anew.ledger.backbone["revision"] == anew.data["revision"] == NEWER  # what a resumed run could have taken


def test_commits_that_are_gone_are_an_error_and_never_replaced(server, tmp_path):
    cut_off(tmp_path / "run", after=3)
    put(server, tmp_path / "new", seed=2, commit=NEWER)
    shutil.rmtree(tmp_path / "hub")
    shutil.rmtree(tmp_path / "cache")

    with pytest.raises(SourceError, match=f"at {COMMIT} .*no such revision"):
        fpt.run(CONFIG, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_files_that_appear_on_this_machine_do_not_take_the_place_of_the_hub_s(tmp_path, monkeypatch):
    cut_off(tmp_path / "run", after=3)
    write_parquet(Made("mnist", seed=3), tmp_path / "local")
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / "local"))

    assert fpt.run(CONFIG, tmp_path / "run", resume=True).data["revision"] == COMMIT


def test_other_files_than_a_run_was_started_on_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / "local"))
    write_idx(Made("mnist", seed=3), tmp_path / "local")
    cut_off(tmp_path / "run", after=3)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    write_idx(Made("mnist", seed=4), tmp_path / "local")

    with pytest.raises(
        RunFolderError, match=r"the data are others than .*: sha256\.t10k-images-idx3-ubyte [0-9a-f]{64}"
    ):
        fpt.run(CONFIG, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_other_weights_than_a_run_was_started_on_are_refused(server, tmp_path):
    folder = tmp_path / "old" / "model"
    config = replace(CONFIG, backbone=replace(CONFIG.backbone, name=f"gpt2:{folder}"))
    cut_off(tmp_path / "run", after=3, config=config)
    put(server, tmp_path / "old", seed=2, commit=COMMIT)
    shutil.rmtree(tmp_path / "hub")
    put(server, tmp_path / "data", seed=1, commit=COMMIT)

    with pytest.raises(RunFolderError, match=r"the backbone's weights are others than .*: \d+ frozen tensors differ"):
        fpt.run(config, tmp_path / "run", resume=True)
