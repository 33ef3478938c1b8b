"""A method that does not look at the weights fails; randomising goes from the output down and spares the model."""

from __future__ import annotations

import pytest
from scipy.stats import spearmanr
import torch

from fpt_viz import testing
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures import _attribution
from fpt_viz.measures.attribute_inputs import attribute_inputs
from fpt_viz.measures.attribution_sanity import _alike, _randomised, attribution_sanity
from fpt_viz.records import AttributionSanity

pytestmark = pytest.mark.slow  # a minute or so in all

QUICK = {"n_examples": 6, "seeds": (0,), "n_steps": 8, "answers": [0]}


def test_a_method_that_shows_the_input_alone_fails_and_is_labelled_wherever_it_is_shown(tiny, monkeypatch):
    def echo(answer, _settings, _n_steps):
        places = torch.arange(answer.inputs.shape[1])[None, :, None]
        return (answer.inputs + 1) * places

    monkeypatch.setitem(_attribution.METHODS, "echo", echo)
    model = tiny("bert")

    sanity = attribution_sanity(model, methods=["echo"], **QUICK)
    found = attribute_inputs(model, method="echo", sanity=sanity, n_examples=2)

    assert torch.equal(sanity.correlation, torch.ones(1, 5))
    assert not sanity.passes("echo")
    assert found.title == "echo (fails the sanity check (rank correlation 1.00))"
    assert "fails" in repr(found)
    assert repr(sanity) == "AttributionSanity(1 methods, failing: echo)"


def test_a_method_that_shows_the_weights_alone_passes(tiny, monkeypatch):
    def of_weights(answer, _settings, _n_steps):
        first = answer.model.backbone.blocks[0].attention.self.query.weight.detach()
        last = answer.model.backbone.blocks[2].attention.self.query.weight.detach()
        return (first * last).flatten()[:60].view(1, 6, 10).sum(-1, keepdim=True).expand(len(answer.inputs), -1, -1)

    monkeypatch.setitem(_attribution.METHODS, "of_weights", of_weights)

    sanity = attribution_sanity(tiny("bert"), methods=["of_weights"], **{**QUICK, "seeds": range(40)})

    assert abs(sanity.decisive("of_weights")) < 0.3
    assert sanity.passes("of_weights")
    assert sanity.correlation[0, 0] == 1  # the output layer is no part of it


def test_weights_are_randomised_from_the_output_down_frozen_ones_too(tiny, family):
    model = tiny(family)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    changed: dict[str, set[str]] = {}
    for stage in _randomised(model, 0):
        now = {n for n, parameter in model.named_parameters() if not torch.equal(before[n], parameter)}
        changed[stage] = now - set().union(*changed.values())

    assert list(changed) == ["output", "layer 2", "layer 1", "layer 0", "input"]
    assert set().union(*changed.values()) == set(before)
    assert {"output.weight", "output.bias"} <= changed["output"]
    assert {model.layer_of(name) for name in changed["layer 1"]} == {1}
    assert "input.weight" in changed["input"]
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen & changed["layer 1"]
    for name, parameter in model.named_parameters():
        if parameter.numel() > 500:
            assert float(parameter.std()) == pytest.approx(float(before[name].std()), rel=0.15)


def test_rank_correlations_are_scipys_over_real_tokens(rng):
    before, after = torch.randn(1, 2, 9, generator=rng), torch.randn(1, 2, 9, generator=rng)
    real = torch.arange(9) < torch.tensor([[9], [5]])

    found = _alike(before, after, real)

    for e, n in ((0, 9), (1, 5)):
        one, other = before[0, e, :n].numpy(), after[0, e, :n].numpy()
        assert float(found[0, e]) == pytest.approx(spearmanr(abs(one), abs(other)).statistic)
        assert float(found[1, e]) == pytest.approx(spearmanr(one, other).statistic)


def test_where_all_tokens_tie_there_is_nothing_to_rank_and_no_pass(tiny, monkeypatch):
    monkeypatch.setitem(_attribution.METHODS, "nothing", lambda answer, *_: torch.zeros_like(answer.inputs))

    sanity = attribution_sanity(tiny("gpt2"), methods=["nothing"], **QUICK)

    assert sanity.correlation.isnan().all()
    assert not sanity.passes("nothing")


def test_the_model_is_left_as_it_was_and_all_methods_are_asked(tiny):
    model = tiny("gpt2")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    found = attribution_sanity(
        model, methods=["integrated_gradients", "shapley", "layer_conductance"], layer=0, n_samples=2, **QUICK
    )

    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert found.correlation.shape == (3, 5)
    assert not found.correlation.isnan().any()
    assert (found.interval[..., 0] <= found.correlation + 1e-6).all()
    assert (found.correlation <= found.interval[..., 1] + 1e-6).all()


def test_a_planted_attribution_changes_with_the_layers_that_made_it():
    circuit = testing.circuit("partner_bit_gpt2")

    found = attribution_sanity(circuit.model, methods=["occlusion"], n_examples=8, answers=[2], seeds=(0, 1))

    assert float(found.signed.abs().max()) < 0.5
    assert float(found.correlation.max()) < 0.9


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": []}, ConfigError, "at least one attribution method"),
        ({"methods": ["occlusions"]}, UnknownNameError, "mean 'occlusion'"),
        ({"methods": ["layer_conductance"]}, ConfigError, "a layer from 0 to 2"),
        ({"threshold": 1.5}, ConfigError, "between 0 and 1, got 1.5"),
        ({"seeds": ()}, ConfigError, "at least one, got none"),
    ],
    ids=["methods", "name", "layer", "threshold", "seeds"],
)
def test_a_mistake_in_asking_names_its_cure(tiny, options, error, message):
    with pytest.raises(error, match=message):
        attribution_sanity(tiny("gpt2"), **{**QUICK, **options})


def test_it_is_saved_loaded_and_shown_as_a_table(tiny, tmp_path):
    found = attribution_sanity(tiny("bert"), methods=["occlusion"], **QUICK)
    found.save(tmp_path / "found.safetensors")
    again = AttributionSanity.load(tmp_path / "found.safetensors")

    assert torch.equal(again.correlation, found.correlation)
    assert list(again.to_pandas()["stage"]) == ["output", "layer 2", "layer 1", "layer 0", "input"]
    with pytest.raises(ConfigError, match="shapley was not checked"):
        again.label("shapley")
