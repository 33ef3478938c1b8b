from __future__ import annotations

from collections import Counter
import hashlib
import json
import random
import struct

import made_homology
from made_homology import made, write_csv, write_json, write_parquet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fpt_viz import hub
from fpt_viz.cli import main
from fpt_viz.doctor import check_data
from fpt_viz.errors import ConfigError, FptVizError, SourceError
from fpt_viz.tasks import _proteins, load_task

pytestmark = [pytest.mark.slow]  # together; each takes seconds, most of them to write and break files

SPLITS = ("train", "validation", "test")
TAPE = ["<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *"ABCDEFGHIKLMNOPQRSTUVWXYZ"]
"""The table of songlab-cal/tape, tape/tokenizers.py, in its order."""
NAMES = {"fold": "test_fold_holdout", "family": "test_family_holdout", "superfamily": "test_superfamily_holdout"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the files of the data set go."""
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path))
    (tmp_path / "remote_homology").mkdir()
    return tmp_path / "remote_homology"


@pytest.fixture
def records(folder):
    """Files in TAPE's own format, and the records in them."""
    found = made()
    write_json(found, folder)
    return found


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(batch):
    """Letters and fold of each protein in a batch, read off with TAPE's table."""
    found = []
    for row, mask, target in zip(batch.inputs, batch.mask, batch.targets[:, 0].tolist(), strict=True):
        symbols = [TAPE[i] for i in row[mask].tolist()]
        assert (symbols[0], symbols[-1]) == ("<cls>", "<sep>")
        assert {TAPE[i] for i in row[~mask].tolist()} <= {"<pad>"}
        found.append(("".join(symbols[1:-1]), target))
    return sorted(found)


def expected(records, split):
    return sorted((one["primary"], one["fold_label"]) for one in records[split])


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
@pytest.mark.parametrize("test_split", ["fold", "family", "superfamily"])
def test_every_layout_holds_the_same_proteins(folder, write, test_split):
    records = made()
    write(records, folder)
    task = load_task("remote_homology", max_tokens=64, test_split=test_split)

    for split, name in zip(SPLITS, ("train", "valid", NAMES[test_split]), strict=True):
        assert pairs(task.distinct(1000, split)) == expected(records, name)
        assert task.n_examples(split) == len(records[name])
        assert set(pairs(task.sample(30, generator(), split))) <= set(expected(records, name))


def test_the_order_of_examples_is_the_same_in_every_layout(tmp_path, monkeypatch):
    batches = []
    for write in (write_json, write_csv, write_parquet):
        write(made(), tmp_path / write.__name__ / "remote_homology")
        monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / write.__name__))
        batches.append(load_task("remote_homology").distinct(20, "train", seed=3).inputs)

    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_files_may_lie_one_folder_deeper_as_in_tape_s_archive(folder):
    write_json(made(), folder / "remote_homology")

    assert load_task("remote_homology").n_examples("train") == 40


def test_the_symbols_are_tape_s():
    task = load_task("remote_homology")

    assert task.labels(torch.arange(30)) == TAPE
    assert (task.n_symbols, task.n_classes, task.n_readout) == (30, 1195, 1)
    assert task.chance == 1 / 1195


def test_proteins_that_are_too_long_are_left_out_and_counted(records):
    task = load_task("remote_homology", max_tokens=42)

    for split, name in zip(SPLITS, ("train", "valid", "test_fold_holdout"), strict=True):
        fitting = [one for one in records[name] if len(one["primary"]) + 2 <= 42]
        assert 0 < len(fitting) < len(records[name])
        assert task.n_examples(split) == len(fitting)
        assert task.n_dropped(split) == len(records[name]) - len(fitting)
    assert load_task("remote_homology", max_tokens=62).n_dropped("train") == 0


