"""Attention that somebody else computed: as one tensor, and checked to be attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records.packed import WEIGHT_ERRORS, PackedWeights

if TYPE_CHECKING:
    from fpt_viz.records.attention import AttentionMaps

ROW_TOLERANCE = 1e-3
"""How far from 1 a row of somebody else's attention may sum, beside what it is stored as."""


def as_tensor(array: Any) -> Tensor:
    """``array`` of any library as a tensor on the CPU."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    try:
        return torch.as_tensor(np.asarray(array))
    except (TypeError, ValueError) as error:
        raise RecordError(f"{type(array).__name__} is no array of numbers: {error}") from error


def stacked(weights: Any) -> Float[Tensor, "layer batch head query key"]:
    """``weights`` as one tensor; a sequence holds one tensor a layer."""
    if isinstance(weights, Sequence):
        if not weights or weights[0] is None:
            raise RecordError(
                "there is no attention in what was given: a fused kernel never forms it, so output_attentions returns "
                'nothing; use capture_attention, or set_attn_implementation("eager") before the forward pass'
            )
        layers = [as_tensor(layer) for layer in weights]
        shapes = {tuple(layer.shape) for layer in layers}
        if len(shapes) > 1:
            raise RecordError(f"the layers' attention has several shapes, wanted one: {sorted(shapes)}")
        found = torch.stack(layers)
    else:
        found = weights.on_cpu() if isinstance(weights, PackedWeights) else as_tensor(weights)
    if found.ndim != 5 or not found.numel():
        raise RecordError(
            f"attention of shape {tuple(found.shape)} was given, wanted [layer batch head query key], none of them 0"
        )
    return found if found.is_floating_point() else found.float()


def check_shape(name: str, found: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise where what was given beside attention has another shape than it."""
    if tuple(found.shape) != wanted:
        raise RecordError(f"{name} of shape {tuple(found.shape)} was given beside attention that wants {wanted}")


def check_attention(maps: AttentionMaps) -> None:
    """Raise where rows of real queries do not sum to 1 or padding is attended to."""
    real = (maps.queries >= 0)[None, :, None]
    off = (maps.weights.float().sum(-1) - 1).abs().masked_fill(~real, 0.0).max()
    wanted = ROW_TOLERANCE + WEIGHT_ERRORS.get(maps.stored_as, 0.0)
    if not off <= wanted:  # also where it is NaN
        raise RecordError(
            f"rows of this attention sum to 1 only within {float(off):.2g}, wanted {wanted:.2g}: attention in "
            "training mode is after dropout, so call model.eval() first; scores before the softmax are no attention"
        )
    padding = ~maps.mask[None, :, None, None]
    on_padding = float(maps.weights.masked_fill(~(padding & real[..., None]), 0.0).max())
    if on_padding > ROW_TOLERANCE:
        raise RecordError(
            f"padding receives up to {on_padding:.2g} of a row's attention: pass the mask to the model that is captured"
        )
