"""What holds for every family of backbones, by its tiny random preset; a new family is checked with no edit here."""

from __future__ import annotations

import socket

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTModel

from fpt_viz import registry
from fpt_viz.backbones import Backbone, load_backbone, preset_names
from fpt_viz.config import TrainConfig
from fpt_viz.errors import CaptureError, ConfigError, SourceError, UnknownNameError
from fpt_viz.freeze import GROUPS, group_of
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.measures.patch_activations import patch_activations
from fpt_viz.measures.patch_paths import patch_paths
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.run import INITS
from fpt_viz.sources import PackageFile
from fpt_viz.tap import leaked, starting_at
from fpt_viz.tasks import load_task
from fpt_viz.telemetry import Probe

N_TOKENS = 6
FAMILIES = registry.names("backbones")
ATTENTION = pytest.mark.parametrize(
    "family", [name for name in FAMILIES if registry.load("backbones", name).has_attention], indirect=True
)
"""Of what a family says of its heads and of the halves of its blocks."""
NO_ATTENTION = pytest.mark.parametrize(
    "family", [name for name in FAMILIES if not registry.load("backbones", name).has_attention], indirect=True
)


@pytest.fixture(params=FAMILIES)
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


def states_of(network: nn.Module, x: Tensor) -> Tensor:
    """The last hidden states of ``network`` on the vectors ``x``, by its own forward pass."""
    if isinstance(network, ViTModel):
        return states_of_an_image(network, x)
    return network(inputs_embeds=x).last_hidden_state


def states_of_an_image(network: ViTModel, x: Tensor) -> Tensor:
    """As :func:`states_of`: an image whose first patches project to ``x``, all else of it and the class token hidden.

    A patch has 48 pixels and a vector 32 dimensions, so there is a patch for every vector.
    """
    projection, n_tokens = network.embeddings.patch_embeddings.projection, x.shape[1]
    pixels = (x - projection.bias) @ torch.linalg.pinv(projection.weight.flatten(1)).T
    patches = functional.pad(pixels, (0, 0, 0, 160 - n_tokens)).transpose(1, 2)
    image = functional.fold(patches, (40, 64), kernel_size=4, stride=4)
    seen = torch.arange(161).expand(len(x), -1)
    found = network(pixel_values=image, attention_mask=(seen >= 1) & (seen <= n_tokens))
    return found.last_hidden_state[:, 1 : n_tokens + 1]


def test_no_two_families_share_a_preset_name():
    families = [registry.load("backbones", family) for family in registry.names("backbones")]
    assert len(preset_names()) == sum(len(family.presets) for family in families)


def test_every_parameter_is_in_one_group(backbone):
    backbone.fit_positions(N_TOKENS)
    groups = backbone.parameter_groups()

    found = {group_of(name, groups) for name, _ in backbone.named_parameters()}

    mixing = {"attention", "feed_forward"} if backbone.has_attention else {"recurrent"}
    assert found - {"token"} == {"layer_norm", "position"} | mixing
    assert found - {"token"} < set(GROUPS)


def test_a_group_of_blocks_lies_in_layers_and_positions_do_not(backbone):
    backbone.fit_positions(N_TOKENS)
    groups = backbone.parameter_groups()

    layers = {name: backbone.layer_of(name) for name, _ in backbone.named_parameters()}

    mixing = ("attention", "feed_forward", "recurrent")
    of_blocks = {layer for name, layer in layers.items() if group_of(name, groups) in mixing}
    assert of_blocks == set(range(backbone.n_layers))
    assert {layer for name, layer in layers.items() if group_of(name, groups) == "position"} == {None}


