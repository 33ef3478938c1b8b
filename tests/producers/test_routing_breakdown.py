"""Routing scores by class, answer and position are plain means over the queries of each group."""

from __future__ import annotations

import math

import pytest
import torch

from fpt_viz.capture import capture_attention
from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.measures.routing_breakdown import routing_breakdown
from fpt_viz.records import RoutingBreakdown
from fpt_viz.tasks import load_task

TASKS = {
    "bit_xor": {"n_bits": 3},
    "bit_memory": {"n_strings": 3, "n_bits": 8, "patch_size": 4},
    "listops": {"max_tokens": 12, "min_tokens": 4, "max_depth": 2},
}


def rows_by_hand(model, n_examples):
    """Of every scored query: example, token, class, whether right, and its attention on what it needs, by loops."""
    task = model.task
    batch = task.distinct(n_examples, "test")
    maps = capture_attention(model, batch, queries=None)
    with torch.no_grad():
        right = task.correct(model(batch.inputs, batch.mask), batch.targets)
    needs, found = task.needs(batch.inputs), []
    for example in range(len(batch)):
        n_real = int(maps.mask[example].sum())
        needing = [q for q in range(n_real) if any(needs[example, q, k] and k != q for k in range(n_real))]
        for query in needing:
            keys = [k for k in range(n_real) if needs[example, query, k] and k != query]
            place = query - (n_real - task.n_readout)
            answer = right[example].reshape(task.n_readout, -1)
            targets = batch.targets[example].reshape(task.n_readout, -1)
            is_right = bool(answer[place].all()) if place >= 0 else bool(answer.all())
            single = targets.shape[1] == 1
            label = int(targets[place, 0]) if single and place >= 0 else None
            if place < 0 and single and task.n_readout == 1:
                label = int(targets[0, 0])
            seen = [k for k in range(n_real) if k <= query or not model.backbone.causal]
            seen = [k for k in seen if model.backbone.reach is None or abs(k - query) <= model.backbone.reach]
            others = [q for q in needing if q != query]
            wrong = [
                sum(maps.weights[:, example, :, query, k] for k in seen if needs[example, q, k] and k not in (q, query))
                for q in others
            ]
            found.append(
                {
                    "token": query,
                    "label": label,
                    "right": is_right,
                    "score": maps.weights[:, example, :, query, keys].sum(-1),
                    "uniform": len(set(keys) & set(seen)) / len(seen),
                    "permuted": sum(wrong) / len(others) if others else None,
                }
            )
    return found


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", ["bert", "gpt2", "longformer"])
def test_each_group_is_the_mean_over_its_queries(tiny, name, kind):
    model = tiny(kind, load_task(name, **TASKS[name]))
    found = routing_breakdown(model, n_examples=20, batch_size=7)
    rows, names = rows_by_hand(model, 20), model.task.token_names()

    chosen = {
        "all": lambda row, _name: True,
        "class": lambda row, name: row["label"] == int(name),
        "answer": lambda row, name: row["right"] == (name == "right"),
        "position": lambda row, name: names[row["token"]] == name,
    }
    filled = set()
    for index, (by, group) in enumerate(zip(found.kinds, found.names, strict=True)):
        mine = [row for row in rows if chosen[by](row, group)]
        assert found.n_scored[index] == len(mine)
        if not mine:
            assert found.score[index].isnan().all()
            continue
        filled.add(by)
        torch.testing.assert_close(
            found.score[index], torch.stack([row["score"] for row in mine]).mean(0), atol=1e-5, rtol=0
        )
        assert float(found.uniform[index]) == pytest.approx(sum(row["uniform"] for row in mine) / len(mine), abs=1e-5)
        permuted = [row["permuted"] for row in mine if row["permuted"] is not None]
        if permuted:
            expected = torch.stack([torch.as_tensor(each).expand(3, 4) for each in permuted]).mean(0)
            torch.testing.assert_close(found.permuted[index], expected, atol=1e-5, rtol=0)
    assert filled >= {"all", "answer", "position"}
    assert ("class" in filled) == (name != "bit_memory")


def test_all_of_it_is_the_score_of_the_statistics(tiny):
    model = tiny("bert")
    found, stats = routing_breakdown(model), head_statistics(model, split="test")
    torch.testing.assert_close(found.score[0], stats.routing_score)
    torch.testing.assert_close(found.permuted[0], stats.permuted)
    assert float(found.uniform[0]) == pytest.approx(stats.uniform)


def test_intervals_hold_the_score_and_are_wider_for_fewer_examples(tiny):
    model = tiny("gpt2", load_task("bit_xor", n_bits=5))
    few, many = (routing_breakdown(model, n_examples=n) for n in (20, 200))
    for found in (few, many):
        assert (found.interval[0, ..., 0] <= found.score[0]).all()
        assert (found.score[0] <= found.interval[0, ..., 1]).all()
    width_few, width_many = ((each.interval[0, ..., 1] - each.interval[0, ..., 0]).mean() for each in (few, many))
    assert 2 < float(width_few / width_many) < 5  # the square root of ten is 3.2


def test_a_breakdown_is_loaded_as_it_was_saved(tiny, tmp_path):
    found = routing_breakdown(tiny("bert"))
    found.save(tmp_path / "breakdown.safetensors")
    loaded = RoutingBreakdown.load(tmp_path / "breakdown.safetensors")
    assert loaded.names == found.names
    torch.testing.assert_close(loaded.score, found.score, atol=0, rtol=0, equal_nan=True)
    table = loaded.to_pandas()
    row = table[(table["by"] == "answer") & (table["group"] == "wrong") & (table["layer"] == 1) & (table["head"] == 2)]
    assert row["score"].item() == pytest.approx(float(found.score[found.group("answer", "wrong"), 1, 2]), nan_ok=True)
    assert not math.isnan(row["n_scored"].item())
    with pytest.raises(RecordError, match="no group class 7: there are all, answer right"):
        found.group("class", "7")


def test_a_task_without_needs_is_an_error(tiny):
    with pytest.raises(ConfigError, match="digits does not say which tokens a query needs"):
        routing_breakdown(tiny("bert", load_task("digits", patch_size=4)))
