"""What is read out of a model: attention maps of chosen layers, heads and queries.

In eval mode and, unless bfloat16 is asked for, in float32, whatever the model was trained in (see :mod:`fpt_viz.tap`,
which does the reading).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
import hashlib
import logging
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor

from fpt_viz.cache import DEFAULT_BUDGET_BYTES, indices_of
from fpt_viz.errors import CaptureError, ConfigError
from fpt_viz.kernel import KernelTap, RowTap, take_rows
from fpt_viz.records import AttentionMaps
from fpt_viz.records._maps_file import writing_maps
from fpt_viz.records.packed import WEIGHT_ERRORS, PackedWeights, pack, stored_dtype, stored_note
from fpt_viz.tap import Tappable, enter_kernel, inspecting
from fpt_viz.tasks.base import Batch

logger = logging.getLogger(__name__)

Queries = Literal["readout"] | Sequence[int] | None
CapturePrecision = Literal["float32", "bfloat16"]


def capture_attention(
    model: Tappable,
    batch: Batch,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    queries: Queries = "readout",
    dtype: torch.dtype | str | None = None,
    *,
    precision: CapturePrecision = "float32",
    out: str | Path | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> AttentionMaps:
    """The attention of ``model`` on ``batch``.

    Args:
        model: In any mode and under any kernel; both are as before afterwards.
        batch: Its examples are run in one forward pass; with ``out``, in several where the budget asks for it.
        layers: Zero-based; None for all. Negative ones count from the last.
        heads: Zero-based; None for all.
        queries: The rows to keep: ``"readout"`` for the tokens that are read out, token indices, or None for all.
        dtype: What the weights are kept as, or its name; None for float32. Each weight is then at most so much of its
            row's largest from what was computed, and each row's sum at most so far from 1: float16 1/2048 (rows of up
            to 16,384 keys), bfloat16 1/256, uint8 1/255 (``records/packed.py``). The record says it.
        precision: Of the matrix products of the forward pass; ``"bfloat16"`` is written into the record's source.
            Pattern rows are formed in float32 either way. On a device without bfloat16, a line in the log says so and
            float32 is used.
        out: A file to capture straight into, layer by layer. What comes back is mapped from it, so that maps may be
            larger than memory.
        budget_bytes: The most memory that the kept weights may take, 2 GiB unless said; with ``out``, those of one
            layer.

    Raises:
        CaptureError: The estimate is over the budget, a layer was never reached, or rows do not sum to 1.
        ConfigError: No such layer, head or token, or weights cannot be kept as ``dtype``.
        RecordError: ``out`` cannot be written; what was there is kept.
    """
    device = next(model.parameters()).device
    batch = batch.to(device)
    kept_layers = indices_of("layer", layers, model.backbone.n_layers)
    kept_heads = indices_of("head", heads, model.backbone.n_heads)
    rows = query_rows(model, batch, queries)
    kept_as = stored_dtype(torch.float32 if dtype is None else dtype)
    precision = _possible(precision, device)
    shape = (len(kept_layers), len(batch), len(kept_heads), rows.shape[1], batch.inputs.shape[1])
    size = prod(shape) * kept_as.itemsize + (prod(shape[:-1]) * 4 if kept_as == torch.uint8 else 0)
    about = _about(model, batch, rows) | {"layers": tuple(kept_layers), "heads": tuple(kept_heads)}
    about["source"] |= stored_note(kept_as, WEIGHT_ERRORS[kept_as])
    about["source"] |= {"precision": precision} if precision != "float32" else {}

    def run(part: slice, take: Callable[[int, Tensor], None]) -> None:
        each_attention(model, batch[part], kept_layers, kept_heads, rows[part], take, precision=precision)

    if out is None:
        if size > budget_bytes:
            raise _over_budget(shape, size, budget_bytes, _cures(shape, kept_as, queries))
        return AttentionMaps(weights=_in_memory(kept_layers, shape, kept_as, run), **about)
    # While they are formed, the rows of one layer are in float32, and twice where they are checked.
    bytes_each = prod(shape[2:]) * 4
    n_examples = max(1, min(len(batch), budget_bytes // max(1, bytes_each)))
    if not prod(shape):
        raise ConfigError(f"attention of shape {shape} was to be captured into {out}: there is nothing to write")
    if bytes_each > budget_bytes:
        raise _over_budget((1, 1, *shape[2:]), bytes_each, budget_bytes, _cures((1, 1, *shape[2:]), None, queries))
    with writing_maps(Path(out), about, shape, kept_as) as put:
        for first in range(0, len(batch), n_examples):

            def to_file(layer: int, found: Tensor, first: int = first) -> None:
                for place in (i for i, kept in enumerate(kept_layers) if kept == layer):
                    put(place, first, found)

            run(slice(first, first + n_examples), to_file)
    return AttentionMaps.load(out)


def _in_memory(
    layers: Sequence[int],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    run: Callable[[slice, Callable[[int, Tensor], None]], None],
) -> Tensor:
    """The weights that one pass over all examples finds."""
    weights = torch.empty(shape if len(layers) > 1 or dtype == torch.uint8 else (0,), dtype=dtype)
    largest = torch.empty(shape[:-1])

    def keep(layer: int, found: Float[Tensor, "batch head query key"]) -> None:
        nonlocal weights
        if len(layers) == 1 and dtype != torch.uint8:  # taken as it is: no second copy
            weights = found.to("cpu", dtype)[None]
            return
        for place in (i for i, kept in enumerate(layers) if kept == layer):
            if dtype == torch.uint8:
                codes, most = pack(found)
                weights[place].copy_(codes)
                largest[place].copy_(most)
            else:
                weights[place].copy_(found)

    run(slice(None), keep)
    return PackedWeights(weights, largest) if dtype == torch.uint8 else weights


def _about(model: Tappable, batch: Batch, rows: Int[Tensor, "batch query"]) -> dict[str, Any]:
    """What maps of ``rows`` say beside their weights."""
    real = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask.cpu()
    needs = model.task.needs(batch.inputs.cpu())
    on_cpu = rows.cpu()
    return {
        "queries": on_cpu,
        "labels": tuple(tuple(model.task.labels(example)) for example in batch.inputs.cpu()),
        "mask": real,
        "needs": None if needs is None else take_rows(needs[:, None], on_cpu)[:, 0] & (on_cpu >= 0)[..., None],
        "causal": model.backbone.causal,
        "geometry": model.task.geometry(),
        "source": {**model.source, "inputs": fingerprint(batch)},
    }


def _possible(precision: CapturePrecision, device: torch.device) -> CapturePrecision:
    """``precision``, or float32 on a device that does not compute in it."""
    if precision not in get_args(CapturePrecision):
        raise ConfigError(f"precision must be one of {', '.join(get_args(CapturePrecision))}, got {precision!r}")
    if precision == "float32" or device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        return precision
    logger.warning("precision=%s: %s does not compute in it, so this capture is in float32", precision, device)
    return "float32"


def _cures(shape: tuple[int, ...], kept_as: torch.dtype | None, queries: Queries) -> list[str]:
    """What would take less memory than attention of ``shape``; ``kept_as`` is None where it goes to a file."""
    n_layers, n_examples, n_heads, n_queries, _ = shape
    cures = {
        "fewer layers": n_layers > 1,
        "fewer heads": n_heads > 1,
        'queries="readout"': n_queries > 1 and queries != "readout",
        "fewer examples": n_examples > 1,
        'dtype="uint8"': kept_as not in (None, torch.uint8),
        "a file (out=...) that need not fit into memory": kept_as is not None,
        "a larger budget_bytes": True,
        "head_statistics, whose memory does not grow with the examples": n_examples > 1,
    }
    return [cure for cure, helps in cures.items() if helps]


def _over_budget(shape: tuple[int, ...], size: int, budget_bytes: int, cures: Sequence[str]) -> CaptureError:
    n_layers, n_examples, n_heads, n_queries, n_keys = shape
    return CaptureError(
        f"attention of {n_layers} layers x {n_examples} examples x {n_heads} heads x {n_queries} queries x {n_keys} "
        f"keys takes {size / 1e6:,.1f} MB, over the budget of {budget_bytes / 1e6:,.1f} MB. What helps: "
        + ", ".join(cures)
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
    *,
    precision: CapturePrecision = "float32",
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
    with inspecting(model, precision=precision), ExitStack() as undo:
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
    off = (weights.sum(-1, dtype=torch.float32) - 1).abs()
    wrong = (off if blank is None else off.masked_fill(blank[..., 0], 0.0)).max()
    wanted = 1e-4 + WEIGHT_ERRORS.get(weights.dtype, 0.0)  # in bfloat16 where a hook on patterns was shown it so
    if not wrong < wanted:  # also where it is NaN
        raise CaptureError(
            f"attention rows of layer {layer} sum to 1 only within {float(wrong):.2g}, wanted {wanted:g}"
        )
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
