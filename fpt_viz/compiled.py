"""Transformer blocks compiled by ``torch.compile`` for training, where that is asked for and works.

What is compiled is what stands between a block's matrix products: norms, activations, residual sums and dropout, fused
into fewer passes over memory. Attention stays as it is, and so does the last block, which computes the read-out tokens
alone. On CUDA, short sequences replay CUDA graphs of what was compiled, since launching kernels one by one takes longer
there than running them. Whatever goes wrong leaves the blocks as they were, with one line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import contextlib
import logging
from typing import Any
import warnings

import torch
from torch import nn

from fpt_viz.backbones.base import Backbone

logger = logging.getLogger(__name__)

Forward = Callable[..., Any]
GRAPH_PASSES = 3
"""Torch warms up in the first pass, records a graph in the second and replays it in the third."""
OWN = "a block or its attention has a forward of its own"


class CompiledBlocks:
    """The compiled ``forward`` of the blocks of ``backbone``, and when it is used."""

    def __init__(self, backbone: Backbone, hooked: Callable[[], bool], *, graphs: bool = False) -> None:
        """Nothing is compiled yet.

        Args:
            backbone: Whose blocks they are.
            hooked: Whether somebody's hooks are on the model now, which a compiled block need not run.
            graphs: Record CUDA graphs and replay them. Each pass forwards must be followed by one backwards, whose
                gradients are used before the next pass. From then on, other models of this process that torch
                compiled with graphs must mark their own steps too (``torch.compiler.cudagraph_mark_step_begin``).
        """
        self.backbone, self.hooked, self.graphs = backbone, hooked, graphs
        self.forwards: dict[nn.Module, Forward] = {}
        """What takes the place of a module's ``forward``; empty while nothing is compiled."""
        self._told = False

    def make(self, trial: Callable[[], object]) -> None:
        """Compile the blocks but the last, by one run of ``trial``, which takes them forwards and backwards.

        Graphs are made for any number of examples and tokens. torch keeps them on the disk, in a folder that
        ``TORCHINDUCTOR_CACHE_DIR`` names, so that the next process compiles less.
        """
        blocks = self.backbone.blocks[:-1]
        if not self.backbone.has_attention or not blocks:
            self.tell("there is no block to compile: all but the last are, of families with attention")
            return
        attentions = [block.get_submodule(self.backbone.attention_path) for block in blocks]
        if _any_own((*blocks, *attentions)):
            self.tell(OWN)
            return
        try:
            for block, attention in zip(blocks, attentions, strict=True):
                self.forwards[attention] = torch.compiler.disable(attention.forward)
                self.forwards[block] = compiled(block.forward, graphs=self.graphs)
            with warnings.catch_warnings(action="ignore"):  # torch's own about what it looks at while it compiles
                for _ in range(GRAPH_PASSES if self.graphs else 1):
                    trial()
        except Exception as error:  # a compiler's errors are of any kind, and none is the run's
            self.forwards = {}
            self.tell(" ".join(line.strip() for line in str(error).splitlines() if line.strip())[:200])

    def tell(self, why: str) -> None:
        """Say once in the log why steps are not compiled."""
        if not self._told:
            logger.warning("train.compile: %s; so the steps are computed as without it", why)
        self._told = True

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Let the compiled blocks compute within the block, unless hooks or somebody's own ``forward`` are there."""
        own = _any_own(self.forwards)
        if own or (self.forwards and self.hooked()):
            self.tell(OWN if own else "hooks are on the model")
            yield
            return
        try:
            if self.graphs and self.forwards:
                torch.compiler.cudagraph_mark_step_begin()
            for module, forward in self.forwards.items():
                module.forward = forward
            yield
        finally:
            for module in self.forwards:
                vars(module).pop("forward", None)


def _any_own(modules: Iterable[nn.Module]) -> bool:
    """Whether somebody put a ``forward`` in the place of the class's."""
    return any("forward" in vars(module) for module in modules)


def compiled(forward: Forward, *, graphs: bool = False) -> Forward:
    """``forward``, compiled when it is first called; random draws are those that it would make uncompiled.

    Args:
        forward: Of a block.
        graphs: Replay what it launches on CUDA as graphs, one for each number of examples and tokens.
    """
    return torch.compile(forward, dynamic=True, options={"fallback_random": True, "triton.cudagraphs": graphs})
