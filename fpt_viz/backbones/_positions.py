"""Learned positions: those of the network, made longer where a task is, or added where it has none."""

from __future__ import annotations

from dataclasses import replace
import logging
from typing import ClassVar

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from fpt_viz.backbones._provenance import Provenance
from fpt_viz.errors import ConfigError

logger = logging.getLogger("fpt_viz")


class GrownPositions(nn.Module):
    """In the place of an embedding of positions: the network's own rows, then new ones, each a parameter of its own."""

    def __init__(self, old: Float[Tensor, "old hidden"], n_new: int, *, seed: int) -> None:
        """Draw ``n_new`` rows, each dimension normal with the mean and standard deviation that it has over ``old``."""
        super().__init__()
        std, mean = torch.std_mean(old, dim=0, correction=0)
        drawn = torch.randn(n_new, old.shape[1], generator=torch.Generator().manual_seed(seed))
        self.old = nn.Parameter(old)
        self.new = nn.Parameter(mean + std * drawn.to(old))

    @property
    def weight(self) -> Float[Tensor, "row hidden"]:
        """All rows, in order."""
        return torch.cat([self.old, self.new])

    def forward(self, places: Int[Tensor, "*batch seq"]) -> Float[Tensor, "*batch seq hidden"]:
        """The rows at ``places``."""
        return functional.embedding(places, self.weight)


class WithPositions(nn.Module):
    """The part of a backbone that keeps its positions."""

    position_path: ClassVar[str | None] = None
    """Path of the learned positions, where the architecture has them."""
    network: PreTrainedModel
    provenance: Provenance
    d_model: int
    n_ctx: int | None
    """The longest sequence that the network's positions reach; None where no sequence is too long."""
    known_rows: Float[Tensor, "row hidden"] | None
    """Positions that a run learned where the architecture has none; those that are added start as they are."""

    @property
    def adds_positions(self) -> bool:
        """Whether learned rows are added to the input, for want of positions of the network's own."""
        return self.position_path is None

    @property
    def limit(self) -> str:
        """Why no sequence may be longer than :attr:`n_ctx`; empty where rows can be added for the rest."""
        return "" if self.position_path else "its positions are no rows of a table, so there are none to add"

    def _n_positions(self) -> int | None:
        if self.position_path is None:
            return int(self.network.config.max_position_embeddings)
        table = self.network.get_submodule(self.position_path)
        assert isinstance(table, nn.Embedding)  # by the family's position_path
        return table.num_embeddings

    def fit_positions(self, n_tokens: int, *, seed: int = 0) -> None:
        """Keep the learned positions of the first ``n_tokens`` tokens only; where there are none, add zero rows.

        Added rows that another run has learned start as it left them (:meth:`take_positions`).

        Where the sequence is longer than the network's positions, the missing rows are new: each value is drawn from a
        normal distribution with the mean and standard deviation of its dimension over the pretrained rows. So a new
        position differs from every other, and the frozen layers see the offset and scale that they know; rows of zero
        would be alike, and far from both. They are counted in the provenance, said in the log, and trained whichever
        groups train: they form the group ``new_position``.

        Args:
            n_tokens: Of the longest sequence.
            seed: Of new rows.

        Raises:
            ConfigError: The sequence is longer than the network's positions, which cannot grow.
        """
        n_new = 0 if self.n_ctx is None else max(n_tokens - self.n_ctx, 0)
        if n_new and self.limit:
            raise ConfigError(
                f"{self.provenance.name} has positions for {self.n_ctx} tokens, the task has {n_tokens}, and "
                f"{self.limit}: choose shorter inputs, larger patches, or a backbone with learned positions"
            )
        if self.position_path is None:
            if self.adds_positions:
                added = torch.zeros(n_tokens, self.d_model)
                if self.known_rows is not None:
                    added[: len(self.known_rows)] = self.known_rows[:n_tokens]
                self.added_positions = nn.Parameter(added)
            return
        table = self.network.get_submodule(self.position_path)
        assert isinstance(table, nn.Embedding)  # by the family's position_path
        rows = table.weight.detach()[:n_tokens].clone()
        if not n_new:
            assign(self.network, self.position_path, nn.Embedding.from_pretrained(rows, freeze=False))
            return
        assign(self.network, self.position_path, GrownPositions(rows, n_new, seed=seed))
        self.provenance = replace(self.provenance, positions_new=n_new)
        self._grow_buffers(n_tokens)
        logger.warning(
            "%s has positions for %d tokens, the task has %d: the other %d are new, and are trained",
            self.provenance.name, self.n_ctx, n_tokens, n_new,
        )  # fmt: skip

    def position_rows(self) -> Float[Tensor, "row hidden"]:
        """A copy of the learned positions, new ones too: of all there are, or of those kept for a task."""
        if self.position_path is None:
            return self.added_positions.detach().clone() if self.adds_positions else torch.empty(0, self.d_model)
        return torch.as_tensor(self.network.get_submodule(self.position_path).weight).detach().clone()

    def take_positions(self, rows: Float[Tensor, "row hidden"]) -> None:
        """Let ``rows``, one a token from the first, be what :meth:`fit_positions` starts from."""
        self.provenance = replace(self.provenance, positions_new=0)
        if self.adds_positions:
            self.known_rows = rows
            del self.added_positions
        if self.position_path is None:
            return
        assign(self.network, self.position_path, nn.Embedding.from_pretrained(rows, freeze=False))
        self.n_ctx = len(rows)

    def _grow_buffers(self, n_tokens: int) -> None:
        """Make what else in the network is as long as its positions reach ``n_tokens``; most have nothing."""


def assign(module: nn.Module, path: str, value: nn.Module | None) -> None:
    """Put ``value`` in the place of the submodule at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, value)