def test_equal_proteins_are_kept_once_and_out_of_train_where_they_are_tested(folder):
    records = made()
    shared = {name: records[name][0] for name in ("test_family_holdout", "valid")}
    records["train"] += [shared["test_family_holdout"], shared["valid"], records["train"][0]]
    records["valid"] += [shared["test_family_holdout"]]
    write_json(records, folder)
    task = load_task("remote_homology")  # tests on folds; the family of the shared one is still kept out

    train, validation = (pairs(task.distinct(1000, split)) for split in ("train", "validation"))
    assert train == expected(made(), "train")
    assert validation == expected(made(), "valid")


def test_batches_hold_proteins_of_similar_length(folder):
    rng = random.Random(0)
    records = made()
    records["train"] = [made_homology.record(rng, i, rng.randint(10, 400)) for i in range(300)]
    write_json(records, folder)
    together, apart = (load_task("remote_homology", n_buckets=n) for n in (10, 1))

    def padding(task):
        batches = [task.sample(32, generator(seed)) for seed in range(20)]
        return np.mean([1 - batch.mask.float().mean().item() for batch in batches])

    assert padding(together) < 0.15 < 0.35 < padding(apart)


@pytest.mark.parametrize("n_buckets", [1, 7, 40])  # of 40 proteins, of 5 and 6, and of one each
def test_every_protein_is_as_likely_as_any_other(records, n_buckets):
    task = load_task("remote_homology", n_buckets=n_buckets)
    counts = Counter(pair for seed in range(3000) for pair in pairs(task.sample(4, generator(seed))))

    assert len(counts) == 40
    np.testing.assert_allclose(np.array([*counts.values()]) / 12_000, 1 / 40, atol=0.012)


def test_the_trivial_solver_that_always_answers_one_fold_does_as_well_as_stated(records):
    folds = [one["fold_label"] for one in records["test_family_holdout"]]
    task = load_task("remote_homology", test_split="family")

    assert task.trivial == {"most frequent fold": max(map(folds.count, folds)) / len(folds)}


