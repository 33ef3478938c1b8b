"""Every task trains on MiniLM from the command line; a new file in ``fpt_viz/tasks`` needs no edit here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import made_homology
from made_images import Made, write_cifar_binary, write_idx
import pytest

from fpt_viz import registry
from fpt_viz.cli import main
from fpt_viz.loading import load_model
from fpt_viz.records import load_run

pytestmark = [pytest.mark.slow, pytest.mark.model]

FEW = "task.n_validation=8"
OPTIONS = {
    "bit_memory": ("task.n_bits=100",),
    "listops": ("task.max_tokens=16",),
    "remote_homology": ("task.max_tokens=64",),
    "mnist": (FEW,),
    "fashion_mnist": (FEW,),
    "cifar10": (FEW,),
}
"""Of the tasks that are long as they come, or whose made data are few."""
CASES = {name: (name, OPTIONS.get(name, ()), 4) for name in registry.names("tasks")}
CASES["cifar10_lra"] = ("cifar10", (FEW, "task.gray=true", "task.patch_size=1", "train.dropout=0.0"), 2)
"""1,024 tokens, twice as many as MiniLM has positions; at that length dropout would take most of the time."""


@pytest.fixture
def few_data(made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few examples of each data set, so that a run ends with a short evaluation."""
    root = tmp_path / "data"
    for name in ("mnist", "fashion_mnist"):
        write_idx(Made(name, n_train=40, n_test=8), root)
    write_cifar_binary(Made("cifar10", n_train=40, n_test=8), root)
    made_homology.write_json(made_homology.made(), root / "remote_homology")
    for folder in made_data.iterdir():
        if not (root / folder.name).exists():
            (root / folder.name).symlink_to(folder)
    monkeypatch.setenv("FPT_VIZ_DATA", str(root))


@pytest.mark.usefixtures("few_data")
@pytest.mark.parametrize("case", CASES)
def test_a_task_trains_on_minilm_from_the_command_line(case, tmp_path, capsys):
    task, options, batch_size = CASES[case]
    out = tmp_path / "run"
    settings = ("train.n_steps=20", f"train.batch_size={batch_size}", *options)

    code = main(["train", "--task", task, "--backbone", "minilm", "--set", *settings, "--out", str(out), "--json"])
    said = capsys.readouterr()

    assert code == 0, said.err
    told = json.loads(said.out)
    assert (told["status"], told["n_steps"], told["frozen_intact"]) == ("finished", 20, True)
    record = load_run(out)
    assert [step.index for step in record.steps] == list(range(20))
    assert all(math.isfinite(step.loss) and step.n_examples == batch_size for step in record.steps)
    assert math.isfinite(record.evaluation.loss)
    model = load_model(record)  # an error where frozen weights are others than MiniLM's, which it reads again
    assert record.ledger.backbone["init"] == "pretrained"
    assert model.verify(record.ledger) == []
    assert model.backbone.n_layers == 6
    assert record.ledger.backbone["positions_new"] == max(0, model.task.n_tokens - 512)
