"""Activations are found by TransformerLens's names, its short forms and newer spellings; what is not there is told."""

from __future__ import annotations

import re

import pytest
import torch

from fpt_viz.activations import activation_names, all_names, folded, full_name, matching
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.kernel import KERNEL, HookPoint, checked
from fpt_viz.tap import hooked, leaked, reset_hooks, starting_at

SAME = [
    ("pattern1", "blocks.1.attn.hook_pattern"),
    (("pattern", 1), "blocks.1.attn.hook_pattern"),
    (("pattern", -1), "blocks.2.attn.hook_pattern"),
    ("k0", "blocks.0.attn.hook_k"),
    ("k0a", "blocks.0.attn.hook_k"),
    ("z-2", "blocks.1.attn.hook_z"),
    ("attn_scores2", "blocks.2.attn.hook_attn_scores"),
    ("attn2", "blocks.2.attn.hook_pattern"),
    ("resid_pre0", "blocks.0.hook_resid_pre"),
    ("resid_post-1", "blocks.2.hook_resid_post"),
    ("mlp_out1", "blocks.1.hook_mlp_out"),
    ("pre1", "blocks.1.mlp.hook_pre"),
    ("mlp_post1", "blocks.1.mlp.hook_post"),
    ("scale1ln1", "blocks.1.ln1.hook_scale"),
    (("normalized", 2, "ln2"), "blocks.2.ln2.hook_normalized"),
    ("result1", "blocks.1.attn.hook_result"),
    ("embed", "hook_embed"),
    ("pos_embed", "hook_pos_embed"),
    ("readout", "readout.hook_out"),
    ("blocks.-1.attn.hook_z", "blocks.2.attn.hook_z"),
    ("embed.hook_out", "hook_embed"),
    ("pos_embed.hook_out", "hook_pos_embed"),
    ("blocks.1.hook_in", "blocks.1.hook_resid_pre"),
    ("blocks.1.attn.q.hook_out", "blocks.1.attn.hook_q"),
    ("blocks.1.attn.o.hook_in", "blocks.1.attn.hook_z"),
    ("blocks.1.attn.hook_out", "blocks.1.hook_attn_out"),
    ("blocks.1.mlp.hook_out", "blocks.1.hook_mlp_out"),
    ("blocks.1.mlp.out.hook_in", "blocks.1.mlp.hook_post"),
]


@pytest.mark.parametrize(("asked", "name"), SAME, ids=str)
def test_short_forms_and_newer_spellings_mean_the_full_name(family, tiny, asked, name):
    assert matching(tiny(family).backbone, asked) == [name]


@pytest.mark.parametrize(
    ("family", "asked", "name"),
    [
        ("gpt2", "blocks.1.hook_out", "blocks.1.hook_resid_post"),
        ("gpt2", "blocks.1.ln2.hook_in", "blocks.1.hook_resid_mid"),
        ("gpt2", "blocks.1.mlp.in.hook_out", "blocks.1.mlp.hook_pre"),
        ("gpt2", "scale", "ln_final.hook_scale"),
        ("bert", "blocks.1.hook_out", "blocks.1.hook_normalized_resid_post"),
        ("bert", "blocks.1.ln1.hook_in", "blocks.1.hook_resid_mid"),
        ("bert", "blocks.1.ln2.hook_out", "blocks.1.hook_normalized_resid_post"),
        ("llama", "blocks.1.mlp.gate.hook_out", "blocks.1.mlp.hook_pre"),
        ("llama", "blocks.1.mlp.in.hook_out", "blocks.1.mlp.hook_pre_linear"),
        ("llama", "rot_q1", "blocks.1.attn.hook_rot_q"),
        ("llama", "pre_linear0", "blocks.0.mlp.hook_pre_linear"),
    ],
)
def test_what_differs_between_families_is_mapped_as_each_computes(tiny, family, asked, name):
    assert matching(tiny(family).backbone, asked) == [name]


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        ("gpt2", "blocks.3.attn.hook_z"),
        ("gpt2", "blocks.-4.attn.hook_z"),
        ("gpt2", ("z", 3)),
        ("gpt2", "z3"),
        ("gpt2", "blocks.x.attn.hook_z"),
        ("gpt2", "blocks.0"),
        ("gpt2", "blocks."),
        ("gpt2", ""),
        ("gpt2", "rot_q1"),
        ("gpt2", "blocks.0.hook_normalized_resid_post"),
        ("bert", "ln_final.hook_scale"),
        ("t5", "blocks.0.mlp.hook_pre_linear"),
        ("vit", "blocks.0.ln1.hook_out"),
    ],
)
def test_a_name_that_the_family_lacks_is_an_error_that_lists_what_there_is(tiny, family, asked):
    model = tiny(family)
    with pytest.raises(UnknownNameError) as told:
        matching(model.backbone, asked)
    with pytest.raises(UnknownNameError), model.hooks([(asked, lambda shown, hook: None)]):
        pass
    listed = str(told.value).partition("There are: ")[2].split(", ")
    assert listed == folded(all_names(model.backbone))
    assert "blocks.{0..2}.attn.hook_pattern" in listed
    assert len(listed) < 40


