"""Small sets of proteins in the schema of TAPE's raw JSON, and as copies of it on the Hub hold them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "valid", "test_fold_holdout", "test_family_holdout", "test_superfamily_holdout")
SIZES = {"train": 40, "valid": 12, "test_fold_holdout": 14, "test_family_holdout": 9, "test_superfamily_holdout": 11}
LETTERS = "ACDEFGHIKLMNPQRSTVWYBOUXZ"


def record(rng: random.Random, number: int, n_residues: int) -> dict[str, Any]:
    """One protein with every field of TAPE's, as ``scripts/tfrecord_to_json.py`` writes them."""
    return {
        "id": f"d{number}a_",
        "protein_length": n_residues,
        "class_label": rng.randrange(7),
        "fold_label": rng.choice([0, 1194, *range(5)]),
        "superfamily_label": rng.randrange(1823),
        "family_label": rng.randrange(3439),
        "primary": "".join(rng.choice(LETTERS) for _ in range(n_residues)),
        "secondary_structure": [[1.0, 0.0, 0.0]] * n_residues,
        "solvent_accessibility": [[0.0, 1.0]] * n_residues,
        "evolutionary": [[0.05] * 20] * n_residues,
    }


def made(seed: int = 0, *, shortest: int = 12, longest: int = 60) -> dict[str, list[dict[str, Any]]]:
    """The records of each split; the same on every machine."""
    rng = random.Random(seed)
    return {
        split: [record(rng, n, rng.randint(shortest, longest)) for n in range(size)] for split, size in SIZES.items()
    }


def write_json(records: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """As TAPE's raw data: ``remote_homology_train.json`` ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, found in records.items():
        (folder / f"remote_homology_{split}.json").write_text(json.dumps(found))


def write_csv(records: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """As proteinea/remote_homology: ``train.csv`` ... with an index column, and arrays as numpy prints them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, found in records.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            names = [name for name in found[0] if name != "id"]
            writer.writerow(["", *names])
            for n, one in enumerate(found):
                arrays = {name: str(value).replace("], [", "]\n [") for name, value in one.items()}
                writer.writerow([n, *(arrays[name] for name in names)])


def write_parquet(records: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """As ``datasets`` writes them: ``data/train-00000-of-00002.parquet`` ..."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, found in records.items():
        name = split.replace("valid", "validation")
        for part in (0, 1):
            mine = found[part * len(found) // 2 : (part + 1) * len(found) // 2]
            table = {key: [one[key] for one in mine] for key in ("primary", "fold_label", "protein_length")}
            pq.write_table(pa.table(table), folder / "data" / f"{name}-{part:05}-of-00002.parquet")
