"""How alike two representations of the same examples are, whatever their axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
import math

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError

__all__ = ["linear_cka"]

CHUNK_ROWS = 4096
XRows = Float[Tensor, "x_example x_feature"] | Iterable[Tensor]
YRows = Float[Tensor, "y_example y_feature"] | Iterable[Tensor]


def linear_cka(x: XRows, y: YRows, *, debiased: bool = False) -> float:
    r"""Linear centred kernel alignment of two representations.

    $\lVert X^\top Y \rVert_F^2 / (\lVert X^\top X \rVert_F \lVert Y^\top Y \rVert_F)$ with centred columns: 1 where one
    is the other turned, shifted or scaled as a whole, 0 where no feature of one goes with any of the other. With
    fewer examples than features even unrelated representations come out high; ``debiased`` corrects for that, and
    may then be slightly below 0.

    Args:
        x: Activations of one layer, one row an example; or an iterable of chunks of rows, to stream.
        y: Of another layer or model on the same examples in the same order, which cannot be checked here.
        debiased: Whether to use the unbiased estimate of HSIC, which leaves out each example with itself.

    Returns:
        Computed in float64. Costs examples x features^2 and holds three matrices features x features.

    Raises:
        ConfigError: The two have other numbers of examples, too few, values that are not finite, or one is the same on
            all examples.

    Reference:
        Kornblith et al., 2019, https://arxiv.org/abs/1905.00414; debiased: Song et al., 2012, Feature selection via
        dependence maximization, equation 4.
    """
    sums: dict[str, _Sums] = {}
    shifts: tuple[Tensor, Tensor] | None = None
    for chunk in _chunk_pairs(x, y):
        if shifts is None:  # near the mean, so that what follows does not cancel
            shifts = chunk[0].mean(0), chunk[1].mean(0)
        moved = {"x": chunk[0] - shifts[0], "y": chunk[1] - shifts[1]}
        for pair in ("xy", "xx", "yy"):
            a, b = moved[pair[0]], moved[pair[1]]
            found = _Sums.of(a, b)
            sums[pair] = sums[pair] + found if pair in sums else found
    n_examples, wanted = (sums["xy"].n if sums else 0), 4 if debiased else 2
    if n_examples < wanted:
        raise ConfigError(f"CKA{' without bias' if debiased else ''} wants {wanted} examples or more, got {n_examples}")
    alike, own, others = (sums[pair].unbiased() if debiased else sums[pair].biased() for pair in ("xy", "xx", "yy"))
    for name, value, pair in (("x", own, "xx"), ("y", others, "yy")):
        if not value > 1e-24 * sums[pair].scale ** 2:
            raise ConfigError(f"{name} is the same on all {n_examples} examples: it has no geometry to compare")
    return alike / (math.sqrt(own) * math.sqrt(others))


@dataclass(frozen=True)
class _Sums:
    """Sums over examples from which both estimates of HSIC between two representations follow."""

    n: int
    cross: Float[Tensor, "feature other"]
    """Of the outer products of the two rows."""
    first: Float[Tensor, " feature"]
    second: Float[Tensor, " other"]
    first_length: float
    """Of the squared lengths."""
    second_length: float
    both_lengths: float
    """Of the products of the squared lengths."""
    first_by_length: Float[Tensor, " feature"]
    """Of the first rows, each times the squared length of the second."""
    second_by_length: Float[Tensor, " other"]

    @classmethod
    def of(cls, a: Float[Tensor, "chunk feature"], b: Float[Tensor, "chunk other"]) -> _Sums:
        a2, b2 = a.square().sum(1), b.square().sum(1)
        return cls(
            len(a), a.T @ b, a.sum(0), b.sum(0), float(a2.sum()), float(b2.sum()), float(a2 @ b2), b2 @ a, a2 @ b
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def scale(self) -> float:
        """How large values are, for telling nothing from rounding."""
        return math.sqrt(self.first_length) * math.sqrt(self.second_length)

    def biased(self) -> float:
        return float((self.cross - torch.outer(self.first, self.second) / self.n).square().sum())

    def unbiased(self) -> float:
        """Song et al.'s estimate times n (n - 3), of kernels whose diagonal is left out."""
        n = self.n
        trace = float(self.cross.square().sum()) - self.both_lengths
        totals = (float(self.first @ self.first) - self.first_length) * (
            float(self.second @ self.second) - self.second_length
        )
        rows = (
            float(self.first @ self.cross @ self.second)
            - float(self.first @ self.first_by_length)
            - float(self.second @ self.second_by_length)
            + self.both_lengths
        )
        return trace + totals / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)


def _chunk_pairs(x: XRows, y: YRows) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of both in float64, checked."""
    if isinstance(x, Tensor) and isinstance(y, Tensor) and len(x) != len(y):
        raise ConfigError(f"x has {len(x)} examples and y has {len(y)}: take both from the same examples")
    for a, b in zip_longest(_chunks(x), _chunks(y)):
        if a is None or b is None or len(a) != len(b):
            sizes = ["none" if chunk is None else str(len(chunk)) for chunk in (a, b)]
            raise ConfigError(
                f"a chunk of x has {sizes[0]} and that of y {sizes[1]} examples: take both from the same examples, in "
                "chunks of the same sizes"
            )
        for name, chunk in (("x", a), ("y", b)):
            if chunk.ndim != 2:
                raise ConfigError(
                    f"{name} has the shape {tuple(chunk.shape)}, wanted [example feature]: flatten tokens"
                )
            if not bool(chunk.isfinite().all()):
                raise ConfigError(f"{name} has values that are not finite")
        if len(a):
            yield a.double(), b.double()


def _chunks(rows: XRows | YRows) -> Iterable[Tensor]:
    return rows.split(CHUNK_ROWS) if isinstance(rows, Tensor) else rows
