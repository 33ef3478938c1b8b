"""What is captured is what transformers computes, under any kernel, and capturing leaves no trace."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fpt_viz.backbones import load_backbone
from fpt_viz.capture import attention_rows, capture_attention, query_rows, run_with_cache, visible_keys
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tap import _TAPS, HookPoint
from fpt_viz.tasks import Batch, load_task

KERNELS = pytest.mark.parametrize("kernel", ["sdpa", "eager"])
WITHIN = {"atol": 1e-6, "rtol": 0}


def under(model: FrozenPretrainedTransformer, kernel: str) -> FrozenPretrainedTransformer:
    model.backbone.network.set_attn_implementation(kernel)
    return model


def traces(model: FrozenPretrainedTransformer) -> list[object]:
    """Everything of ``model`` and of the process that a capture touches."""
    modules = list(model.modules())
    return [
        model.backbone.network.config._attn_implementation,
        [module.training for module in modules],
        [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in modules],
        ["forward" in vars(module) for module in modules],
        len(_TAPS),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        [parameter.requires_grad for parameter in model.parameters()],
    ]


def one_by_one(batch: Batch) -> list[Batch]:
    """Each example alone, without its padding."""
    assert batch.mask is not None
    lengths = batch.mask.sum(1).tolist()
    return [Batch(batch.inputs[i : i + 1, :n], batch.targets[i : i + 1]) for i, n in enumerate(lengths)]


def rows_of(patterns: Tensor, queries: Tensor) -> Tensor:
    """Of the oracle's ``[layer batch head query key]``, the rows asked for by a plain loop; zero for -1."""
    found = patterns.new_zeros(*patterns.shape[:3], queries.shape[1], patterns.shape[4])
    for example, row in enumerate(queries.tolist()):
        for place, query in enumerate(row):
            if query >= 0:
                found[:, example, :, place] = patterns[:, example, :, query]
    return found


# Equal to the eager kernel


@KERNELS
def test_patterns_of_a_batch_are_those_of_the_eager_kernel(family, tiny, eager, kernel):
    model = under(tiny(family), kernel)
    batch = model.task.distinct(5, "test")

    maps = capture_attention(model, batch, queries=None)

    torch.testing.assert_close(maps.weights, eager(model, batch).attentions, **WITHIN)
    assert maps.weights.shape == (3, 5, 4, 6, 6)
    assert maps.weights.std() > 0.02  # flat patterns would hide a mistake


@KERNELS
@pytest.mark.parametrize("queries", [None, "readout", [0, 1, 6]])
def test_patterns_of_a_padded_batch_are_those_of_the_eager_kernel(
    family, tiny, eager, kernel, padded, symbols, queries
):
    model = under(tiny(family, symbols), kernel)

    maps = capture_attention(model, padded, queries=queries)

    torch.testing.assert_close(maps.weights, rows_of(eager(model, padded).attentions, maps.queries), **WITHIN)
    assert torch.equal(maps.mask, padded.mask)
    assert not maps.weights.masked_select(~padded.mask[:, None, None]).any()


@KERNELS
def test_patterns_of_a_padded_batch_are_those_of_its_examples_one_by_one(family, tiny, eager, kernel, padded, symbols):
    model = under(tiny(family, symbols), kernel)
    together = capture_attention(model, padded, queries=None).weights

    for i, alone in enumerate(one_by_one(padded)):
        n_real = alone.inputs.shape[1]
        maps = capture_attention(model, alone, queries=None)
        torch.testing.assert_close(maps.weights, eager(model, alone).attentions, **WITHIN)
        torch.testing.assert_close(together[:, i : i + 1, :, :n_real, :n_real], maps.weights, **WITHIN)
        assert not together[:, i, :, n_real:].any()
        assert not together[:, i, :, :, n_real:].any()


