"""Circuits on which methods part: each finds what it can see, and its column says what that is."""

from __future__ import annotations

import torch
from torch import Tensor

from fpt_viz.records.parts import Head
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
from fpt_viz.testing.null_xor import NullXor
from fpt_viz.testing.plant import SHARP, Plant
from fpt_viz.testing.verdicts import OUTPUT, Circuit


def decoy(family: str, seed: int) -> Circuit:
    """A head whose pattern looks right and that does nothing."""
    task = BitXor(n_bits=N_BITS, encoding="signs")
    plant = Plant(family, task, seed=seed, copy=1, answer=1)
    targets = partners_of(N_BITS)
    plant.head(FIRST, plant.by_place(targets), value=plant.features["shown"], out=None)
    copies(plant, SECOND, targets)
    answer_exclusive_or(plant, plant.features["copy"][0])
    real = [SECOND]
    return finished(
        "decoy", plant, heads={"decoy": FIRST, "copies": SECOND}, acting=real,
        looks={FIRST: fixed(targets), SECOND: fixed(targets)},
        story="Two heads look at the partner bit and read it; the output matrix of the first is zero.",
        reasons={
            "routing": ([FIRST, SECOND], "both patterns are the same: a pattern does not say what is done with it."),
            "ablate_zero": (real, "the decoy writes nothing, so nothing is lost with it."),
            "ablate_mean": (real, "the decoy writes nothing, whatever its z."),
            "ablate_resample": (real, "the decoy writes nothing, whatever its z."),
            "ablate_pair": ([(FIRST, SECOND), (CONTROL, SECOND)], "only pairs with the real head cost anything."),
            "patching": (real, "the decoy's z carries the flipped bit, but to nowhere."),
            "path_patching": ([(SECOND, OUTPUT)], "no path leaves the decoy."),
            "ablate_edge": (edges_of(SECOND, (7, 3), (6, 2)), "the decoy's edges carry the bits to nowhere."),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching_residual": (
                places((0, 0), (1, 0), (2, 4)), "the bit moves in layer 1, where the real head is, not in layer 0."
            ),
            "patching_pattern": ([], "both look by place, so their patterns are the same for every input."),
        },
    )  # fmt: skip


def redundant_pair(family: str, seed: int) -> Circuit:
    """Two heads, each of which suffices."""
    task = BitXor(n_bits=N_BITS, encoding="signs")
    plant = Plant(family, task, seed=seed, copy=1, answer=1)
    targets = partners_of(N_BITS)
    copies(plant, FIRST, targets)
    copies(plant, SECOND, targets)
    answer_exclusive_or(
        plant, 3 * plant.features["copy"][0] + plant.one
    )  # 7 or -5; of one copy 4 or -2; where they differ 1
    both = [FIRST, SECOND]
    return finished(
        "redundant_pair", plant, heads={"copies": FIRST, "copies too": SECOND}, acting=both,
        looks={FIRST: fixed(targets), SECOND: fixed(targets)},
        story="Two heads copy the partner bit to the same place. The MLP hears two copies no louder than one, and "
        "takes the bit as set where they differ or where there is none.",
        reasons={
            "routing": (both, "both patterns are on the partner bit."),
            "ablate_zero": ([], "the other one suffices: ablating single heads misses a redundant pair."),
            "ablate_mean": ([], "the other one suffices, and a mean is near zero."),
            "ablate_resample": (both, "a wrong copy cancels the other's right one: worse than none."),
            "ablate_pair": ([(FIRST, SECOND)], "together they are all there is."),
            "patching": (both, "the clean copy cancels the corrupted one: each gives back half of the answers."),
            "path_patching": (
                [(FIRST, OUTPUT), (SECOND, OUTPUT)],
                "each gives back half of the answers; neither reads the other.",
            ),
            "ablate_edge": ([], "the other head has the same edge."),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching_residual": (
                places((0, 0), (1, 0), (1, 4), (2, 4)),
                "before layer 1 one copy is made and the other is not, and each gives back half of the answers.",
            ),
            "patching_pattern": ([], "both look by place, so their patterns are the same for every input."),
        },
    )  # fmt: skip


