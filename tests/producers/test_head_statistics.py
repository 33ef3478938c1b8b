"""Statistics that stream over a split equal those computed with everything in memory, by plain loops."""

from __future__ import annotations

import gc
from importlib import import_module
import math

import pytest
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import CaptureError, ConfigError, RecordError
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.tasks import Batch, load_task


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def by_hand(patterns: Tensor, batch: Batch, needs: Tensor, rows: list[int] | None = None) -> dict[str, Tensor]:
    """Every statistic from the patterns of one head, ``[batch query key]``, with no two examples together.

    Entropy in bits; scores over queries that need another token, with ``n - 1`` other queries in the permuted one.
    """
    kept: dict[str, list[float]] = {name: [] for name in ("entropy", "distance", "sink_mass", "score", "permuted")}
    n_tokens = patterns.shape[-1]
    pattern_rows: dict[tuple[int, int], list[float]] = {}
    for example, pattern in enumerate(patterns.double().tolist()):
        n_real = n_tokens if batch.mask is None else int(batch.mask[example].sum())
        queries = [query for query in rows or range(n_tokens) if query < n_real]
        needed = {
            query: [key for key in range(n_real) if key != query and needs[example, query, key]] for query in queries
        }
        scored = [query for query in queries if needed[query]]
        for query in queries:
            row = pattern[query][:n_real]
            kept["entropy"].append(-sum(weight * math.log2(weight) for weight in row if weight > 0))
            kept["distance"].append(sum(weight * abs(query - key) for key, weight in enumerate(row)))
            kept["sink_mass"].append(row[0])
            for key, weight in enumerate(row):
                pattern_rows.setdefault((query, key), []).append(weight)
        for query in scored:
            kept["score"].append(sum(pattern[query][key] for key in needed[query]))
            others = [sum(pattern[query][key] for key in needed[r] if key != query) for r in scored if r != query]
            if others:
                kept["permuted"].append(mean(others))
    order = list(rows or range(n_tokens))
    table = [[mean(pattern_rows.get((query, key), [0.0])) for key in range(n_tokens)] for query in order]
    means = {name: torch.tensor(mean(values)) for name, values in kept.items()}
    return means | {"mean_pattern": torch.tensor(table)}


def check_all_heads(stats, patterns: Tensor, batch: Batch, needs: Tensor, rows: list[int] | None = None) -> None:
    for layer in range(patterns.shape[0]):
        for head in range(patterns.shape[2]):
            expected = by_hand(patterns[layer, :, head], batch, needs, rows)
            found = {
                "entropy": stats.entropy, "distance": stats.distance, "sink_mass": stats.sink_mass,
                "score": stats.routing_score, "permuted": stats.permuted, "mean_pattern": stats.mean_pattern,
            }  # fmt: skip
            for name, values in found.items():
                torch.testing.assert_close(values[layer, head], expected[name], atol=1e-5, rtol=1e-5, msg=name)


def planted(model, pattern: Tensor):
    """The model with ``pattern``, ``[query key]``, in the place of what head 2 of layer 1 computes."""

    def plant(found, hook):
        changed = found.clone()
        changed[:, 2] = pattern
        return changed

    return model.hooks([("blocks.1.attn.hook_pattern", plant)])


@pytest.mark.parametrize("queries", [None, "readout", [1, 3, 5]])
def test_statistics_are_those_of_plain_loops_over_every_pattern(family, tiny, eager, queries):
    model = tiny(family)
    batch = model.task.distinct(16, "validation")

    stats = head_statistics(model, batch_size=5, queries=queries)

    rows = {"readout": [3, 4, 5]}.get(queries, queries) if isinstance(queries, str) else queries
    check_all_heads(stats, eager(model, batch).attentions, batch, model.task.needs(batch.inputs), rows)
    assert stats.queries == tuple(rows or range(6))
    assert (stats.n_examples, stats.split) == (16, "validation")


def test_padding_counts_nowhere(family, tiny, eager, symbols):
    model = tiny(family, symbols)
    batch = symbols.distinct(24, "validation")

    stats = head_statistics(model, n_examples=24, batch_size=7)

    check_all_heads(stats, eager(model, batch).attentions, batch, symbols.needs(batch.inputs))


def test_the_uniform_baseline_is_its_closed_form(family, tiny):
    model = tiny(family, load_task("bit_xor"))
    uniform = mean([1 / visible for visible in range(6, 11)]) if model.backbone.causal else 0.10
    uniform = uniform if model.backbone.reach is None else 0  # the partner, five tokens away, is out of reach
    assert head_statistics(model, n_examples=8).uniform == pytest.approx(uniform)


def test_a_head_that_looks_at_the_partner_bit_alone_scores_one(family, tiny):
    model = tiny(family)
    pattern = torch.eye(6)
    pattern[3:] = torch.eye(6)[:3]

    with planted(model, pattern):
        stats = head_statistics(model)

    assert stats.routing_score[1, 2] == pytest.approx(1)
    assert stats.routing_interval[1, 2].tolist() == pytest.approx([1, 1])
    assert stats.permuted[1, 2] == pytest.approx(0)
    assert stats.ranking()[0] == (1, 2)
    assert stats.entropy[1, 2] == pytest.approx(0)
    assert stats.distance[1, 2] == pytest.approx(1.5)  # 3 for each of the last three queries, 0 for the others
    torch.testing.assert_close(stats.mean_pattern[1, 2], pattern)