@torch.no_grad()
def test_forward_is_the_transformers_network_own(backbone, family, tiny_preset):
    network = the_network_itself(family, tiny_preset, seed=3).double()
    backbone.fit_positions(N_TOKENS)
    x = vectors(backbone).double()

    torch.testing.assert_close(backbone.double()(x), states_of(network, x), atol=1e-6, rtol=0)


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
    torch.testing.assert_close(backbone(x), states_of(network, x + moved), atol=1e-5, rtol=0)
    short = states_of(network, x[:, :4] + moved[:4])
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
    monkeypatch.setattr("fpt_viz.backbones._loading.weights_in", refused)
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

    assert (short.n_layers, len(short.blocks)) == (2, 2)
    assert not short.has_attention or len(short.attentions) == 2
    assert whole.n_layers == short.provenance.config["n_layers_published"] > 2


@torch.no_grad()
def test_random_weights_can_be_deeper_than_those_that_are_published(tiny_preset):
    deep = load_backbone(tiny_preset, "random", 7).eval()
    deep.fit_positions(N_TOKENS)
    again = load_backbone(tiny_preset, "random", 7).eval()
    again.fit_positions(N_TOKENS)

    assert (deep.n_layers, len(deep.blocks), deep.provenance.config["n_layers"]) == (7, 7, 7)
    assert deep(vectors(deep)).isfinite().all()
    torch.testing.assert_close(deep(vectors(deep)), again(vectors(deep)), atol=0, rtol=0)


@pytest.mark.parametrize("n_layers", [0, -1])
def test_fewer_layers_than_one_are_an_error(tiny_preset, n_layers):
    with pytest.raises(ConfigError, match=rf"n_layers must be at least 1 for {tiny_preset}, got {n_layers}"):
        load_backbone(tiny_preset, "random", n_layers)


@pytest.mark.parametrize("init", ["pretrained", "statistics"])
def test_layers_beyond_the_published_ones_are_an_error_unless_random(tiny_preset, init):
    with pytest.raises(ConfigError, match=rf"n_layers must be 1 to 3 for {tiny_preset} with init={init}, got 4"):
        load_backbone(tiny_preset, init, 4)


def test_an_unknown_preset_is_told_its_nearest_match(tiny_preset):
    with pytest.raises(UnknownNameError, match=rf"no backbone '{tiny_preset}x'. Did you mean '{tiny_preset}'\?"):
        load_backbone(f"{tiny_preset}x")


def test_the_inits_there_are():
    assert INITS == ("pretrained", "random", "statistics")


def test_a_sequence_longer_than_the_positions_gets_new_rows_or_an_error_with_the_reason(backbone):
    if backbone.n_ctx is None:  # no sequence is
        backbone.fit_positions(3000)
        assert backbone.provenance.positions_new == 0
        assert backbone(torch.ones(1, 3000, backbone.d_model)).isfinite().all()
        return
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
    if backbone.vocabulary_path is None:  # it never saw any
        assert backbone.token_rms == 1.0
        return
    embeddings = the_network_itself(family, tiny_preset, seed=3).get_input_embeddings()
    if isinstance(embeddings, nn.Embedding):
        tokens, within = embeddings.weight, 1e-6
    else:  # a ViT's, of pixels: as many patches as make the sampling error small
        tokens, within = embeddings(torch.randn(200, 3, 40, 64, generator=torch.Generator().manual_seed(1))), 5e-3
    assert backbone.token_rms == pytest.approx(float(tokens.square().mean().sqrt()), rel=within)


@ATTENTION
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
        elif kind == "scale":
            assert found.shape == (2, seq, 1), name
        elif kind in ("pre", "pre_linear", "post"):
            assert found.shape == (2, seq, 128 if model.backbone.provenance.family == "gpt2" else 64), name
        else:
            assert found.shape == (2, seq, backbone.d_model), name


@ATTENTION
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

    last_state = cache["resid_post", last]
    hidden = (
        final_norm(last_state) if final_norm else cache.get(f"blocks.{last}.hook_normalized_resid_post", last_state)
    )

    torch.testing.assert_close(model.output(hidden[:, -model.task.n_readout :]), logits, atol=1e-6, rtol=0)