def indirect(family: str, seed: int) -> Circuit:
    """A head that acts only through a second one."""
    task = BitXor(n_bits=N_BITS, encoding="signs")
    plant = Plant(family, task, seed=seed, note=1, copy=1, answer=1)
    n_tokens = task.n_tokens
    before_readout = range(N_BITS - 1, n_tokens - 1)  # each of them comes before a token that is read out
    fetches = [token - N_BITS + 1 if token in before_readout else token for token in range(n_tokens)]
    hands_on = [token - 1 if token >= N_BITS else token for token in range(n_tokens)]
    plant.head(FIRST, plant.by_place(fetches), value=plant.features["shown"], out=plant.features["note"])
    plant.head(SECOND, plant.by_place(hands_on), value=plant.features["note"], out=plant.features["copy"])
    answer_exclusive_or(plant, plant.features["copy"][0])
    both = [FIRST, SECOND]
    return finished(
        "indirect", plant, heads={"fetches": FIRST, "hands on": SECOND}, acting=both,
        looks={FIRST: fixed(fetches), SECOND: fixed(hands_on)},
        story="The first head brings each partner bit to the token before the one that needs it, where only the second "
        "head reads it; that one looks one token back.",
        reasons={
            "routing": ([], "neither looks from a token at what that token needs: the bit goes by a third token."),
            "ablate_zero": (both, "the bit passes through both; how they are joined is not said."),
            "ablate_mean": (both, "the bit passes through both."),
            "ablate_resample": (both, "the bit passes through both."),
            "ablate_pair": ([(FIRST, SECOND), (FIRST, CONTROL), (CONTROL, SECOND)], "either is enough to break it."),
            "patching": (both, "the z of both carries the flipped bit; how they are joined is not said."),
            "path_patching": (
                [(FIRST, SECOND, "v"), (SECOND, OUTPUT)],
                "this alone tells the route: the first head's bit goes into the values of the second, not straight to "
                "the output.",
            ),
            "ablate_edge": (
                [*edges_of(FIRST, (6, 3)), *edges_of(SECOND, (7, 6), (6, 5))],
                "the bit of token 3 goes by token 6 to token 7; token 6 itself is served by token 5.",
            ),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching_residual": (
                places((0, 0), (1, 3), (2, 4)),
                "the bit of token 0 waits at token 3, which needs it not, for token 4 to take it.",
            ),
            "patching_pattern": ([], "both look by place, so their patterns are the same for every input."),
        },
    )  # fmt: skip


def resting(family: str, seed: int) -> Circuit:
    """A head that acts by not attending."""
    task = NullXor(n_bits=N_BITS)
    plant = Plant(family, task, seed=seed, note=1, copy=1, answer=1)
    note = plant.features["note"][0]
    partners = [0, *(1 + target for target in partners_of(N_BITS))]
    plant.head(FIRST, plant.by_place(partners), value=plant.features["shown"], out=plant.features["note"])
    _rests(plant, SECOND, note)
    copied = plant.one - 2 * plant.features["copy"][0]  # the null token's 1 was written where the bit is not set
    answer_exclusive_or(plant, copied)
    both = [FIRST, SECOND]

    def null_or_self(inputs: Tensor) -> Tensor:
        bits, own = inputs[..., 0], torch.arange(task.n_tokens)
        partner_set = bits[:, partners] > 0
        keys = torch.where(partner_set, own, 0)
        return torch.where(own < task.n_tokens - task.n_readout, -1, keys)

    return finished(
        "resting", plant, heads={"copies": FIRST, "rests": SECOND}, acting=both,
        looks={FIRST: fixed(partners), SECOND: null_or_self},
        story="The second head rests on a null token, and so writes 'not set', unless the first head has brought its "
        "query a set bit: then it looks at itself, where there is nothing to read, and writes nothing.",
        reasons={
            "routing": ([FIRST], "the second never looks at a bit: what it says, it says by where it does not look."),
            "ablate_zero": (both, "without the second every bit counts as set."),
            "ablate_mean": (both, "its mean says neither set nor not set."),
            "ablate_resample": (both, "another example's rest is wrong half of the time."),
            "ablate_pair": ([(FIRST, SECOND), (FIRST, CONTROL), (CONTROL, SECOND)], "either is enough to break it."),
            "patching": (both, "the z of both changes with the flipped bit."),
            "path_patching": (
                [(FIRST, SECOND, "q"), (SECOND, OUTPUT)],
                "the first decides the query of the second, and says nothing straight to the output.",
            ),
            "ablate_edge": (
                [*edges_of(FIRST, (8, 4), (7, 3)), *edges_of(SECOND, (8, 0), (7, 0))],
                "of the second, only its edges to the null token carry anything, where it does not look at a bit.",
            ),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching_residual": (
                places((0, 1), (1, 5), (2, 5)),
                "layer 0 brings the bit of token 1 to token 5, where the second head asks with it.",
            ),
            "patching_pattern": ([SECOND], "all that it says is in where it looks; the first looks by place."),
        },
    )  # fmt: skip


