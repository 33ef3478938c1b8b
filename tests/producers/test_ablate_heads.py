"""What is lost without heads: paired by example, over distinct inputs, beside random sets of as many heads."""

from __future__ import annotations

import inspect

import pytest
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.ablate_top_heads import ablate_top_heads
from fpt_viz.measures.base import outcomes
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.tasks import load_task

NAMES = ("accuracy", "loss", "logit")


def by_hand(model, split: str, heads=()):
    """Of each example: accuracy, loss and logit difference, by plain loops over targets."""
    batch = model.task.distinct(10_000, split)
    with torch.no_grad(), model.ablated(heads):
        logits = model(batch.inputs).double()
    rows = []
    for example, targets in zip(logits, batch.targets.tolist(), strict=True):
        right = [int(row[target] > row[1 - target]) for row, target in zip(example, targets, strict=True)]
        gaps = [float(row[target] - row[1 - target]) for row, target in zip(example, targets, strict=True)]
        losses = [float(torch.log1p(torch.exp(torch.tensor(-gap)))) for gap in gaps]
        rows.append([sum(values) / len(values) for values in (right, losses, gaps)])
    return torch.tensor(rows).T


@pytest.fixture
def model(family, tiny):
    """A tiny model on XOR of 3 + 3 bits, whose test split holds 16 inputs."""
    return tiny(family)


def test_each_examples_outcome_is_the_mean_over_its_targets(model):
    found = outcomes(model, model.task, model.task.distinct(10_000, "test"), batch_size=5)
    torch.testing.assert_close(torch.stack(found).float(), by_hand(model, "test"), atol=1e-5, rtol=0)


def test_an_evaluation_is_the_mean_outcome_over_distinct_inputs(model):
    found = evaluate(model)
    accuracy, loss, _ = by_hand(model, "test").mean(1).tolist()

    assert found.n_examples == model.task.n_examples("test") == 16
    assert (found.accuracy, found.loss) == pytest.approx((accuracy, loss), abs=1e-5)
    assert found.exact == float((by_hand(model, "test")[0] == 1).float().mean())
    assert found.interval[0] <= found.accuracy <= found.interval[1]
    assert (found.split, found.chance, found.trivial) == ("test", 0.5, {})


