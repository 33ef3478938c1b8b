"""Proteins with their folds, as TAPE publishes them: where the files are, strict readers, and the table of symbols.

TAPE's raw files are JSON, one list of records a split (songlab-cal/tape, ``README.md``, "Raw Data"); copies on the Hub
are CSV or parquet with the same columns. Of a record, ``primary`` (one letter a residue) and ``fold_label`` are read.
TAPE's LMDB files hold pickles and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import csv
from dataclasses import dataclass
from itertools import chain
import json
from pathlib import Path
import re
from typing import Any

from jaxtyping import Int, UInt8
import numpy as np

from fpt_viz import hub
from fpt_viz.data_sets.places import VARIABLE, file_size, folders_of, sorted_names, wrong_file
from fpt_viz.errors import SourceError
from fpt_viz.records.store import sha256

SYMBOLS = ("<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *"ABCDEFGHIKLMNOPQRSTUVWXYZ")
"""TAPE's IUPAC vocabulary: 25 letters (J is none) after five special tokens, of which three never occur here."""
PAD, CLS, SEP = SYMBOLS.index("<pad>"), SYMBOLS.index("<cls>"), SYMBOLS.index("<sep>")
N_FOLDS = 1195
MAX_RESIDUES = 100_000
"""No protein is nearly as long (the longest known has about 35,000 residues)."""
FILES = {
    "train": "train", "validation": "valid(?:ation)?", "test_fold": "test_fold_holdout",
    "test_family": "test_family_holdout", "test_superfamily": "test_superfamily_holdout",
}  # fmt: skip
"""Of each split, how a file's name spells it."""
PUBLISHED = {"train": 12_312, "validation": 736, "test_fold": 718, "test_family": 1_272, "test_superfamily": 1_254}
"""Proteins in each split, as counted by two copies on the Hub (TAPE_Remote_Homology, fold_prediction)."""
SUFFIXES = (".json", ".parquet", ".csv")
REPO_ID = "proteinea/remote_homology"
PATTERNS = ("*train*.csv", "*valid*.csv", "*holdout*.csv", "*train*.parquet", "*valid*.parquet", "*holdout*.parquet")
RAW = "http://s3.amazonaws.com/proteindata/data_raw/remote_homology.tar.gz"
WHERE = (
    f"unpack TAPE's raw JSON ({RAW}, as its README names it; the server may refuse) or download a copy of it from the "
    f"Hub, such as {REPO_ID}, into a folder remote_homology in the one that {VARIABLE} names"
)
CURE = "take the file again, or another copy of TAPE's remote homology"
MAX_OVERHEAD = 1 << 16
"""Bytes that a column of a parquet file may have beyond its longest possible rows: dictionaries and the like."""
_TABLE = bytes(SYMBOLS.index(chr(i)) if chr(i) in SYMBOLS else PAD for i in range(256))


@dataclass(frozen=True)
class Located:
    """The files of each split."""

    files: dict[str, tuple[Path, ...]]
    revision: str = ""
    """The Hub's commit; empty for files found on this machine."""

    def source(self) -> dict[str, Any]:
        """What a record says of where the data came from: the format, each file's SHA-256, the revision."""
        paths = [path for paths in self.files.values() for path in paths]
        layout = ", ".join(sorted({path.suffix[1:] for path in paths}))
        return {"layout": layout, "revision": self.revision, "sha256": {path.name: sha256(path) for path in paths}}


@dataclass(frozen=True)
class Proteins:
    """Proteins of one split, shortest first, equal lengths by their letters."""

    symbols: UInt8[np.ndarray, " symbol"]
    """All of them, one after another, each between ``<cls>`` and ``<sep>``."""
    ends: Int[np.ndarray, " protein"]
    """Where each protein ends in ``symbols``."""
    folds: Int[np.ndarray, " protein"]

    def __len__(self) -> int:
        return len(self.folds)

    @property
    def n_tokens(self) -> Int[np.ndarray, " protein"]:
        """Symbols of each protein, ``<cls>`` and ``<sep>`` among them."""
        return np.diff(self.ends, prepend=0)

    def rows(self, chosen: Int[np.ndarray, " chosen"], n_columns: int) -> UInt8[np.ndarray, "chosen n_columns"]:
        """Some proteins, padded to ``n_columns``."""
        rows = np.full((len(chosen), n_columns), PAD, dtype=np.uint8)
        lengths = self.n_tokens
        for row, i in zip(rows, chosen.tolist(), strict=True):
            row[: lengths[i]] = self.symbols[self.ends[i] - lengths[i] : self.ends[i]]
        return rows


# ---------------------------------------------------------------------------------------------------------------------
# Where the files are