def constant(family: str, seed: int) -> Circuit:
    """A head that says the same of every example, and is needed for that."""
    task = BitXor(n_bits=N_BITS, encoding="signs")
    plant = Plant(family, task, seed=seed, note=1, copy=1, answer=1)
    itself, targets = range(task.n_tokens), partners_of(N_BITS)
    plant.head(FIRST, plant.by_place(itself), value=plant.one[None], out=plant.features["note"])
    copies(plant, SECOND, targets)
    answer_exclusive_or(plant, plant.features["copy"][0] + 3 * plant.features["note"][0] - 3 * plant.one)
    real, both = [SECOND], [FIRST, SECOND]
    return finished(
        "constant", plant, heads={"writes a constant": FIRST, "copies": SECOND}, acting=both,
        looks={FIRST: fixed(itself), SECOND: fixed(targets)},
        story="One head copies the partner bit. The other looks at its own token and writes a constant, which the MLP "
        "takes for granted: without it, every bit counts as not set.",
        reasons={
            "routing": (real, "the constant comes from the token itself, which no score counts."),
            "ablate_zero": (both, "zero takes the constant away too, though it says nothing of any example."),
            "ablate_mean": (real, "the mean of a constant is the constant."),
            "ablate_resample": (real, "every example has the same constant."),
            "ablate_pair": ([(FIRST, SECOND), (FIRST, CONTROL), (CONTROL, SECOND)], "as of either by zero ablation."),
            "ablate_edge": (
                [*edges_of(FIRST, (7, 7), (6, 6)), *edges_of(SECOND, (7, 3), (6, 2))],
                "an edge is cut to zero, so the edge that carries the constant counts.",
            ),
            "ablate_mlp": ([("mlp", MLP_LAYER)], "it takes the exclusive or."),
            "patching": (real, "the clean and the corrupted run have the same constant."),
            "patching_residual": (
                places((0, 0), (1, 0), (2, 4)), "the bit moves in layer 1; the constant moves nothing."
            ),
            "patching_pattern": ([], "both look by place, so their patterns are the same for every input."),
            "path_patching": ([(SECOND, OUTPUT)], "nothing that differs leaves the first."),
        },
    )  # fmt: skip


def _rests(plant: Plant, at: Head, note: Tensor) -> None:
    """A head that looks at token 0 where ``note`` reads -1, and at its own where it reads +1; token 0 is worth 1."""
    place = plant.features["place"]
    own = torch.cat([torch.zeros(1, len(place)), torch.eye(len(place))[1:]]) @ place
    query = torch.cat([SHARP * own, -2 * SHARP * note[None]])
    key = torch.cat([own, place[:1]])
    plant.head(at, (query, key), value=place[:1], out=plant.features["copy"])