def test_a_head_that_looks_at_the_first_token_alone_is_a_sink(family, tiny):
    model = tiny(family)
    with planted(model, torch.eye(6)[[0] * 6]):
        stats = head_statistics(model)
    assert stats.sink_mass[1, 2] == pytest.approx(1)
    assert stats.routing_score[1, 2] == pytest.approx(1 / 3)
    out_of_reach = model.backbone.reach is not None  # of tokens 3, 4 and 5 none sees the first
    assert stats.permuted[1, 2] == pytest.approx(0 if out_of_reach else 1 / 3)
    assert stats.distance[1, 2] == pytest.approx(2.5)


def test_a_head_that_looks_everywhere_alike_scores_the_uniform_baseline(tiny):
    model = tiny("bert")
    with planted(model, torch.full((6, 6), 1 / 6)):
        stats = head_statistics(model)
    assert stats.routing_score[1, 2] == pytest.approx(stats.uniform)
    assert stats.entropy[1, 2] == pytest.approx(math.log2(6))


def test_batch_size_changes_nothing(tiny):
    model = tiny("gpt2", load_task("bit_xor"))
    one, other = (head_statistics(model, n_examples=100, batch_size=size) for size in (7, 100))
    for name in ("mean_pattern", "entropy", "distance", "sink_mass", "routing_score", "routing_interval", "permuted"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-6, rtol=0, msg=name)
    assert one.uniform == pytest.approx(other.uniform)


def test_the_streamed_interval_is_near_the_bootstrap_over_kept_examples(tiny, eager):
    model = tiny("gpt2", load_task("bit_xor"), n_layers=1)
    stats = head_statistics(model, n_examples=256)
    batch = model.task.distinct(256, "validation")
    patterns = eager(model, batch).attentions[0]
    scores = torch.stack([patterns[:, :, 5 + i, i] for i in range(5)]).mean(0)  # read-out token i needs token i

    expected = bootstrap_interval(scores).float()

    width = expected[:, 1] - expected[:, 0]
    assert (width > 1e-4).all()
    assert ((stats.routing_interval[0] - expected).abs() < 0.15 * width[:, None]).all()


def test_the_true_number_of_examples_is_recorded(tiny):
    stats = head_statistics(tiny("bert"), n_examples=10_000, split="test")
    assert (stats.n_examples, stats.split) == (16, "test")


def test_the_examples_are_of_the_split_asked_for(tiny, monkeypatch):
    model, asked = tiny("bert"), []
    distinct = type(model.task).distinct
    monkeypatch.setattr(
        type(model.task), "distinct", lambda self, *which: asked.append(which) or distinct(self, *which)
    )
    head_statistics(model, n_examples=4, split="train", seed=7)
    assert asked == [(4, "train", 7)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_examples(tiny, monkeypatch):
    module = import_module("fpt_viz.measures.head_statistics")
    model, peaks = tiny("bert", load_task("bit_xor")), []
    add = module._add

    def measured(*arguments):
        add(*arguments)
        living = {id(o): o.nbytes for o in gc.get_objects() if issubclass(type(o), Tensor)}
        peaks.append(sum(living.values()))

    monkeypatch.setattr(module, "_add", measured)

    def peak(n_examples: int) -> int:
        peaks.clear()
        gc.collect()
        head_statistics(model, n_examples=n_examples, batch_size=8)
        return max(peaks)

    few, many = peak(16), peak(256)

    pattern_bytes = 3 * 4 * 10 * 10 * 4  # of one example: 4,800; its inputs, targets and rows take 160
    assert many - few < (256 - 16) * pattern_bytes / 10


def test_a_task_without_needs_gets_no_routing_score(tiny):
    model = tiny("bert", load_task("digits", patch_size=4))
    stats = head_statistics(model, n_examples=8)
    assert stats.routing_score is stats.routing_interval is stats.uniform is stats.permuted is None
    assert stats.entropy.shape == (3, 4)
    with pytest.raises(RecordError, match=r"digits has no needs"):
        stats.ranking()


def test_a_single_scored_query_has_no_permuted_baseline(tiny):
    stats = head_statistics(tiny("bert", load_task("bit_xor", n_bits=1, n_strings=3)))
    assert stats.routing_score is not None
    assert stats.permuted is None


def test_read_out_tokens_that_differ_between_examples_have_no_mean_row(tiny, symbols):
    with pytest.raises(ConfigError, match=r"differ between examples, so their rows have no mean: queries=None"):
        head_statistics(tiny("bert", symbols), n_examples=8, queries="readout")


def test_statistics_over_their_budget_are_an_error_before_any_work(tiny, monkeypatch):
    model = tiny("bert")
    monkeypatch.setattr(type(model), "forward", lambda *_: pytest.fail("worked before the check"))
    with pytest.raises(CaptureError, match=r"6 x 6 patterns in batches of 16 take about 0\.1 MB, over the budget of"):
        head_statistics(model, budget_bytes=50_000)


def test_the_model_is_as_before(family, tiny):
    model = tiny(family).train()
    rng, kernel = torch.get_rng_state(), model.backbone.network.config._attn_implementation
    head_statistics(model, n_examples=4)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.backbone.network.config._attn_implementation == kernel


def test_statistics_say_what_they_are_of(tiny):
    model = tiny("llama")
    stats = head_statistics(model, n_examples=4, seed=3)
    assert stats.labels == model.task.token_names()
    assert stats.geometry == model.task.geometry()
    assert stats.source == model.source
    assert (stats.causal, stats.seed) == (True, 3)
