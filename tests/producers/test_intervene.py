"""Cutting a head equals a network whose output projection never reads it, and is undone on exit."""

from __future__ import annotations

from copy import deepcopy
import inspect

import pytest
import torch

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.intervene import ablated

OUTPUT_PROJECTIONS = {
    "bert": ("attention.output.dense", 1),
    "gpt2": ("attn.c_proj", 0),  # a Conv1D, whose weight is [in, out]
    "llama": ("self_attn.o_proj", 1),
}
"""Of each family, the projection that reads z, and the axis of its weight that z lies on."""


def without_slices(model, heads):
    """A copy of ``model`` in which the output projections have zeros where they would read ``heads``."""
    model = deepcopy(model)
    path, axis = OUTPUT_PROJECTIONS[model.backbone.provenance.family]
    d_head = model.backbone.d_head
    with torch.no_grad():
        for layer, head in heads:
            weight = model.backbone.blocks[layer].get_submodule(path).weight
            weight.narrow(axis, head * d_head, d_head).zero_()
    return model


@torch.no_grad()
@pytest.mark.parametrize("heads", [[(0, 0)], [(1, 3)], [(2, 1), (2, 2), (0, 3)]], ids=str)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", OUTPUT_PROJECTIONS)
def test_a_cut_head_is_a_zero_slice_of_the_output_projection(family, tiny, padded, symbols, heads, kernel):
    model = tiny(family, symbols)
    model.backbone.network.set_attn_implementation(kernel)
    expected = without_slices(model, heads)(padded.inputs, padded.mask)

    with ablated(model, heads):
        found = model(padded.inputs, padded.mask)

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(found, model(padded.inputs, padded.mask), atol=1e-4)


@torch.no_grad()
def test_a_cut_is_undone(family, tiny):
    model = tiny(family)
    inputs = model.task.distinct(4, "test").inputs
    expected = model(inputs)
    with ablated(model, [(1, 1)]):
        pass
    assert torch.equal(model(inputs), expected)
    with pytest.raises(ZeroDivisionError), ablated(model, [(1, 1)]):
        raise ZeroDivisionError
    assert torch.equal(model(inputs), expected)


@torch.no_grad()
def test_cutting_no_head_changes_nothing(family, tiny):
    model = tiny(family)
    inputs = model.task.distinct(4, "test").inputs
    expected = model(inputs)
    with ablated(model, []):
        assert torch.equal(model(inputs), expected)


def test_gradients_flow_through_a_cut_and_not_into_the_cut_head(tiny):
    model = tiny("gpt2", trained=("all",))
    with ablated(model, [(2, 1)]):
        model(model.task.distinct(4, "test").inputs).sum().backward()

    values = model.backbone.blocks[2].attn.c_attn.weight.grad[:, 64:].unflatten(-1, (4, 8))
    assert model.input.weight.grad.abs().sum() > 0
    assert not values[:, 1].any()
    assert values[:, 0].any()


@pytest.mark.parametrize("head", [(3, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_head_that_is_not_there_is_an_error_that_says_what_is(tiny, head):
    layer, number = head
    message = rf"no head L{layer}H{number} in bert-tiny-random: it has layers 0 to 2 and heads 0 to 3"
    with pytest.raises(ConfigError, match=message), ablated(tiny("bert"), [head]):
        pass


def test_an_unknown_kind_of_ablation_is_an_error(tiny):
    unchecked = inspect.unwrap(ablated)  # the shape checks of these tests refuse it too, by its annotation
    with pytest.raises(UnknownNameError, match=r"no kind of ablation 'zeros'. Did you mean 'zero'\?"):
        next(unchecked(tiny("bert"), [(0, 0)], "zeros"))