def located(data_dir: str, revision: str) -> Located:
    """The files: on this machine, else from the Hub.

    Args:
        data_dir: Looked at first; empty where no folder is named.
        revision: Of the Hub's copy; files on this machine have none, and are passed over where it is given.

    Raises:
        SourceError: A folder holds some of the files only, or LMDB; or there are none and the Hub is out of reach.
    """
    for folder in [] if revision else folders_of("remote_homology", data_dir or None):
        paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix in SUFFIXES]
        files = _by_split({path.relative_to(folder).as_posix(): path for path in paths})
        if any(files.values()):
            _check_all_there(files, str(folder))
            return Located(files)
        _refuse_lmdb(folder)
    try:
        found, commit = hub.data_files(REPO_ID, PATTERNS, revision=revision or None)
    except SourceError as error:
        raise SourceError(f"{error}. Without the Hub: {WHERE}") from error
    files = _by_split(found)
    _check_all_there(files, f"{REPO_ID} on the Hub at {commit}")
    return Located(files, commit)


def _by_split(paths: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
    """The files of each split, of one format, in order."""
    files: dict[str, tuple[Path, ...]] = {}
    for split, spelled in FILES.items():
        name = re.compile(rf"(?:.*/)?(?:remote_homology_)?{spelled}(?:-\d{{5}}-of-\d{{5}})?\.[a-z]+")
        mine = {key: path for key, path in paths.items() if name.fullmatch(key)}
        suffix = next((suffix for suffix in SUFFIXES if any(key.endswith(suffix) for key in mine)), "")
        files[split] = tuple(mine[key] for key in sorted(mine) if key.endswith(suffix))
    return files


def _check_all_there(files: dict[str, tuple[Path, ...]], where: str) -> None:
    """Raise where a split has no file, or not all parts of one."""
    for split, paths in files.items():
        if not paths:
            there = sorted_names(path for found in files.values() for path in found)
            raise SourceError(
                f"{where} has no file of the split {split} (remote_homology_{split}.json or so), only {there}; {WHERE}"
            )
        parts = [re.search(r"-of-(\d{5})\.", path.name) for path in paths]
        n_wanted = int(parts[0][1]) if parts[0] else 1
        if len(paths) != n_wanted:
            raise SourceError(f"{where}: wanted {n_wanted} files of the split {split}, found {sorted_names(paths)}")


def _refuse_lmdb(folder: Path) -> None:
    """Raise where a folder holds TAPE's data as LMDB."""
    found = sorted([*folder.glob("*.lmdb"), *folder.glob("*/*.lmdb")])
    if found:
        raise SourceError(
            f"{found[0]} is TAPE's LMDB, whose values are pickles, which can run code when read; it is refused: {WHERE}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# What is in them


def proteins_of(files: dict[str, tuple[Path, ...]], max_tokens: int) -> tuple[dict[str, Proteins], dict[str, int]]:
    """The proteins of every split, each kept once, and how many longer than ``max_tokens`` were left out of each.

    Of equal sequences the first is kept; one that is in a test split stays out of validation and train, and one in
    validation out of train. So what trains does not depend on which test split is used.

    Raises:
        SourceError: A file cannot be read, or has a record that is no protein with its fold; or a split is empty.
    """
    seen: set[str] = set()
    found: dict[str, Proteins] = {}
    n_dropped: dict[str, int] = {}
    for stage in (("test_fold", "test_family", "test_superfamily"), ("validation",), ("train",)):
        of_stage: set[str] = set()
        for split in stage:
            whole: dict[str, int] = {}
            for letters, fold in chain.from_iterable(map(_records, files[split])):
                whole.setdefault(letters, fold)
            of_stage |= set(whole)
            fitting = {letters: fold for letters, fold in whole.items() if len(letters) + 2 <= max_tokens}
            n_dropped[split] = len(whole) - len(fitting)
            found[split] = _packed({letters: fold for letters, fold in fitting.items() if letters not in seen})
            if not len(found[split]):
                raise SourceError(
                    f"{files[split][0]}: wanted proteins of at most {max_tokens - 2} residues in no other split, found "
                    f"none among {len(whole)}: raise max_tokens, or {CURE}"
                )
        seen |= of_stage
    return found, n_dropped


def _packed(folds: dict[str, int]) -> Proteins:
    letters = sorted(folds, key=lambda text: (len(text), text))
    framed = [bytes([CLS]) + text.encode("ascii").translate(_TABLE) + bytes([SEP]) for text in letters]
    ends = np.cumsum([len(symbols) for symbols in framed], dtype=np.int64)
    return Proteins(
        np.frombuffer(b"".join(framed), np.uint8), ends, np.array([folds[text] for text in letters], np.int64)
    )


def _records(path: Path) -> Iterator[tuple[str, int]]:
    """Letters and fold of each record in a file, checked."""
    readers = {".json": _from_json, ".csv": _from_csv, ".parquet": _from_parquet}
    if file_size(path) == 0:
        raise wrong_file(path, wanted="records of proteins", found="an empty file", cure=CURE)
    n = -1
    try:
        for n, (primary, fold) in enumerate(readers[path.suffix](path)):
            yield _checked(path, n, primary, fold)
    except SourceError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError, OverflowError, MemoryError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SourceError(
            f"{path} cannot be read as {path.suffix[1:]} after {n + 1} records: {told}; {CURE}"
        ) from error
    if n < 0:
        raise wrong_file(path, wanted="records of proteins", found="none", cure=CURE)


def _checked(path: Path, n: int, primary: Any, fold: Any) -> tuple[str, int]:
    """The letters and fold of record ``n``, if they are such."""
    if not isinstance(primary, str) or not 0 < len(primary) <= MAX_RESIDUES:
        found = f"{len(primary):,} letters" if isinstance(primary, str) else type(primary).__name__
        raise wrong_file(path, wanted=f"letters of a protein in record {n}", found=found, cure=CURE)
    odd = sorted(set(primary) - set(SYMBOLS))
    if odd:
        wanted = f"letters A to Z without J as residues in record {n}"
        raise wrong_file(path, wanted=wanted, found=f"{odd[0]!r} in {primary[:20]!r}", cure=CURE)
    if isinstance(fold, str) and re.fullmatch(r"\d{1,9}", fold):  # CSV has no numbers
        fold = int(fold)
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < N_FOLDS:
        wanted = f"fold_label of record {n} from 0 to {N_FOLDS - 1}"
        raise wrong_file(path, wanted=wanted, found=repr(fold)[:40], cure=CURE)
    return primary, fold


def _from_json(path: Path) -> Iterator[tuple[Any, Any]]:
    """The records of a JSON list, one at a time: TAPE's hold profiles of 20 numbers a residue, which add up."""
    text = path.read_text(encoding="utf-8")
    decoder, space = json.JSONDecoder(), re.compile(r"\s*")
    position = _after(text, space.match(text).end(), "[")  # type: ignore[union-attr]  # \s* always matches
    separator = ""
    while True:
        position = space.match(text, position).end()  # type: ignore[union-attr]
        if separator != "," and text[position : position + 1] == "]":
            break
        record, position = decoder.raw_decode(text, position)
        if not isinstance(record, dict):
            raise ValueError(f"wanted an object, found {type(record).__name__}")
        yield _fields(record, record)
        position = space.match(text, position).end()  # type: ignore[union-attr]
        separator = text[position : position + 1]
        if separator not in (",", "]"):
            raise ValueError(f"wanted a comma or the end of the list, found {separator!r}")
        position += separator == ","
    if text[position + 1 :].strip():
        raise ValueError("there is more after the list")


def _after(text: str, position: int, wanted: str) -> int:
    if text[position : position + 1] != wanted:
        raise ValueError(f"wanted a list of records, found {text[position : position + 20]!r}")
    return position + 1


def _fields(record: dict[str, Any], there: Iterable[str]) -> tuple[Any, Any]:
    """Letters and fold of a record, whatever else it holds."""
    for name in ("primary", "fold_label"):
        if record.get(name) is None:
            raise ValueError(f"a record has no {name}, only {', '.join(list(there)[:8]) or 'nothing'}")
    return record["primary"], record["fold_label"]


def _from_csv(path: Path) -> Iterator[tuple[Any, Any]]:
    """The rows of a CSV file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield _fields(row, map(str, row))


def _from_parquet(path: Path) -> Iterator[tuple[Any, Any]]:
    """The rows of a parquet file; what its pages would unpack to is compared with its rows first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            _fields(dict.fromkeys(names, True), names)
            _check_pages(path, file.metadata)
            for batch in file.iter_batches(1024, columns=["primary", "fold_label"], use_threads=False):
                batch.validate(full=True)
                columns: Sequence[list[Any]] = [batch.column(name).to_pylist() for name in ("primary", "fold_label")]
                yield from zip(*columns, strict=True)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _check_pages(path: Path, metadata: Any) -> None:
    """Raise where the columns that are read would unpack to more than their rows can hold."""
    from fpt_viz.data_sets.parquet_pages import MalformedPageError, pages, row_groups

    n_file, n_rows = file_size(path), metadata.num_rows
    if not 0 < n_rows <= n_file:
        raise ValueError(f"wanted 1 to {n_file:,} rows in {n_file:,} bytes, found {n_rows:,}")
    n_unpacked = 0
    with path.open("rb") as raw:
        try:  # not through pyarrow's metadata, which ends the process on a damaged footer
            chunks = [chunk for group in row_groups(raw) for chunk in group.chunks]
            for chunk in chunks:
                if chunk.name in ("primary", "fold_label"):
                    n_unpacked += sum(page.n_unpacked for page in pages(raw, chunk.start, chunk.n_packed))
        except MalformedPageError as error:
            raise ValueError(f"it has no whole pages: {error}") from error
    n_most = n_rows * 10_000 + MAX_OVERHEAD  # on average: the longest of TAPE's has 1,419
    if n_unpacked > n_most:
        raise ValueError(f"{n_rows:,} rows would unpack to {n_unpacked:,} bytes, wanted at most {n_most:,}")
