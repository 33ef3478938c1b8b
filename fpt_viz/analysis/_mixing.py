"""A layer's attention and the residual stream beside it as one matrix: from which token each token has its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError

Layers = Float[Tensor, "layer batch head query key"] | Sequence[Float[Tensor, "batch head query key"]]
"""Whole patterns of all layers, first to last: one tensor, or one a layer, as transformers returns them."""
HeadFusion = Literal["mean", "max", "min"] | Float[Tensor, "layer head"]
CHUNK_VALUES = 2**22
"""Most numbers of one matrix over tokens and examples that are held at a time: 16 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixing:
    """How the heads of a layer become one matrix, and what the residual stream has of it."""

    heads: HeadFusion = "mean"
    """Over heads; or the weight of each head, of which only the ratios within a layer count."""
    residual_share: float = 0.5
    """Of each token's state after a layer, what it had before; the rest comes by attention."""
    sink: int | None = None
    """The token whose keys are left out, each row being shared out over the others."""

    def matrix(
        self, layer: int, weights: Float[Tensor, "batch head query key"], real: Bool[Tensor, "batch key"]
    ) -> Float[Tensor, "batch query key"]:
        """Rows that sum to 1: the share of each query's state after ``layer`` that each key's state before it has.

        A row that is left without attention (of a padded token, or once the sink is gone) stays with its own token.
        """
        fused, scale = self.attention(layer, weights, real)
        diagonal = torch.diagonal(fused, dim1=-2, dim2=-1)
        fused.mul_(scale[..., None] * (1 - self.residual_share))
        diagonal += torch.where(scale == 0, 1.0, self.residual_share)
        return fused

    def attention(
        self, layer: int, weights: Float[Tensor, "batch head query key"], real: Bool[Tensor, "batch key"]
    ) -> tuple[Float[Tensor, "batch query key"], Float[Tensor, "batch query"]]:
        """The heads as one, without sink and padding, and what makes each row sum to 1; 0 for a row of nothing."""
        fused = self._without(self._fused(layer, weights), real)
        if not float(fused.min()) >= 0:  # also where it is NaN
            raise ConfigError(
                f"the attention of layer {layer} has values down to {float(fused.min()):.3g} at real tokens, wanted 0 "
                "or more: scores before the softmax are no attention"
            )
        total = fused.sum(-1)
        return fused, torch.where(total > 0, 1 / total, 0.0)

    def head_weights(self, layer: int, n_heads: int) -> Float[Tensor, " head"] | None:
        """The weight of each head of ``layer`` in the sum over heads; None for a maximum or a minimum."""
        if isinstance(self.heads, Tensor):
            return self.heads[layer]
        return torch.ones(n_heads) if self.heads == "mean" else None

    def _fused(self, layer: int, weights: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch query key"]:
        """Head by head, so that no more than one matrix is held beside what was given."""
        n_batch, n_heads, n_queries, n_keys = weights.shape
        share = self.head_weights(layer, n_heads)
        dtype = torch.promote_types(weights.dtype, torch.float32)
        if share is None:
            fold = torch.maximum if self.heads == "max" else torch.minimum
            fused = weights[:, 0].to(dtype, copy=True)
            for head in range(1, n_heads):
                fold(fused, weights[:, head].to(dtype), out=fused)
            return fused
        fused = torch.zeros(n_batch, n_queries, n_keys, dtype=dtype, device=weights.device)
        for head, part in enumerate((share / share.sum().clamp(min=1e-30)).tolist()):
            if part:
                fused.add_(weights[:, head], alpha=part)
        return fused

    def _without(
        self, matrix: Float[Tensor, "batch query key"], real: Bool[Tensor, "batch key"]
    ) -> Float[Tensor, "batch query key"]:
        """``matrix`` with 0 where padding reads or is read, whatever was there, and where others read the sink."""
        if not bool(real.all()):
            matrix.masked_fill_(~(real[:, :, None] & real[:, None]), 0.0)
        if self.sink is not None:
            own = matrix[:, self.sink, self.sink].clone()
            matrix[:, :, self.sink] = 0.0
            matrix[:, self.sink, self.sink] = own
        return matrix


class Rooted(NamedTuple):
    """Patterns of some examples, and the tokens at which their answers are read."""

    layers: tuple[Float[Tensor, "batch head query key"], ...]
    real: Bool[Tensor, "batch key"]
    readout: Int[Tensor, "batch readout"]

    def matrices(self, mixing: Mixing) -> Iterator[Float[Tensor, "batch query key"]]:
        """Of each layer, the last one first."""
        for layer in reversed(range(len(self.layers))):
            yield mixing.matrix(layer, self.layers[layer], self.real)

    def roots(self) -> Float[Tensor, "batch readout key"]:
        """1 at each read-out token; rows of -1 are 0."""
        dtype = torch.promote_types(self.layers[0].dtype, torch.float32)
        keys = torch.arange(self.real.shape[1], device=self.readout.device)
        return (self.readout[..., None] == keys).to(dtype)


def rooted(
    weights: Layers, readout: Int[Tensor, "#batch readout"], mask: Bool[Tensor, "batch key"] | None, mixing: Mixing
) -> Rooted:
    """What was given, checked and without copies.

    Raises:
        ConfigError: Not whole patterns, no such token, or an option out of its range.
    """
    layers = tuple(weights)
    if not layers or not layers[0].numel():
        raise ConfigError("no attention was given: wanted that of all layers of a model on one example or more")
    n_batch, n_heads, n_queries, n_keys = layers[0].shape
    if n_queries != n_keys or any(layer.shape != layers[0].shape for layer in layers):
        raise ConfigError(
            f"attention of shapes {sorted({tuple(layer.shape) for layer in layers})} was given, wanted one shape "
            "[batch head query key] with as many queries as keys, since each token that is read was once a reader: "
            "capture_attention(..., queries=None)"
        )
    real = torch.ones(n_batch, n_keys, dtype=torch.bool, device=layers[0].device) if mask is None else mask
    if tuple(real.shape) != (n_batch, n_keys):
        raise ConfigError(f"a mask of shape {tuple(real.shape)} was given, wanted {(n_batch, n_keys)}")
    _check_mixing(mixing, len(layers), n_heads, n_keys)
    return Rooted(layers, real, _checked_readout(readout, real))


def by_examples(given: Rooted) -> Iterator[tuple[slice, Rooted]]:
    """``given`` in chunks of few examples where they have many tokens."""
    n_batch, n_keys = given.real.shape
    size = max(1, CHUNK_VALUES // n_keys**2)
    for start in range(0, n_batch, size):
        rows = slice(start, min(start + size, n_batch))
        layers = tuple(layer[rows] for layer in given.layers)
        yield rows, Rooted(layers, given.real[rows], given.readout[rows])


def refuse_blank(found: Float[Tensor, "batch readout key"], given: Rooted, mixing: Mixing, *, first: int = 0) -> None:
    """Raise where all that was ``found`` for a root is the root itself; ``first`` is the number of example 0."""
    roots = given.roots().to(found.dtype)
    blank = (given.readout >= 0) & ((found * (1 - roots)).sum(-1) == 0)
    if not bool(blank.any()):
        return
    example, root = blank.nonzero()[0].tolist()
    token = int(given.readout[example, root])
    before = int(given.real[example, :token].sum())
    why = " It is the first real token, and in a causal model that one sees nothing but itself." if not before else ""
    without = "" if mixing.sink is None else f", the sink {mixing.sink} being left out"
    raise ConfigError(
        f"token {token} of example {first + example} reads no other token in any layer{without}, so its map would be "
        f"blank but for itself, whatever the input.{why} Root it at tokens that read others, such as those that the "
        "task reads out: model.readout_tokens(n_tokens, mask)"
    )


def _checked_readout(
    readout: Int[Tensor, "rows readout"], real: Bool[Tensor, "batch key"]
) -> Int[Tensor, "batch readout"]:
    n_batch, n_keys = real.shape
    if not readout.shape[1] or len(readout) not in (1, n_batch):
        raise ConfigError(
            f"read-out tokens of shape {tuple(readout.shape)} were given, wanted [{n_batch} readout] or [1 readout]"
        )
    rows = readout.to(real.device).expand(n_batch, -1)
    if int(rows.min()) < -1 or int(rows.max()) >= n_keys:
        raise ConfigError(f"no token {int(rows.max())}: examples have {n_keys} tokens, numbered from 0; -1 is no token")
    if not bool(torch.where(rows < 0, True, real.gather(1, rows.clamp(min=0))).all()):
        raise ConfigError("a read-out token is padding: give -1 where an example has no such token")
    return rows


def _check_mixing(mixing: Mixing, n_layers: int, n_heads: int, n_keys: int) -> None:
    if not 0 <= mixing.residual_share < 1:
        raise ConfigError(f"residual_share must be from 0 to below 1, got {mixing.residual_share}: at 1 nothing moves")
    if mixing.sink is not None and not 0 <= mixing.sink < n_keys:
        raise ConfigError(f"no sink token {mixing.sink}: examples have {n_keys} tokens, numbered from 0")
    if isinstance(mixing.heads, Tensor):
        if tuple(mixing.heads.shape) != (n_layers, n_heads):
            raise ConfigError(
                f"head weights of shape {tuple(mixing.heads.shape)} were given, wanted {(n_layers, n_heads)}"
            )
        if not bool(((mixing.heads >= 0) & mixing.heads.isfinite()).all()):
            raise ConfigError(f"head weights must be 0 or more, got {float(mixing.heads.min()):.3g}")
    elif mixing.heads not in ("mean", "max", "min"):
        raise ConfigError(f'heads must be "mean", "max", "min" or weights [layer head], got {mixing.heads!r}')
