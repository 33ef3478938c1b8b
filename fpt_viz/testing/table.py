"""The planted verdicts as text, for the documentation."""

from __future__ import annotations

from fpt_viz.records.parts import words_of
from fpt_viz.testing.catalogue import KINDS, circuit
from fpt_viz.testing.methods import METHODS
from fpt_viz.testing.verdicts import Circuit, unit_words
from fpt_viz.testing.writers import LAYOUTS


def markdown(family: str = "gpt2") -> str:
    """What each method must find in each kind of circuit, why, and what counts as yes; in ``family``, as in all."""
    built = [circuit(f"{kind}_{family}") for kind in KINDS]
    rows = [[f"`{one.kind}_*`", _heads(one), *(_found(one, method) for method in METHODS)] for one in built]
    yes = [[f"`{name}`", method.says, f"{method.threshold:g}"] for name, method in METHODS.items()]
    parts = [
        "## What each method must find",
        f"Each row is {len(LAYOUTS)} circuits; the star stands for {', '.join(f'`{name}`' for name in LAYOUTS)}.",
        _table(["circuits", "heads", *METHODS], rows),
        "## Why",
        *(_reasons(one) for one in built),
        "## What counts as yes",
        _table(["method", "number", "yes from"], yes),
    ]
    return "\n\n".join(parts) + "\n"


def _reasons(one: Circuit) -> str:
    """The story of a kind, and each method's verdict with its reason."""
    rows = [[f"`{method}`", _found(one, method), one.verdicts[method].reason] for method in METHODS]
    return "\n\n".join([f"### `{one.kind}`", one.story, _table(["method", "finds", "because"], rows)])


def _heads(one: Circuit) -> str:
    return ", ".join(f"{words_of(head)} {role}" for role, head in one.heads.items() if role != "control")


def _found(one: Circuit, method: str) -> str:
    verdict = one.verdicts[method]
    found = [unit for unit in verdict.among if unit in verdict.positive]
    return "; ".join(map(unit_words, found)) or "nothing"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
