"""What holds for every family of backbones, by its tiny random preset; a new family is checked with no edit here."""

from __future__ import annotations

import socket

import pytest
import torch
from torch import Tensor, nn

from fpt_viz import registry
from fpt_viz.backbones import Backbone, load_backbone
from fpt_viz.backbones.base import INITS, preset_names
from fpt_viz.errors import ConfigError, SourceError, UnknownNameError
from fpt_viz.freeze import GROUPS, group_of
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.sources import PackageFile
from fpt_viz.tasks import load_task

N_TOKENS = 6


@pytest.fixture(params=registry.names("backbones"))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tiny_preset(family: str) -> str:
    """The tiny random preset that each family has for tests."""
    [name] = [name for name in registry.load("backbones", family).presets if name.endswith("-tiny-random")]
    return str(name)


@pytest.fixture
def backbone(tiny_preset: str) -> Backbone:
    return load_backbone(tiny_preset, "random", seed=3).eval()


@pytest.fixture
def model(tiny_preset: str) -> FrozenPretrainedTransformer:
    return FrozenPretrainedTransformer(load_backbone(tiny_preset, "random"), load_task("bit_xor", n_bits=3)).eval()


def vectors(backbone: Backbone, n_examples: int = 2) -> Tensor:
    return torch.randn(n_examples, N_TOKENS, backbone.d_model, generator=torch.Generator().manual_seed(1))


def values_of(backbone: Backbone) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}


def the_network_itself(family: str, preset: str, seed: int) -> nn.Module:
    """What transformers makes of the preset's options, with its vocabulary."""
    kind = registry.load("backbones", family)
    torch.manual_seed(seed)
    return kind.network_class(kind.config_class(**kind.presets[preset].config), **kind.network_options).eval()


def test_no_two_families_share_a_preset_name():
    families = [registry.load("backbones", family) for family in registry.names("backbones")]
    assert len(preset_names()) == sum(len(family.presets) for family in families)


def test_every_parameter_is_in_one_group(backbone):
    backbone.fit_positions(N_TOKENS)
    groups = backbone.parameter_groups()

    found = {group_of(name, groups) for name, _ in backbone.named_parameters()}

    assert found - {"token"} == set(GROUPS) - {"input", "output"}


def test_a_group_of_blocks_lies_in_layers_and_positions_do_not(backbone):
    backbone.fit_positions(N_TOKENS)
    groups = backbone.parameter_groups()

    layers = {name: backbone.layer_of(name) for name, _ in backbone.named_parameters()}

    of_blocks = {layer for name, layer in layers.items() if group_of(name, groups) in ("attention", "feed_forward")}
    assert of_blocks == set(range(backbone.n_layers))
    assert {layer for name, layer in layers.items() if group_of(name, groups) == "position"} == {None}


@torch.no_grad()
def test_forward_is_the_transformers_network_own(backbone, family, tiny_preset):
    network = the_network_itself(family, tiny_preset, seed=3)
    backbone.fit_positions(N_TOKENS)
    x = vectors(backbone)

    torch.testing.assert_close(backbone(x), network(inputs_embeds=x).last_hidden_state, atol=1e-6, rtol=0)