def test_the_source_names_each_file_with_its_checksum(records, folder):
    source = load_task("remote_homology").source()

    assert (source["layout"], source["revision"]) == ("json", "")
    assert source["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_without_files_on_this_machine_they_come_from_the_hub(folder, monkeypatch, tmp_path):
    write_csv(made(), tmp_path / "fetched")
    asked = {}

    def data_files(repo_id, patterns, *, revision=None, kind="dataset"):
        asked.update(repo_id=repo_id, revision=revision)
        return {path.name: path for path in (tmp_path / "fetched").iterdir()}, "c" * 40

    monkeypatch.setattr(hub, "data_files", data_files)
    task = load_task("remote_homology", revision="v1")

    assert pairs(task.distinct(100, "test")) == expected(made(), "test_fold_holdout")
    assert asked == {"repo_id": "proteinea/remote_homology", "revision": "v1"}
    assert task.source()["revision"] == "c" * 40


def test_without_files_and_without_the_hub_it_says_where_to_get_them(folder):
    with pytest.raises(
        SourceError, match=r"HF_HUB_OFFLINE.*data_raw/remote_homology.tar.gz.*proteinea/remote_homology"
    ):
        load_task("remote_homology").n_examples("train")


def test_lmdb_is_refused_with_the_reason_and_the_way_out(folder):
    (folder / "remote_homology_train.lmdb").mkdir()

    with pytest.raises(
        SourceError, match=r"remote_homology_train.lmdb is TAPE's LMDB, .*pickles, .*; it is refused: unp"
    ):
        load_task("remote_homology").n_examples("train")


def test_a_folder_with_some_of_the_files_is_refused_by_name(records, folder):
    (folder / "remote_homology_test_superfamily_holdout.json").unlink()

    with pytest.raises(SourceError, match=r"has no file of the split test_superfamily .* only remote_homology_test_fa"):
        load_task("remote_homology").n_examples("train")


def test_a_missing_part_is_refused_by_name(folder):
    write_parquet(made(), folder)
    (folder / "data" / "train-00001-of-00002.parquet").unlink()

    with pytest.raises(SourceError, match=r"wanted 2 files of the split train, found train-00000-of-00002.parquet"):
        load_task("remote_homology").n_examples("train")


GOOD = {"primary": "ACD", "fold_label": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "wanted records of proteins, found an empty file"),
        ("[]", "wanted records of proteins, found none"),
        ("{}", "wanted a list of records, found '{}'"),
        (json.dumps([GOOD])[:-1], "cannot be read as json after 1 records: wanted a comma or the end"),
        (json.dumps([GOOD]) + "x", "there is more after the list"),
        (json.dumps([GOOD])[:-1] + ",]", "cannot be read as json"),
        (json.dumps([GOOD, 7]), "after 1 records: wanted an object, found int"),
        (json.dumps([{"primary": "ACD"}]), "a record has no fold_label, only primary"),
        (json.dumps([{**GOOD, "fold_label": 1195}]), "wanted fold_label of record 0 from 0 to 1194, found 1195"),
        (json.dumps([GOOD, {**GOOD, "fold_label": -1}]), "wanted fold_label of record 1 from 0 to 1194, found -1"),
        (json.dumps([{**GOOD, "fold_label": 1.5}]), "fold_label of record 0 .*found 1.5"),
        (json.dumps([{**GOOD, "fold_label": True}]), "fold_label of record 0 .*found True"),
        (json.dumps([{**GOOD, "primary": "ACJ"}]), "letters A to Z without J .*record 0, found 'J' in 'ACJ'"),
        (json.dumps([{**GOOD, "primary": "acd"}]), "found 'a' in 'acd'"),
        (json.dumps([{**GOOD, "primary": "A<pad>"}]), "found '<' in"),
        (json.dumps([{**GOOD, "primary": ""}]), "wanted letters of a protein in record 0, found 0 letters"),
        (json.dumps([{**GOOD, "primary": [1, 2]}]), "wanted letters of a protein in record 0, found list"),
        (b"\x80\x04\x95 a pickle", "cannot be read as json"),
        ("[" * 100_000, "cannot be read as json"),
    ],
)  # fmt: skip
def test_a_json_file_that_is_not_tape_s_is_refused(records, folder, content, message):
    path = folder / "remote_homology_valid.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(SourceError, match=message) as caught:
        load_task("remote_homology").n_examples("train")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,primary\n0,ACD\n", "a record has no fold_label, only id, primary"),
        ("primary,fold_label\nACD,x\n", "fold_label of record 0 from 0 to 1194, found 'x'"),
        ("primary,fold_label\nACD\n", "a record has no fold_label"),
        ('primary,fold_label\n"ACD,1\n', "cannot be read as csv"),
        ("primary,fold_label\n", "wanted records of proteins, found none"),
        ("primary,fold_label\nACD," + "1" * 200_000, "cannot be read as csv"),
    ],
)
def test_a_csv_file_that_is_not_such_is_refused(folder, content, message):
    write_csv(made(), folder)
    (folder / "valid.csv").write_text(content)

    with pytest.raises(SourceError, match=message):
        load_task("remote_homology").n_examples("train")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"primary": ["ACD"]}, "a record has no fold_label, only primary"),
        ({"primary": ["ACD", None], "fold_label": [1, 2]}, "letters of a protein in record 1, found NoneType"),
        ({"primary": [1, 2], "fold_label": [1, 2]}, "letters of a protein in record 0, found int"),
        ({"primary": ["A" * 90_000_000], "fold_label": [1]}, r"1 rows would unpack to [\d,]+ bytes, wanted at most"),
    ],
)
def test_a_parquet_file_that_is_not_such_is_refused(folder, table, message):
    write_parquet(made(), folder)
    pq.write_table(pa.table(table), folder / "data" / "validation-00000-of-00002.parquet", compression="zstd")

    with pytest.raises(SourceError, match=message):
        load_task("remote_homology").n_examples("train")