def test_chosen_layers_heads_and_queries_are_those_in_the_order_asked_for(family, tiny, eager):
    model = tiny(family)
    batch = model.task.distinct(3, "test")

    maps = capture_attention(model, batch, layers=[2, 0], heads=[3, -3], queries=[5, 1, -2])

    assert (maps.layers, maps.heads, maps.queries[0].tolist()) == ((2, 0), (3, 1), [5, 1, 4])
    wanted = eager(model, batch).attentions[[2, 0]][:, :, [3, 1]][:, :, :, [5, 1, 4]]
    torch.testing.assert_close(maps.weights, wanted, **WITHIN)


@KERNELS
def test_the_cached_pattern_is_the_eager_kernels_too(family, tiny, eager, kernel, padded, symbols):
    model = under(tiny(family, symbols), kernel)
    expected = eager(model, padded).attentions

    _, cache = model.run_with_cache(padded.inputs, mask=padded.mask)

    real = padded.mask[:, None, :, None].expand_as(expected[0])
    for layer in range(3):
        torch.testing.assert_close(cache["pattern", layer][real], expected[layer][real], **WITHIN)


def test_rows_alone_are_the_same_rows_as_of_the_whole_pattern(family, tiny, padded, symbols):
    """Two ways through the kernel: chosen rows alone, and the whole pattern where another hook asks for it."""
    model = tiny(family, symbols)
    rows = query_rows(model, padded, "readout")
    alone = attention_rows(model, padded, [0, 2], [3, 1], rows)

    with model.hooks([("blocks.0.attn.hook_pattern", lambda _pattern, hook: None)]):
        beside = attention_rows(model, padded, [0, 2], [3, 1], rows)

    for layer in (0, 2):
        torch.testing.assert_close(alone[layer], beside[layer], **WITHIN)


def test_rows_of_real_queries_sum_to_one(family, tiny, padded, symbols):
    weights = capture_attention(tiny(family, symbols), padded, queries=None).weights
    sums = weights.sum(-1)
    real = padded.mask[None, :, None].expand_as(sums)
    torch.testing.assert_close(sums[real], torch.ones_like(sums[real]), atol=1e-6, rtol=0)
    assert not sums[~real].any()


def test_a_model_in_training_gives_the_numbers_of_eval_mode(family, tiny):
    model = tiny(family)
    model.set_dropout(0.5)
    batch = model.task.distinct(4, "test")
    expected = capture_attention(model, batch)
    _, expected_cache = model.run_with_cache(batch.inputs)

    model.train()

    assert torch.equal(capture_attention(model, batch).weights, expected.weights)
    _, cache = model.run_with_cache(batch.inputs)
    assert all(torch.equal(cache[name], expected_cache[name]) for name in expected_cache)


def test_capture_inside_autocast_is_in_float32(tiny):
    model = tiny("llama")
    batch = model.task.distinct(4, "test")
    expected = capture_attention(model, batch).weights
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(capture_attention(model, batch).weights, expected)


# Other activations


@torch.no_grad()
def test_the_residual_stream_is_what_transformers_calls_hidden_states(family, tiny, eager, padded, symbols):
    model = tiny(family, symbols)
    hidden_states = eager(model, padded).hidden_states
    real = padded.mask

    _, cache = model.run_with_cache(padded.inputs, mask=padded.mask)

    post = "normalized_resid_post" if family == "bert" else "resid_post"  # post-LN: what the next block is given
    for layer in range(3):
        torch.testing.assert_close(cache["resid_pre", layer][real], hidden_states[layer][real], atol=1e-5, rtol=0)
    for layer in range(2):
        torch.testing.assert_close(cache[post, layer][real], hidden_states[layer + 1][real], atol=1e-5, rtol=0)
    last = cache[post, 2] if family == "bert" else model.backbone.final_norm()(cache["resid_post", 2])
    torch.testing.assert_close(last[real], hidden_states[3][real], atol=1e-5, rtol=0)


PROJECTIONS = {
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "gpt2": ("attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj"),
    "llama": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
}
MIDDLES = {"bert": "attention.output.LayerNorm", "gpt2": "ln_2", "llama": "post_attention_layernorm"}


