"""Named activations are what transformers computes, hooks can change them, and nothing of the tap is left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpt_viz.backbones import Backbone
from fpt_viz.cache import run_with_cache
from fpt_viz.capture import capture_attention
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.kernel import TAPS, HookPoint
from fpt_viz.model import FrozenPretrainedTransformer

KERNELS = pytest.mark.parametrize("kernel", ["sdpa", "eager"])
WITHIN = {"atol": 1e-6, "rtol": 0}


def traces(model: FrozenPretrainedTransformer) -> list[object]:
    """Everything of ``model`` and of the process that a capture touches."""
    modules = list(model.modules())
    return [
        model.backbone.network.config._attn_implementation,
        [module.training for module in modules],
        [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in modules],
        ["forward" in vars(module) for module in modules],
        len(TAPS),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        [parameter.requires_grad for parameter in model.parameters()],
    ]


# Activations


@torch.no_grad()
def test_the_residual_stream_is_what_transformers_calls_hidden_states(family, tiny, eager, padded, symbols):
    model = tiny(family, symbols)
    hidden_states = eager(model, padded).hidden_states
    real = padded.mask

    _, cache = model.run_with_cache(padded.inputs, mask=padded.mask)

    post_ln = family in ("bert", "longformer")
    post = "normalized_resid_post" if post_ln else "resid_post"  # what the next block is given
    for layer in range(3):
        resid_pre, expected = cache["resid_pre", layer], hidden_states[layer][:, : real.shape[1]]
        torch.testing.assert_close(resid_pre[real], expected[real], atol=1e-5, rtol=0)
    for layer in range(2):
        torch.testing.assert_close(cache[post, layer][real], hidden_states[layer + 1][real], atol=1e-5, rtol=0)
    normed = not post_ln and family != "vit"  # of a ViT transformers tells the last block's output
    last = model.backbone.final_norm()(cache["resid_post", 2]) if normed else cache[post, 2]
    torch.testing.assert_close(last[real], hidden_states[3][real], atol=1e-5, rtol=0)


PROJECTIONS = {
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "gpt2": ("attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj"),
    "llama": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "longformer": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "t5": ("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v", "layer.0.SelfAttention.o"),
    "vit": ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
}
MIDDLES = {
    "bert": "attention.output.LayerNorm",
    "gpt2": "ln_2",
    "llama": "post_attention_layernorm",
    "longformer": "attention.output.LayerNorm",
    "t5": "layer.1",
    "vit": "layernorm_after",
}


@KERNELS
@torch.no_grad()
@pytest.mark.parametrize("family", PROJECTIONS)
def test_q_k_v_z_and_the_middle_are_what_pytorchs_own_hooks_see(family, tiny, kernel):
    model = tiny(family, kernel=kernel)
    batch, block = model.task.distinct(3, "test"), model.backbone.blocks[1]
    seen: dict[str, Tensor] = {}
    handles = [
        block.get_submodule(path).register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out.clone()}))
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
    if family == "longformer":  # [seq batch hidden], filled up to a whole window
        seen |= {name: seen[name].transpose(0, 1)[:, :6] for name in "qkv"}

    _, cache = model.run_with_cache(batch.inputs)

    for name in "qkvz":
        torch.testing.assert_close(cache[name, 1].flatten(-2), seen[name], atol=5e-6, rtol=0)
    torch.testing.assert_close(cache["resid_mid", 1], seen["mid"], atol=5e-6, rtol=0)


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
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / (1 if family == "t5" else backbone.d_head**0.5)
    if family == "t5":
        scores = scores + t5_bias(backbone)
    seen = torch.ones(6, 6, dtype=torch.bool)
    seen = seen.tril() if backbone.causal else seen
    seen = seen.tril(2).triu(-2) if family == "longformer" else seen  # windows of 4

    torch.testing.assert_close(cache["attn_scores", 2][:, :, seen], scores[:, :, seen], atol=1e-5, rtol=0)
    pattern = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(cache["pattern", 2], pattern, **WITHIN)
    torch.testing.assert_close(cache["z", 2].transpose(1, 2), pattern @ v, atol=1e-5, rtol=0)


def t5_bias(backbone: Backbone) -> Tensor:
    """Raffel et al., 2020: of 6 tokens, each distance has a bucket of its own, those ahead after the 16 behind."""
    table = backbone.blocks[0].get_submodule("layer.0.SelfAttention.relative_attention_bias").weight
    offsets = torch.arange(6) - torch.arange(6)[:, None]  # of the key, seen from the query
    return table[offsets.abs() + 16 * (offsets > 0)].permute(2, 0, 1)


@torch.no_grad()
def test_no_query_of_a_longformer_looks_beyond_its_band_not_even_a_padded_one(tiny, padded, symbols):
    model = tiny("longformer", symbols)
    _, cache = model.run_with_cache(padded.inputs, mask=padded.mask)
    distance = (torch.arange(8) - torch.arange(8)[:, None]).abs()
    for layer in range(3):
        assert not cache["pattern", layer].masked_select(distance > 2).any()
        assert cache["z", layer].isfinite().all()


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
    with pytest.raises(UnknownNameError, match=r"no cached activation 'z1'. There are: hook_embed"):
        cache["z", 1]


# Hooks that write


@KERNELS
@torch.no_grad()
@pytest.mark.parametrize("name", ["q", "k", "v", "attn_scores", "pattern", "z"])
def test_giving_back_what_was_shown_changes_nothing(family, tiny, kernel, name):
    model = tiny(family, kernel=kernel)
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

    for activation in (
        "blocks.0.attn.hook_z", "blocks.0.hook_resid_pre", "blocks.0.ln1.hook_scale", "blocks.0.attn.hook_result"
    ):  # fmt: skip
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
    model = tiny(family, kernel=kernel).train(mode)
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
    model = tiny(family, kernel=kernel).train()
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
