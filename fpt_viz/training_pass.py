"""The forward pass of training: nothing that the loss cannot see, and frozen weights in low precision if asked for.

The numbers that the loss reads are those of the model's own forward pass, up to rounding; what differs is what is left
out and what is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import logging
import sys
from typing import Any

from jaxtyping import Float
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fpt_viz.compiled import CompiledBlocks
from fpt_viz.config import Precision, TrainConfig
from fpt_viz.kernel import KERNEL, TAPS
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.prepacked import PrepackedWeights, Seen, bytes_to_pack
from fpt_viz.tasks import Batch, Task
from fpt_viz.tasks.base import sent

logger = logging.getLogger(__name__)

LOW = {"bfloat16": torch.bfloat16}
N_TRIED = 2
"""Examples in the pass by which blocks are compiled: for one alone, torch would make graphs of their own."""
GRAPH_TOKENS = 128
"""Tokens of an example, at the longest, up to which compiled blocks replay CUDA graphs; not measured."""
PART_TOKENS = 1024
"""Tokens of a part of a batch, about, at the longest: on the CPU, products were as fast on so many rows as on more."""


def n_parts_of(model: FrozenPretrainedTransformer, config: TrainConfig, task: Task | None = None) -> int:
    """How many parts a batch is computed in: what ``config`` says, or as many as cost no time.

    Those are parts of about :data:`PART_TOKENS` tokens, counted at the task's longest, and on the CPU alone: a GPU
    wants large batches. A batch stays whole where somebody might see its parts: where the task has a loss of its own,
    which need not be a mean over examples, or where hooks or a ``forward`` of somebody's own look on. A training asks
    once, when it starts: parts decide what dropout draws.

    Args:
        model: As it is when its training starts.
        config: Of the training.
        task: What is trained on; None for the model's own.
    """
    if config.n_parts is not None:
        return config.n_parts
    task = task or model.task
    if is_watched(model) or type(task).loss is not Task.loss or model.output.weight.device.type != "cpu":
        return 1
    return min(config.batch_size, max(1, config.batch_size * task.n_tokens // PART_TOKENS))


def is_watched(model: FrozenPretrainedTransformer) -> bool:
    """Whether hooks, or a ``forward`` of somebody's own, would see how ``model`` is called."""
    return _is_own(model) or _anything_hooked(model)


def rows_to_pack_for(model: FrozenPretrainedTransformer, config: TrainConfig, task: Task | None = None) -> int:
    """Tokens that every pass in float32 on the CPU computes at a time; more than any pack is for where they differ.

    They differ where parts are not equal, and where examples are of different lengths, whose batches are trimmed.
    """
    task, device = task or model.task, model.output.weight.device
    n_parts = n_parts_of(model, config, task)
    if device.type != "cpu" or pick_precision(config.precision, device) != "float32" or config.batch_size % n_parts:
        return sys.maxsize
    n_rows = config.batch_size // n_parts * task.n_tokens
    if not bytes_to_pack(model.backbone, n_rows) or task.distinct(1, "train").mask is not None:
        return sys.maxsize
    return n_rows


