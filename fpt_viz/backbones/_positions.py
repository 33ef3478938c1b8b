"""A table of learned positions that was made longer, its new rows apart from the old ones."""

from __future__ import annotations

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn
from torch.nn import functional


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
