"""The same tap, writing instead of reading: what a model does without some of its heads.

A head is cut at its z, before the output projection: that equals zeroing its slice of W_O and keeps the bias. Cutting
the block's output would not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
import contextlib
from typing import Literal

from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.tap import Tappable, hooked

ABLATIONS = ("zero",)


@contextlib.contextmanager
def ablated(model: Tappable, heads: Collection[tuple[int, int]], kind: Literal["zero"] = "zero") -> Iterator[None]:
    """The model without ``heads`` within the block; gradients flow, and all is undone on exit.

    Args:
        model: In any mode and under any kernel.
        heads: As (layer, head), zero-based.
        kind: ``"zero"`` sets the heads' z to zero.

    Raises:
        ConfigError: No such head.
        UnknownNameError: No such kind of ablation.
    """
    if kind not in ABLATIONS:
        raise UnknownNameError("kind of ablation", kind, ABLATIONS)
    backbone = model.backbone
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        if not (0 <= layer < backbone.n_layers and 0 <= head < backbone.n_heads):
            raise ConfigError(
                f"no head L{layer}H{head} in {backbone.provenance.name}: it has layers 0 to {backbone.n_layers - 1} "
                f"and heads 0 to {backbone.n_heads - 1}"
            )
        by_layer.setdefault(layer, []).append(head)
    hooks = [(f"blocks.{layer}.attn.hook_z", _zero(cut)) for layer, cut in by_layer.items()]
    with hooked(model, hooks):
        yield


def _zero(heads: list[int]) -> Hook:
    """A hook that zeroes the z of ``heads``, ``[batch pos head d_head]``."""

    def cut(z: Tensor, hook: HookPoint) -> Tensor:
        z = z.clone()
        z[:, :, heads] = 0
        return z

    return cut
