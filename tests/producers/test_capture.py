"""Captured patterns are those of the eager kernel, whatever kernel the model is under."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
from scipy.stats import spearmanr
import torch
from torch import Tensor

from fpt_viz import capture as capture_file
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.backbones import load_backbone
from fpt_viz.capture import attention_rows, capture_attention, fingerprint, query_rows, visible_keys
from fpt_viz.config import TrainConfig
from fpt_viz.errors import CaptureError, ConfigError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttentionMaps
from fpt_viz.tasks import Batch, load_task
from fpt_viz.train import train

KERNELS = pytest.mark.parametrize("kernel", ["sdpa", "eager"])
WITHIN = {"atol": 1e-6, "rtol": 0}


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
    model = tiny(family, kernel=kernel)
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
    model = tiny(family, symbols, kernel=kernel)

    maps = capture_attention(model, padded, queries=queries)

    torch.testing.assert_close(maps.weights, rows_of(eager(model, padded).attentions, maps.queries), **WITHIN)
    assert torch.equal(maps.mask, padded.mask)
    assert not maps.weights.masked_select(~padded.mask[:, None, None]).any()


@KERNELS
def test_patterns_of_a_padded_batch_are_those_of_its_examples_one_by_one(family, tiny, eager, kernel, padded, symbols):
    model = tiny(family, symbols, kernel=kernel)
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
    model = tiny(family, symbols, kernel=kernel)
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


# In bfloat16


@pytest.mark.parametrize("queries", [None, "readout"])
def test_a_bfloat16_capture_is_the_eager_kernels_in_autocast_up_to_its_rounding(
    family, tiny, eager, padded, symbols, queries
):
    model = tiny(family, symbols)
    exact = capture_attention(model, padded, queries=queries)

    maps = capture_attention(model, padded, queries=queries, precision="bfloat16")

    with torch.autocast("cpu", torch.bfloat16):
        wanted = rows_of(eager(model, padded).attentions.float(), maps.queries)
    torch.testing.assert_close(maps.weights, wanted, atol=0.03, rtol=0)
    assert not torch.equal(maps.weights, exact.weights)
    assert maps.weights.dtype == torch.float32
    assert torch.equal(maps.weights == 0, exact.weights == 0)
    sums = maps.weights.sum(-1)[(maps.queries >= 0)[None, :, None].expand(exact.weights.shape[:-1])]
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


@pytest.mark.parametrize("queries", [None, [0, 3]])
def test_rows_of_a_bfloat16_capture_are_formed_in_float32_of_the_queries_and_keys_in_bfloat16(tiny, queries):
    """Not rounded again: neither scores nor pattern."""
    model = tiny("bert")
    batch = model.task.distinct(3, "test")
    projected: dict[str, Tensor] = {}
    attention = model.backbone.attentions[1]
    handles = [
        getattr(attention, name).register_forward_hook(lambda _m, _a, found, name=name: projected.update({name: found}))
        for name in ("query", "key")
    ]

    maps = capture_attention(model, batch, layers=[1], queries=queries, precision="bfloat16")

    for handle in handles:
        handle.remove()
    assert {tensor.dtype for tensor in projected.values()} == {torch.bfloat16}
    query, key = (projected[name].double().unflatten(-1, (4, -1)).transpose(1, 2) for name in ("query", "key"))
    wanted = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[:, :, list(queries or range(6))]
    torch.testing.assert_close(maps.weights[0].double(), wanted, atol=1e-6, rtol=0)


def test_the_precision_of_a_capture_is_recorded_and_float32_unless_asked_for(tiny, tmp_path):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    exact, low = capture_attention(model, batch), capture_attention(model, batch, precision="bfloat16")
    assert low.source == exact.source | {"precision": "bfloat16"}
    low.save(tmp_path / "maps.safetensors")
    assert (AttentionMaps.load(tmp_path / "maps.safetensors").precision, exact.precision) == ("bfloat16", "float32")
    assert torch.equal(capture_attention(model, batch).weights, exact.weights)
    assert not torch.is_autocast_enabled("cpu")


def test_a_bfloat16_capture_takes_patterns_that_a_hook_was_shown(tiny):
    model = tiny("gpt2")
    batch = model.task.distinct(2, "test")
    shown = []
    with model.hooks([("blocks.1.attn.hook_pattern", lambda pattern, hook: shown.append(pattern.dtype))]):
        maps = capture_attention(model, batch, precision="bfloat16")
    assert shown == [torch.bfloat16]
    alone = capture_attention(model, batch, precision="bfloat16").weights
    torch.testing.assert_close(maps.weights, alone, atol=0.02, rtol=0)


def test_a_device_without_bfloat16_is_told_and_the_record_says_float32(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert capture_file._possible("bfloat16", torch.device("cuda")) == "float32"
    assert "cuda does not compute in it, so this capture is in float32" in caplog.text
    assert capture_file._possible("bfloat16", torch.device("cpu")) == "bfloat16"


def test_heads_that_route_are_ranked_alike_in_bfloat16(tiny):
    model = tiny("bert", load_task("bit_xor", n_bits=4))
    with torch.no_grad():  # sharper, so that scores differ
        for attention in model.backbone.attentions:
            attention.query.weight *= 6
    batch = model.task.distinct(64, "validation")
    exact, low = (_scores(capture_attention(model, batch, precision=p)) for p in ("float32", "bfloat16"))
    assert exact.std() > 0.02
    assert spearmanr(exact, low).statistic > 0.99
    assert exact.argmax() == low.argmax()


@pytest.mark.slow
@pytest.mark.model
def test_minilms_heads_are_ranked_alike_in_bfloat16_and_in_bytes():
    model = FrozenPretrainedTransformer(load_backbone("minilm"), load_task("bit_xor")).eval()
    for _step in train(model, config=TrainConfig(n_steps=30, batch_size=32)):
        pass
    batch = model.task.distinct(128, "validation")
    exact = _scores(capture_attention(model, batch))
    for options, within in (({"precision": "bfloat16"}, 0.99), ({"dtype": "uint8"}, 0.999)):
        found = _scores(capture_attention(model, batch, **options))
        assert spearmanr(exact, found).statistic > within
        best, best_found = (set(scores.topk(5).indices.tolist()) for scores in (exact, found))
        assert len(best & best_found) >= 4


def _scores(maps: AttentionMaps) -> Tensor:
    """The mean routing score of each head."""
    found = routing_score(maps.weights, maps.needs, maps.queries)
    return found.score.mean(1).flatten()


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
    told = {"task": "bit_xor", "backbone": "llama-tiny-random", "init": "random", "step": 0}
    assert maps.source == told | {"inputs": fingerprint(batch)}


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
    model = FrozenPretrainedTransformer(load_backbone("minilm", n_layers=3), load_task("bit_xor")).eval()
    model.backbone.network.set_attn_implementation(kernel)
    batch = model.task.distinct(4, "test")
    lengths = torch.tensor([10, 7, 5, 9])
    batch = replace(batch, mask=torch.arange(10) < lengths[:, None])

    maps = capture_attention(deepcopy(model), batch, queries=None)

    torch.testing.assert_close(maps.weights, rows_of(eager(model, batch).attentions, maps.queries), atol=1e-5, rtol=0)
