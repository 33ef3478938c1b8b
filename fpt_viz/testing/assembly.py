"""What the kinds of circuit share: where heads are planted, parts that several use, and the finished circuit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fpt_viz.records.parts import Head
from fpt_viz.testing.plant import Plant
from fpt_viz.testing.verdicts import (
    Circuit,
    KeyOf,
    Unit,
    Verdict,
    every_edge,
    every_head,
    every_mlp,
    every_pair,
    every_path,
    every_place,
)

FIRST, SECOND, CONTROL = (0, 1), (1, 2), (1, 1)
"""Where heads are planted, and one that is not."""
MLP_LAYER = 2
"""Of the exclusive or: above every planted head."""
N_BITS = 4
Reasons = Mapping[str, tuple[Collection[Unit], str]]
"""Method -> what it must find, and why."""


def partners_of(n_bits: int) -> list[int]:
    """Each bit of the second string looks at its partner in the first; those look at themselves."""
    return [*range(n_bits), *range(n_bits)]


def fixed(targets: Sequence[int]) -> KeyOf:
    """The same keys for every input."""
    return lambda inputs: torch.tensor(targets).expand(len(inputs), -1)


def edges_of(head: Head, *edges: tuple[int, int]) -> list[Unit]:
    """The (query, key) ``edges`` of a head."""
    return [(*head, *edge) for edge in edges]


def places(*found: tuple[int, int]) -> list[Unit]:
    """The residual stream at these (layer, token)."""
    return [("resid_pre", *place) for place in found]


def copies(plant: Plant, at: Head, targets: Sequence[int]) -> None:
    """A head that copies what is shown by the token that each looks at."""
    plant.head(at, plant.by_place(targets), value=plant.features["shown"], out=plant.features["copy"])


def answer_exclusive_or(plant: Plant, copied: Tensor) -> None:
    """Answer with the exclusive or of a token's own bit and the one that was copied to it."""
    plant.exclusive_or(MLP_LAYER, copied, plant.features["shown"][0])
    plant.read_out(-plant.features["answer"])


def finished(
    kind: str,
    plant: Plant,
    *,
    heads: Mapping[str, Head],
    acting: Collection[Head],
    looks: Mapping[Head, KeyOf],
    story: str,
    reasons: Reasons,
    accuracy: float = 1.0,
    corrupt_position: int | None = 0,
) -> Circuit:
    """The finished circuit: bystanders planted, and each method asked about all that it can be asked about."""
    plant.bystanders()
    asked: dict[str, tuple[Unit, ...]] = {"ablate_edge": every_edge(heads, plant.task.n_tokens)}
    heads = {**heads, "control": CONTROL}
    singles = every_head(plant.model)
    asked |= {"ablate_pair": every_pair(heads), "path_patching": every_path(heads)}
    asked |= {"ablate_mlp": every_mlp(plant.model), "patching_residual": every_place(plant.model)}
    family = plant.model.backbone.provenance.family
    return Circuit(
        name=f"{kind}_{family}",
        kind=kind,
        family=family,
        story=story,
        model=plant.model,
        task=plant.task,
        heads=heads,
        acting=frozenset(acting),
        looks_at=looks,
        accuracy=accuracy,
        corrupt_position=corrupt_position,
        verdicts={
            method: Verdict(frozenset(positive), asked.get(method, singles), reason)
            for method, (positive, reason) in reasons.items()
        },
    )
