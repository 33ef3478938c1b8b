"""Records come back as they were saved, or an error names the file; and reading them needs no model."""

from __future__ import annotations

from dataclasses import fields, replace
import json
from pathlib import Path
import shutil
import subprocess
import sys

import pytest
import torch

from fpt_viz.backbones import load_backbone
from fpt_viz.capture import capture_attention
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import RecordError
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.ablate_top_heads import ablate_top_heads
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AblationEffects, AttentionMaps, HeadStatistics, Step, TopHeadsEffects, load_run, store
from fpt_viz.tasks import load_task
from fpt_viz.train import run

CONFIG = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="gpt2-tiny-random", init="random", n_layers=2),
    train=TrainConfig(n_steps=4, batch_size=4, validate_every=2),
)
SEALED = (
    "config.toml", "steps.jsonl", "adapter.safetensors", "adapter_initial.safetensors", "ledger.json",
    "environment.json", "result.json",
)  # fmt: skip
MEASURED = ("attention_maps.safetensors", "head_statistics.safetensors", "ablate_heads.json", "ablate_top_heads.json")
READERS = dict(zip(MEASURED, ("maps", "statistics", "ablation", "top_heads"), strict=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A finished run with everything that is measured saved beside it."""
    folder = tmp_path_factory.mktemp("records") / "run"
    run(CONFIG, folder)
    backbone = load_backbone("gpt2-tiny-random", "random", 2)
    model = FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=2))
    statistics = head_statistics(model)
    capture_attention(model, model.task.distinct(3, "test")).save(folder / MEASURED[0])
    statistics.save(folder / MEASURED[1])
    ablate_heads(model).save(folder / MEASURED[2])
    ablate_top_heads(model, ranking=statistics.ranking(), ks=(1, 2), n_random=3).save(folder / MEASURED[3])
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def equal(one, other) -> bool:
    """Whether two records hold the same, tensors bit for bit."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def read_all(folder: Path, file: str) -> None:
    record = load_run(folder)
    if file in READERS:
        getattr(record, READERS[file])()


# Damaged files


@pytest.mark.parametrize("file", [*SEALED, *MEASURED])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit flipped", "one byte appended", "last byte lost"])
def test_a_damaged_file_is_an_error_that_names_it_and_nothing_is_written(folder, file, damage):
    content = (folder / file).read_bytes()
    middle = len(content) // 2
    (folder / file).write_bytes(
        {
            "truncated": content[:middle],
            "emptied": b"",
            "one bit flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "one byte appended": content + b"x",
            "last byte lost": content.rstrip()[:-1],
        }[damage]
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(RecordError, match=file):
        read_all(folder, file)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("file", SEALED)
def test_a_missing_file_is_an_error_that_names_it(folder, file):
    (folder / file).unlink()
    with pytest.raises(RecordError, match=rf"{file}.* is missing"):
        load_run(folder)


def test_what_was_not_measured_is_none(folder):
    for file in MEASURED:
        (folder / file).unlink()
    record = load_run(folder)
    assert [getattr(record, reader)() for reader in READERS.values()] == [None] * 4


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_no_flipped_bit_and_no_cut_of_a_saved_file_goes_unseen(tmp_path, kind):
    path = tmp_path / f"small.{kind}"

    def read() -> None:
        if kind == "json":
            store.unsealed(store.read_json(path), path)
        else:
            store.read_tensors(path, "small")

    if kind == "json":
        store.write_json(path, store.sealed({"a": [1, 2.5], "b": "x"}))
    else:
        store.write_tensors(path, {"t": torch.arange(4.0), "u": torch.ones(2, 1)}, "small", {"a": 1})
    content = path.read_bytes()
    read()
    harmless, told = 0, []
    for i, byte in enumerate(content):
        for changed in (content[:i], content[:i] + bytes([byte ^ 1]) + content[i + 1 :]):
            path.write_bytes(changed)
            try:
                read()
                harmless += 1
            except RecordError as error:
                told.append(str(error))
    assert all(str(path) in text for text in told)
    assert harmless <= (1 if kind == "json" else 0)  # JSON's last line break may be lost


def test_a_file_of_another_kind_is_an_error_that_names_both(folder):
    shutil.copy(folder / MEASURED[0], folder / MEASURED[1])
    with pytest.raises(RecordError, match=r"head_statistics\.safetensors holds attention_maps, wanted head_statistics"):
        load_run(folder).statistics()
    shutil.copy(folder / MEASURED[2], folder / MEASURED[3])
    with pytest.raises(RecordError, match=r"ablate_top_heads\.json is no top_heads_effects file"):
        load_run(folder).top_heads()


def test_a_file_of_a_newer_schema_is_an_error_that_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(store, "SCHEMA_VERSION", 99)
        store.write_tensors(tmp_path / "new.safetensors", {}, "small", {})
    with pytest.raises(RecordError, match=r"new\.safetensors has schema 99, newer than 1"):
        store.read_tensors(tmp_path / "new.safetensors", "small")


def test_a_number_that_json_cannot_say_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"[Oo]ut of range float"):
        store.write_json(tmp_path / "nan.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    store.write_json(tmp_path / "a.json", 1)

    def full(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(RecordError, match=r"a\.json could not be written \(No space left on device\).*is kept"):
            store.write_json(tmp_path / "a.json", 2)
    assert store.read_json(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# Round trips


def test_attention_maps_come_back_as_they_were(folder):
    maps = load_run(folder).maps()
    maps.save(folder / "again.safetensors")
    assert equal(AttentionMaps.load(folder / "again.safetensors"), maps)
    assert maps.needs is not None
    assert maps.geometry.groups == ("a", "b")


def test_maps_without_needs_come_back_without(folder):
    maps = replace(load_run(folder).maps(), needs=None)
    maps.save(folder / "again.safetensors")
    assert equal(AttentionMaps.load(folder / "again.safetensors"), maps)


def test_head_statistics_come_back_as_they_were(folder):
    statistics = load_run(folder).statistics()
    statistics.save(folder / "again.safetensors")
    assert equal(HeadStatistics.load(folder / "again.safetensors"), statistics)
    bare = replace(statistics, routing_score=None, routing_interval=None, uniform=None, permuted=None)
    bare.save(folder / "again.safetensors")
    assert equal(HeadStatistics.load(folder / "again.safetensors"), bare)


def test_effects_come_back_as_they_were(folder):
    record = load_run(folder)
    for effects, kind in ((record.ablation(), AblationEffects), (record.top_heads(), TopHeadsEffects)):
        effects.save(folder / "again.json")
        assert kind.load(folder / "again.json") == effects
    assert record.top_heads().random[1].sets[0][1][0] in (0, 1)


def test_a_step_comes_back_as_it_was(folder):
    for step in load_run(folder).steps:
        again = Step.from_json(step.to_json())
        assert again == step
        assert (again.validation is None) == (step.index % 2 == 0)


def test_maps_whose_parts_do_not_fit_are_refused(folder):
    maps = load_run(folder).maps()
    with pytest.raises(RecordError, match=r"wants 2 layers, got 1"):
        replace(maps, layers=(0,))
    with pytest.raises(RecordError, match=r"wants 4 labels of an example, got 1"):
        replace(maps, labels=(("a",),) * 3)


# Tables


def test_steps_become_a_table_with_a_row_each(folder):
    record = load_run(folder)
    table = record.to_pandas()
    assert table["index"].tolist() == [0, 1, 2, 3]
    assert table["loss"].tolist() == [step.loss for step in record.steps]
    assert table["validation_accuracy"].isna().tolist() == [True, False, True, False]
    assert table["validation_accuracy"][3] == record.steps[3].validation.accuracy


def test_statistics_become_a_table_with_a_row_for_each_head(folder):
    statistics = load_run(folder).statistics()
    table = statistics.to_pandas()
    assert list(zip(table["layer"], table["head"], strict=True)) == [(i, h) for i in range(2) for h in range(4)]
    for row in table.itertuples():
        assert row.routing_score == statistics.routing_score[row.layer, row.head].item()
        assert row.entropy == statistics.entropy[row.layer, row.head].item()
        assert [row.interval_low, row.interval_high] == statistics.routing_interval[row.layer, row.head].tolist()
        assert row.permuted == statistics.permuted[row.layer, row.head].item()
    best = table.sort_values("routing_score", ascending=False).iloc[0]
    assert (best["layer"], best["head"]) == statistics.ranking()[0]


def test_effects_become_tables(folder):
    record = load_run(folder)
    effects, tops = record.ablation(), record.top_heads()
    table = effects.to_pandas()
    assert table["heads"].tolist() == [f"L{i}H{h}" for i in range(2) for h in range(4)]
    assert table["loss_rise"].tolist() == list(effects.loss_rise)
    bounds = list(zip(table["accuracy_low"], table["accuracy_high"], strict=True))
    assert bounds == list(effects.accuracy_interval)
    assert tops.to_pandas()["k"].tolist() == [1, 2]
    assert "layer" not in tops.top.to_pandas()


def test_the_ledger_becomes_a_table_with_a_row_for_each_tensor(folder):
    ledger = load_run(folder).ledger
    table = ledger.to_pandas()
    assert len(table) == len(ledger.rows)
    assert table[table["trained"]]["sha256"].isna().all()


# Without any model


def test_a_saved_run_is_read_where_transformers_cannot_be_imported(saved):
    program = """
import json, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "transformers":
            raise ImportError(f"{name} is refused here")
sys.meta_path.insert(0, Refused())
import fpt_viz as fpt
record = fpt.load_run(sys.argv[1])
maps, statistics = record.maps(), record.statistics()
json.dump({
    "accuracy": record.evaluation.accuracy, "steps": len(record.to_pandas()), "maps": list(maps.weights.shape),
    "best": statistics.ranking()[0], "heads": len(record.ablation().to_pandas()), "k": record.top_heads().k,
    "loaded": [name for name in sys.modules if name.partition(".")[0] == "transformers"],
}, sys.stdout)
"""
    done = subprocess.run([sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = load_run(saved)
    assert json.loads(done.stdout) == {
        "accuracy": record.evaluation.accuracy, "steps": 4, "maps": [2, 3, 4, 2, 4],
        "best": list(record.statistics().ranking()[0]), "heads": 8, "k": [1, 2], "loaded": [],
    }  # fmt: skip