def test_several_names_may_be_short_and_full_in_one_filter(tiny):
    names = matching(tiny("gpt2").backbone, ["z0", ("z", -1), "hook_embed", ("scale", 1, "ln1")])
    assert names == ["blocks.0.attn.hook_z", "blocks.2.attn.hook_z", "hook_embed", "blocks.1.ln1.hook_scale"]


def test_a_filter_that_chooses_nothing_is_an_error(tiny):
    with pytest.raises(ConfigError, match=r"chooses none of the model's activations"):
        matching(tiny("gpt2").backbone, lambda name: name.endswith("hook_result"))


def test_results_of_heads_are_offered_to_no_filter(family, tiny):
    backbone = tiny(family).backbone
    everything = set(activation_names(backbone))
    assert set(all_names(backbone)) - everything == {f"blocks.{i}.attn.hook_result" for i in range(3)}
    assert set(matching(backbone, None)) == set(matching(backbone, lambda name: True)) == everything


def test_names_come_in_the_order_of_the_forward_pass(family, tiny):
    model = tiny(family)
    order: list[str] = []
    with model.hooks([(all_names(model.backbone), lambda _shown, hook: order.append(hook.name))]):
        model(model.task.distinct(2, "test").inputs)

    def place(name: str) -> int:
        return order.index(name)

    before = [
        name for name in all_names(model.backbone) if re.search(r"hook_resid_pre|hook_z|attn_out|mlp_out|readout", name)
    ]
    assert before == sorted(before, key=place)
    assert sorted(order) == sorted(all_names(model.backbone))


def test_a_cache_finds_short_forms_of_what_it_keeps(tiny):
    model = tiny("gpt2")
    _, cache = model.run_with_cache(
        model.task.distinct(2, "test").inputs, names_filter=["z1", "pattern-1", "scale2ln1"]
    )
    assert cache["z1"] is cache["z", 1] is cache["blocks.1.attn.hook_z"]
    assert cache["pattern", -1] is cache["blocks.2.attn.hook_pattern"]
    assert cache["scale", 2, "ln1"] is cache["blocks.2.ln1.hook_scale"]
    with pytest.raises(UnknownNameError, match=r"no cached activation 'z0'. There are: blocks\.\{1\.\.1\}"):
        cache["z", 0]


def test_a_full_name_is_what_it_is_even_where_a_layer_is_missing():
    known = ["blocks.7.attn.hook_z"]
    assert full_name("z7", known, 12) == "blocks.7.attn.hook_z"
    assert full_name(("z", -5), known, 12) == "blocks.7.attn.hook_z"
    assert full_name("z6", known, 12) is None


# Traps