@pytest.mark.parametrize(("write", "name"), [
    (write_json, "remote_homology_valid.json"), (write_csv, "valid.csv"),
    (write_parquet, "data/validation-00000-of-00002.parquet"),
])  # fmt: skip
def test_mutated_files_raise_nothing_but_the_librarys_errors(tmp_path, write, name):
    rng, refused = random.Random(0), 0
    write(made(longest=20), tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    for _ in range(1000):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            kind, place = rng.randrange(4), rng.randrange(len(mutated))
            if kind == 0:
                mutated[place] = rng.randrange(256)
            elif kind == 1:
                del mutated[place : place + rng.randint(1, 60)]
            elif kind == 2:
                mutated[place:place] = rng.randbytes(rng.randint(1, 4))
            else:
                mutated[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**32 - 1]))
        path.write_bytes(mutated)
        try:
            list(_proteins._records(path))
        except FptVizError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 2}, "max_tokens of remote_homology must be at least 3, got 2"),
        ({"max_tokens": 10**6}, "max_tokens of remote_homology must be at most 100000"),
        ({"n_buckets": 0}, "n_buckets of remote_homology must be at least 1"),
        ({"test_split": "valid"}, "test_split of remote_homology must be one of 'fold', 'family', 'superfamily'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_task("remote_homology", **options)


def test_a_cap_that_leaves_nothing_is_refused(records):
    with pytest.raises(
        SourceError, match=r"wanted proteins of at most 3 residues in no other split, found none among \d"
    ):
        load_task("remote_homology", max_tokens=5).n_examples("train")


def test_proteins_have_no_known_needs(records, rng):
    task = load_task("remote_homology")

    assert task.needs(task.sample(2, rng).inputs) is None


# ---------------------------------------------------------------------------------------------------------------------
# What the doctor says of it


def test_the_doctor_reads_every_split(records, monkeypatch):
    checks = check_data("remote_homology")

    assert [(check.name, check.status) for check in checks] == [
        ("remote_homology files", "ok"), ("remote_homology train", "ok"), ("remote_homology validation", "ok"),
        ("remote_homology test", "ok"),
    ]  # fmt: skip
    assert "json; SHA-256 begins with: remote_homology_train.json " in checks[0].found
    assert checks[1].found == "40 examples of 12,312 published"


def test_the_doctor_says_where_to_get_what_is_missing(folder):
    [check] = check_data("remote_homology")

    assert check.status == "degraded"
    assert check.found == f"none; looked at: {folder}, what was fetched from the Hub before"
    assert "data_raw/remote_homology.tar.gz" in check.cure
    assert "proteinea/remote_homology" in check.cure


def test_the_doctor_names_what_is_wrong_in_a_file(records, folder):
    (folder / "remote_homology_train.json").write_text("[{}]")
    checks = check_data("remote_homology")

    assert {check.status for check in checks[1:]} == {"degraded"}
    assert (
        "remote_homology_train.json cannot be read as json after 0 records: a record has no primary" in checks[1].found
    )


def test_the_doctor_fetches_nothing(folder, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.huggingface_hub, "HfApi", lambda **_: pytest.fail("the network was asked"))

    check_data("remote_homology")
    assert hub.constants.HF_HUB_OFFLINE is False


def test_the_command_line_looks_at_a_data_set(records, folder, capsys):
    assert main(["doctor", "--data", "remote_homology", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True

    (folder / "remote_homology_valid.json").unlink()
    assert main(["doctor", "--data", "remote_homology"]) == 2
    assert "the data set remote_homology is not ready" in capsys.readouterr().out

    assert main(["doctor", "--data", "bit_xor"]) == 2
    assert "no data set 'bit_xor'. There are: cifar10, fashion_mnist, listops" in capsys.readouterr().err
