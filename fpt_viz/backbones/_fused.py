"""Modules of transformers in the place of which torch's own kernels compute the same, sooner."""

from __future__ import annotations

from torch import nn
from transformers.activations import NewGELUActivation

from fpt_viz.dropout import Dropout


def fuse(network: nn.Module) -> None:
    """Put torch's own kernels in the place of modules that are slow, and compute the same.

    GPT-2's GELU is eight operations in transformers, five of which keep a tensor of four times the model's width for
    the backward pass; torch's tanh form of it is one, and keeps one. Dropout: see :mod:`fpt_viz.dropout`.
    """
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(module) is nn.Dropout:
                setattr(parent, name, Dropout(module.p))
