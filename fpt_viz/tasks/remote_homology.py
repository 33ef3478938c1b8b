"""Remote homology (TAPE): which of 1,195 folds does this protein have, when its relatives were never seen?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.data_sets.places import VARIABLE
from fpt_viz.errors import ConfigError
from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._proteins import N_FOLDS, PUBLISHED, SYMBOLS, WHERE, Located, Proteins, located, proteins_of
from fpt_viz.tasks._splits import SPLITS, check_wanted, split_index
from fpt_viz.tasks.base import Batch, Task

__all__ = ["RemoteHomology"]

MASK = SYMBOLS.index("<mask>")
AMINO_ACIDS = torch.tensor([SYMBOLS.index(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"])
"""The symbols of the twenty that genes code for; other letters stand for rare or uncertain ones."""


@dataclass(frozen=True)
class RemoteHomology(Task):
    """Which fold has this protein? One token a residue between ``<cls>`` and ``<sep>``, which is read out.

    Symbols are TAPE's: 0 is padding, 2 and 3 are ``<cls>`` and ``<sep>``, 5 to 29 the letters A to Z without J; 1 and 4
    never occur. Proteins are as long as they are, padded at the end and masked. TAPE splits by kinship: a test split
    holds proteins of folds' families, superfamilies or folds that were held out of training. Of equal sequences one is
    kept, and none in train or validation that is in a test split.

    :meth:`sample` draws a batch from proteins of similar length, so that little of it is padding: the proteins of a
    split, sorted by length, are cut into ``n_buckets``, a batch comes from one of them, and each protein is as likely
    as any other.

    Files are looked for in ``FPT_VIZ_DATA``, the user's cache, ``/usr/share/datasets``, then fetched from the Hub.

    Reference:
        Rao et al., 2019, "Evaluating protein transfer learning with TAPE", https://arxiv.org/abs/1906.08230; the data
        are of Hou, Adhikari and Cheng, 2018, "DeepSF", https://doi.org/10.1093/bioinformatics/btx780. Lu et al. (2021)
        leave out batches that are longer than 1,024, report validation accuracy times 0.9739, and mask no padding.
    """

    placed_corruptions: ClassVar = ("replace", "mask")

    max_tokens: int = 1024
    """Of a protein, ``<cls>`` and ``<sep>`` included; longer ones are left out, and counted in :meth:`n_dropped`."""
    test_split: Literal["fold", "family", "superfamily"] = "fold"
    """Which of TAPE's three test splits is the test split: what was held out of training, from hard to easy fold,
    superfamily, family."""
    n_buckets: int = 10
    """Parts of a split, by length, from which batches are drawn; 1 draws from all of it."""
    revision: str = ""
    """Of the Hub's repository: a branch, tag or commit. Empty takes files on this machine, else the Hub's newest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(max_tokens=3, n_buckets=1)
        if self.max_tokens > 100_000:
            raise ConfigError(f"max_tokens of remote_homology must be at most 100000, got {self.max_tokens}")

    @property
    def n_tokens(self) -> int:
        """As many as the longest protein may have."""
        return self.max_tokens

    @property
    def n_values(self) -> None:
        """None: tokens are symbols."""
        return None

    @property
    def n_symbols(self) -> int:
        """25 letters and TAPE's five special tokens."""
        return len(SYMBOLS)

    @property
    def n_readout(self) -> int:
        """The last real token, ``<sep>``."""
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One of the folds."""
        return (N_FOLDS,)

    @property
    def trivial(self) -> dict[str, float]:
        """Always the fold that is most frequent in the test split."""
        folds = self._proteins("test").folds
        return {"most frequent fold": float(np.bincount(folds).max() / len(folds))}

    @property
    def where(self) -> str:
        """Where to get the real files, for those who have none."""
        return WHERE

    @property
    def published(self) -> dict[str, int]:
        """Proteins in each split as published, those that are too long or in two splits among them."""
        return {split: PUBLISHED[self._file_of(split)] for split in SPLITS}

    def n_dropped(self, split: str) -> int:
        """Proteins of a split that are left out because they are longer than ``max_tokens``."""
        return _read(_data_dir(), self.revision, self.max_tokens)[1][self._file_of(split)]

    def source(self) -> dict[str, Any]:
        """What a record says of where the data came from: ``layout``, ``sha256`` by file name, the Hub's commit."""
        return _located(_data_dir(), self.revision).source()

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random proteins of similar length from a split, padded to the longest of them; see :meth:`Task.sample`."""
        proteins = self._proteins(split)
        bounds = np.linspace(0, len(proteins), min(self.n_buckets, len(proteins)) + 1).round().astype(int)
        place = int(torch.randint(len(proteins), (1,), generator=rng))
        bucket = int(np.searchsorted(bounds, place, side="right"))
        low, high = int(bounds[bucket - 1]), int(bounds[bucket])
        chosen = torch.randint(low, high, (batch_size,), generator=rng).numpy()
        return _batch(proteins, chosen, int(proteins.n_tokens[chosen].max(initial=3)))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct proteins of a split, padded to ``max_tokens``; see :meth:`Task.distinct`."""
        check_wanted(n_examples)
        proteins = self._proteins(split)
        order = torch.randperm(len(proteins), generator=torch.Generator().manual_seed(seed)).numpy()
        return _batch(proteins, order[:n_examples], self.max_tokens)

    def n_examples(self, split: str) -> int:
        """Distinct proteins in a split, without those that are too long."""
        return len(self._proteins(split))

    def labels(self, inputs: Int[Tensor, " seq"]) -> list[str]:
        """The letter of each residue; ``"<cls>"``, ``"<sep>"`` and ``"<pad>"``."""
        return [SYMBOLS[symbol] for symbol in inputs.tolist()]

    def token_names(self) -> tuple[str, ...]:
        """``"t0"`` for the first token: a place in a protein has no other name."""
        return tuple(f"t{i}" for i in range(self.n_tokens))

    def geometry(self) -> Geometry:
        """All tokens lie in one string."""
        return Geometry(groups=("protein",), group=(0,) * self.n_tokens, position=tuple(range(self.n_tokens)))

    @property
    def corruptions(self) -> dict[str, str]:
        """A quarter of the residues change, or the one at a position (``<cls>`` is 0); the fold is taken to stay."""
        return {
            "replace": "a quarter of the residues become other amino acids, drawn at random",
            "mask": "a quarter of the residues become <mask>, which no other protein holds",
            **super().corruptions,
        }

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how not in ("replace", "mask"):
            return super()._corrupt(batch, how, rng, at)
        residues = batch.inputs >= SYMBOLS.index("A")
        n_changed = torch.ceil(residues.sum(1) / 4).long()
        changed = some_of(residues if at is None else residues & at, n_changed, rng)
        step = torch.randint(1, len(AMINO_ACIDS), batch.inputs.shape, generator=rng)
        rank = (batch.inputs[..., None] == AMINO_ACIDS).byte().argmax(-1)
        new = AMINO_ACIDS[(rank + step) % len(AMINO_ACIDS)] if how == "replace" else torch.full_like(step, MASK)
        return Batch(torch.where(changed, new, batch.inputs), batch.targets, batch.mask)

    def _file_of(self, split: str) -> str:
        """What TAPE calls a split."""
        return (("train", "validation", f"test_{self.test_split}"))[split_index(split)]

    def _proteins(self, split: str) -> Proteins:
        name = self._file_of(split)
        return _read(_data_dir(), self.revision, self.max_tokens)[0][name]


def _batch(proteins: Proteins, chosen: Int[np.ndarray, " chosen"], n_columns: int) -> Batch:
    inputs = torch.from_numpy(proteins.rows(chosen, n_columns).astype(np.int64))
    mask = torch.arange(n_columns) < torch.from_numpy(proteins.n_tokens[chosen])[:, None]
    return Batch(inputs, torch.from_numpy(proteins.folds[chosen])[:, None], mask)


def _data_dir() -> str:
    """What the environment names, absolute, so that what is kept for it is found again from any folder."""
    given = os.environ.get(VARIABLE)
    return str(Path(given).expanduser().absolute()) if given else ""


@lru_cache(maxsize=4)
def _located(data_dir: str, revision: str) -> Located:
    return located(data_dir, revision)


@lru_cache(maxsize=4)
def _read(data_dir: str, revision: str, max_tokens: int) -> tuple[dict[str, Proteins], dict[str, int]]:
    """The proteins of each split, and how many were too long; about 10 s for TAPE's raw JSON, less for the others."""
    return proteins_of(_located(data_dir, revision).files, max_tokens)