@ATTENTION
@torch.no_grad()
def test_attention_without_any_head_says_the_same_to_every_token(model):
    backbone, batch = model.backbone, model.task.distinct(2, "test")
    with model.ablated([(1, head) for head in range(backbone.n_heads)]):
        _, cache = model.run_with_cache(batch.inputs, names_filter=["blocks.0.hook_attn_out", "blocks.1.hook_attn_out"])

    [first, second] = cache.values()
    torch.testing.assert_close(second, second[:1, :1].expand_as(second), atol=1e-7, rtol=0)
    assert not torch.allclose(first, first[:1, :1].expand_as(first), atol=1e-4)


# What the tap may say of any family


def differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, atol=1e-4)


def made_varied(model: FrozenPretrainedTransformer) -> FrozenPretrainedTransformer:
    """The model with other gains, biases and positions than the ones and zeros that it starts with."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def norms_of(model: FrozenPretrainedTransformer, layer: int) -> list[tuple[str, str]]:
    """Of each norm of a block, its name and the activation that it is given."""
    if "blocks.0.hook_normalized_resid_post" in model.activation_names():
        return [(f"blocks.{layer}.ln1", "resid_mid"), (f"blocks.{layer}.ln2", "resid_post")]
    return [(f"blocks.{layer}.ln1", "resid_pre"), (f"blocks.{layer}.ln2", "resid_mid")]


@ATTENTION
@torch.no_grad()
def test_norms_are_told_before_gain_and_bias_with_the_divisor(model):
    made_varied(model)
    _, cache = model.run_with_cache(model.task.distinct(2, "test").inputs)
    config = model.backbone.network.config
    epsilons = [getattr(config, name, None) for name in ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps")]
    epsilon = next(found for found in epsilons if found is not None)

    checked = [(*norm, layer) for layer in range(model.backbone.n_layers) for norm in norms_of(model, layer)]
    checked += [("ln_final", "resid_post", model.backbone.n_layers - 1)] if model.backbone.final_norm() else []
    groups = model.backbone.parameter_groups()
    of_norms = [name for name, _ in model.backbone.named_parameters() if group_of(name, groups) == "layer_norm"]
    centred = any(name.endswith(".bias") for name in of_norms)  # an RMSNorm has no bias, and subtracts no mean
    for name, given, layer in checked:
        x = cache[given, layer]
        if not centred:
            expected = functional.rms_norm(x, (32,), eps=epsilon)
        else:
            expected, x = functional.layer_norm(x, (32,), eps=epsilon), x - x.mean(-1, keepdim=True)
        torch.testing.assert_close(cache[f"{name}.hook_normalized"], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(cache[f"{name}.hook_scale"] * expected, x, atol=1e-5, rtol=0)


@ATTENTION
@torch.no_grad()
def test_what_is_written_inside_a_norm_comes_out_of_it(model):
    made_varied(model)
    inputs = model.task.distinct(2, "test").inputs
    [(name, _), (other, _)] = norms_of(model, 1)
    plain, cache = model.run_with_cache(inputs)
    doubled = [(f"{name}.hook_scale", lambda scale, hook: scale * 2)]

    with model.hooks(doubled), model.hooks([(f"{other}.hook_scale", lambda scale, hook: None)]):
        logits, under = model.run_with_cache(inputs)
    halved = model.run_with_hooks(inputs, fwd_hooks=[(f"{name}.hook_normalized", lambda x, hook: x / 2)])
    with model.hooks(doubled):
        undone = model.run_with_hooks(inputs, fwd_hooks=[(f"{name}.hook_normalized", lambda x, hook: x * 2)])

    torch.testing.assert_close(under[f"{name}.hook_normalized"], cache[f"{name}.hook_normalized"] / 2)
    torch.testing.assert_close(halved, logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(undone, plain, atol=1e-5, rtol=0)
    assert differ(logits, plain)


@ATTENTION
@torch.no_grad()
def test_a_written_residual_stream_goes_on_into_both_the_next_half_and_the_sum(model):
    made_varied(model)
    inputs = model.task.distinct(2, "test").inputs
    for name in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post"):
        put = torch.randn(2, N_TOKENS, 32, generator=torch.Generator().manual_seed(3))
        with model.hooks([(f"blocks.1.{name}", lambda _shown, hook, put=put: put)]):
            _, cache = model.run_with_cache(inputs)
        assert torch.equal(cache[f"blocks.1.{name}"], put)
        mid = cache.get("blocks.1.hook_normalized_resid_mid", cache["resid_mid", 1])
        if name == "hook_resid_post":
            after = cache.get("blocks.1.hook_normalized_resid_post", put)
            torch.testing.assert_close(cache["resid_pre", 2], after, atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(cache["resid_post", 1], mid + cache["mlp_out", 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(cache["resid_post", 1], cache[norms_of(model, 1)[1][1], 1] + (
                0 if "blocks.0.hook_normalized_resid_post" in cache else cache["mlp_out", 1]
            ), atol=1e-5, rtol=0)  # fmt: skip


@ATTENTION
def test_gradients_through_a_written_residual_stream_are_those_of_finite_differences(model):
    model = made_varied(model).double()
    inputs = model.task.distinct(2, "test").inputs.double()

    def logits_at(factor: Tensor) -> Tensor:
        hooks = [(f"blocks.1.{name}", lambda x, hook: x * factor) for name in ("hook_resid_mid", "ln1.hook_scale")]
        return model.run_with_hooks(inputs, fwd_hooks=hooks).square().sum()

    factor = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    logits_at(factor).backward()
    with torch.no_grad():
        slope = (logits_at(factor + 1e-3) - logits_at(factor - 1e-3)) / 2e-3  # softmax may be in float32
    torch.testing.assert_close(factor.grad, slope, rtol=1e-3, atol=0)
    assert factor.grad.abs() > 1e-6


@torch.no_grad()
def test_positions_written_as_zero_are_a_model_without_positions(model):
    made_varied(model)
    inputs = model.task.distinct(2, "test").inputs
    hooks = [("hook_pos_embed", lambda rows, hook: torch.zeros_like(rows))]
    plain, cache = model.run_with_cache(inputs, names_filter="hook_pos_embed")
    found = model.run_with_hooks(inputs, fwd_hooks=hooks)
    groups = model.parameter_groups()
    [rows] = [value for name, value in model.named_parameters() if group_of(name, groups) == "position"]
    assert torch.equal(cache["pos_embed"], rows.expand(2, -1, -1))
    rows.zero_()

    torch.testing.assert_close(found, model(inputs), atol=1e-6, rtol=0)
    assert differ(found, plain)


@ATTENTION
@torch.no_grad()
def test_what_each_head_adds_is_told_where_it_is_named_and_only_there(model):
    made_varied(model)
    inputs = model.task.distinct(2, "test").inputs
    name = "blocks.1.attn.hook_result"
    assert name not in model.activation_names()
    _, cache = model.run_with_cache(inputs, names_filter=[name, "blocks.1.hook_attn_out"])
    projection = model.backbone.blocks[1].get_submodule(model.backbone.projection_path)
    bias = 0 if projection.bias is None else projection.bias

    assert cache["result", 1].shape == (2, N_TOKENS, 4, 32)
    torch.testing.assert_close(cache["result", 1].sum(2) + bias, cache["attn_out", 1], atol=1e-5, rtol=0)
    without = model.run_with_hooks(inputs, fwd_hooks=[(name, cut_head_2)])
    with model.ablated([(1, 2)]):
        torch.testing.assert_close(without, model(inputs), atol=1e-6, rtol=0)
    assert differ(without, model(inputs))


def cut_head_2(per_head: Tensor, hook: object) -> Tensor:
    return per_head.index_fill(2, torch.tensor([2]), 0)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_a_pass_that_begins_at_a_layer_is_the_rest_of_the_whole_pass(model, padded):
    made_varied(model)
    inputs = model.task.distinct(2, "test").inputs
    mask = torch.arange(N_TOKENS) < torch.tensor([[6], [4]]) if padded else None
    logits, cache = model.run_with_cache(inputs, mask)
    for layer in range(model.backbone.n_layers):
        with starting_at(model, layer, cache["resid_pre", layer]):
            torch.testing.assert_close(model(inputs, mask), logits, atol=1e-6, rtol=0)
    with starting_at(model, 1, cache["resid_pre", 0]):
        assert differ(model(inputs, mask), logits)
    assert leaked(model) == []


@ATTENTION
@torch.no_grad()
def test_dropout_reaches_the_pattern_itself(backbone):
    backbone.fit_positions(N_TOKENS)
    x = vectors(backbone)
    inside = {id(part) for attention in backbone.attentions for part in attention.modules()}
    backbone.train().set_dropout(0.5)
    for module in backbone.network.modules():
        if isinstance(module, nn.Dropout) and id(module) not in inside:
            module.p = 0.0
    before_projection: list[Tensor] = []
    projection = backbone.blocks[0].get_submodule(backbone.projection_path)
    projection.register_forward_pre_hook(lambda _module, args: before_projection.append(args[0]))

    backbone(x)
    backbone(x)

    assert differ(*before_projection)


# What a family without attention says


REFUSED = {
    "a capture": lambda model, batch: model.capture(batch),
    "a pattern": lambda model, batch: model.run_with_cache(batch.inputs, names_filter="blocks.0.attn.hook_pattern"),
    "a short form": lambda model, batch: model.run_with_cache(batch.inputs, names_filter=("z", 1)),
    "a hook": lambda model, batch: model.hooks([("blocks.0.attn.hook_z", lambda z, hook: None)]).__enter__(),
    "an ablation": lambda model, batch: model.ablated([(0, 0)]).__enter__(),
    "an MLP's": lambda model, batch: model.ablated([("mlp", 0)]).__enter__(),
    "statistics": lambda model, batch: head_statistics(model, n_examples=2),
    "effects": lambda model, batch: ablate_heads(model, n_examples=2),
    "patching": lambda model, batch: patch_activations(model, site="z", n_examples=2),
    "patching of a sum": lambda model, batch: patch_activations(model, site="attn_out", n_examples=2),
    "paths": lambda model, batch: patch_paths(model, n_examples=2),
    "telemetry": lambda model, batch: Probe.of(model, TrainConfig(telemetry_every=1)),
    "heads": lambda model, batch: model.backbone.n_heads,
    "modules": lambda model, batch: model.backbone.attentions,
    "W_O": lambda model, batch: model.backbone.projection(0),
}


@NO_ATTENTION
@pytest.mark.parametrize("what", REFUSED)
def test_whatever_is_asked_of_heads_is_an_error_that_says_that_there_are_none(model, what):
    with pytest.raises(CaptureError, match=rf"{model.backbone.provenance.name} has no attention: it has no heads"):
        REFUSED[what](model, model.task.distinct(2, "test"))
    assert leaked(model) == []


@NO_ATTENTION
def test_a_family_without_attention_has_no_heads_and_says_which_activations_it_has(model):
    batch = model.task.distinct(2, "test")
    logits, cache = model.run_with_cache(batch.inputs)

    assert (model.cfg.n_heads, model.cfg.d_head) == (0, 0)
    assert set(cache) == set(model.activation_names())
    torch.testing.assert_close(logits, model(batch.inputs), atol=1e-6, rtol=0)
    with pytest.raises(UnknownNameError, match=r"no activation 'hook_mlp_out'.*hook_resid_pre"):
        model.run_with_cache(batch.inputs, names_filter="hook_mlp_out")


@NO_ATTENTION
def test_the_residual_stream_of_a_family_without_attention_can_be_patched(model):
    """What the last block says at the first string's tokens is not read out; at the second's it is."""
    found = patch_activations(model, site="resid_post", n_examples=16)

    assert found.axes == ("layer", "position")
    [not_read, read] = found.to_pandas().query("layer == '2' or layer == 2").value.to_numpy().reshape(2, 3)
    assert (not_read == 0).all()
    assert (read != 0).all()
