"""ListOps (Nangia and Bowman, 2018): what is the value of this nested list of operations on digits?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._listops import (
    LOSSY_SYMBOLS,
    MIN,
    N_ANSWERS,
    SYMBOLS,
    Expressions,
    Grammar,
    answers,
    closing_of,
    drawn,
    length_shares,
    n_expressions,
    row_hashes,
    without_brackets,
)
from fpt_viz.tasks._listops_files import WHERE, lra_checksums, read_lra
from fpt_viz.tasks._splits import CHUNK, GENERATED_SHARES, assigned, check_wanted, split_index
from fpt_viz.tasks.base import Batch, Task

__all__ = ["ListOps"]

N_PAPER = 512
"""Tokens after which the paper's loader cuts."""
MAX_CANDIDATES = 1 << 15
"""Expressions drawn at a time, at most."""
MIN_EXPRESSIONS = 1 << 16
"""Distinct ones that the options must leave, so that each split has thousands."""
N_TRIES = 100
"""Digits that are tried, for each expression, until its value changes."""
MIN_SHARE = 1e-4
"""Of random expressions, those that must have a length asked for, so that drawing ends."""


@dataclass(frozen=True)
class ListOps(Task):
    """An expression such as ``[MAX 2 [SM 9 4 ] 0 ]`` (3) is shown; its value, one of ten digits, is asked for.

    A token is a digit, an operator with its opening bracket, or a closing bracket: the symbols 0 to 9 are the digits,
    10 to 14 are ``[MIN [MAX [MED [SM ]`` and 15 is padding. ``[MED`` is the median, of an even number the mean of the
    middle two, rounded down; ``[SM`` is the sum modulo 10. Examples are as long as they are, padded at the end and
    masked; the last real token, the outermost closing bracket, is read out. To answer, each closing bracket needs its
    operator's arguments.

    Generated expressions have the distribution of Long Range Arena's generator within the lengths asked for, and are
    split by a hash of their tokens: half of them train, a quarter each validate and test. LRA's own are 501 to 1,999
    tokens long (``min_tokens=501, max_tokens=1999``).

    Reference:
        Nangia and Bowman, 2018, https://arxiv.org/abs/1804.06028; Tay et al., 2021, https://arxiv.org/abs/2011.04006:
        google-research/long-range-arena, ``lra_benchmarks/data/listops.py``.
    """

    placed_corruptions: ClassVar = ("replace_digit",)

    max_tokens: int = 64
    """Of an expression, brackets included; at least 4."""
    min_tokens: int = 8
    """Of a generated expression, brackets included."""
    max_depth: int = 10
    """Levels of the tree, its digits included: operators nest at most ``max_depth - 1`` deep; 2 to 20."""
    max_args: int = 10
    """Arguments of an operator, of which there are at least 2; 2 to 50."""
    data: Literal["generated", "lra"] = "generated"
    """``"lra"`` reads ``basic_{train,val,test}.tsv`` from the folder ``listops`` of the data folder (FPT_VIZ_DATA)."""
    paper_compatible: bool = False
    """Show expressions as the code of Lu et al. (2021) did: without any bracket, cut or padded to 512 tokens, padding
    not masked. Such inputs do not say what their value is, and results are comparable with no other ListOps."""
    split_seed: int = 0
    """Of the hash that decides which generated expressions train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(max_tokens=4, min_tokens=4, max_depth=2, max_args=2, split_seed=0)
        for option, most in (("max_tokens", 10_000), ("max_depth", 20), ("max_args", 50)):
            if getattr(self, option) > most:
                raise ConfigError(f"{option} of listops must be at most {most}, got {getattr(self, option)}")
        if self.min_tokens > self.max_tokens:
            raise ConfigError(
                f"min_tokens of listops must be at most max_tokens, got {self.min_tokens} and {self.max_tokens}"
            )
        if self.data == "generated":
            self._check_grammar()

    def _check_grammar(self) -> None:
        """Raise where there are too few expressions, or hardly any of a length that is asked for."""
        n_possible, share = n_expressions(self._grammar), self._share
        asked = (
            f"{self.min_tokens} to {self.max_tokens} tokens, max_depth {self.max_depth} and max_args {self.max_args}"
        )
        if n_possible < MIN_EXPRESSIONS:
            raise ConfigError(
                f"listops has {n_possible:.0f} expressions of {asked}, at least {MIN_EXPRESSIONS} are wanted: "
                "allow more tokens, depth or arguments"
            )
        if share < MIN_SHARE:
            raise ConfigError(
                f"of the random expressions of listops, {share:.1g} have {asked}, at least {MIN_SHARE:g} are wanted: "
                "allow other lengths, or more depth or arguments"
            )

    @property
    def note(self) -> str:
        """What a reader of results must know of how the examples are shown; empty where there is nothing."""
        lossy = "paper's lossy loader: brackets dropped, cut or padded to 512 tokens, padding not masked"
        return lossy if self.paper_compatible else ""

    @property
    def where(self) -> str:
        """Where to get Long Range Arena's files, for those who have none."""
        return WHERE

    def source(self) -> dict[str, Any]:
        """What a record says of where the data came from, with the ``sha256`` of each file; empty if generated."""
        return {"layout": "tsv", "revision": "", "sha256": lra_checksums()} if self.data == "lra" else {}

    @property
    def n_tokens(self) -> int:
        """Of the longest expression; under ``paper_compatible``, of every one."""
        return N_PAPER if self.paper_compatible else self.max_tokens

    @property
    def n_values(self) -> None:
        """None: tokens are symbols."""
        return None

    @property
    def n_symbols(self) -> int:
        """Digits, operators, the closing bracket (unless it is dropped) and padding."""
        return len(self._symbols)

    @property
    def n_readout(self) -> int:
        """The last real token; under ``paper_compatible`` the last one, which may be padding."""
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One of ten digits."""
        return (N_ANSWERS,)

    @property
    def trivial(self) -> dict[str, float]:
        """The most frequent answer, and the most frequent answer of the first token's operator.

        Measured, on a fixed sample of generated expressions of the train split, or on all of LRA's test file.
        """
        return _trivial(self)

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random expressions of a split, padded to the longest of them; see :meth:`Task.sample`."""
        index = split_index(split)
        if self.data == "lra":
            whole = self._read[index]
            return self._batch(whole[torch.randint(len(whole), (batch_size,), generator=rng).numpy()])
        found: list[Expressions] = []
        missing = batch_size
        while missing > 0:
            n_wanted = math.ceil(1.2 * missing / (self._share * GENERATED_SHARES[index])) + 16
            found.append(self._accepted(min(n_wanted, MAX_CANDIDATES), rng, index)[:missing])
            missing -= len(found[-1])
        return self._batch(Expressions.joined(found, self.n_tokens))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct expressions of a split, padded to ``n_tokens``; see :meth:`Task.distinct`.

        Raises:
            ConfigError: More are asked for than can be drawn by rejection: an eighth of all expressions.
        """
        check_wanted(n_examples)
        index, rng = split_index(split), torch.Generator().manual_seed(seed)
        if self.data == "lra":
            whole = self._read[index]
            order = torch.randperm(len(whole), generator=rng).numpy()[:n_examples]
            return self._batch(whole[order], n_columns=self.n_tokens)
        if n_examples > n_expressions(self._grammar) / 8:
            raise ConfigError(
                f"{n_examples} distinct expressions of listops were asked for in the {split} split; "
                f"at most {n_expressions(self._grammar) // 8:.0f} can be drawn"
            )
        seen: dict[bytes, Expressions] = {}
        while len(seen) < n_examples:
            found = self._accepted(CHUNK, rng, index)
            for i, row in enumerate(found.rows):
                seen.setdefault(row.tobytes(), found[i : i + 1])
        parts = list(seen.values())[:n_examples]
        return self._batch(Expressions.joined(parts, self.n_tokens), n_columns=self.n_tokens)

    def n_examples(self, split: str) -> int | None:
        """Distinct expressions in a split of LRA's files; None where they are generated."""
        index = split_index(split)
        return len(self._read[index]) if self.data == "lra" else None

    def labels(self, inputs: Int[Tensor, " seq"]) -> list[str]:
        """One symbol a token: ``"[MAX"``, ``"3"``, ``"]"``, ``"pad"``; without brackets under ``paper_compatible``."""
        return [self._symbols[symbol] for symbol in inputs.tolist()]

    def token_names(self) -> tuple[str, ...]:
        """``"t0"`` for the first token: a place in an expression has no other name."""
        return tuple(f"t{i}" for i in range(self.n_tokens))

    def geometry(self) -> Geometry:
        """All tokens lie in one string."""
        return Geometry(groups=("expression",), group=(0,) * self.n_tokens, position=tuple(range(self.n_tokens)))

    def needs(self, inputs: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch query key"] | None:
        """A closing bracket needs its operator's arguments: digits, and the closing brackets of nested expressions.

        None under ``paper_compatible``, where no bracket is left.
        """
        if self.paper_compatible:
            return None
        closing = torch.from_numpy(closing_of(inputs.to("cpu", torch.uint8).numpy()))
        row, key = torch.nonzero(closing >= 0, as_tuple=True)
        needs = torch.zeros((*inputs.shape, inputs.shape[1]), dtype=torch.bool)
        needs[row, closing[row, key], key] = True
        return needs.to(inputs.device)

    @property
    def corruptions(self) -> dict[str, str]:
        """One digit becomes another, so that the value changes; not where brackets, and so values, are lost."""
        replaced = (
            {} if self.paper_compatible else {"replace_digit": "one digit becomes another, and so does the value"}
        )
        return {**replaced, **super().corruptions}

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how != "replace_digit":
            return super()._corrupt(batch, how, rng, at)
        inputs, targets = batch.inputs.clone(), batch.targets.clone()
        digits = inputs < MIN if at is None else (inputs < MIN) & at
        pending = torch.arange(len(batch))
        for _ in range(N_TRIES):
            tried = inputs[pending]
            place = some_of(digits[pending], 1, rng)
            step = torch.randint(1, N_ANSWERS, (len(pending), 1), generator=rng)
            tried = torch.where(place, (tried + step) % N_ANSWERS, tried)
            values = torch.from_numpy(answers(tried.to(torch.uint8).numpy()).astype(np.int64))
            found = values != targets[pending, 0]
            inputs[pending[found]], targets[pending[found], 0] = tried[found], values[found]
            pending = pending[~found]
            if not len(pending):
                break
        return Batch(inputs, targets, batch.mask)

    @property
    def _symbols(self) -> tuple[str, ...]:
        return LOSSY_SYMBOLS if self.paper_compatible else SYMBOLS

    @property
    def _grammar(self) -> Grammar:
        return Grammar(self.min_tokens, self.max_tokens, self.max_depth, self.max_args)

    @property
    def _share(self) -> float:
        """Of random expressions, those of a length asked for."""
        return float(length_shares(self._grammar)[self.min_tokens :].sum())

    @property
    def _read(self) -> tuple[Expressions, ...]:
        """LRA's expressions, split by split, as they are shown."""
        return read_lra(self.max_tokens, N_PAPER if self.paper_compatible else None)

    def _accepted(self, n_candidates: int, rng: torch.Generator, index: int) -> Expressions:
        """Those of ``n_candidates`` random expressions that have a length asked for and are in a split."""
        rows, n_tokens = drawn(n_candidates, rng, self._grammar)
        shown, n_shown = without_brackets(rows, N_PAPER) if self.paper_compatible else (rows, n_tokens)
        of_split = assigned(row_hashes(shown, n_shown, self.split_seed), GENERATED_SHARES) == index
        return Expressions(shown[of_split], n_shown[of_split], answers(rows[of_split]))

    def _batch(self, found: Expressions, *, n_columns: int | None = None) -> Batch:
        """The expressions as a batch of ``n_columns`` tokens; None is as many as the longest has."""
        targets = torch.from_numpy(found.answers.astype(np.int64))[:, None]
        if self.paper_compatible:
            return Batch(torch.from_numpy(found.rows.astype(np.int64)), targets)
        n_columns = n_columns or int(found.n_tokens.max(initial=4))
        inputs = torch.from_numpy(found.rows[:, :n_columns].astype(np.int64))
        mask = torch.arange(n_columns) < torch.from_numpy(found.n_tokens)[:, None]
        return Batch(inputs, targets, mask)


N_TRIVIAL_TOKENS = 10_000_000
"""About as many tokens are sampled to measure the trivial solvers; 1,000 to 20,000 expressions."""


@lru_cache(maxsize=16)
def _trivial(task: ListOps) -> dict[str, float]:
    """See :attr:`ListOps.trivial`."""
    if task.data == "lra":
        batch = task.distinct(task.n_examples("test") or 0, "test")
    else:
        n_sampled = min(max(N_TRIVIAL_TOKENS // task.max_tokens, 1000), 20_000)
        batch = task.sample(n_sampled, torch.Generator().manual_seed(0))
    by_operator = np.zeros((4, N_ANSWERS), dtype=np.int64)
    np.add.at(by_operator, (batch.inputs[:, 0].numpy() - MIN, batch.targets[:, 0].numpy()), 1)
    return {
        "most frequent answer": float(by_operator.sum(0).max() / len(batch)),
        "most frequent answer of the first operator": float(by_operator.max(1).sum() / len(batch)),
    }
