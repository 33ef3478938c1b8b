"""Patches of an image, black or white: which one is to the left of each?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
import torch
from torch import Tensor

from fpt_viz.records.geometry import Geometry
from fpt_viz.tasks._corruptions import some_of
from fpt_viz.tasks._splits import Bits, BitSplits
from fpt_viz.tasks.base import Batch, Task

__all__ = ["LeftPatch"]


@dataclass(frozen=True)
class LeftPatch(Task):
    """An image of ``n_rows`` x ``n_columns`` patches, row by row, each of one colour, -1 (black) or +1 (white).

    Every token is read out, and asked for the colour of its left neighbour; one in the first column for its own.
    """

    patch_size: ClassVar[int] = 4
    """Pixels along each side of a patch, for its place in the image."""
    placed_corruptions: ClassVar = ("flip_patch",)

    n_rows: int = 2
    n_columns: int = 4
    split_seed: int = 0
    """Of the hash that decides which images train, validate and test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minimum(n_rows=1, n_columns=2, split_seed=0)

    @property
    def n_tokens(self) -> int:
        """One a patch."""
        return self.n_rows * self.n_columns

    @property
    def n_values(self) -> int:
        """One colour a patch."""
        return 1

    @property
    def n_readout(self) -> int:
        """Every token."""
        return self.n_tokens

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Black or white."""
        return (2,)

    def left_of(self) -> list[int]:
        """Of each patch, its left neighbour; itself in the first column."""
        return [token - 1 if token % self.n_columns else token for token in range(self.n_tokens)]

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        """Random images of a split; see :meth:`Task.sample`."""
        return self._batch(self._splits.sample(batch_size, rng, split))

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        """Distinct images of a split; see :meth:`Task.distinct`."""
        return self._batch(self._splits.distinct(n_examples, torch.Generator().manual_seed(seed), split))

    def n_examples(self, split: str) -> int | None:
        """Distinct images in a split; None beyond 18 patches."""
        return self._splits.size(split)

    def labels(self, inputs: Float[Tensor, "seq 1"]) -> list[str]:
        """One string a token: ``"r0c1=white"``."""
        colours = ["white" if value > 0 else "black" for value in inputs[:, 0].tolist()]
        return [f"{name}={colour}" for name, colour in zip(self.token_names(), colours, strict=True)]

    def token_names(self) -> tuple[str, ...]:
        """``"r0c1"`` for row 0, column 1."""
        return tuple(f"r{row}c{column}" for row in range(self.n_rows) for column in range(self.n_columns))

    def geometry(self) -> Geometry:
        """The box of each patch."""
        side = self.patch_size
        return Geometry(
            image_size=(self.n_rows * side, self.n_columns * side),
            boxes=tuple((row * side, column * side, side, side) for row in range(self.n_rows)
                        for column in range(self.n_columns)),
        )  # fmt: skip

    def needs(self, inputs: Float[Tensor, "batch seq 1"]) -> Bool[Tensor, "batch query key"]:
        """Each patch needs its left neighbour; those of the first column need none."""
        needs = torch.zeros(self.n_tokens, self.n_tokens, dtype=torch.bool, device=inputs.device)
        for token, left in enumerate(self.left_of()):
            needs[token, left] = token != left
        return needs.expand(len(inputs), -1, -1)

    @property
    def corruptions(self) -> dict[str, str]:
        """The colour of a patch changes, and with it the answer to its right."""
        return {"flip_patch": "one patch changes its colour, never the last of a row", **super().corruptions}

    def _corrupt(self, batch: Batch, how: str, rng: torch.Generator, at: Bool[Tensor, " seq"] | None) -> Batch:
        if how != "flip_patch":
            return super()._corrupt(batch, how, rng, at)
        last_of_row = torch.arange(self.n_tokens) % self.n_columns == self.n_columns - 1
        flipped = some_of((~last_of_row if at is None else at).expand(len(batch), -1), 1, rng)
        inputs = torch.where(flipped[..., None], -batch.inputs, batch.inputs)
        return Batch(inputs=inputs, targets=(inputs[:, self.left_of(), 0] > 0).long())

    @property
    def _splits(self) -> BitSplits:
        return BitSplits(self.n_tokens, self.split_seed)

    def _batch(self, rows: Bits) -> Batch:
        colours = torch.from_numpy(rows).long()
        return Batch(inputs=(colours.float() * 2 - 1)[..., None], targets=colours[:, self.left_of()])