def test_an_evaluation_leaves_mode_and_random_state(model):
    model.train()
    before = torch.get_rng_state()
    evaluate(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_effects_are_differences_paired_by_example(model):
    found = ablate_heads(model, heads=[(0, 1), (2, 3)], batch_size=7)
    whole = by_hand(model, "test")

    for i, head in enumerate([(0, 1), (2, 3)]):
        change = (whole - by_hand(model, "test", [head])).mean(1).tolist()
        assert found.accuracy_drop[i] == pytest.approx(change[0], abs=1e-5)
        assert found.loss_rise[i] == pytest.approx(-change[1], abs=1e-5)
        assert found.logit_drop[i] == pytest.approx(change[2], abs=1e-5)
    baseline = (found.baseline_accuracy, found.baseline_loss, found.baseline_logit)
    assert baseline == pytest.approx(tuple(whole.mean(1).tolist()), abs=1e-5)
    assert found.sets == (((0, 1),), ((2, 3),))
    assert (found.n_examples, found.split, found.ablation) == (16, "test", "zero")


def test_every_head_alone_is_measured_unless_said_otherwise(model):
    found = ablate_heads(model, n_examples=4)
    assert found.sets == tuple(((layer, head),) for layer in range(3) for head in range(4))
    assert found.n_examples == 4
    assert any(found.logit_drop)


def test_a_set_is_cut_together(model):
    heads = [(0, 1), (1, 0), (2, 2)]
    found = ablate_heads(model, heads=[heads, (1, 0)])
    change = (by_hand(model, "test") - by_hand(model, "test", heads)).mean(1)
    assert found.sets == (tuple(heads), ((1, 0),))
    assert found.logit_drop[0] == pytest.approx(float(change[2]), abs=1e-5)


def test_intervals_hold_the_mean(model):
    found = ablate_heads(model)
    drops = {"accuracy": found.accuracy_drop, "loss": found.loss_rise, "logit": found.logit_drop}
    for name in NAMES:
        for mean, (low, high) in zip(drops[name], getattr(found, f"{name}_interval"), strict=True):
            assert low - 1e-12 <= mean <= high + 1e-12
    assert any(low < high for low, high in found.logit_interval)


def test_a_head_that_the_output_projection_does_not_read_has_no_effect_at_all(tiny):
    model = tiny("gpt2")
    with torch.no_grad():
        model.backbone.blocks[1].attn.c_proj.weight[16:24] = 0  # head 2 of 8 dimensions
    found = ablate_heads(model, heads=[(1, 2), (1, 1)])
    assert (found.accuracy_drop[0], found.loss_rise[0], found.logit_drop[0]) == (0, 0, 0)
    assert found.logit_interval[0] == (0, 0)
    assert found.logit_drop[1] != 0


def test_batch_size_changes_nothing(model):
    one, other = (ablate_heads(model, heads=[(1, 1)], batch_size=size) for size in (3, 100))
    assert one.logit_drop == pytest.approx(other.logit_drop, abs=1e-6)


def test_the_model_is_as_before(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng, config = torch.get_rng_state(), model.backbone.network.config
    kernel = config._attn_implementation
    ablate_heads(model, n_examples=4)
    ablate_top_heads(model, ranking=[(0, 1)], ks=(1,), n_random=2, n_examples=4)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert config._attn_implementation == kernel
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.backbone.blocks)


@pytest.mark.parametrize("heads", [[], [()], [(0, 1), ()]])
def test_naming_no_head_is_an_error(tiny, heads):
    with pytest.raises(ConfigError, match=r"nothing to ablate|at least one head"):
        ablate_heads(tiny("bert"), heads=heads)


@pytest.mark.parametrize("head", [(3, 0), (0, 4), (-1, 0)])
def test_a_head_that_is_not_there_is_an_error(tiny, head):
    with pytest.raises(ConfigError, match=r"no head L-?\dH\d in bert-tiny-random"):
        ablate_heads(tiny("bert"), heads=[head])


# The top k beside random sets


RANKING = [(2, 1), (0, 3), (1, 1), (0, 0)]


def test_sets_are_as_large_as_said_and_the_top_ones_are_the_first_of_the_ranking(model):
    found = ablate_top_heads(model, ranking=RANKING, ks=(1, 3), n_random=5, n_examples=4)

    assert found.k == (1, 3)
    assert found.top.sets == (tuple(RANKING[:1]), tuple(RANKING[:3]))
    for k, random in zip((1, 3), found.random, strict=True):
        assert len(random.sets) == 5
        for heads in random.sets:
            assert len(set(heads)) == k
            assert all(layer in range(3) and head in range(4) for layer, head in heads)
    assert len(set(found.random[1].sets)) > 1


def test_effects_of_sets_are_those_of_cutting_them(model):
    found = ablate_top_heads(model, ranking=RANKING, ks=(1, 3), n_random=2)
    for effects in (found.top, *found.random):
        again = ablate_heads(model, heads=list(effects.sets))
        assert effects.logit_drop == pytest.approx(again.logit_drop, abs=1e-7)
        assert effects.accuracy_interval == again.accuracy_interval  # of counts, so exact


def test_random_sets_are_the_same_for_the_same_seed_only(tiny):
    model = tiny("bert")
    one, same, other = (
        ablate_top_heads(model, ranking=RANKING, ks=(3,), n_random=4, n_examples=2, seed=seed).random[0].sets
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_rows_tell_the_mean_of_the_random_sets_and_their_range(tiny):
    found = ablate_top_heads(tiny("bert"), ranking=RANKING, ks=(2,), n_random=3)
    [row] = found.rows()
    drops = found.random[0].loss_rise
    assert row["heads"] == [[2, 1], [0, 3]]
    assert row["random_loss_rise"] == pytest.approx(sum(drops) / 3)
    assert row["random_loss_range"] == [min(drops), max(drops)]
    assert row["loss_interval"] == list(found.top.loss_interval[0])


@pytest.mark.parametrize("k", [0, 5])
def test_a_set_larger_than_the_ranking_is_an_error(tiny, k):
    with pytest.raises(ConfigError, match=rf"a set of {k} heads cannot be cut: 4 are ranked"):
        ablate_top_heads(tiny("bert"), ranking=RANKING, ks=(1, k))


def test_a_task_of_images_is_measured_too(tiny):
    found = ablate_heads(tiny("bert", load_task("digits", patch_size=4)), heads=[(0, 0)], n_examples=8)
    assert found.n_examples == 8
    assert found.sets == (((0, 0),),)


# Other kinds and other parts


@pytest.mark.parametrize("kind", ["mean", "resample"])
def test_other_kinds_are_those_of_the_context_manager(model, kind):
    reference = model.task.distinct(1, "train")
    found = ablate_heads(model, kind=kind, heads=[(1, 2)], reference=reference)
    batch = model.task.distinct(10_000, "test")
    with model.ablated([(1, 2)], kind, reference=reference):
        cut = outcomes(model, model.task, batch)
    expected = (outcomes(model, model.task, batch).logit - cut.logit).mean()
    assert found.logit_drop[0] == pytest.approx(float(expected), abs=1e-6)
    assert (found.ablation, found.reference) == (kind, "1 examples that were given of bit_xor, token by token")


def test_the_reference_set_is_told(tiny):
    assert ablate_heads(tiny("bert"), heads=[(0, 0)], n_examples=4).reference == ""
    found = ablate_heads(tiny("bert"), heads=[(0, 0)], kind="mean", n_examples=4)
    assert found.reference == "32 train examples of bit_xor, token by token"


def test_parts_may_be_named_in_words(tiny):
    found = ablate_heads(tiny("bert"), heads=["L1H2", "MLP0", "L0H1:5<2", "L2", ["L1H2", ("mlp", 1)]], n_examples=4)
    assert found.sets == (
        ((1, 2),),
        (("mlp", 0),),
        ((0, 1, 5, 2),),
        ((2, 0), (2, 1), (2, 2), (2, 3)),
        ((1, 2), ("mlp", 1)),
    )
    assert found.to_pandas()["heads"].tolist() == ["L1H2", "MLP0", "L0H1:5<2", "L2H0 L2H1 L2H2 L2H3", "L1H2 MLP1"]


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_sets_that_share_a_forward_pass_get_what_each_gets_alone(model, kind):
    sets = [(0, 1), [(0, 2), (1, 1)], ("mlp", 0), (0, 3, 4, 1), (2, 2), [("mlp", 2), (2, 0, 5, 5)]]
    together = ablate_heads(model, kind=kind, heads=sets, n_examples=8, batch_size=64)  # eight replicas at most
    alone = [ablate_heads(model, kind=kind, heads=[one], n_examples=8, batch_size=3) for one in sets]
    assert together.logit_drop == pytest.approx([one.logit_drop[0] for one in alone], abs=1e-6)
    assert len({round(drop, 9) for drop in together.logit_drop}) == len(sets)


def test_sets_that_share_a_forward_pass_are_padded_as_their_examples(tiny, symbols):
    model = tiny("bert", symbols)
    heads = [(0, 0), (0, 1), (0, 2)]
    together = ablate_heads(model, heads=heads, n_examples=6, batch_size=64)
    alone = [ablate_heads(model, heads=[head], n_examples=6, batch_size=1).logit_drop[0] for head in heads]
    assert together.logit_drop == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("heads", [[(0, 1, 2)], [("mlp", 1.5)], [("attention", 1)], ["L1", "nonsense"]])
def test_what_names_no_part_is_an_error(tiny, heads):
    unchecked = inspect.unwrap(ablate_heads)
    with pytest.raises(ConfigError, match="names no part of a model"):
        unchecked(tiny("bert"), heads=heads)
