"""Reader of Long Range Arena's ListOps files, ``basic_{train,val,test}.tsv``, which checks every line of them.

A line holds an expression with a space between its words, a tab, and its value. LRA puts every pair of words in round
brackets (``( ( ( [MAX 2 ) 9 ) ] )``); these say nothing that the square ones do not, and are dropped.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpt_viz.data_sets.places import VARIABLE, folders_of, wrong_file
from fpt_viz.errors import SourceError
from fpt_viz.records.store import sha256
from fpt_viz.tasks._listops import (
    CLOSE,
    MIN,
    PAD,
    SYMBOLS,
    Expressions,
    answers,
    are_whole,
    row_hashes,
    without_brackets,
)

FILES = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")
"""In the order of the splits."""
HEADER = b"Source\tTarget"
CURE = "take the files of lra_release.gz, or make them with LRA's generator (lra_benchmarks/data/listops.py)"
WHERE = f"{CURE}, and put them into a folder listops in the one that {VARIABLE} names"
CHARACTERS = b"()[] 0123456789MINAXEDS"
"""All that an expression is written with."""
OPERATORS = tuple((SYMBOLS[i].encode(), bytes([i])) for i in range(MIN, CLOSE))
TABLE = bytes(
    i - 48 if 48 <= i < 58 else CLOSE if i == ord("]") else i if MIN <= i < CLOSE else PAD for i in range(256)
)
"""Digits and closing brackets to symbols, operators as they were put in; all else, which is wrong, to padding."""
CHUNK = 4096
"""Lines that are checked at a time."""


def read_lra(max_tokens: int, n_lossy: int | None) -> tuple[Expressions, ...]:
    """The expressions of each split, from the first folder that has them; read once, about 25 s for LRA's 100,000.

    Args:
        max_tokens: The most that an expression may have.
        n_lossy: None keeps brackets; a number drops them and cuts there. Expressions that have become equal are then
            kept once, in the test split before validation before train.

    Raises:
        SourceError: The files are not there, or one has a line that is no expression with its value; or an expression
            is there twice.
    """
    folder = lra_folder()
    stamps = tuple((folder / name).stat().st_mtime_ns for name in FILES)
    return _read(folder, stamps, max_tokens, n_lossy)


def lra_folder() -> Path:
    """The first of the data folders that holds LRA's files.

    Raises:
        SourceError: There is none, or one of the files is missing from it.
    """
    folders = folders_of("listops")
    found = [folder for folder in folders if any((folder / name).is_file() for name in FILES)]
    if not found:
        where = ", ".join(map(str, folders)) or f"a folder listops in the one that {VARIABLE} names"
        raise SourceError(f"ListOps with data='lra' reads {', '.join(FILES)}; they are not in {where}: {WHERE}")
    missing = [name for name in FILES if not (found[0] / name).is_file()]
    if missing:
        raise SourceError(f"{found[0]} has no {missing[0]}, wanted {', '.join(FILES)}: {CURE}")
    return found[0]


def lra_checksums() -> dict[str, str]:
    """The SHA-256 of each of the files that :func:`read_lra` reads."""
    folder = lra_folder()
    return {name: sha256(folder / name) for name in FILES}


@lru_cache(maxsize=2)
def _read(folder: Path, _stamps: tuple[int, ...], max_tokens: int, n_lossy: int | None) -> tuple[Expressions, ...]:
    splits = [_read_file(folder / name, max_tokens) for name in FILES]
    _check_once(folder, [row_hashes(split.rows, split.n_tokens, 0) for split in splits])
    if n_lossy is None:
        return tuple(splits)
    lossy = [Expressions(*without_brackets(split.rows, n_lossy), split.answers) for split in splits]
    hashed = [row_hashes(split.rows, split.n_tokens, 0) for split in lossy]
    kept: set[int] = set()
    for i in (2, 1, 0):
        _, first = np.unique(hashed[i], return_index=True)
        chosen = np.array([j for j in np.sort(first) if int(hashed[i][j]) not in kept], dtype=np.int64)
        kept.update(hashed[i].tolist())
        lossy[i] = lossy[i][chosen]
    return tuple(lossy)


def _check_once(folder: Path, hashed: list[NDArray[np.uint64]]) -> None:
    """Raise where an expression is in the files twice."""
    every = np.concatenate(hashed)
    places = [(name, line) for name, found in zip(FILES, hashed, strict=True) for line in range(2, len(found) + 2)]
    order = np.argsort(every, kind="stable")
    again = np.flatnonzero(every[order][1:] == every[order][:-1])
    if len(again):
        (name, line), (other, other_line) = places[order[again[0]]], places[order[again[0] + 1]]
        raise SourceError(
            f"{folder}: line {line} of {name} is line {other_line} of {other} too; wanted each expression once, "
            f"so that no split knows another's: {CURE}"
        )


def _read_file(path: Path, max_tokens: int) -> Expressions:
    """The expressions of one file, every one checked."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if not lines or lines[0] != HEADER:
        found = repr(lines[0][:40].decode(errors="replace")) if lines else "an empty file"
        raise wrong_file(path, wanted="the header Source, tab, Target", found=found, cure=CURE)
    if len(lines) == 1:
        raise wrong_file(path, wanted="one or more expressions", found="none", cure=CURE)
    parts = [_parsed(path, start, lines[start : start + CHUNK], max_tokens) for start in range(1, len(lines), CHUNK)]
    return Expressions.joined(parts, max_tokens)


