"""What is read out of a model: attention maps of chosen layers, heads and queries.

In eval mode and float32, whatever the model was trained in (see :mod:`fpt_viz.tap`, which does the reading).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
import hashlib
from typing import Literal

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.cache import DEFAULT_BUDGET_BYTES, indices_of
from fpt_viz.errors import CaptureError
from fpt_viz.kernel import KernelTap, RowTap, take_rows
from fpt_viz.records import AttentionMaps
from fpt_viz.tap import Tappable, enter_kernel, inspecting
from fpt_viz.tasks.base import Batch

Queries = Literal["readout"] | Sequence[int] | None


def capture_attention(
    model: Tappable,
    batch: Batch,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    queries: Queries = "readout",
    dtype: torch.dtype | None = None,
    *,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> AttentionMaps:
    """The attention of ``model`` on ``batch``.

    Args:
        model: In any mode and under any kernel; both are as before afterwards.
        batch: Its examples are run in one forward pass.
        layers: Zero-based; None for all. Negative ones count from the last.
        heads: Zero-based; None for all.
        queries: The rows to keep: ``"readout"`` for the tokens that are read out, token indices, or None for all.
        dtype: Of the kept weights; None for float32.
        budget_bytes: The most memory that the kept weights may take, 2 GiB unless said.

    Raises:
        CaptureError: The estimate is over the budget, a layer was never reached, or rows do not sum to 1.
        ConfigError: No such layer, head or token.
    """
    device = next(model.parameters()).device
    batch = batch.to(device)
    kept_layers = indices_of("layer", layers, model.backbone.n_layers)
    kept_heads = indices_of("head", heads, model.backbone.n_heads)
    rows = query_rows(model, batch, queries)
    dtype = dtype or torch.float32
    n_tokens = batch.inputs.shape[1]
    size = len(kept_layers) * len(kept_heads) * rows.numel() * n_tokens * dtype.itemsize
    if size > budget_bytes:
        raise CaptureError(
            f"attention of {len(kept_layers)} layers x {len(batch)} examples x {len(kept_heads)} heads x "
            f"{rows.shape[1]} queries x {n_tokens} keys takes {size / 1e6:,.1f} MB, over the budget of "
            f'{budget_bytes / 1e6:,.1f} MB: choose layers, heads or queries="readout", fewer examples, or '
            "head_statistics, whose memory does not grow with them"
        )
    shape = (len(kept_layers), len(batch), len(kept_heads), rows.shape[1], n_tokens)
    weights = torch.empty(shape if len(kept_layers) > 1 else (0,), dtype=dtype)

    def keep(layer: int, found: Float[Tensor, "batch head query key"]) -> None:
        nonlocal weights
        if len(kept_layers) == 1:  # taken as it is: no second copy
            weights = found.to("cpu", dtype)[None]
        for place in (i for i, kept in enumerate(kept_layers) if kept == layer and len(kept_layers) > 1):
            weights[place].copy_(found)

    each_attention(model, batch, kept_layers, kept_heads, rows, keep)
    real = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask.cpu()
    needs = model.task.needs(batch.inputs.cpu())
    on_cpu = rows.cpu()
    return AttentionMaps(
        weights=weights,
        layers=tuple(kept_layers),
        heads=tuple(kept_heads),
        queries=on_cpu,
        labels=tuple(tuple(model.task.labels(example)) for example in batch.inputs.cpu()),
        mask=real,
        needs=None if needs is None else take_rows(needs[:, None], on_cpu)[:, 0] & (on_cpu >= 0)[..., None],
        causal=model.backbone.causal,
        geometry=model.task.geometry(),
        source={**model.source, "inputs": fingerprint(batch)},
    )


def fingerprint(batch: Batch) -> str:
    """The first 16 digits of the SHA-256 of a batch's inputs and mask: the same for the same examples alone."""
    digest = hashlib.sha256(batch.inputs.cpu().contiguous().numpy().tobytes())
    if batch.mask is not None:
        digest.update(batch.mask.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def attention_rows(
    model: Tappable, batch: Batch, layers: Sequence[int], heads: Sequence[int], rows: Int[Tensor, "batch query"]
) -> dict[int, Float[Tensor, "batch head query key"]]:
    """By layer, the chosen rows of the pattern on ``batch``, on the model's device; rows of -1 are zero."""
    found: dict[int, Tensor] = {}
    each_attention(model, batch, layers, heads, rows, found.__setitem__)
    return found


def each_attention(
    model: Tappable,
    batch: Batch,
    layers: Sequence[int],
    heads: Sequence[int],
    rows: Int[Tensor, "batch query"],
    take: Callable[[int, Tensor], None],
) -> None:
    """Call ``take`` with each layer and its chosen rows, ``[batch head query key]``, while the forward pass runs.

    So no more than one layer's rows need to be held. Rows of -1 are zero, and every layer is checked.

    Raises:
        CaptureError: A layer was never reached, rows do not sum to 1, or padding is attended to.
    """
    backbone, reached = model.backbone, set()
    blank = (rows < 0)[:, None, :, None] if bool((rows < 0).any()) else None

    def taker(layer: int) -> Callable[[Tensor], None]:
        def checked_first(weights: Tensor) -> None:
            weights = weights if blank is None else weights.masked_fill(blank, 0.0)
            _check_rows(weights, blank, batch.mask, layer)
            reached.add(layer)
            take(layer, weights)

        return checked_first

    head_index = torch.tensor(list(heads), device=batch.inputs.device)
    every_token = torch.arange(batch.inputs.shape[1], device=rows.device)
    whole = list(heads) == list(range(backbone.n_heads)) and rows.shape[1] == len(every_token)
    whole = whole and bool(((rows == every_token) | (rows < 0)).all())
    taps = {
        backbone.attentions[layer]: KernelTap(rows=[RowTap(head_index, rows, taker(layer), whole)]) for layer in layers
    }
    with inspecting(model), ExitStack() as undo:
        enter_kernel(backbone, taps, undo)
        model(batch.inputs, batch.mask)
    for layer in layers:
        if layer not in reached:
            raise CaptureError(f"attention of layer {layer} was never reached in the forward pass")


def _check_rows(
    weights: Float[Tensor, "batch head query key"],
    blank: Bool[Tensor, "batch 1 query 1"] | None,
    mask: Bool[Tensor, "batch key"] | None,
    layer: int,
) -> None:
    """Raise where rows do not sum to 1, or padding is attended to."""
    off = (weights.sum(-1) - 1).abs()
    wrong = (off if blank is None else off.masked_fill(blank[..., 0], 0.0)).max()
    if not wrong < 1e-4:  # also where it is NaN
        raise CaptureError(f"attention rows of layer {layer} sum to 1 only within {float(wrong):.2g}, wanted 1e-4")
    if mask is None:
        return
    on_padding = float(weights.masked_fill(mask[:, None, None, :], 0.0).max())
    if on_padding > 1e-4:
        raise CaptureError(
            f"padding receives up to {on_padding:.2g} of a row's attention in layer {layer}: the mask does not "
            "reach its attention, so every number of padded batches is wrong"
        )


def query_rows(model: Tappable, batch: Batch, queries: Queries) -> Int[Tensor, "batch query"]:
    """Of each example, the tokens that ``queries`` means; -1 where an example is too short to have the token."""
    n_examples, n_tokens = batch.inputs.shape[:2]
    if queries == "readout":
        return model.readout_tokens(n_tokens, batch.mask).expand(n_examples, -1)
    chosen = indices_of("query token", None if queries is None else [int(i) for i in queries], n_tokens)
    rows = torch.tensor(chosen, device=batch.inputs.device).expand(n_examples, -1)
    return rows if batch.mask is None else rows.masked_fill(~batch.mask[:, chosen], -1)


def visible_keys(
    batch: Batch, rows: Int[Tensor, "batch query"], *, causal: bool, reach: int | None = None
) -> Bool[Tensor, "batch query key"]:
    """True where a query may look.

    At real tokens, for causal models none that come after it, and none that is more than ``reach`` tokens away.
    """
    n_tokens = batch.inputs.shape[1]
    keys = torch.arange(n_tokens, device=rows.device)
    visible = (rows >= 0)[..., None] & torch.ones(n_tokens, dtype=torch.bool, device=rows.device)
    if batch.mask is not None:
        visible = visible & batch.mask[:, None, :].to(rows.device)
    if reach is not None:
        visible = visible & ((keys - rows[..., None]).abs() <= reach)
    return visible & (keys <= rows[..., None]) if causal else visible
