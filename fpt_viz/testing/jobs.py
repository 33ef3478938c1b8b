"""Circuits of one head that does one job: every method finds it."""

from __future__ import annotations

import torch
from torch import Tensor

from fpt_viz.tasks.bit_memory import BitMemory
from fpt_viz.tasks.bit_xor import BitXor
from fpt_viz.testing.assembly import (
    CONTROL,
    FIRST,
    MLP_LAYER,
    N_BITS,
    SECOND,
    answer_exclusive_or,
    copies,
    edges_of,
    finished,
    fixed,
    partners_of,
    places,
)
from fpt_viz.testing.left_patch import LeftPatch
from fpt_viz.testing.plant import Plant
from fpt_viz.testing.verdicts import OUTPUT, Circuit

NOT_SELF = 40.0
"""What is taken from a query's score of itself: more than any string can match."""
MATCH = 7.0
"""Score of a bit that agrees; one that disagrees costs as much, so a mismatch is e^-14 behind."""


def partner_bit(family: str, seed: int) -> Circuit:
    """Copy the partner bit."""
    task = BitXor(n_bits=N_BITS, encoding="signs")
    plant = Plant(family, task, seed=seed, copy=1, answer=1)
    targets = partners_of(N_BITS)
    copies(plant, SECOND, targets)
    answer_exclusive_or(plant, plant.features["copy"][0])
    alone = [SECOND]
    return finished(
        "partner_bit", plant, heads={"copies": SECOND}, acting=alone, looks={SECOND: fixed(targets)},
        story="One head copies the partner bit to each read-out token; an MLP takes the exclusive or with its own.",
        reasons={
            "routing": (alone, "all its attention is on the partner bit."),
            "ablate_zero": (alone, "without it no partner bit reaches the MLP."),
            "ablate_mean": (alone, "the mean of a fair bit says nothing of this one."),
            "ablate_resample": (alone, "another example's bit is wrong half of the time."),
            "ablate_pair": ([(CONTROL, SECOND)], "a pair is as bad as the head that matters in it."),
            "patching": (alone, "its z carries the flipped bit, and nothing else does."),
            "path_patching": ([(SECOND, OUTPUT)], "no later head reads what it writes."),
            "ablate_edge": (edges_of(SECOND, (7, 3), (6, 2)), "by these the last two tokens read their partners."),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching_residual": (
                places((0, 0), (1, 0), (2, 4)),
                "the flipped bit is at its own token until layer 1 has copied it to the token that needs it.",
            ),
            "patching_pattern": ([], "the head looks by place, so its pattern is the same for every input."),
        },
    )  # fmt: skip


def memory_match(family: str, seed: int) -> Circuit:
    """Copy the matching memory string, found by its content."""
    n_bits, n_strings = 10, 3
    task = BitMemory(n_strings=n_strings, n_bits=n_bits, patch_size=n_bits)
    plant = Plant(family, task, seed=seed, copy=n_bits)
    shown, copy, itself = plant.features["shown"], plant.features["copy"], plant.features["place"][-1:]
    query = torch.cat([MATCH * shown, -NOT_SELF * plant.one[None]])
    plant.head(SECOND, (query, torch.cat([shown, itself])), value=shown, out=copy)
    plant.read_out(copy)
    alone = [SECOND]

    def best_match(inputs: Tensor) -> Tensor:
        agreement = torch.einsum("bsv,bv->bs", inputs[:, :-1], inputs[:, -1])
        top = agreement.topk(2, dim=1)
        keys = torch.full(inputs.shape[:2], -1)
        keys[:, -1] = torch.where(top.values[:, 0] > top.values[:, 1], top.indices[:, 0], -1)
        return keys

    return finished(
        "memory_match", plant, heads={"matches": SECOND}, acting=alone, looks={SECOND: best_match}, accuracy=0.95,
        corrupt_position=None,
        story="One head of the query token compares its shown bits with every string, looks at the one that agrees "
        "best, and copies it. Where two strings agree alike, it mixes them, so the task is not solved wholly.",
        reasons={
            "routing": (alone, "all its attention is on the string that agrees."),
            "ablate_zero": (alone, "without it the output layer is shown no string."),
            "ablate_mean": (alone, "the mean over strings says nothing of this one."),
            "ablate_resample": (alone, "another example's string is another string."),
            "ablate_pair": ([(CONTROL, SECOND)], "a pair is as bad as the head that matters in it."),
            "patching": (alone, "its z carries the bits that were swapped."),
            "path_patching": ([(SECOND, OUTPUT)], "no later head reads what it writes."),
            "ablate_edge": (edges_of(SECOND, (3, 0), (3, 1), (3, 2)), "each string is the matching one now and then."),
            "ablate_mlp": ([], "no MLP does anything."),
            "patching_residual": (
                places((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 3)),
                "the swapped bits are in the strings until layer 1 has copied them to the query.",
            ),
            "patching_pattern": ([], "only bits that the query does not show were swapped, so the match is the same."),
        },
    )  # fmt: skip


def left_patch(family: str, seed: int) -> Circuit:
    """Attend to the left neighbour of a patch."""
    task = LeftPatch()
    plant = Plant(family, task, seed=seed, copy=1)
    copies(plant, FIRST, task.left_of())
    plant.read_out(plant.features["copy"])
    alone = [FIRST]
    return finished(
        "left_patch", plant, heads={"looks left": FIRST}, acting=alone, looks={FIRST: fixed(task.left_of())},
        corrupt_position=1,
        story="One head looks at the patch to the left, by place, and copies its colour.",
        reasons={
            "routing": (alone, "all its attention is on the left neighbour."),
            "ablate_zero": (alone, "without it no colour reaches the output layer."),
            "ablate_mean": (alone, "the mean colour is grey."),
            "ablate_resample": (alone, "another image's patch has another colour half of the time."),
            "ablate_pair": ([(FIRST, CONTROL)], "a pair is as bad as the head that matters in it."),
            "patching": (alone, "its z carries the colour that changed."),
            "path_patching": ([(FIRST, OUTPUT)], "no later head reads what it writes."),
            "ablate_edge": (edges_of(FIRST, (7, 6), (6, 5)), "by these the last two patches look left."),
            "ablate_mlp": ([], "no MLP does anything."),
            "patching_residual": (
                places((0, 1), (1, 2), (2, 2)), "the colour of patch 1 is moved to patch 2 by layer 0."
            ),
            "patching_pattern": ([], "the head looks by place, so its pattern is the same for every image."),
        },
    )  # fmt: skip
