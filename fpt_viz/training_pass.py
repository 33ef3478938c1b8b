"""The forward pass of training: nothing that the loss cannot see, and frozen weights in low precision if asked for.

The numbers that the loss reads are those of the model's own forward pass, up to rounding; what differs is what is left
out and what is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import logging
from typing import Any

from jaxtyping import Float
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fpt_viz.config import Precision, TrainConfig
from fpt_viz.kernel import KERNEL, TAPS
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch

logger = logging.getLogger(__name__)

LOW = {"bfloat16": torch.bfloat16}


def pick_precision(precision: Precision, device: torch.device) -> Precision:
    """What ``"auto"`` is on ``device``; what was asked for otherwise, or float32 where the device lacks it.

    ``"auto"`` is bfloat16 on CUDA devices that compute in it and on processors with AMX, and float32 elsewhere: without
    AMX, AVX512-BF16 alone was measured at about half the speed of float32 (``benchmarks/README.md``), so its flag is
    not trusted. What lacks bfloat16 is said in one line of the log.
    """
    if precision == "float32":
        return precision
    fast = _computes_bfloat16(device)
    if precision == "auto":
        return "bfloat16" if fast else "float32"
    if device.type == "cpu" or fast:  # any processor computes in it, some slowly
        return precision
    logger.warning("train.precision=%s: %s does not compute in it, so this run is in float32", precision, device)
    return "float32"


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies matrices of bfloat16 faster than those of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


class TrainingPass:
    """Forward passes of ``model`` for training, on the device where it is.

    Three things are left out, and none changes what is learned beyond rounding:

    - In the last block, the feed-forward half of tokens that the output layer does not read (families say where that
      half begins: ``Backbone.tail_path``). Not where somebody looks at that block through a hook, nor with
      ``config.checkpoint_blocks``.
    - On the CPU, the float mask of each dropout (:mod:`fpt_viz.dropout`).
    - In bfloat16, the conversion of frozen matrices at each step: they are kept in both precisions, trained tensors,
      layer norms, loss and optimizer in float32.
    """

    def __init__(self, model: FrozenPretrainedTransformer, config: TrainConfig) -> None:
        self.model = model
        device = model.output.weight.device
        self.precision = pick_precision(config.precision, device)
        self.low = _frozen_in(model.backbone, LOW[self.precision]) if self.precision in LOW else {}
        """Frozen tensors of the backbone in low precision, by name."""
        self.checkpointed = config.checkpoint_blocks
        model.backbone.checkpoint_blocks(on=self.checkpointed)

    @property
    def size_bytes(self) -> int:
        """Of the copies of frozen matrices."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.low.values())

    @contextlib.contextmanager
    def of(self, batch: Batch) -> Iterator[Callable[[], Float[Tensor, "batch readout *outputs"]]]:
        """A function that computes the logits of ``batch``, to be called within the block, its backward pass too."""
        model = self.model
        model.train()  # the caller may have evaluated since the last step
        rows = model.readout_tokens(batch.inputs.shape[1], batch.mask)
        with contextlib.ExitStack() as undo:
            if model.output.weight.device.type == "cpu":
                undo.enter_context(_own_attention(model))
            narrowed = not self.checkpointed and model.task.n_readout < batch.inputs.shape[1] and not _looked_at(model)
            tail = model.backbone.narrow(rows, undo) if narrowed else False
            yield lambda: self._logits(batch, rows, at_rows=tail)

    def _logits(self, batch: Batch, rows: Tensor, *, at_rows: bool) -> Tensor:
        model, device = self.model, self.model.output.weight.device
        with torch.autocast(device.type, LOW.get(self.precision), enabled=bool(self.low)):
            vectors = model.embedded(batch.inputs)
            hidden = (
                torch.func.functional_call(model.backbone, self.low, (vectors, batch.mask))
                if self.low
                else model.backbone(vectors, batch.mask)
            )
        hidden = hidden.float()
        return model.read(hidden if at_rows else model.at_rows(hidden, rows, batch.mask))


def _frozen_in(backbone: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The frozen weights and biases of the matrix products of ``backbone`` in ``dtype``, by parameter name."""
    found = {}
    for prefix, module in backbone.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    found[f"{prefix}.{name}"] = parameter.detach().to(dtype)
    return found


def _looked_at(model: FrozenPretrainedTransformer) -> bool:
    """Whether a hook on the last block, or on the states that leave it, would see fewer tokens than there are."""
    watched: list[nn.Module] = [model.backbone, model.backbone.network, *model.backbone.blocks[-1].modules()]
    final = model.backbone.final_norm()
    watched += [] if final is None else [final]
    return any(module._forward_hooks or module._forward_pre_hooks or module in TAPS for module in watched)


@contextlib.contextmanager
def _own_attention(model: FrozenPretrainedTransformer) -> Iterator[None]:
    """Attention in plain steps where that is faster than torch's kernel, within the block."""
    config: Any = model.backbone.network.config
    before = getattr(config, "_attn_implementation", None)
    if before != "sdpa":
        yield
        return
    config._attn_implementation = KERNEL
    try:
        yield
    finally:
        config._attn_implementation = before
