"""Where planted quantities live in the residual stream: orthonormal directions that no layer norm tilts."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError


class Features:
    """Named groups of directions in the residual stream.

    All are orthonormal, and orthogonal to the vector of ones, so a stream that is written in them has mean zero: a
    layer norm only scales it, as an RMSNorm does. They are drawn at random, so no coordinate means anything by itself.
    """

    def __init__(self, d_model: int, sizes: Mapping[str, int], *, seed: int) -> None:
        """Draw the directions.

        Args:
            d_model: Width of the residual stream.
            sizes: Directions in each group; what is left forms the group ``"junk"``, which nothing planted reads.
            seed: Of the directions.

        Raises:
            ConfigError: The groups do not fit.
        """
        n_free = d_model - 1 - sum(sizes.values())
        if n_free < 1:
            raise ConfigError(f"{sum(sizes.values())} features do not fit into a residual stream of width {d_model}")
        drawn = torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        drawn[:, 0] = 1.0
        directions = torch.linalg.qr(drawn).Q[:, 1:].T.float()
        parts = directions.split([*sizes.values(), n_free])
        self._groups = dict(zip([*sizes, "junk"], parts, strict=True))

    def __getitem__(self, name: str) -> Float[Tensor, "feature hidden"]:
        """The directions of a group: rows that read it; transposed, columns that write it."""
        rows: Tensor = self._groups[name]
        return rows

    def without(self, *names: str) -> Float[Tensor, "feature hidden"]:
        """The directions of all groups but ``names``."""
        return torch.cat([rows for name, rows in self._groups.items() if name not in names])
