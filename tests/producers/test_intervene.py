"""Cutting a head equals a network whose output projection never reads it, and is undone on exit."""

from __future__ import annotations

from copy import deepcopy
import inspect

import pytest
import torch

from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.intervene import ablated
from fpt_viz.records.parts import part_of, words_of

OUTPUT_PROJECTIONS = {
    "bert": ("attention.output.dense", 1),
    "gpt2": ("attn.c_proj", 0),  # a Conv1D, whose weight is [in, out]
    "llama": ("self_attn.o_proj", 1),
    "longformer": ("attention.output.dense", 1),
    "t5": ("layer.0.SelfAttention.o", 1),
    "vit": ("attention.o_proj", 1),
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
    model = tiny(family, symbols, kernel=kernel)
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


# Other parts than heads, and what stands in their place


def z_of(model, batch, layer):
    with torch.no_grad():
        return model.run_with_cache(batch.inputs, batch.mask)[1][f"blocks.{layer}.attn.hook_z"]


def written(model, batch, name, value):
    """The logits with ``value`` in the place of the activation ``name``."""
    with torch.no_grad(), model.hooks([(name, lambda _tensor, hook: value)]):
        return model(batch.inputs, batch.mask)


@torch.no_grad()
def test_mean_ablation_puts_the_heads_mean_over_the_reference_set_in_its_place(family, tiny):
    model = tiny(family)
    reference, batch = model.task.distinct(24, "train"), model.task.distinct(4, "test")
    z = z_of(model, batch, 1)
    z[:, :, 2] = z_of(model, reference, 1)[:, :, 2].mean(0)
    expected = written(model, batch, "blocks.1.attn.hook_z", z)

    with ablated(model, [(1, 2)], "mean", reference=reference):
        found = model(batch.inputs)

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(found, model(batch.inputs), atol=1e-5)


@torch.no_grad()
def test_the_mean_counts_no_padding_and_a_token_that_no_reference_example_has_gets_the_mean_of_all(
    tiny, padded, symbols
):
    model = tiny("bert", symbols)
    short = padded[torch.tensor([1, 3])]  # of 5 and 2 real tokens, so tokens 5 to 7 are in none
    kept = z_of(model, short, 0)
    mean = torch.empty(1, 8, *kept.shape[2:])
    for token in range(5):
        real = short.mask[:, token]
        mean[0, token] = kept[real, token].mean(0)
    mean[0, 5:] = kept[short.mask].mean(0)
    z = z_of(model, padded, 0)
    z[:, :, 1] = mean[:, :, 1]
    expected = written(model, padded, "blocks.0.attn.hook_z", z)

    with ablated(model, [(0, 1)], "mean", reference=short):
        torch.testing.assert_close(model(padded.inputs, padded.mask), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_resampling_puts_another_examples_value_in_its_place(family, tiny):
    model = tiny(family)
    one, batch = model.task.distinct(1, "train"), model.task.distinct(4, "test")
    z = z_of(model, batch, 1)
    z[:, :, 2] = z_of(model, one, 1)[:, :, 2]  # a reference set of one example leaves no choice
    expected = written(model, batch, "blocks.1.attn.hook_z", z)

    with ablated(model, [(1, 2)], "resample", reference=one):
        torch.testing.assert_close(model(batch.inputs), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_who_stands_in_is_drawn_from_the_seed_and_is_the_same_in_every_layer(tiny):
    model = tiny("gpt2")
    reference, batch = model.task.distinct(16, "train"), model.task.distinct(8, "test")
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    seen = {}
    for seed in (0, 0, 1):
        with ablated(model, heads, "resample", reference=reference, seed=seed):
            _, cache = model.run_with_cache(batch.inputs, names_filter=lambda name: name.endswith("hook_z"))
        seen.setdefault(seed, []).append(cache)
    kept = model.run_with_cache(reference.inputs)[1]
    for caches in seen.values():
        who = []
        for layer in range(3):
            found, pool = caches[0]["z", layer].flatten(1), kept["z", layer].flatten(1)
            distance = torch.cdist(found, pool)
            assert distance.min(1).values.max() < 1e-4  # each is one that the model really makes
            who.append(distance.argmin(1).tolist())
        assert who[0] == who[1] == who[2]
    assert torch.equal(seen[0][0]["z", 0], seen[0][1]["z", 0])
    assert not torch.equal(seen[0][0]["z", 0], seen[1][0]["z", 0])


@torch.no_grad()
def test_a_shorter_stand_in_is_read_again_from_its_first_token_never_from_its_padding(tiny, padded, symbols):
    model = tiny("bert", symbols)
    donor = padded[torch.tensor([3])]  # 2 real tokens of 8
    kept = z_of(model, donor, 0)
    z = z_of(model, padded, 0)
    z[:, :, 1] = kept[:, torch.arange(8) % 2, 1]
    expected = written(model, padded, "blocks.0.attn.hook_z", z)

    with ablated(model, [(0, 1)], "resample", reference=donor):
        torch.testing.assert_close(model(padded.inputs, padded.mask), expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_an_mlp_is_cut_at_its_output(family, tiny, kind):
    model = tiny(family)
    one, batch = model.task.distinct(1, "train"), model.task.distinct(4, "test")
    _, cache = model.run_with_cache(one.inputs, names_filter="blocks.1.hook_mlp_out")
    value = cache["mlp_out", 1].expand(4, -1, -1)
    expected = written(model, batch, "blocks.1.hook_mlp_out", torch.zeros_like(value) if kind == "zero" else value)

    with ablated(model, [("mlp", 1)], kind, reference=one):
        found = model(batch.inputs)

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(found, model(batch.inputs), atol=1e-5)


@torch.no_grad()
def test_an_edge_is_what_a_query_takes_from_a_key(family, tiny):
    model = tiny(family)
    batch = model.task.distinct(4, "test")
    _, cache = model.run_with_cache(batch.inputs)
    weight, values = cache["pattern", 1][:, 2, 5, 3], cache["v", 1]
    per_head = values.shape[2] * 2 // 4  # of grouped values, the head's own
    z = cache["z", 1].clone()
    z[:, 5, 2] -= weight[:, None] * values[:, 3, 2 if per_head == 2 else 1]
    expected = written(model, batch, "blocks.1.attn.hook_z", z)

    with ablated(model, [(1, 2, 5, 3)]):
        torch.testing.assert_close(model(batch.inputs), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_mean_of_an_edge_is_its_mean_weight(tiny):
    model = tiny("gpt2")
    reference, batch = model.task.distinct(24, "train"), model.task.distinct(4, "test")
    pattern = model.run_with_cache(batch.inputs)[1]["pattern", 0].clone()
    pattern[:, 1, 4, 2] = model.run_with_cache(reference.inputs)[1]["pattern", 0][:, 1, 4, 2].mean()
    expected = written(model, batch, "blocks.0.attn.hook_pattern", pattern)

    with ablated(model, [(0, 1, 4, 2)], "mean", reference=reference):
        torch.testing.assert_close(model(batch.inputs), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["mean", "resample"])
def test_an_empty_reference_set_is_an_error(tiny, kind):
    model = tiny("bert")
    empty = model.task.distinct(4, "train")[:0]
    message = rf"the reference set of the {kind} ablation is empty"
    with pytest.raises(ConfigError, match=message), ablated(model, [(0, 0)], kind, reference=empty):
        pass


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (("mlp", 3), "no MLP 3 in bert-tiny-random: it has layers 0 to 2"),
        ((0, 0, 6, 1), "no edge from query 6 to key 1 in bit_xor: its tokens are 0 to 5"),
        ((0, 4, 1, 1), "no head L0H4 in bert-tiny-random"),
    ],
)
def test_a_part_that_is_not_there_is_an_error(tiny, part, message):
    with pytest.raises(ConfigError, match=message), ablated(tiny("bert"), [part]):
        pass


def test_a_reference_set_too_large_to_keep_is_an_error_with_its_size(tiny, monkeypatch):
    model = tiny("bert")
    monkeypatch.setattr("fpt_viz.reference.REFERENCE_BUDGET_BYTES", 10_000)
    reference, heads = model.task.distinct(24, "train"), [(0, 0), (1, 1)]
    message = r"2 activations x 24 examples x 6 tokens, 0.0 MB, over the budget"
    with pytest.raises(CaptureError, match=message), ablated(model, heads, "resample", reference=reference):
        pass
    with ablated(model, heads, "mean", reference=reference):
        pass


@pytest.mark.parametrize("part", [(3, 5), (11, 0), (0, 1, 9, 4), ("mlp", 12)], ids=str)
def test_words_name_the_part_that_they_were_made_of(part):
    assert part_of(words_of(part)) == part


@pytest.mark.parametrize("words", ["", "L3", "H3", "L3H", "L3H5:9", "L-1H0", "MLP", "L3H5:9>4"])
def test_words_that_name_no_part_are_an_error(words):
    with pytest.raises(ConfigError, match="names no part of a model"):
        part_of(words)
