"""ListOps expressions as rows of symbols: drawn many at a time, evaluated, and their arguments found.

An expression is drawn as Long Range Arena's generator draws it (google-research/long-range-arena,
``lra_benchmarks/data/listops.py``): a random operator with 2 to ``max_args`` arguments, each of which is another
expression with probability 1/4, as long as the depth allows, and otherwise a random digit. Expressions outside the
lengths asked for are thrown away. All of it is done level by level, for many expressions at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Bool, Float64, Int, UInt8, UInt64
import numpy as np
import torch

from fpt_viz.tasks._splits import mixed

SYMBOLS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]", "pad")
"""The symbol table: a digit is its own number, and padding is the last."""
MIN, MAX, MED, SM, CLOSE, PAD = range(10, 16)
LOSSY_SYMBOLS = (*"0123456789", "MIN", "MAX", "MED", "SM", "pad")
"""The symbols that are left when brackets are dropped."""
N_ANSWERS = 10
NESTED_OF, NESTED = 40, 10
"""An argument is drawn as one of 40 numbers: the first 10 nest another expression, the others are 3 for each digit."""

Rows = UInt8[np.ndarray, "row token"]
Lengths = Int[np.ndarray, " row"]


@dataclass(frozen=True)
class Grammar:
    """Which expressions are drawn; see the options of :class:`fpt_viz.tasks.listops.ListOps`."""

    min_tokens: int
    max_tokens: int
    max_depth: int
    max_args: int


@dataclass(frozen=True)
class Expressions:
    """Expressions as they are shown, and their values."""

    rows: Rows
    n_tokens: Lengths
    answers: UInt8[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | Int[np.ndarray, " chosen"]) -> Expressions:
        return Expressions(self.rows[chosen], self.n_tokens[chosen], self.answers[chosen])

    @classmethod
    def joined(cls, parts: list[Expressions], n_columns: int) -> Expressions:
        """One after another; ``n_columns`` is the width of the rows, of which there may be none."""
        rows = np.concatenate([np.empty((0, n_columns), np.uint8), *(part.rows for part in parts)])
        n_tokens = np.concatenate([np.empty(0, np.int64), *(part.n_tokens for part in parts)])
        return cls(rows, n_tokens, np.concatenate([np.empty(0, np.uint8), *(part.answers for part in parts)]))


# ---------------------------------------------------------------------------------------------------------------------
# Drawing


@dataclass
class _Level:
    """The operators at one depth, of all expressions, in order."""

    owner: Int[np.ndarray, " op"]
    """The candidate that each operator belongs to."""
    arguments: UInt8[np.ndarray, "op arg"]
    """As drawn: a number of :data:`NESTED_OF`."""
    used: Bool[np.ndarray, "op arg"]
    nested: Bool[np.ndarray, "op arg"]
    operator: UInt8[np.ndarray, " op"]

    def of(self, chosen: Bool[np.ndarray, " op"]) -> _Level:
        """The ``chosen`` operators alone."""
        kept = (self.owner, self.arguments, self.used, self.nested, self.operator)
        return _Level(*(values[chosen] for values in kept))


def drawn(n_candidates: int, rng: torch.Generator, grammar: Grammar) -> tuple[Rows, Lengths]:
    """Those of ``n_candidates`` random expressions that have a length asked for, padded, and their lengths."""
    levels, n_tokens = _trees(n_candidates, rng, grammar)
    fits = (n_tokens >= grammar.min_tokens) & (n_tokens <= grammar.max_tokens)
    row_of = np.cumsum(fits) - 1
    kept = [level.of(fits[level.owner]) for level in levels]
    rows = np.full((int(fits.sum()), grammar.max_tokens), PAD, dtype=np.uint8)
    _write(rows, kept, row_of)
    return rows, n_tokens[fits]


def _trees(n_candidates: int, rng: torch.Generator, grammar: Grammar) -> tuple[list[_Level], Lengths]:
    """Random trees, level by level, and their numbers of tokens; one that has grown too long grows no further."""
    owner = np.arange(n_candidates)
    n_tokens = np.zeros(n_candidates, dtype=np.int64)
    places = np.arange(grammar.max_args, dtype=np.uint8)
    levels: list[_Level] = []
    while len(owner):
        n_args = torch.randint(2, grammar.max_args + 1, (len(owner),), dtype=torch.uint8, generator=rng).numpy()
        shape = (len(owner), grammar.max_args)
        arguments = torch.randint(NESTED_OF, shape, dtype=torch.uint8, generator=rng).numpy()
        operator = torch.randint(MIN, CLOSE, (len(owner),), dtype=torch.uint8, generator=rng).numpy()
        used = places < n_args[:, None]
        nested = used & (arguments < NESTED) if len(levels) + 2 < grammar.max_depth else np.zeros_like(used)
        n_nested = nested.sum(1)
        n_tokens += np.bincount(owner, 2 + n_args - n_nested, n_candidates).astype(np.int64)
        pending = np.bincount(owner, n_nested, n_candidates).astype(np.int64)
        nested &= (n_tokens + 4 * pending <= grammar.max_tokens)[owner][:, None]  # 4 tokens: the shortest expression
        n_tokens[n_tokens + 4 * pending > grammar.max_tokens] = grammar.max_tokens + 1
        levels.append(_Level(owner, arguments, used, nested, operator))
        owner = np.repeat(owner, nested.sum(1))
    return levels, n_tokens


def _write(rows: Rows, levels: list[_Level], row_of: Int[np.ndarray, " candidate"]) -> None:
    """Write each tree into its row: an operator, its arguments in order, and a closing bracket."""
    sizes: list[Int[np.ndarray, "op arg"]] = []  # of each argument in tokens, deepest level first
    of_children: Int[np.ndarray, " op"] = np.empty(0, dtype=np.int64)
    for level in reversed(levels):
        size = level.used.astype(np.int64)
        size[level.nested] = of_children
        of_children = 2 + size.sum(1)
        sizes.append(size)
    start = np.zeros(len(of_children), dtype=np.int64)
    for level, size in zip(levels, reversed(sizes), strict=True):
        row = row_of[level.owner]
        ends = start[:, None] + 1 + np.cumsum(size, axis=1)
        rows[row, start] = level.operator
        rows[row, ends[:, -1]] = CLOSE
        is_digit = level.used & ~level.nested
        rows[np.repeat(row, is_digit.sum(1)), (ends - 1)[is_digit]] = level.arguments[is_digit] % N_ANSWERS
        start = (ends - size)[level.nested]


@lru_cache(maxsize=64)
def length_shares(grammar: Grammar) -> Float64[np.ndarray, " n_tokens"]:
    """The probability that a random expression, of any length, has 0, 1, 2 ... ``grammar.max_tokens`` tokens."""
    share = NESTED / NESTED_OF
    return _by_length(grammar, digit=1 - share, last_digit=1.0, nested=share, whole=1 / (grammar.max_args - 1))


@lru_cache(maxsize=64)
def n_expressions(grammar: Grammar) -> float:
    """Distinct expressions of the lengths asked for; exact below 2**53, and a lower bound beyond ``MANY``."""
    counts = _by_length(grammar, digit=10.0, last_digit=10.0, nested=1.0, whole=float(CLOSE - MIN))
    return float(counts[grammar.min_tokens :].sum())


MANY = 1e90
"""Where counting stops, so that products of counts stay finite."""


def _by_length(
    grammar: Grammar, *, digit: float, last_digit: float, nested: float, whole: float
) -> Float64[np.ndarray, " n_tokens"]:
    """Weights of all expressions summed by number of tokens; a tree's weight is the product over its parts.

    ``digit`` is the weight of all digits together, ``last_digit`` at the greatest depth, ``nested`` that of nesting,
    and ``whole`` that of an expression around its arguments.
    """
    n = grammar.max_tokens + 1
    found = np.zeros(n)
    for depth in range(grammar.max_depth - 1, 0, -1):
        argument = nested * found
        argument[1] += last_digit if depth == grammar.max_depth - 1 else digit
        several, total = argument, np.zeros(n)
        for _ in range(2, grammar.max_args + 1):
            several = np.minimum(np.convolve(several, argument)[:n], MANY)
            total += several
        found = np.minimum(np.concatenate([np.zeros(2), whole * total[: n - 2]]), MANY)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _depths(rows: Rows) -> Int[np.ndarray, " place"]:
    """Of each token, row after row, how many brackets are open after it."""
    is_open, is_close = (rows >= MIN) & (rows < CLOSE), rows == CLOSE
    return np.cumsum(is_open.view(np.int8) - is_close.view(np.int8), axis=1, dtype=np.int16).ravel()


@dataclass(frozen=True)
class _Operators:
    """The operators of one depth: indices into the tokens of all rows, laid end to end."""

    opened: Int[np.ndarray, " op"]
    closed: Int[np.ndarray, " op"]
    arguments: Int[np.ndarray, " arg"]
    """Digits, and closing brackets of nested expressions."""
    operator_of: Int[np.ndarray, " arg"]
    """Of each argument, the index of its operator among these."""


def _operators(rows: Rows) -> list[_Operators]:
    """The operators of each depth, outermost first. ``rows`` must be whole expressions."""
    flat, depth = rows.ravel(), _depths(rows)
    is_digit, is_close = flat < MIN, flat == CLOSE
    is_open = ~is_digit & (flat < CLOSE)
    found = []
    for level in range(1, int(depth.max(initial=0)) + 1):
        here = depth == level
        closed = np.flatnonzero(is_close & (depth == level - 1))
        arguments = np.flatnonzero((is_digit | is_close) & here)
        operator_of = np.searchsorted(closed, arguments)  # the next bracket that closes this level
        found.append(_Operators(np.flatnonzero(is_open & here), closed, arguments, operator_of))
    return found


def answers(rows: Rows) -> UInt8[np.ndarray, " row"]:
    """The value of each expression, 0 to 9."""
    flat = rows.ravel()
    value = flat.copy()
    levels = _operators(rows)
    for level in reversed(levels):
        places = level.operator_of * N_ANSWERS + value[level.arguments]
        counts = np.bincount(places, minlength=len(level.closed) * N_ANSWERS).reshape(-1, N_ANSWERS)
        value[level.closed] = _reduced(flat[level.opened], counts)
    return value[levels[0].closed] if levels else np.empty(0, np.uint8)


def _reduced(operator: UInt8[np.ndarray, " op"], counts: Int[np.ndarray, "op digit"]) -> UInt8[np.ndarray, " op"]:
    """What each operator makes of its arguments, of which there are ``counts`` of each digit."""
    up_to = np.cumsum(counts, axis=1)
    n_args = up_to[:, -1:]
    lower, upper = ((up_to > middle).argmax(1) for middle in ((n_args - 1) // 2, n_args // 2))
    found = np.empty((4, len(operator)), dtype=np.int64)
    found[MIN - MIN] = (counts > 0).argmax(1)
    found[MAX - MIN] = N_ANSWERS - 1 - (counts[:, ::-1] > 0).argmax(1)
    found[MED - MIN] = (lower + upper) // 2
    found[SM - MIN] = counts @ np.arange(N_ANSWERS) % N_ANSWERS
    chosen: UInt8[np.ndarray, " op"] = found[operator - MIN, np.arange(len(operator))].astype(np.uint8)
    return chosen


def closing_of(rows: Rows) -> Int[np.ndarray, "row token"]:
    """Of each argument, the place of the closing bracket of its operator; -1 for a token that is no argument."""
    n_tokens = rows.shape[1]
    found = np.full(rows.size, -1, dtype=np.int64)
    for level in _operators(rows):
        found[level.arguments] = level.closed[level.operator_of] % n_tokens
    return found.reshape(rows.shape)


def are_whole(rows: Rows, n_tokens: Lengths) -> Bool[np.ndarray, " row"]:
    """Whether each row is one expression, whose every operator has an argument."""
    depth = _depths(rows).reshape(rows.shape)
    real = np.arange(rows.shape[1]) < n_tokens[:, None]
    last = np.arange(rows.shape[1]) == n_tokens[:, None] - 1
    ends_once = np.where(real & ~last, depth > 0, depth == 0).all(1)
    starts = (rows[:, 0] >= MIN) & (rows[:, 0] < CLOSE)
    is_empty = (rows[:, 1:] == CLOSE) & (rows[:, :-1] >= MIN) & (rows[:, :-1] < CLOSE)
    whole: Bool[np.ndarray, " row"] = ends_once & starts & ~is_empty.any(1)
    return whole


def without_brackets(rows: Rows, n_kept: int) -> tuple[UInt8[np.ndarray, "row kept"], Lengths]:
    """The rows in :data:`LOSSY_SYMBOLS`: closing brackets dropped, then cut or padded to ``n_kept`` tokens."""
    kept = rows < CLOSE
    place = np.cumsum(kept, axis=1) - 1
    n_tokens = np.minimum(kept.sum(1), n_kept)
    kept &= place < n_kept
    lossy = np.full((len(rows), n_kept), len(LOSSY_SYMBOLS) - 1, dtype=np.uint8)
    lossy[np.repeat(np.arange(len(rows)), kept.sum(1)), place[kept]] = rows[kept]
    return lossy, n_tokens


def row_hashes(rows: Rows, n_tokens: Lengths, seed: int) -> UInt64[np.ndarray, " row"]:
    """A 64-bit hash of the real tokens of each row, whatever the padding after them."""
    n_words = -(-rows.shape[1] // 8)
    padded = np.zeros((len(rows), n_words * 8), dtype=np.uint8)
    padded[:, : rows.shape[1]] = np.where(np.arange(rows.shape[1]) < n_tokens[:, None], rows + 1, 0)
    words = padded.view("<u8").astype(np.uint64)
    counter = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    hashed = mixed(words + mixed(counter))
    hashed[words == 0] = 0  # no token is 0 here, so such a word is padding
    return mixed(np.bitwise_xor.reduce(hashed, axis=1))