def _parsed(path: Path, start: int, lines: list[bytes], max_tokens: int) -> Expressions:
    """The expressions of some lines, the first of which is line ``start + 1``."""
    rows = np.full((len(lines), max_tokens), PAD, dtype=np.uint8)
    n_tokens = np.zeros(len(lines), dtype=np.int64)
    targets = np.zeros(len(lines), dtype=np.uint8)
    for i, line in enumerate(lines):
        symbols, targets[i] = _symbols(f"{path}, line {start + i + 1}", line, max_tokens)
        rows[i, : len(symbols)] = np.frombuffer(symbols, dtype=np.uint8)
        n_tokens[i] = len(symbols)
    whole = are_whole(rows, n_tokens)
    if not whole.all():
        place = f"{path}, line {start + 1 + int(np.argmin(whole))}"
        raise SourceError(f"{place}: wanted one whole expression, found brackets that do not match; {CURE}")
    found = answers(rows)
    wrong = found != targets
    if wrong.any():
        first = int(np.argmax(wrong))
        raise SourceError(
            f"{path}, line {start + first + 1}: wanted the expression's value {found[first]}, found {targets[first]}; "
            f"{CURE}"
        )
    return Expressions(rows, n_tokens, found)


def _symbols(where: str, line: bytes, max_tokens: int) -> tuple[bytes, int]:
    """The symbols of a line's expression, and the value that it states."""
    text, tab, target = line.partition(b"\t")
    if not tab or len(target) != 1 or not target.isdigit():
        found = repr(target[:20].decode(errors="replace")) if tab else "no tab"
        raise SourceError(f"{where}: wanted an expression, a tab and a digit, found {found}; {CURE}")
    symbols = text.translate(None, b"() ")
    for word, symbol in OPERATORS:
        symbols = symbols.replace(word, symbol)
    symbols = symbols.translate(TABLE)
    n_words = len(symbols) + text.count(b"(") + text.count(b")")
    is_spaced = text.count(b" ") == n_words - 1 and b"  " not in text and text == text.strip()
    if text.translate(None, CHARACTERS) or PAD in symbols or not is_spaced or text.count(b"(") != text.count(b")"):
        raise SourceError(
            f"{where}: wanted {', '.join(SYMBOLS[MIN:PAD])}, digits and matching round brackets, one space apart, "
            f"found {text[:60].decode(errors='replace')!r}; {CURE}"
        )
    if len(symbols) > max_tokens:
        raise SourceError(
            f"{where}: an expression of {len(symbols)} tokens, longer than max_tokens={max_tokens}: "
            "choose max_tokens=1999 (LRA's own are no longer), or paper_compatible=True beside it"
        )
    return symbols, target[0] - 48
