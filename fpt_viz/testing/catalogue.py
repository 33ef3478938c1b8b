"""The circuits by name, and for each a control in which nothing is planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fpt_viz.errors import UnknownNameError
from fpt_viz.testing.jobs import left_patch, memory_match, partner_bit
from fpt_viz.testing.plant import random_model
from fpt_viz.testing.traps import constant, decoy, indirect, redundant_pair, resting
from fpt_viz.testing.verdicts import Circuit, Verdict
from fpt_viz.testing.writers import LAYOUTS

KINDS: Mapping[str, Callable[[str, int], Circuit]] = {
    "partner_bit": partner_bit,
    "memory_match": memory_match,
    "left_patch": left_patch,
    "decoy": decoy,
    "redundant_pair": redundant_pair,
    "indirect": indirect,
    "resting": resting,
    "constant": constant,
}
"""By name, what plants a circuit of the kind in a family."""


def circuits() -> list[str]:
    """The names of all circuits: each kind in each family."""
    return [f"{kind}_{family}" for kind in KINDS for family in LAYOUTS]


def circuit(name: str, *, seed: int = 0) -> Circuit:
    """The circuit of that name, built anew.

    Args:
        name: One of :func:`circuits`, such as ``"decoy_gpt2"``.
        seed: Of the directions in which the residual stream holds what is planted, and of all heads that do nothing.

    Raises:
        UnknownNameError: No such circuit.
    """
    if name not in circuits():
        raise UnknownNameError("planted circuit", name, circuits())
    kind, _, family = name.rpartition("_")
    return KINDS[kind](family, seed)


def control(name: str, *, seed: int = 0) -> Circuit:
    """A random model of the same size, on the task of the circuit ``name``: every method must find nothing in it.

    Raises:
        UnknownNameError: No such circuit.
    """
    planted = circuit(name, seed=seed)
    nothing = {
        method: Verdict(frozenset(), verdict.among, "nothing is planted.")
        for method, verdict in planted.verdicts.items()
    }
    return replace(
        planted,
        name=f"{name}_control",
        story="A random model, as its architecture is drawn before training.",
        model=random_model(planted.family, planted.task, seed=seed),
        acting=frozenset(),
        looks_at={},
        accuracy=0.0,
        verdicts=nothing,
    )
