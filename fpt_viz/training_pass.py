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
      half begins: ``Backbone.tail_path``). Not where somebody looks at that block, or at what follows it, through a
      hook, nor with ``config.checkpoint_blocks``. A model with hooks of its own, or with a ``forward`` of its own, is
      called whole.
    - On the CPU, the float mask of each dropout (:mod:`fpt_viz.dropout`).
    - In bfloat16, the conversion of frozen matrices at each step: they are kept in both precisions, trained tensors,
      layer norms, loss and optimizer in float32.
    """

    def __init__(self, model: FrozenPretrainedTransformer, config: TrainConfig) -> None:
        self.model = model
        device = model.output.weight.device
        self.precision = pick_precision(config.precision, device)
        self.low: dict[str, Tensor] = {}
        """Frozen tensors of the backbone in low precision, by name."""
        self._versions: dict[str, int] = {}
        self._copy_frozen()
        self.checkpointed = config.checkpoint_blocks
        model.backbone.checkpoint_blocks(on=self.checkpointed)

    @property
    def size_bytes(self) -> int:
        """Of the copies of frozen matrices."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.low.values())

    def _copy_frozen(self) -> None:
        """Copy the frozen matrices into low precision, those that were written to since the last time alone."""
        if self.precision not in LOW:
            return
        for name, parameter in _frozen_matrices(self.model.backbone):
            if self._versions.get(name) != parameter._version:
                self._versions[name] = parameter._version
                self.low[name] = parameter.detach().to(LOW[self.precision])

    @contextlib.contextmanager
    def of(self, batch: Batch) -> Iterator[Callable[[], Float[Tensor, "batch readout *outputs"]]]:
        """A function that computes the logits of ``batch``, to be called within the block, its backward pass too.

        Args:
            batch: On any device; moved to the model's after its read-out tokens are found, so that nothing waits.
        """
        model, device = self.model, self.model.output.weight.device
        model.train()  # the caller may have evaluated since the last step
        self._copy_frozen()
        rows = model.readout_tokens(batch.inputs.shape[1], batch.mask).to(device)
        n_tokens, batch = batch.inputs.shape[1], batch.to(device)
        with contextlib.ExitStack() as undo:
            if device.type == "cpu":
                undo.enter_context(_own_attention(model))
            if _is_own(model):
                yield lambda: self._in_precision(lambda: model(batch.inputs, batch.mask)).float()
                return
            narrowed = not self.checkpointed and model.task.n_readout < n_tokens and not _looked_at(model)
            at_rows = model.backbone.narrow(rows, undo) if narrowed else False
            yield lambda: self._logits(batch, rows, at_rows=at_rows)

    def _logits(self, batch: Batch, rows: Tensor, *, at_rows: bool) -> Tensor:
        model = self.model
        hidden = self._in_precision(lambda: self._states(model.embedded(batch.inputs), batch.mask)).float()
        return model.read(hidden if at_rows else model.at_rows(hidden, rows, batch.mask))

    def _states(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        backbone = self.model.backbone
        if not self.low:
            return torch.as_tensor(backbone(vectors, mask))
        return torch.as_tensor(torch.func.functional_call(backbone, self.low, (vectors, mask)))

    def _in_precision(self, call: Callable[[], Tensor]) -> Tensor:
        low = LOW.get(self.precision)
        with torch.autocast(self.model.output.weight.device.type, low, enabled=low is not None):
            return call()


def _frozen_matrices(backbone: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The frozen weights and biases of the matrix products of ``backbone``, by parameter name."""
    for prefix, module in backbone.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    yield f"{prefix}.{name}", parameter


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or module in TAPS


def _is_own(model: FrozenPretrainedTransformer) -> bool:
    """Whether somebody's hook or ``forward`` is on the model itself, so that it must be called as it is."""
    return _hooked(model) or type(model).forward is not FrozenPretrainedTransformer.forward


def _looked_at(model: FrozenPretrainedTransformer) -> bool:
    """Whether a hook on the last block, or on anything around or after it, would see fewer tokens than there are."""
    before = {module for block in model.backbone.blocks[:-1] for module in block.modules()}
    return any(_hooked(module) for module in model.backbone.modules() if module not in before)


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
