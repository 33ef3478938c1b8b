"""Attributions to inputs have their closed forms, add up, keep to padding and masks, and find planted bits."""

from __future__ import annotations

import sys
from typing import Any
import warnings

import pytest
import torch
from torch import Tensor, nn

from fpt_viz import testing
from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.measures._attribution import baseline_of, question
from fpt_viz.measures.attribute_inputs import attribute_inputs
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import InputAttribution
from fpt_viz.tap import inspecting
from fpt_viz.tasks import load_task

pytestmark = pytest.mark.slow  # a minute or so in all

FAMILIES = ["bert", "gpt2", "llama", "longformer", "t5", "vit"]
ON_INPUTS = ["integrated_gradients", "gradient_x_input", "occlusion", "shapley"]


def with_network(model: FrozenPretrainedTransformer, compute: Any) -> FrozenPretrainedTransformer:
    """``model`` with a function of vectors in the place of its network."""
    model.backbone.forward = lambda vectors, mask=None: compute(vectors)
    return model


def difference_of(model: FrozenPretrainedTransformer, inputs: Tensor, targets: Tensor, mask: Any = None) -> Tensor:
    """Of two classes, the right one's logit minus the other's, ``[answer example]``."""
    with torch.no_grad():
        logits = model(inputs, mask)
    return (2 * logits.gather(-1, targets[..., None])[..., 0] - logits.sum(-1)).T


@pytest.mark.parametrize("method", ON_INPUTS)
def test_of_a_linear_model_every_method_is_the_weight_times_input_minus_baseline(tiny, method):
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    model = with_network(tiny("gpt2"), lambda vectors: mixing @ vectors)
    batch = model.task.distinct(5, "test")

    found = attribute_inputs(model, batch, method=method)

    weight = (model.output.weight @ model.input.weight)[:, 0].detach()  # of each class
    sign = 2.0 * batch.targets - 1  # [example answer]
    steps = batch.inputs[..., 0] - 0.5
    wanted = sign.T[:, :, None] * (weight[1] - weight[0]) * mixing[3:][:, None] * steps
    torch.testing.assert_close(found.tokens, wanted, atol=1e-5, rtol=1e-4)
    assert found.complete.all()


@pytest.mark.parametrize(
    ("method", "share"),
    [("integrated_gradients", 0.5), ("shapley", 0.5), ("occlusion", 1.0), ("gradient_x_input", 1.0)],
)
def test_of_a_product_each_factor_gets_half_or_is_found_to_hold_all_of_it(tiny, method, share):
    def product(vectors: Tensor) -> Tensor:
        return (vectors[:, :1] * vectors[:, 1:2]).expand_as(vectors)

    model = with_network(tiny("gpt2"), product)
    with torch.no_grad():
        model.input.bias.zero_()
    batch = model.task.distinct(6, "test")
    inputs = batch.inputs + 1

    found = attribute_inputs(
        model, type(batch)(inputs, batch.targets), method=method, baseline="zero", n_samples=400, answers=[0]
    )

    whole = found.difference[0]
    torch.testing.assert_close(
        found.tokens[0, :, 0], share * whole, atol=1e-5, rtol=0.15 if method == "shapley" else 1e-3
    )
    assert (found.tokens[0, :, 2:].abs() < 1e-6).all()
    assert found.complete.all() == (share == 0.5)


def test_attributions_add_up_in_every_family_and_have_the_inputs_shape(tiny, family):
    model = tiny(family)
    batch = model.task.distinct(4, "test")

    for method in ("integrated_gradients", "shapley"):
        found = attribute_inputs(model, batch, method=method, n_samples=2, batch_size=100)

        before = difference_of(model, torch.full_like(batch.inputs, 0.5), batch.targets)
        wanted = difference_of(model, batch.inputs, batch.targets) - before
        assert found.values.shape == (3, *batch.inputs.shape)
        torch.testing.assert_close(found.difference, wanted, atol=1e-5, rtol=0)
        error = (found.values.sum((2, 3)) - wanted).abs()
        assert (error <= (0.01 * wanted.abs()).clamp(min=1e-4)).all()
        assert found.complete.all()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_conductance_of_a_whole_block_adds_up_in_every_family(tiny, family, layer):
    model = tiny(family)
    batch = model.task.distinct(3, "test")

    found = attribute_inputs(model, batch, method="layer_conductance", layer=layer, answers=[1])

    assert found.complete.all()
    assert found.values.shape == (1, 3, 6)
    if layer == 2:  # nothing comes after it, so only the token that is read out counts
        torch.testing.assert_close(found.tokens[0, :, 4], found.difference[0], atol=1e-3, rtol=0.011)
        assert found.tokens[0][:, [0, 1, 2, 3, 5]].abs().max() < 1e-6
    else:
        assert found.tokens[0][:, 3].abs().max() > 1e-6


