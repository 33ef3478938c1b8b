"""Planted truth: models whose circuits are known because they were built by hand, to test methods on.

Each circuit stands in a real architecture and solves its task through known heads. It states what each method must say
of it: a decoy looks right and does nothing, so routing says yes and ablation no; of a redundant pair, ablating one head
says no and ablating both says yes. ``docs/planted_circuits.md`` has the table, with reasons::

    from fpt_viz import testing

    for name in testing.circuits():
        circuit = testing.circuit(name)
        print(name, testing.check(circuit, "ablate_zero").agrees)
        print(name, testing.check(circuit, my_method, column="ablate_zero").missed)
"""

from __future__ import annotations

from fpt_viz.testing.catalogue import circuit, circuits, control
from fpt_viz.testing.left_patch import LeftPatch
from fpt_viz.testing.methods import METHODS, Comparison, Method, check, measured
from fpt_viz.testing.null_xor import NullXor
from fpt_viz.testing.verdicts import OUTPUT, Circuit, Unit, Verdict, unit_words

__all__ = [
    "METHODS",
    "OUTPUT",
    "Circuit",
    "Comparison",
    "LeftPatch",
    "Method",
    "NullXor",
    "Unit",
    "Verdict",
    "check",
    "circuit",
    "circuits",
    "control",
    "measured",
    "unit_words",
]
