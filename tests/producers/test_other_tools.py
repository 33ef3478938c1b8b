"""Attention from elsewhere is taken where it is attention, and refused with the cure where it is not."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from fpt_viz.analysis.pattern_distance import pattern_distance
from fpt_viz.capture import capture_attention
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.figures.attention_heatmap import attention_heatmap
from fpt_viz.figures.head_grid import head_grid
from fpt_viz.records import AttentionMaps

N_LAYERS, N_EXAMPLES, N_HEADS, N_TOKENS = 2, 3, 4, 5


@pytest.fixture
def weights() -> torch.Tensor:
    scores = torch.randn(N_LAYERS, N_EXAMPLES, N_HEADS, N_TOKENS, N_TOKENS, generator=torch.Generator().manual_seed(3))
    return scores.softmax(-1)


@pytest.mark.parametrize(
    "given",
    [
        lambda w: w,
        lambda w: w.numpy(),
        lambda w: tuple(w),
        lambda w: [layer.numpy() for layer in w],
        lambda w: w.half(),
    ],
    ids=["tensor", "numpy", "a tuple a layer", "a list of numpy", "half precision"],
)
def test_arrays_of_any_kind_become_maps(weights, given):
    maps = AttentionMaps.from_arrays(given(weights))
    torch.testing.assert_close(maps.weights.float(), weights, atol=1e-3, rtol=0)
    assert (maps.layers, maps.heads, maps.causal) == ((0, 1), (0, 1, 2, 3), False)
    assert maps.queries.tolist() == [list(range(N_TOKENS))] * N_EXAMPLES
    assert maps.labels[0] == ("0", "1", "2", "3", "4")


def test_lower_triangles_are_causal_unless_told_otherwise(weights):
    causal = weights.tril() / weights.tril().sum(-1, keepdim=True)
    assert AttentionMaps.from_arrays(causal).causal
    assert not AttentionMaps.from_arrays(causal, causal=False).causal


def test_labels_are_one_list_or_one_for_each_example(weights):
    words = ["the", "cat", "sat", "on", "it"]
    assert AttentionMaps.from_arrays(weights, words).labels == (tuple(words),) * N_EXAMPLES
    each = [words, words[::-1], words]
    assert AttentionMaps.from_arrays(weights, each).labels == tuple(map(tuple, each))


def test_figures_draw_arrays_as_they_draw_maps(weights):
    maps = AttentionMaps.from_arrays(weights)
    for figure, options in ((head_grid, {}), (attention_heatmap, {"layer": 1, "head": 2, "example": 1})):
        [panel], [same] = figure(weights, **options).panels, figure(maps, **options).panels
        assert np.array_equal(panel.marks[0].z, same.marks[0].z)
    assert np.allclose(
        attention_heatmap(tuple(weights), layer=1, head=2, example=1).panels[0].marks[0].z, weights[1, 1, 2]
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: (), "a fused kernel never forms it.*capture_attention"),
        (lambda w: (None, None), "a fused kernel never forms it"),
        (lambda w: w[0], r"attention of shape \(3, 4, 5, 5\) was given, wanted \[layer batch head query key\]"),
        (lambda w: w[:, :0], "none of them 0"),
        (lambda w: w[..., :4], r"has 5 queries and 4 keys: whole patterns are wanted"),
        (lambda w: torch.dropout(w, 0.3, True), "after dropout"),
        (lambda w: w.log(), "scores before the softmax are no attention"),
        (lambda w: w * torch.nan, "sum to 1 only within nan"),
        (lambda w: (w[0], w[1, :2]), r"several shapes, wanted one: \[\(2, 4, 5, 5\), \(3, 4, 5, 5\)\]"),
        (lambda w: [["a"]], "no array of numbers|several shapes|was given"),
    ],
)
def test_what_is_no_attention_is_refused_with_the_cure(weights, spoil, message):
    with pytest.raises(RecordError, match=message):
        AttentionMaps.from_arrays(spoil(weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "wants 5 labels of an example, got 2"),
        ({"labels": [["a"] * 5] * 2}, "wants 3 labels, got 2"),
        ({"mask": torch.ones(3, 4)}, r"mask of shape \(3, 4\) was given beside attention that wants \(3, 5\)"),
        (
            {"needs": torch.ones(3, 5, 4)},
            r"needs of shape \(3, 5, 4\) was given beside attention that wants \(3, 5, 5\)",
        ),
    ],
)
def test_axes_that_disagree_are_an_error_with_both_numbers(weights, options, message):
    with pytest.raises(RecordError, match=message):
        AttentionMaps.from_arrays(weights, **options)


def test_padding_that_is_attended_to_is_refused(weights):
    mask = torch.ones(N_EXAMPLES, N_TOKENS, dtype=torch.bool)
    mask[1, 3:] = False
    with pytest.raises(RecordError, match="padding receives up to .* pass the mask to the model"):
        AttentionMaps.from_arrays(weights, mask=mask)
    masked = weights.masked_fill(~mask[None, :, None, None], 0)
    maps = AttentionMaps.from_arrays(masked / masked.sum(-1, keepdim=True), mask=mask)
    assert maps.queries[1].tolist() == [0, 1, 2, -1, -1]


# To other tools


def test_bertviz_gets_a_batch_of_one_for_each_layer_and_its_tokens(weights):
    given = AttentionMaps.from_arrays(weights, ["a", "b", "c", "d", "e"]).to_bertviz(2)
    assert given["tokens"] == ["a", "b", "c", "d", "e"]
    assert [tuple(layer.shape) for layer in given["attention"]] == [(1, N_HEADS, N_TOKENS, N_TOKENS)] * N_LAYERS
    assert torch.equal(torch.cat(given["attention"]), weights[:, 2])


def test_circuitsvis_gets_the_heads_of_one_layer_and_its_tokens(weights):
    maps = AttentionMaps.from_arrays(weights)
    assert torch.equal(maps.to_circuitsvis()["attention"], weights[0, 0])
    assert torch.equal(maps.to_circuitsvis(1, 2)["attention"], weights[1, 2])
    assert maps.to_circuitsvis(1)["tokens"] == ["0", "1", "2", "3", "4"]
    with pytest.raises(ConfigError, match="layer 5 was not captured: there are 0, 1"):
        maps.to_circuitsvis(5)


def test_other_tools_get_no_padding(tiny, padded, symbols):
    maps = capture_attention(tiny("bert", symbols), padded, queries=None)
    for example, length in enumerate(padded.mask.sum(1).tolist()):
        given = maps.to_bertviz(example)
        assert len(given["tokens"]) == length
        for layer in given["attention"]:
            assert layer.shape[-2:] == (length, length)
            torch.testing.assert_close(layer.sum(-1), torch.ones(1, 4, length))


def test_rows_alone_are_too_little_for_other_tools(tiny):
    model = tiny("bert")
    maps = capture_attention(model, model.task.distinct(2, "test"))
    with pytest.raises(ConfigError, match=r"3 of 6 queries were captured, the other tool wants all.*queries=None"):
        maps.to_bertviz()
    with pytest.raises(ConfigError, match="no example 2: 2 were captured"):
        maps.to_bertviz(2)


# Comparing


def test_the_distance_is_the_attention_that_would_have_to_move(weights):
    other = weights.clone()
    other[0, 0, 0] = torch.eye(N_TOKENS)
    a, b = AttentionMaps.from_arrays(weights), AttentionMaps.from_arrays(other)
    found = pattern_distance(a, b)
    assert found[0, 0, 0] == pytest.approx(float((1 - weights[0, 0, 0].diagonal()).mean()), abs=1e-6)
    assert int((found > 0).sum()) == 1
    assert torch.equal(found, pattern_distance(b, a))


def test_captures_of_other_examples_are_not_compared(tiny):
    model = tiny("bert")
    batch, other = model.task.distinct(3, "test"), model.task.distinct(3, "validation")
    maps = capture_attention(model, batch)
    assert pattern_distance(maps, capture_attention(tiny("bert", seed=1), batch)).max() > 0
    with pytest.raises(RecordError, match="these maps show other tokens, so they cannot be compared"):
        pattern_distance(maps, capture_attention(model, other))
    with pytest.raises(RecordError, match=r"these maps show other layers.*\(0, 1, 2\) and \(1,\)"):
        pattern_distance(maps, capture_attention(model, batch, layers=[1]))


def test_inputs_that_no_label_tells_apart_are_told_apart(tiny):
    from fpt_viz.tasks import load_task

    model = tiny("bert", load_task("digits", patch_size=4))
    one, other = (capture_attention(model, model.task.distinct(2, split)) for split in ("test", "validation"))
    assert one.labels == other.labels
    with pytest.raises(RecordError, match="these maps show other examples"):
        pattern_distance(one, other)


def test_the_mask_that_does_not_reach_the_attention_is_an_error(tiny, padded, symbols, monkeypatch):
    model = tiny("bert", symbols)
    inner = inspect.unwrap(type(model.backbone).forward)
    monkeypatch.setattr(type(model.backbone), "forward", lambda self, vectors, mask=None: inner(self, vectors, None))
    from fpt_viz.errors import CaptureError

    with pytest.raises(CaptureError, match="padding receives up to .* in layer 0: the mask does not reach"):
        capture_attention(model, padded)