@KERNELS
@torch.no_grad()
@pytest.mark.parametrize("family", PROJECTIONS)
def test_q_k_v_z_and_the_middle_are_what_pytorchs_own_hooks_see(family, tiny, kernel):
    model = under(tiny(family), kernel)
    batch, block = model.task.distinct(3, "test"), model.backbone.blocks[1]
    seen: dict[str, Tensor] = {}
    handles = [
        block.get_submodule(path).register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out}))
        for name, path in zip("qkv", PROJECTIONS[family], strict=False)
    ]
    handles += [
        block.get_submodule(path).register_forward_pre_hook(lambda _m, args, name=name: seen.update({name: args[0]}))
        for name, path in (("z", PROJECTIONS[family][3]), ("mid", MIDDLES[family]))
    ]
    model(batch.inputs)  # untapped
    for handle in handles:
        handle.remove()
    if family == "gpt2":
        seen |= dict(zip("qkv", seen["q"].chunk(3, dim=-1), strict=True))

    _, cache = model.run_with_cache(batch.inputs)

    for name in "qkvz":
        torch.testing.assert_close(cache[name, 1].flatten(-2), seen[name], **WITHIN)
    torch.testing.assert_close(cache["resid_mid", 1], seen["mid"], **WITHIN)


@torch.no_grad()
def test_rotated_queries_and_keys_are_rotated_as_the_paper_says(tiny):
    """Su et al., 2021: pair (i, i + d/2) of token p turns by p * base^(-2i/d); here d = 8."""
    model = tiny("llama")
    _, cache = model.run_with_cache(model.task.distinct(3, "test").inputs)
    base = model.backbone.network.config.rope_parameters["rope_theta"]
    angles = torch.arange(6)[:, None] * base ** (-torch.arange(4) / 4)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    for name in "qk":
        plain = cache[name, 1]
        turned = torch.complex(plain[..., :4], plain[..., 4:]) * turn
        expected = torch.cat([turned.real, turned.imag], dim=-1)
        torch.testing.assert_close(cache[f"rot_{name}", 1], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_scores_pattern_and_z_follow_from_q_k_and_v(family, tiny):
    model = tiny(family)
    backbone = model.backbone
    _, cache = model.run_with_cache(model.task.distinct(3, "test").inputs)
    prefix = "rot_" if backbone.rotary else ""
    q, k, v = (cache[name, 2].transpose(1, 2) for name in (f"{prefix}q", f"{prefix}k", "v"))
    groups = backbone.n_heads // backbone.n_kv_heads
    k, v = (torch.stack([part[:, head // groups] for head in range(backbone.n_heads)], dim=1) for part in (k, v))
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / backbone.d_head**0.5
    seen = torch.ones(6, 6, dtype=torch.bool)
    seen = seen.tril() if backbone.causal else seen

    torch.testing.assert_close(cache["attn_scores", 2][:, :, seen], scores[:, :, seen], atol=1e-5, rtol=0)
    pattern = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(cache["pattern", 2], pattern, **WITHIN)
    torch.testing.assert_close(cache["z", 2].transpose(1, 2), pattern @ v, atol=1e-5, rtol=0)


def test_llama_here_has_fewer_key_heads_than_query_heads(tiny):
    backbone = tiny("llama").backbone
    assert (backbone.n_heads, backbone.n_kv_heads) == (4, 2)


@torch.no_grad()
def test_logits_with_a_cache_are_the_logits(family, tiny, padded, symbols):
    model = tiny(family, symbols)
    logits, cache = model.run_with_cache(padded.inputs, mask=padded.mask)
    torch.testing.assert_close(logits, model(padded.inputs, padded.mask), atol=1e-5, rtol=0)
    assert "blocks.0.attn.hook_pattern" in cache


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("blocks.0.attn.hook_z", ["blocks.0.attn.hook_z"]),
        (["hook_embed", "readout.hook_out"], ["hook_embed", "readout.hook_out"]),
        (lambda name: name.endswith("hook_pattern"), [f"blocks.{i}.attn.hook_pattern" for i in range(3)]),
    ],
)
def test_only_what_is_named_is_kept(tiny, wanted, names):
    model = tiny("gpt2")
    _, cache = run_with_cache(model, model.task.distinct(2, "test").inputs, names_filter=wanted)
    assert list(cache) == names


def test_an_unknown_activation_is_told_its_nearest_match(tiny):
    model = tiny("bert")
    inputs = model.task.distinct(2, "test").inputs
    with pytest.raises(UnknownNameError, match=r"Did you mean 'blocks\.0\.attn\.hook_pattern'\?"):
        model.run_with_cache(inputs, names_filter="blocks.0.attn.hook_patern")
    _, cache = model.run_with_cache(inputs, names_filter="hook_embed")
    with pytest.raises(UnknownNameError, match=r"no cached activation 'blocks\.1\.hook_z'"):
        cache["z", 1]


# Hooks that write


@KERNELS
@torch.no_grad()
@pytest.mark.parametrize("name", ["q", "k", "v", "attn_scores", "pattern", "z"])
def test_giving_back_what_was_shown_changes_nothing(family, tiny, kernel, name):
    model = under(tiny(family), kernel)
    inputs = model.task.distinct(3, "test").inputs
    expected = model(inputs)
    with model.hooks([(lambda full: full.endswith(f"hook_{name}"), lambda shown, hook: shown.clone())]):
        torch.testing.assert_close(model(inputs), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["q", "k", "v", "attn_scores", "pattern", "z"])
def test_what_a_hook_gives_back_takes_the_place_of_what_it_was_shown(family, tiny, name):
    model = tiny(family)
    inputs = model.task.distinct(3, "test").inputs
    fwd_hooks = [(f"blocks.1.attn.hook_{name}", lambda shown, hook: shown * 3 + 1)]
    _, plain = model.run_with_cache(inputs, names_filter=f"blocks.1.attn.hook_{name}")

    with model.hooks(fwd_hooks):
        logits, cache = model.run_with_cache(inputs, names_filter=f"blocks.1.attn.hook_{name}")

    torch.testing.assert_close(cache[name, 1], plain[name, 1] * 3 + 1, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits, model(inputs), atol=1e-4)
    assert torch.equal(model.run_with_hooks(inputs, fwd_hooks=fwd_hooks), logits)


@torch.no_grad()
def test_a_pattern_put_in_by_hand_moves_the_values_it_points_at(family, tiny):
    model = tiny(family)
    backbone = model.backbone

    def look_at_the_first(pattern: Tensor, hook: HookPoint) -> Tensor:
        forced = torch.zeros_like(pattern)
        forced[..., 0] = 1
        return forced

    with model.hooks([("blocks.0.attn.hook_pattern", look_at_the_first)]):
        _, cache = model.run_with_cache(model.task.distinct(3, "test").inputs)

    first = cache["v", 0][:, :1].repeat_interleave(backbone.n_heads // backbone.n_kv_heads, dim=2)
    torch.testing.assert_close(cache["z", 0], first.expand_as(cache["z", 0]), atol=1e-6, rtol=0)


def test_outer_hooks_run_before_inner_ones(tiny):
    model, order = tiny("gpt2"), []

    def note(name: str):
        return lambda _shown, hook: order.append(name)

    for activation in ("blocks.0.attn.hook_z", "blocks.0.hook_resid_pre"):
        order.clear()
        with model.hooks([(activation, note("outer"))]), model.hooks([(activation, note("inner"))]):
            model(model.task.distinct(2, "test").inputs)
        assert order == ["outer", "inner"]


def test_gradients_flow_through_hooks(family, tiny):
    model = tiny(family)
    with model.hooks([("blocks.1.attn.hook_pattern", lambda pattern, hook: pattern * 0.5)]):
        model(model.task.distinct(2, "test").inputs).sum().backward()
    assert model.input.weight.grad.abs().sum() > 0


def test_a_hook_that_changes_the_shape_is_an_error_that_names_the_place(tiny):
    model = tiny("gpt2")
    for name in ("blocks.0.attn.hook_z", "blocks.0.hook_resid_post"):
        with (
            pytest.raises(CaptureError, match=rf"the hook on {name} returned shape .*, wanted"),
            model.hooks([(name, lambda shown, hook: shown[:, :-1])]),
        ):
            model(model.task.distinct(2, "test").inputs)


def test_a_hook_is_told_its_name_and_layer(tiny):
    model, told = tiny("gpt2"), []
    with model.hooks([(["blocks.1.attn.hook_z", "hook_embed"], lambda _shown, hook: told.append(hook))]):
        model(model.task.distinct(2, "test").inputs)
    assert [point.name for point in told] == ["hook_embed", "blocks.1.attn.hook_z"]
    assert told[1].layer() == 1
    with pytest.raises(ConfigError, match=r"hook_embed belongs to no layer"):
        told[0].layer()


# Nothing is left behind


@KERNELS
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_capturing_leaves_no_trace(family, tiny, kernel, mode):
    model = under(tiny(family), kernel).train(mode)
    model.backbone.blocks[1].train(not mode)  # a mixture, as a user may have made it
    batch = model.task.distinct(2, "test")
    before = traces(model)

    capture_attention(model, batch)
    model.run_with_cache(batch.inputs)
    with model.ablated([(0, 1)]), model.hooks([("blocks.1.hook_resid_pre", lambda shown, hook: None)]):
        capture_attention(model, batch)

    assert traces(model) == before


@KERNELS
@pytest.mark.parametrize("place", ["blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern", "blocks.1.hook_resid_pre"])
def test_an_exception_inside_leaves_no_trace(family, tiny, kernel, place):
    model = under(tiny(family), kernel).train()
    batch = model.task.distinct(2, "test")
    before = traces(model)

    def fail(_shown, hook):
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        model.ablated([(0, 1)]),
        model.hooks([("blocks.1.attn.hook_z", lambda shown, hook: None), (place, fail)]),
    ):
        model.run_with_cache(batch.inputs)
    assert traces(model) == before


def test_what_a_hook_draws_while_capturing_leaves_the_random_state(tiny):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    before = torch.get_rng_state()
    with model.hooks([("blocks.1.attn.hook_z", lambda z, hook: z + torch.rand_like(z))]):
        capture_attention(model, batch)
        model.run_with_cache(batch.inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_hook_that_cannot_be_placed_leaves_no_trace(tiny):
    model = tiny("bert")
    before = traces(model)
    hooks = [("blocks.0.hook_resid_pre", lambda shown, hook: None), ("nowhere", lambda shown, hook: None)]
    with pytest.raises(UnknownNameError), model.hooks(hooks):
        pass
    assert traces(model) == before


@torch.no_grad()
def test_an_inner_block_that_ends_leaves_the_outer_one_at_work(family, tiny):
    model = tiny(family)
    inputs = model.task.distinct(2, "test").inputs
    with model.ablated([(1, 0)]):
        expected = model(inputs)
        with model.ablated([(1, 2)]):
            assert not torch.equal(model(inputs), expected)
        assert torch.equal(model(inputs), expected)
    assert not torch.allclose(model(inputs), expected, atol=1e-5)


@torch.no_grad()
def test_two_models_do_not_disturb_each_other(tiny):
    one, other = tiny("gpt2"), tiny("gpt2")
    inputs = one.task.distinct(2, "test").inputs
    expected = other(inputs)
    with one.ablated([(0, 0)]):
        assert torch.equal(other(inputs), expected)


# Errors


def test_a_capture_over_its_budget_is_an_error_that_says_what_to_choose(tiny):
    model = tiny("bert")
    batch = model.task.distinct(4, "test")
    n_bytes = 3 * 4 * 4 * 6 * 6 * 4

    capture_attention(model, batch, queries=None, budget_bytes=n_bytes)
    with pytest.raises(CaptureError) as told:
        capture_attention(model, batch, queries=None, budget_bytes=n_bytes - 1)

    text = str(told.value)
    assert "3 layers x 4 examples x 4 heads x 6 queries x 6 keys" in text
    assert 'queries="readout"' in text
    assert "head_statistics" in text


def test_half_precision_maps_take_half_the_budget(tiny):
    model = tiny("bert")
    batch = model.task.distinct(4, "test")
    maps = capture_attention(model, batch, queries=None, dtype=torch.float16, budget_bytes=3 * 4 * 4 * 6 * 6 * 2)
    assert maps.weights.dtype == torch.float16


def test_a_layer_that_never_fires_is_an_error(tiny):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    model.backbone.blocks[1].forward = lambda hidden_states, *args, **options: hidden_states
    with pytest.raises(CaptureError, match=r"attention of layer 1 was never reached"):
        capture_attention(model, batch)
    with pytest.raises(CaptureError, match=r"blocks\.1\.attn\.hook_z was never reached"):
        model.run_with_cache(batch.inputs, names_filter="blocks.1.attn.hook_z")


def test_rows_that_do_not_sum_to_one_are_an_error(tiny):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    with (
        model.hooks([("blocks.1.attn.hook_pattern", lambda pattern, hook: pattern * 0.99)]),
        pytest.raises(CaptureError, match=r"rows of layer 1 sum to 1 only within 0\.01"),
    ):
        capture_attention(model, batch)


def test_attention_that_is_no_number_is_an_error(tiny):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    with torch.no_grad():
        model.backbone.blocks[1].attn.c_attn.weight.fill_(torch.nan)
    with pytest.raises(CaptureError, match=r"rows of layer 1 sum to 1 only within nan"):
        capture_attention(model, batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, "no layer 3: there are 3, numbered from 0"),
        ({"heads": [-5]}, "no head -5: there are 4, numbered from 0"),
        ({"queries": [6]}, "no query token 6: there are 6, numbered from 0"),
    ],
)
def test_what_is_not_there_is_an_error(tiny, options, message):
    model = tiny("gpt2")
    with pytest.raises(ConfigError, match=message):
        capture_attention(model, model.task.distinct(2, "test"), **options)


# What the maps say


def test_maps_carry_what_is_needed_to_read_them(tiny):
    model = tiny("llama", load_task("bit_xor", n_bits=2))
    batch = model.task.distinct(2, "test")

    maps = capture_attention(model, batch, layers=[1])

    assert maps.queries.tolist() == [[2, 3], [2, 3]]
    assert maps.labels[0] == tuple(model.task.labels(batch.inputs[0]))
    assert maps.needs.tolist() == [[[True, False, False, False], [False, True, False, False]]] * 2
    assert maps.causal
    assert maps.geometry == model.task.geometry()
    assert maps.source == {"task": "bit_xor", "backbone": "llama-tiny-random", "init": "random", "step": 0}


def test_needs_of_padded_examples_follow_their_own_read_out_tokens(tiny, padded, symbols):
    model = tiny("bert", symbols)

    maps = capture_attention(model, padded)
    every = capture_attention(model, padded, queries=None)

    assert maps.queries.tolist() == [[6, 7], [3, 4], [5, 6], [0, 1]]
    assert maps.needs[:, 0].nonzero().tolist() == [[i, 0] for i in range(4)]
    assert maps.needs[:, 1].nonzero().tolist() == [[i, 1] for i in range(4)]
    assert every.queries[1].tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert not every.needs[every.queries < 0].any()


def test_visible_keys_are_real_and_under_causality_not_later(padded):
    rows = torch.tensor([[6, 7], [3, 4], [5, -1], [0, 1]])
    for causal in (True, False):
        visible = visible_keys(padded, rows, causal=causal)
        for example, row in enumerate(rows.tolist()):
            for place, query in enumerate(row):
                n_real = int(padded.mask[example].sum())
                last = -1 if query < 0 else query if causal else n_real - 1
                assert visible[example, place].tolist() == [key <= last for key in range(8)]


@pytest.mark.model
@KERNELS
def test_minilm_is_captured_as_its_eager_kernel_computes_it(eager, kernel):
    model = under(FrozenPretrainedTransformer(load_backbone("minilm", n_layers=3), load_task("bit_xor")).eval(), kernel)
    batch = model.task.distinct(4, "test")
    lengths = torch.tensor([10, 7, 5, 9])
    batch = replace(batch, mask=torch.arange(10) < lengths[:, None])

    maps = capture_attention(deepcopy(model), batch, queries=None)

    torch.testing.assert_close(maps.weights, rows_of(eager(model, batch).attentions, maps.queries), atol=1e-5, rtol=0)