@pytest.mark.parametrize("method", [*ON_INPUTS, "layer_conductance"])
def test_symbols_are_attributed_through_their_embedding_and_padding_gets_nothing(tiny, family, symbols, padded, method):
    model = tiny(family, symbols)
    options = {"layer": 0} if method == "layer_conductance" else {}

    found = attribute_inputs(model, padded, method=method, n_samples=2, **options)

    assert found.values.shape == (2, *padded.inputs.shape)
    assert found.values[:, ~padded.mask].abs().max() == 0
    assert torch.equal(found.mask, padded.mask)
    if method != "gradient_x_input":
        alone = attribute_inputs(model, padded[1:2].trimmed(), method=method, n_samples=2, **options)
        if method == "occlusion":
            torch.testing.assert_close(found.values[:, 1, :5], alone.values[:, 0], atol=1e-5, rtol=0)
        assert alone.mask.shape == (1, 5)


def test_an_embedding_is_explained_by_its_own_forward_pass(tiny, symbols, padded):
    model = tiny("bert", symbols)
    batch = padded[:1].trimmed()

    found = attribute_inputs(model, batch, baseline="zero", method="occlusion")

    vectors = model.input(batch.inputs).detach()
    whole = difference_of(model, batch.inputs, batch.targets, batch.mask)
    for token in range(8):
        changed = vectors.clone()
        changed[:, token] = 0
        with model.hooks([("hook_embed", lambda _shown, hook, changed=changed: changed)]):
            without = difference_of(model, batch.inputs, batch.targets, batch.mask)
        torch.testing.assert_close(found.tokens[:, :, token], whole - without, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_occlusion_and_shapley_find_the_partner_bit_of_a_planted_circuit(family):
    circuit = testing.circuit(f"partner_bit_{family}")

    for method in ("occlusion", "shapley"):
        found = attribute_inputs(circuit.model, method=method, answers=[2], n_examples=8, n_samples=50)

        share = found.tokens[0].abs().mean(0)
        assert float(share[[2, 6]].min()) > 0.3 * float(share.sum())
        assert float(share[[0, 1, 3, 4, 5, 7]].sum()) < 0.05 * float(share.sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_integrated_gradients_find_the_pair_and_share_it_evenly_but_at_a_kink(family):
    """T5's planted exclusive or is made of ReLUs, whose path runs along the edge where they turn: docs tell."""
    circuit = testing.circuit(f"partner_bit_{family}")

    found = attribute_inputs(circuit.model, answers=[2], n_examples=8)

    share = found.tokens[0].abs().mean(0) / found.tokens[0].abs().mean(0).sum()
    assert float(share[[2, 6]].sum()) > 0.95
    assert found.complete.all()
    if family not in ("t5",):
        assert float(share[2]) > 0.3


def test_examples_that_do_not_add_up_take_more_steps_or_are_flagged(tiny):
    model = tiny("bert")
    with torch.no_grad():  # so that the path is far from straight
        model.input.weight *= 30
    batch = model.task.distinct(6, "test")

    few = attribute_inputs(model, batch, n_steps=2, max_steps=2)
    more = attribute_inputs(model, batch, n_steps=2, max_steps=2048)

    assert not few.complete.all()
    assert "do not add up within 1 %" in few.title
    assert more.complete.sum() > few.complete.sum()
    assert more.n_steps.max() > 2
    assert torch.equal(more.values[few.complete], few.values[few.complete])
    error = (more.values.sum((2, 3)) - more.difference).abs()
    assert torch.equal(error <= (0.01 * more.difference.abs()).clamp(min=1e-4), more.complete)


def test_bits_are_compared_with_their_middle_and_images_with_their_mean(tiny, made_data):
    bits, digits = tiny("bert"), load_task("digits")
    images = tiny("bert", digits)

    half, told = baseline_of(bits, bits.task.distinct(2, "test"), None)
    mean, told_mean = baseline_of(images, digits.distinct(2, "test"), None)

    assert torch.equal(half, torch.full((2, 6, 1), 0.5))
    assert told == "half way between 0 and 1"
    torch.testing.assert_close(mean[0], digits.distinct(256, "train").inputs.mean(0))
    assert told_mean == "mean of 256 train examples, token by token"
    assert baseline_of(bits, bits.task.distinct(2, "test"), "zero")[0].abs().max() == 0


def test_means_of_padded_examples_are_over_those_that_have_the_token(tiny, symbols, padded):
    model = tiny("bert", symbols)

    mean, _ = baseline_of(model, padded, "mean")

    train = symbols.distinct(256, "train")
    last = model.input(train.inputs[train.mask[:, 7], 7]).mean(0)
    torch.testing.assert_close(mean[0, 7], last)


def test_the_other_class_is_the_best_one_on_the_input(tiny, made_data):
    model = tiny("bert", load_task("digits"))
    batch = model.task.distinct(8, "test")

    with inspecting(model):
        share, _ = question(model, batch, "difference", None, 3)
        logits = model(batch.inputs)

    assert share.shape == (8, 1, 10)
    torch.testing.assert_close(
        (share[:, 0] * logits[:, 0]).sum(-1), model.task.logit_difference(logits, batch.targets).view(8)
    )


def test_deeplift_is_refused_in_every_family(tiny, family):
    with pytest.raises(ConfigError, match="no valid rule for .*attention multiplies.*Norm.*Use integrated_gradients"):
        attribute_inputs(tiny(family), method="deeplift", n_examples=2)


def test_captums_deeplift_would_be_the_plain_gradient(tiny):
    """Which is why it is refused: of what BERT computes, nothing has a rule."""
    from captum.attr import DeepLift

    model = tiny("bert")
    batch = model.task.distinct(4, "test")

    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.model(inputs)[:, 1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(Answer()).attribute(
            batch.inputs.clone().requires_grad_(), torch.full_like(batch.inputs, 0.5), target=batch.targets[:, 1]
        )

    ours = attribute_inputs(model, batch, method="gradient_x_input", of="target", answers=[1])
    torch.testing.assert_close(found.detach(), ours.values[0], atol=1e-5, rtol=1e-3)


def test_the_model_is_left_as_it_was(tiny):
    model = tiny("gpt2").train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = torch.get_rng_state()

    attribute_inputs(model, method="shapley", n_examples=2, n_samples=2)
    attribute_inputs(model, method="layer_conductance", layer=1, n_examples=2)

    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.leaked_hooks()


def test_shapleys_orders_come_from_the_seed(tiny):
    model = tiny("bert")
    found = [
        attribute_inputs(model, method="shapley", n_examples=2, n_samples=1, seed=seed).values for seed in (3, 3)
    ]  # fmt: skip

    torch.rand(7)
    again = attribute_inputs(model, method="shapley", n_examples=2, n_samples=1, seed=3).values

    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], again)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"baseline": torch.zeros(4, 1)}, ConfigError, r"shape \(4, 1\) was given for inputs of shape \(2, 6, 1\)"),
        ({"baseline": "men"}, UnknownNameError, "mean 'mean'"),
        ({"method": "integrated_gradient"}, UnknownNameError, "mean 'integrated_gradients'"),
        ({"of": "all"}, UnknownNameError, "difference, target"),
        ({"answers": [3]}, ConfigError, "no answer 3 of bit_xor"),
        ({"answers": []}, ConfigError, "no answer is asked about"),
        ({"method": "layer_conductance"}, ConfigError, "a layer from 0 to 2, got None"),
        ({"method": "layer_conductance", "layer": 3}, ConfigError, "a layer from 0 to 2, got 3"),
        ({"layer": 1}, ConfigError, "leave out layer"),
        ({"n_steps": 0}, ConfigError, "n_steps must be at least 1, got 0"),
        ({"n_steps": 9, "max_steps": 8}, ConfigError, "at least n_steps, got 8 and 9"),
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_mistake_in_asking_names_its_cure(tiny, options, error, message):
    with pytest.raises(error, match=message):
        attribute_inputs(tiny("gpt2"), **{"n_examples": 2, **options})


def test_without_captum_the_install_command_is_told(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)

    with pytest.raises(FptVizError, match="pip install captum"):
        attribute_inputs(tiny("gpt2"), n_examples=2)


def test_it_is_saved_loaded_and_shown_as_a_table(tiny, symbols, padded, tmp_path):
    found = attribute_inputs(tiny("bert", symbols), padded, method="occlusion")
    found.save(tmp_path / "found.safetensors")
    again = InputAttribution.load(tmp_path / "found.safetensors")

    assert torch.equal(again.values, found.values)
    assert again.labels == found.labels
    assert len(again.to_pandas()) == 2 * int(padded.mask.sum())
    assert found.scale == float(found.tokens.abs().max())