@pytest.mark.parametrize("name", ["blocks.1.attn.hook_z", "blocks.1.hook_mlp_out", "blocks.1.ln2.hook_scale"])
def test_a_function_that_is_never_called_is_an_error_on_leaving(family, tiny, name):
    model = tiny(family)
    inputs = model.task.distinct(2, "test").inputs
    _, cache = model.run_with_cache(inputs)

    def run() -> None:
        hooks = [("hook_embed", lambda shown, hook: None), (name, lambda shown, hook: None)]
        with model.hooks(hooks), starting_at(model, 2, cache["resid_pre", 2]):
            model(inputs)
            model(inputs)

    with pytest.raises(CaptureError, match=rf"{name} was never reached in 2 forward passes, so its hook did nothing"):
        run()
    assert leaked(model) == []


def test_a_block_in_which_the_model_never_runs_is_no_error(tiny):
    with tiny("gpt2").hooks([("blocks.1.attn.hook_z", lambda shown, hook: None)]):
        pass


def test_an_exception_of_the_block_is_the_one_that_is_raised(tiny):
    model = tiny("gpt2")
    inputs = model.task.distinct(2, "test").inputs
    _, cache = model.run_with_cache(inputs)

    def run() -> None:
        hooks = [("blocks.0.attn.hook_z", lambda shown, hook: None)]
        with model.hooks(hooks), starting_at(model, 2, cache["resid_pre", 2]):
            model(inputs)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda x: x.double(), r"returned dtype torch\.float64, wanted torch\.float32"),
        (lambda x: x.to("meta"), r"returned device meta, wanted cpu"),
        (lambda x: x[:1], r"returned shape \(1, .*, wanted \(2, "),
    ],
    ids=["dtype", "device", "shape"],
)
@pytest.mark.parametrize(
    "name",
    ["blocks.0.attn.hook_q", "blocks.0.attn.hook_pattern", "blocks.0.hook_resid_mid", "blocks.0.ln1.hook_scale",
     "blocks.0.attn.hook_result", "hook_pos_embed"],
)  # fmt: skip
def test_what_cannot_take_an_activations_place_is_an_error_that_names_it(tiny, name, given, message):
    model = tiny("gpt2")
    with (
        pytest.raises(CaptureError, match=rf"the hook on {re.escape(name)} {message}"),
        model.hooks([(name, lambda shown, hook: given(shown))]),
    ):
        model(model.task.distinct(2, "test").inputs)
    assert leaked(model) == []


def test_what_is_no_tensor_is_an_error_that_says_what_to_return():
    with pytest.raises(CaptureError, match=r"the hook on blocks\.0\.hook_resid_pre returned list: return a tensor"):
        checked([1.0], torch.ones(1), HookPoint("blocks.0.hook_resid_pre"))


@torch.no_grad()
def test_hooks_of_a_block_that_was_never_left_are_told_and_can_be_taken_out(family, tiny):
    model = tiny(family)
    inputs = model.task.distinct(2, "test").inputs
    expected, (_, cache) = model(inputs), model.run_with_cache(inputs)
    counted: list[int] = []
    others = model.backbone.blocks[0].register_forward_hook(lambda *_: counted.append(1))
    before = model.backbone.network.config._attn_implementation
    names = ["blocks.0.attn.hook_z", "blocks.1.hook_mlp_out", "blocks.2.ln1.hook_normalized", "hook_pos_embed"]

    forgotten = [hooked(model, [(names, lambda x, hook: x * 2)]), starting_at(model, 1, cache["resid_pre", 1])]
    for block in forgotten:
        block.__enter__()
    assert sorted(leaked(model)) == sorted([*names, "blocks.0 (skipped)", "blocks.1 (begins here)"])
    assert not torch.allclose(model(inputs), expected, atol=1e-4)
    counted.clear()
    reset_hooks(model)

    assert leaked(model) == []
    assert torch.equal(model(inputs), expected)
    assert len(counted) == 1  # hooks of others stay
    assert model.backbone.network.config._attn_implementation == before != KERNEL
    others.remove()