def replays_graphs(model: FrozenPretrainedTransformer, config: TrainConfig, task: Task | None = None) -> bool:
    """Whether what ``train.compile`` compiles is replayed as CUDA graphs.

    On CUDA and on short sequences alone, where launches take longer than kernels. Not where examples differ in length,
    since each length has graphs of its own, nor with a batch in parts, whose gradients are added up over passes.
    """
    task = task or model.task
    if model.output.weight.device.type != "cuda" or task.n_tokens > GRAPH_TOKENS:
        return False
    return task.distinct(1, "train").mask is None and n_parts_of(model, config, task) == 1


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

    Four things are left out, and none changes what is learned beyond rounding:

    - In the last block, the feed-forward half of tokens that the output layer does not read (families say where that
      half begins: ``Backbone.tail_path``). Not where somebody looks at that block, or at what follows it, through a
      hook, nor with ``config.checkpoint_blocks``. A model with hooks of its own, or with a ``forward`` of its own, is
      called whole.
    - On the CPU, the float mask of each dropout (:mod:`fpt_viz.dropout`).
    - In float32 on the CPU, with few tokens at a time and as many in each pass, the layout of frozen matrices in each
      product (:mod:`fpt_viz.prepacked`).
    - In bfloat16, the conversion of frozen matrices at each step: they are kept in both precisions, trained tensors,
      layer norms, loss and optimizer in float32.
    """

    def __init__(
        self,
        model: FrozenPretrainedTransformer,
        config: TrainConfig,
        task: Task | None = None,
        *,
        may_pack: bool = True,
    ) -> None:
        """Make the copies of frozen matrices, and compile if asked for.

        Args:
            model: On its device.
            config: Of the training.
            task: What is trained on; None for the model's own.
            may_pack: Whether there is memory for packed weights (:func:`fpt_viz.memory.has_room_to_pack`).
        """
        self.model = model
        device = model.output.weight.device
        self.precision = pick_precision(config.precision, device)
        self.low: dict[str, Tensor] = {}
        """Frozen tensors of the backbone in low precision, by name."""
        self._seen: dict[str, Seen] = {}
        self._copy_frozen()
        self.checkpointed = config.checkpoint_blocks
        model.backbone.checkpoint_blocks(on=self.checkpointed)
        self.packed = PrepackedWeights(model.backbone, sys.maxsize)
        """Frozen matrices as the processor multiplies by them, for the rows of a part."""
        graphs = replays_graphs(model, config, task)
        self.compiled = CompiledBlocks(model.backbone, lambda: _anything_hooked(model), graphs=graphs)
        if config.compile and self.checkpointed:  # transformers calls such blocks past their own forward
            self.compiled.tell("checkpointed blocks are not compiled")
        elif config.compile:
            # Each number of examples has graphs of its own, so those of a whole batch are made before they are needed.
            n_tried = config.batch_size if graphs else N_TRIED
            self.compiled.make(lambda: self._try(n_tried))
        if may_pack and not self.compiled.forwards:  # a compiler's graphs take plain weights
            self.packed = PrepackedWeights(model.backbone, rows_to_pack_for(model, config, task))

    @property
    def size_bytes(self) -> int:
        """Of the copies of frozen matrices, in low precision or packed."""
        return self.packed.size_bytes + sum(tensor.numel() * tensor.element_size() for tensor in self.low.values())

    def _try(self, n_examples: int) -> None:
        """One pass forwards and backwards that changes nothing, not even what is drawn next."""
        model, device = self.model, self.model.output.weight.device
        trained = list(model.trained_tensors().values())
        batch = model.task.sample(n_examples, torch.Generator().manual_seed(0))
        own_draws = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with own_draws, torch.enable_grad(), self.of(batch) as logits_of:
            torch.autograd.grad(logits_of().square().mean(), trained, allow_unused=True)

    def _copy_frozen(self) -> None:
        """Copy the frozen matrices into low precision, those that were written to since the last time alone."""
        if self.precision not in LOW:
            return
        for name, parameter in _frozen_matrices(self.model.backbone):
            if name not in self._seen or not self._seen[name].are([parameter]):
                self._seen[name] = Seen([parameter])
                self.low[name] = parameter.detach().to(LOW[self.precision])

    @contextlib.contextmanager
    def of(self, batch: Batch) -> Iterator[Callable[[], Float[Tensor, "batch readout *outputs"]]]:
        """A function that computes the logits of ``batch``, to be called within the block, its backward pass too.

        Args:
            batch: On any device; sent to the model's after its read-out tokens are found, so that nothing waits.
        """
        model, device = self.model, self.model.output.weight.device
        model.train()  # the caller may have evaluated since the last step
        self._copy_frozen()
        rows = sent(model.readout_tokens(batch.inputs.shape[1], batch.mask), device)
        inputs, mask = sent(batch.inputs, device), None if batch.mask is None else sent(batch.mask, device)
        with contextlib.ExitStack() as undo:
            if device.type == "cpu":
                undo.enter_context(_own_attention(model))
                undo.enter_context(self.packed.used())
            undo.enter_context(self.compiled.used())
            if _is_own(model):
                yield lambda: self._in_precision(lambda: model(inputs, mask)).float()
                return
            narrowed = not self.checkpointed and model.task.n_readout < inputs.shape[1] and not _looked_at(model)
            at_rows = model.backbone.narrow(rows, undo) if narrowed else False
            yield lambda: self._logits(inputs, mask, rows, at_rows=at_rows)

    def _logits(self, inputs: Tensor, mask: Tensor | None, rows: Tensor, *, at_rows: bool) -> Tensor:
        model = self.model
        hidden = self._in_precision(lambda: self._states(model.embedded(inputs), mask)).float()
        return model.read(hidden if at_rows else model.at_rows(hidden, rows, mask))

    def _states(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        backbone = self.model.backbone
        mask = backbone.seen(vectors, mask)
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


def _anything_hooked(model: FrozenPretrainedTransformer) -> bool:
    return any(map(_hooked, model.modules()))


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
