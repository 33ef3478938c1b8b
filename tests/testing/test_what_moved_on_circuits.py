"""A head that looks by place was moved by the positions, and one that looks by content by the input layer."""

from __future__ import annotations

import pytest
import torch

from fpt_viz.freeze import group_of
from fpt_viz.measures.what_moved import what_moved
from fpt_viz.records import PatternShift
from fpt_viz.testing.verdicts import Circuit
from fpt_viz.testing.writers import LAYOUTS

pytestmark = pytest.mark.slow  # a minute or so in all

EACH_FAMILY = pytest.mark.parametrize("family", sorted(LAYOUTS))


def learned_both(circuit: Circuit) -> PatternShift:
    """The shift since a start that showed nothing of the input and had positions of half the size."""
    model = circuit.model
    start = {name: tensor.detach().clone() for name, tensor in model.trained_tensors().items()}
    for name, tensor in start.items():
        if group_of(name, model.parameter_groups()) == "position":
            tensor.mul_(0.5)
    start["input.weight"].zero_()
    return what_moved(model, start=start, n_examples=32)


@EACH_FAMILY
@pytest.mark.parametrize(("kind", "mover"), [("partner_bit", "position"), ("memory_match", "input")])
def test_the_whole_move_of_a_planted_head_is_read_as_that_of_what_it_looks_by(planted, family, kind, mover):
    circuit = planted(f"{kind}_{family}")
    shift = learned_both(circuit)
    [head] = circuit.acting
    truth = {"input": 0.0, "position": 0.0, "layer_norm": 0.0} | {mover: 1.0}
    assert shift.of(*head) == pytest.approx(truth, abs=0.06)  # what is shown enters every norm's divisor, and so counts
    assert float(shift.change[shift.heads.index(head)]) > 0.1


@EACH_FAMILY
def test_heads_that_do_nothing_were_moved_by_both(planted, family):
    circuit = planted(f"partner_bit_{family}")
    shift = learned_both(circuit)
    others = torch.tensor([head not in circuit.acting for head in shift.heads])
    assert float(shift.share[:2, others].mean(1).min()) > 0.1
    assert torch.equal(shift.share[2], torch.zeros(len(shift.heads)).double())
