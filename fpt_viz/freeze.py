"""Which parameter groups train, and the ledger that proves that the rest did not move.

Groups are declared by the family's file, each parameter in exactly one; nothing is guessed from names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fpt_viz.errors import ConfigError, FreezeError, UnknownNameError
from fpt_viz.records import Ledger, LedgerRow
from fpt_viz.records.store import tensor_sha256

GROUPS = ("output", "input", "layer_norm", "position", "feed_forward", "attention", "recurrent")
"""What can be trained by name; the network's own token tables (``token``) train with ``all`` only.

An LSTM has ``recurrent`` weights in the place of attention and feed-forward layers.
"""
LAYERED_GROUPS = ("layer_norm", "feed_forward", "attention", "recurrent")
"""Those that can be trained in one layer alone."""
LAST = "last"
"""After the colon: the layer that is the last, whatever the depth."""
NEW_POSITIONS = "new_position"
"""Group of the positions beyond those that the network has: never learned before, they train whatever else does."""
PAPER_GROUPS = ("output", "input", "layer_norm", "position")
"""What the paper trains (Lu et al., 2021, section 2.2)."""


@runtime_checkable
class Grouped(Protocol):
    """A model that says which group and layer each of its parameters belongs to."""

    def parameter_groups(self) -> Mapping[str, str]:
        """Glob over parameter names -> group."""
        ...

    def layer_of(self, name: str) -> int | None:
        """The layer of a parameter, None where it belongs to none."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of ``nn.Module``."""
        ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """As of ``nn.Module``."""
        ...


def group_of(name: str, groups: Mapping[str, str]) -> str:
    """The one group whose globs match the parameter ``name``."""
    matched = {group for glob, group in groups.items() if fnmatchcase(name, glob)}
    if len(matched) != 1:
        raise FreezeError(
            f"parameter {name} is in {' and '.join(sorted(matched)) or 'no group'}; "
            "the family's file must put it in one"
        )
    return matched.pop()


def parse_trained(trained: Collection[str], n_layers: int) -> tuple[str, ...]:
    """``trained`` after a check: group names, ``group:layer`` for one layer (``last`` as its number), or ``all``.

    Raises:
        UnknownNameError: No such group.
        ConfigError: No such layer, or nothing to train.
    """
    if isinstance(trained, str):
        raise ConfigError(f"trained must be a list of group names, got the text {trained!r}: write ({trained!r},)")
    checked = []
    for entry in trained:
        group, colon, layer = entry.partition(":")
        layer = str(n_layers - 1) if layer == LAST else layer
        if group not in (*GROUPS, "all"):
            raise UnknownNameError("parameter group", group, (*GROUPS, "all"))
        if colon and group not in LAYERED_GROUPS:
            raise ConfigError(f"{entry!r} names no layer: only {', '.join(LAYERED_GROUPS)} lie in layers")
        if colon and not (layer.isdecimal() and int(layer) < n_layers):
            raise ConfigError(f"{entry!r} names no layer: after the colon stands one of 0 to {n_layers - 1}, or last")
        checked.append(f"{group}{colon}{layer}")
    if not trained:
        raise ConfigError(f"nothing is trained: name at least one group of {', '.join(GROUPS)}, or all")
    return tuple(dict.fromkeys(checked))


def freeze(model: Grouped, trained: Collection[str]) -> None:
    """Let only the groups in ``trained`` learn (see :func:`parse_trained`), and positions that are new.

    Raises:
        ConfigError: The network has no such group. Those of the paper's may be absent: an LSTM without layer norms and
            positions has fewer of them to train.
    """
    groups, learning = model.parameter_groups(), {*trained, NEW_POSITIONS}
    there = set(groups.values())
    for entry in trained:
        if entry not in (*PAPER_GROUPS, "all") and entry.partition(":")[0] not in there:
            known = ", ".join(group for group in GROUPS if group in there)
            raise ConfigError(f"{entry!r} cannot be trained: this network has no such weights; its groups are {known}")
    for name, parameter in model.named_parameters():
        group, layer = group_of(name, groups), model.layer_of(name)
        parameter.requires_grad_("all" in learning or group in learning or f"{group}:{layer}" in learning)


def ledger_of(model: Grouped, backbone: Mapping[str, Any]) -> Ledger:
    """Every tensor of ``model``, with the SHA-256 of the frozen ones; reads all weights once (0.1 s for 50 MB)."""
    groups = model.parameter_groups()
    rows = [
        LedgerRow(
            name=name,
            group=group_of(name, groups),
            shape=tuple(parameter.shape),
            trained=parameter.requires_grad,
            sha256=None if parameter.requires_grad else tensor_sha256(parameter),
        )
        for name, parameter in model.named_parameters()
    ]
    rows += [
        LedgerRow(name=name, group="buffer", shape=tuple(buffer.shape), trained=False, sha256=tensor_sha256(buffer))
        for name, buffer in model.named_buffers()
    ]
    return Ledger(rows=tuple(rows), backbone=dict(backbone))


def verify(model: Grouped, ledger: Ledger) -> list[str]:
    """The names of the tensors that ``ledger`` calls frozen and that are not as they were; empty if none moved."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    moved = []
    for row in ledger.rows:
        if not row.trained and (row.name not in tensors or tensor_sha256(tensors[row.name]) != row.sha256):
            moved.append(row.name)
    return moved