@torch.no_grad()
def test_position_rows_are_added_to_the_tokens_in_their_order(backbone, family, tiny_preset):
    network = the_network_itself(family, tiny_preset, seed=3)
    backbone.fit_positions(N_TOKENS)
    groups = backbone.parameter_groups()
    [rows] = [value for name, value in backbone.named_parameters() if group_of(name, groups) == "position"]
    moved = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
    rows += moved
    x = vectors(backbone)

    assert rows.shape == (N_TOKENS, backbone.d_model)
    torch.testing.assert_close(backbone(x), network(inputs_embeds=x + moved).last_hidden_state, atol=1e-5, rtol=0)
    short = network(inputs_embeds=x[:, :4] + moved[:4]).last_hidden_state
    torch.testing.assert_close(backbone(x[:, :4]), short, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_padded_batch_equals_its_examples_one_by_one(backbone):
    backbone.fit_positions(N_TOKENS)
    x, lengths = vectors(backbone, n_examples=3), (6, 4, 1)
    mask = torch.arange(N_TOKENS) < torch.tensor(lengths)[:, None]

    together = backbone(x, mask)

    for i, n_real in enumerate(lengths):
        torch.testing.assert_close(together[i, :n_real], backbone(x[i : i + 1, :n_real])[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_causal_backbone_sees_nothing_later_and_the_other_kind_does(backbone):
    backbone.fit_positions(N_TOKENS)
    x = vectors(backbone)
    changed = x.clone()
    changed[:, -1] *= -1

    same = torch.allclose(backbone(x)[:, :-1], backbone(changed)[:, :-1], atol=1e-6)

    assert same == backbone.causal


def test_random_init_needs_no_file_and_no_network(tiny_preset, family, monkeypatch):
    def refused(*_args, **_kwargs):
        raise AssertionError("a random backbone reads nothing")

    monkeypatch.setattr(PackageFile, "locate", refused)
    monkeypatch.setattr("fpt_viz.backbones.base.weights_in", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)

    assert load_backbone(tiny_preset, "random").provenance.weights_sha256 == ""


def test_random_init_is_the_same_for_the_same_seed_only(tiny_preset):
    one, same, other = (values_of(load_backbone(tiny_preset, "random", seed=seed)) for seed in (3, 3, 4))

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_random_backbone_leaves_the_callers_random_state(tiny_preset):
    before = torch.get_rng_state()
    load_backbone(tiny_preset, "random", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_pretrained_weights_that_nobody_carries_are_an_error(tiny_preset):
    with pytest.raises(SourceError, match=r"no package carries weights of .* init=random"):
        load_backbone(tiny_preset, "pretrained")


def test_the_first_layers_can_be_kept_alone(tiny_preset):
    whole, short = (load_backbone(tiny_preset, "random", n_layers).eval() for n_layers in (None, 2))

    assert (short.n_layers, len(short.blocks), len(short.attentions)) == (2, 2, 2)
    assert whole.n_layers == short.provenance.config["n_layers_published"] > 2


@pytest.mark.parametrize("n_layers", [0, -1, 99])
def test_layers_that_are_not_there_are_an_error(tiny_preset, n_layers):
    with pytest.raises(ConfigError, match=rf"n_layers must be 1 to \d+ for {tiny_preset}, got {n_layers}"):
        load_backbone(tiny_preset, "random", n_layers)


def test_an_unknown_preset_is_told_its_nearest_match(tiny_preset):
    with pytest.raises(UnknownNameError, match=rf"no backbone '{tiny_preset}x'. Did you mean '{tiny_preset}'\?"):
        load_backbone(f"{tiny_preset}x")


def test_the_inits_there_are():
    assert INITS == ("pretrained", "random")


def test_a_sequence_longer_than_the_positions_gets_new_rows_or_an_error_with_the_reason(backbone):
    n_tokens = backbone.n_ctx + 3
    if backbone.limit:
        with pytest.raises(ConfigError, match=rf"positions for {backbone.n_ctx} tokens, the task has {n_tokens}, and "):
            backbone.fit_positions(n_tokens)
        assert backbone.provenance.positions_new == 0
        return
    backbone.fit_positions(n_tokens)

    assert backbone.provenance.positions_new == 3
    assert backbone(torch.zeros(1, n_tokens, backbone.d_model)).isfinite().all()


@torch.no_grad()
def test_dropout_reaches_hidden_states_and_attention(backbone):
    backbone.fit_positions(N_TOKENS)
    x = vectors(backbone)
    expected = backbone(x)
    backbone.train()

    backbone.set_dropout(0.0)
    assert torch.equal(backbone(x), expected)
    backbone.set_dropout(0.5)
    assert not torch.allclose(backbone(x), expected)


@torch.no_grad()
def test_the_input_scale_is_that_of_the_networks_own_token_embeddings(backbone, family, tiny_preset):
    network = the_network_itself(family, tiny_preset, seed=3)
    rms = network.get_input_embeddings().weight.square().mean().sqrt()
    assert backbone.token_rms == pytest.approx(float(rms), rel=1e-6)


@torch.no_grad()
def test_every_activation_that_is_named_is_reached_and_has_its_shape(model):
    backbone, batch = model.backbone, model.task.distinct(2, "test")
    seq, n_heads, n_kv_heads, d_head = N_TOKENS, backbone.n_heads, backbone.n_kv_heads, backbone.d_head
    per_head = {"q": n_heads, "k": n_kv_heads, "v": n_kv_heads, "z": n_heads, "rot_q": n_heads, "rot_k": n_kv_heads}

    _, cache = model.run_with_cache(batch.inputs)

    assert set(cache) == set(model.activation_names())
    assert len(cache) > 10 * backbone.n_layers
    for name, found in cache.items():
        kind = name.rpartition("hook_")[2]
        if kind in per_head:
            assert found.shape == (2, seq, per_head[kind], d_head), name
        elif kind in ("attn_scores", "pattern"):
            assert found.shape == (2, n_heads, seq, seq), name
        elif name == "readout.hook_out":
            assert found.shape == (2, model.task.n_readout, 2), name
        else:
            assert found.shape == (2, seq, backbone.d_model), name


@torch.no_grad()
def test_the_residual_stream_adds_up(model):
    _, cache = model.run_with_cache(model.task.distinct(2, "test").inputs)

    for layer in range(model.backbone.n_layers):
        resid_pre, attn_out, resid_mid = (cache[name, layer] for name in ("resid_pre", "attn_out", "resid_mid"))
        torch.testing.assert_close(resid_pre + attn_out, resid_mid, atol=1e-6, rtol=0)
        after_attention = cache.get(f"blocks.{layer}.hook_normalized_resid_mid", resid_mid)
        resid_post = after_attention + cache["mlp_out", layer]
        torch.testing.assert_close(resid_post, cache["resid_post", layer], atol=1e-6, rtol=0)


@torch.no_grad()
def test_what_is_read_out_is_the_last_block_through_the_final_norm(model):
    batch = model.task.distinct(2, "test")
    logits, cache = model.run_with_cache(batch.inputs)
    last = model.backbone.n_layers - 1
    final_norm = model.backbone.final_norm()

    hidden = final_norm(cache["resid_post", last]) if final_norm else cache["normalized_resid_post", last]

    torch.testing.assert_close(model.output(hidden[:, -model.task.n_readout :]), logits, atol=1e-6, rtol=0)


@torch.no_grad()
def test_attention_without_any_head_says_the_same_to_every_token(model):
    backbone, batch = model.backbone, model.task.distinct(2, "test")
    with model.ablated([(1, head) for head in range(backbone.n_heads)]):
        _, cache = model.run_with_cache(batch.inputs, names_filter=["blocks.0.hook_attn_out", "blocks.1.hook_attn_out"])

    [first, second] = cache.values()
    torch.testing.assert_close(second, second[:1, :1].expand_as(second), atol=1e-7, rtol=0)
    assert not torch.allclose(first, first[:1, :1].expand_as(first), atol=1e-4)
