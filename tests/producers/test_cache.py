"""A cache holds what the forward pass computed, as much of it as is asked for and no more."""

from __future__ import annotations

import pytest
import torch

from fpt_viz.cache import run_with_cache
from fpt_viz.errors import CaptureError, ConfigError, TrapWarning


def test_a_token_drops_its_axis_and_a_slice_or_indices_keep_it(family, tiny):
    model = tiny(family)
    inputs = model.task.distinct(3, "test").inputs
    _, whole = model.run_with_cache(inputs)
    for asked, index in ((2, 2), (-1, -1), (slice(1, 5, 2), slice(1, 5, 2)), ([4, 0], [4, 0])):
        _, some = model.run_with_cache(inputs, pos_slice=asked)
        for name, tensor in whole.items():
            queries_last = name.endswith(("hook_pattern", "hook_attn_scores"))
            read = name.startswith("readout.")
            expected = tensor if read else tensor[:, :, index] if queries_last else tensor[:, index]
            assert torch.equal(some[name], expected), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pos_slice": 6}, "no token 6: there are 6"),
        ({"pos_slice": [0, 9]}, "no token 9"),
        ({"pos_slice": slice(4, 2)}, "chooses none of 6 tokens"),
        ({"remove_batch_dim": True}, "remove_batch_dim is for a single example, got 3"),
        ({"gradients": True, "pos_slice": 1}, "gradients are of whole activations"),
    ],
)
def test_what_cannot_be_cut_out_is_an_error(tiny, options, message):
    model = tiny("bert")
    with pytest.raises(ConfigError, match=message):
        model.run_with_cache(model.task.distinct(3, "test").inputs, **options)


def test_the_batch_axis_of_a_single_example_can_be_left_out(tiny):
    model = tiny("gpt2")
    inputs = model.task.distinct(1, "test").inputs
    _, whole = model.run_with_cache(inputs)
    _, bare = model.run_with_cache(inputs, remove_batch_dim=True)
    assert bare["pattern", 1].shape == (4, 6, 6)
    assert all(torch.equal(bare[name], tensor[0]) for name, tensor in whole.items())


def test_gradients_are_those_of_nudging_the_activation(family, tiny):
    model = tiny(family)
    batch = model.task.distinct(2, "test")
    names = ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_z", "blocks.2.attn.hook_v"]
    logits, cache = run_with_cache(model, batch.inputs, names_filter=names, gradients=True)
    model.task.loss(logits, batch.targets).backward()

    step = 1e-2
    for name in names:
        direction = torch.randn(cache[name].shape, generator=torch.Generator().manual_seed(2))
        losses = []
        for sign in (1, -1):
            nudged = cache[name].detach() + sign * step * direction
            with torch.no_grad(), model.hooks([(name, lambda _t, hook, nudged=nudged: nudged)]):
                losses.append(model.task.loss(model(batch.inputs).double(), batch.targets))
        slope = float(losses[0] - losses[1]) / (2 * step)
        assert float((cache[name].grad * direction).sum()) == pytest.approx(slope, rel=0.05, abs=2e-5), name
    assert not torch.is_inference_mode_enabled()


def test_without_asking_nothing_keeps_a_graph(tiny):
    model = tiny("bert")
    logits, cache = model.run_with_cache(model.task.distinct(2, "test").inputs)
    assert not logits.requires_grad
    assert not any(tensor.requires_grad for tensor in cache.values())


@pytest.mark.parametrize("pos_slice", [None, 2, slice(0, 3), [1, 5]], ids=str)
def test_the_estimate_is_what_the_cache_takes(family, tiny, pos_slice):
    model = tiny(family)
    inputs = model.task.distinct(5, "test").inputs
    _, cache = model.run_with_cache(inputs, pos_slice=pos_slice)
    assert model.estimate(inputs, pos_slice=pos_slice) == sum(tensor.nbytes for tensor in cache.values())


def test_a_cache_over_its_budget_is_an_error_with_both_numbers_before_anything_is_kept(tiny):
    model = tiny("bert")
    inputs = model.task.distinct(5, "test").inputs
    size = model.estimate(inputs)
    model.run_with_cache(inputs, budget_bytes=size)
    with pytest.raises(CaptureError, match=rf"5 examples x 6 tokens take {size / 1e6:.1f} MB, over the budget of"):
        model.run_with_cache(inputs, budget_bytes=size - 1)
    model.run_with_cache(inputs, names_filter="hook_embed", budget_bytes=size // 10)


def test_the_sizes_are_named_as_elsewhere(tiny):
    cfg = tiny("llama").cfg
    assert (cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads, cfg.d_model, cfg.d_head, cfg.n_ctx) == (3, 4, 2, 32, 8, 6)


# Traps


@pytest.mark.parametrize("name", ["output_attentions", "head_mask", "output_hidden_states"])
def test_arguments_that_transformers_would_ignore_are_refused_with_what_to_do(tiny, name):
    model = tiny("bert")
    with pytest.raises(CaptureError, match=f"{name} was passed to a forward pass; .*(capture_attention|ablated|cache)"):
        model(model.task.distinct(2, "test").inputs, **{name: True})


def test_any_other_argument_is_refused_too(tiny):
    model = tiny("bert")
    with pytest.raises(ConfigError, match="a forward pass takes inputs and mask, got position_ids"):
        model(model.task.distinct(2, "test").inputs, position_ids=torch.arange(6))


def test_hooks_on_a_model_in_training_mode_are_warned_of(tiny):
    model, seen = tiny("bert"), []
    inputs = model.task.distinct(2, "test").inputs
    hooks = [("hook_embed", lambda tensor, hook: seen.append(hook.name))]
    model.run_with_hooks(inputs, fwd_hooks=hooks)
    model.train()
    with pytest.warns(TrapWarning, match=r"in training mode: dropout changes .* call model.eval\(\)"):
        model.run_with_hooks(inputs, fwd_hooks=hooks)
    assert seen == ["hook_embed"] * 2
