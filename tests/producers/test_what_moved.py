"""The shares of a pattern's change equal those of a brute-force Shapley on hybrid models, and add up."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import permutations
import sys

import pytest
import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.freeze import group_of
from fpt_viz.measures import _start_and_end
from fpt_viz.measures._shapley import shapley
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.measures.what_moved import what_moved
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import PatternShift
from fpt_viz.tasks import load_task

pytestmark = pytest.mark.slow  # a minute or so in all

MODULE = sys.modules[what_moved.__module__]
Moved = Callable[..., tuple[FrozenPretrainedTransformer, dict[str, Tensor]]]


@pytest.fixture
def moved(tiny) -> Moved:
    """Makes a tiny model whose trained tensors were moved, and gives what they were before."""

    def made(*arguments, only: tuple[str, ...] | None = None, **options):
        model = tiny(*arguments, **options)
        start = {name: tensor.detach().clone() for name, tensor in model.trained_tensors().items()}
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, tensor in model.trained_tensors().items():
                if only is None or group_of(name, model.parameter_groups()) in only:
                    tensor += torch.randn(tensor.shape, generator=generator) * 0.5
        return model, start

    return made


def hybrid(model: FrozenPretrainedTransformer, start: dict[str, Tensor], at_end: set[str]):
    """A copy of ``model`` with only the groups ``at_end`` where they are now."""
    copied = deepcopy(model)
    with torch.no_grad():
        for name, tensor in copied.trained_tensors().items():
            if group_of(name, copied.parameter_groups()) not in at_end:
                tensor.copy_(start[name])
    return copied


def brute_force(model, start, batch, rows, eager, groups) -> tuple[Tensor, Tensor]:
    """Shares [group layer head] over every order in which groups can join, and the change's size [layer head]."""

    def pattern(at_end: set[str]) -> Tensor:
        found = eager(hybrid(model, start, at_end), batch).attentions.double()
        index = rows.clamp(min=0)[None, :, None, :, None].expand(len(found), -1, found.shape[2], -1, found.shape[4])
        return found.gather(3, index) * (rows >= 0)[None, :, None, :, None]

    known = {}

    def once(at_end: frozenset[str]) -> Tensor:
        return known.setdefault(at_end, pattern(set(at_end))) if at_end not in known else known[at_end]

    orders = list(permutations(groups))
    added = dict.fromkeys(groups, 0)
    for order in orders:
        for i, group in enumerate(order):
            gain = once(frozenset(order[: i + 1])) - once(frozenset(order[:i]))
            added[group] = added[group] + gain / len(orders)
    change = once(frozenset(groups)) - once(frozenset())
    size = (change * change).sum((1, 3, 4))
    shares = torch.stack([(added[group] * change).sum((1, 3, 4)) / size for group in groups])
    n_rows = (rows >= 0).sum()
    return shares, change.abs().sum((1, 3, 4)) / 2 / n_rows


def test_shares_equal_a_brute_force_shapley_on_the_networks_own_attention(moved, family, eager):
    model, start = moved(family, load_task("bit_xor", n_bits=3))
    batch = model.task.distinct(5, "validation")
    found = what_moved(model, start=start, batch=batch, batch_size=2)
    assert all(found.moved)
    rows = torch.arange(3, 6).expand(5, -1)
    shares, change = brute_force(model, start, batch, rows, eager, found.groups)
    torch.testing.assert_close(found.share, shares.flatten(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.change, change.flatten(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.share.sum(0), torch.ones(len(found.heads)).double(), atol=1e-6, rtol=0)


def test_padded_rows_count_for_nothing(moved, symbols, padded, eager):
    model, start = moved("bert", symbols)
    found = what_moved(model, start=start, batch=padded, batch_size=3)
    rows = model.readout_tokens(8, padded.mask)
    shares, change = brute_force(model, start, padded, rows, eager, found.groups)
    torch.testing.assert_close(found.share, shares.flatten(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.change, change.flatten(), atol=1e-5, rtol=1e-4)


def test_everything_trained_is_five_groups_with_new_positions_apart(moved, eager):
    task = load_task("bit_xor", n_bits=82)
    model, start = moved("gpt2", task, trained=("input", "layer_norm", "feed_forward", "attention"), n_layers=1)
    batch = task.distinct(2, "validation")
    found = what_moved(model, start=start, batch=batch)
    expected = {"input", "position", "new_position", "layer_norm", "feed_forward", "attention"}
    assert set(found.groups) == expected
    assert dict(zip(found.groups, found.moved, strict=True)) == {group: group != "position" for group in expected}
    rows = torch.arange(82, 164).expand(2, -1)
    players = [group for group in found.groups if group != "position"]
    shares, _ = brute_force(model, start, batch, rows, eager, players)
    kept = [found.groups.index(group) for group in players]
    torch.testing.assert_close(found.share[kept], shares.flatten(1), atol=1e-4, rtol=1e-4)
    # in a network of one block the feed-forward layer comes after every pattern
    assert float(found.share[found.groups.index("feed_forward")].abs().max()) == 0


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_only_layer_norms_trained_leaves_every_other_share_at_exactly_0(moved, family):
    model, start = moved(family, trained=("layer_norm", "output"))
    found = what_moved(model, start=start, n_examples=8)
    assert found.groups == ("input", "position", "layer_norm")
    assert found.moved == (False, False, True)
    assert torch.equal(found.share, torch.tensor([0.0, 0.0, 1.0]).double()[:, None].expand_as(found.share))
    assert torch.equal(found.share_interval[:2], torch.zeros_like(found.share_interval[:2]))
    assert torch.equal(found.score_part[:2], torch.zeros_like(found.score_part[:2]))


def test_a_group_that_is_trained_but_did_not_move_has_a_share_of_exactly_0(moved):
    model, start = moved("bert", only=("position", "layer_norm"))
    found = what_moved(model, start=start, n_examples=8)
    assert found.moved == (False, True, True)
    assert torch.equal(found.share[0], torch.zeros(len(found.heads)).double())


def test_the_order_of_the_groups_changes_nothing(moved, monkeypatch):
    model, start = moved("bert")
    found = what_moved(model, start=start, n_examples=8)
    monkeypatch.setattr(_start_and_end, "ORDER", _start_and_end.ORDER[::-1])
    other = what_moved(model, start=start, n_examples=8)
    assert other.groups == found.groups[::-1]
    torch.testing.assert_close(other.share.flip(0), found.share, atol=1e-12, rtol=0)
    torch.testing.assert_close(other.share_interval.flip(0), found.share_interval, atol=1e-12, rtol=0)


def test_what_groups_add_to_the_routing_score_adds_up_to_its_change(moved):
    model, start = moved("bert")
    found = what_moved(model, start=start, n_examples=12, batch_size=5)
    torch.testing.assert_close(found.score_part.sum(0), found.score_end - found.score_start, atol=1e-6, rtol=0)
    for score, at in ((found.score_end, set(found.groups)), (found.score_start, set())):
        there = hybrid(model, start, at)
        wanted = head_statistics(there, n_examples=12).routing_score.flatten().double()
        torch.testing.assert_close(score, wanted, atol=1e-6, rtol=0)
    assert bool((found.score_interval[..., 0] <= found.score_part).all())
    assert bool(
        (found.share_interval[..., 0] <= found.share).all() and (found.share <= found.share_interval[..., 1]).all()
    )


def test_a_head_below_all_that_moved_has_no_change_to_share(moved):
    model, start = moved("gpt2", trained=("layer_norm:1", "output"))
    found = what_moved(model, start=start, n_examples=8)
    below = torch.tensor([layer == 0 for layer, _ in found.heads])
    assert torch.equal(found.change[below], torch.zeros(int(below.sum())).double())
    assert bool(found.share[2, below].isnan().all())
    assert torch.equal(found.share[:2], torch.zeros_like(found.share[:2]))
    assert torch.equal(found.share[2, ~below], torch.ones(int((~below).sum())).double())


def test_chosen_heads_and_rows_are_those_of_the_whole(moved):
    model, start = moved("bert")
    whole = what_moved(model, start=start, n_examples=6)
    some = what_moved(model, start=start, n_examples=6, heads=["L1H0", (0, 1)], queries=[3, 4, 5])
    assert some.heads == ((1, 0), (0, 1))
    for head in some.heads:
        assert some.of(*head) == pytest.approx(whole.of(*head), abs=1e-9)
    assert (some.queries, whole.queries) == ("3 4 5", "readout")
    with pytest.raises(RecordError, match=r"no head L0H0 was measured: there are L1H0, L0H1"):
        some.of(0, 0)


def test_the_model_is_as_before_also_after_an_error(moved, monkeypatch):
    model, start = moved("bert")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    what_moved(model, start=start, n_examples=4)
    monkeypatch.setattr(MODULE, "probed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        what_moved(model, start=start, n_examples=4)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_record_comes_back_from_its_file(moved, tmp_path):
    model, start = moved("bert")
    found = what_moved(model, start=start, n_examples=4)
    found.save(tmp_path / "shift.safetensors")
    again = PatternShift.load(tmp_path / "shift.safetensors")
    assert (again.groups, again.moved, again.heads) == (found.groups, found.moved, found.heads)
    assert torch.equal(again.share, found.share)
    assert list(again.to_pandas()["change"]) == sorted(found.to_pandas()["change"], reverse=True)


def test_shapley_of_a_game_that_is_known():
    """The glove game: player 0 has a left glove, 1 and 2 right ones; a pair is worth 1. Shapley: 2/3, 1/6, 1/6."""
    values = torch.tensor([float(bool(c & 1) and c > 1) for c in range(8)], dtype=torch.float64)
    torch.testing.assert_close(shapley(values), torch.tensor([2 / 3, 1 / 6, 1 / 6], dtype=torch.float64))


# Bad input


def test_a_model_without_a_start_is_refused_with_the_cure(tiny):
    with pytest.raises(ConfigError, match=r"the start of this model of bit_xor is not known.*load_model.*start="):
        what_moved(tiny())


def test_a_run_without_its_start_is_refused_with_the_cure(tiny, tmp_path):
    model = tiny()
    model.run_path = tmp_path
    with pytest.raises(RecordError, match=r"adapter_initial\.safetensors is missing.*train again with --overwrite"):
        what_moved(model)


def test_a_model_that_was_never_trained_is_refused(tiny):
    model = tiny()
    with pytest.raises(ConfigError, match=r"no trained tensor upstream.*step 0.*give a trained model"):
        what_moved(model, start={name: tensor.detach() for name, tensor in model.trained_tensors().items()})


def test_a_run_that_trained_its_output_alone_is_refused(moved):
    model, start = moved("bert", trained=("output",))
    with pytest.raises(ConfigError, match=r"\(trained: output; step 0\), so no pattern moved"):
        what_moved(model, start=start)


def test_the_start_of_another_model_is_refused_with_both_values(moved):
    model, start = moved("bert")
    name = "input.weight"
    with pytest.raises(ConfigError, match=rf"{name} has shape \(3, 3\) at the start and \(\d+, 1\) now"):
        what_moved(model, start=start | {name: torch.zeros(3, 3)})
    del start[name]
    with pytest.raises(ConfigError, match=rf"the start holds {len(start)} tensors and the model trains.*{name}"):
        what_moved(model, start=start)


def test_more_groups_than_can_be_shared_out_are_refused_with_their_number(moved, monkeypatch):
    model, start = moved("bert")
    monkeypatch.setattr(MODULE, "MAX_GROUPS", 2)
    with pytest.raises(ConfigError, match=r"3 groups moved \(input, position, layer_norm\), which asks for 8 passes"):
        what_moved(model, start=start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": ["MLP0"]}, "MLP0 is no head"),
        ({"heads": [(9, 0)]}, "no head L9H0"),
        ({"heads": [(1, 0, 2)]}, r"\[1, 0, 2\] is no head: write L3H5 or \(3, 5\)"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
    ids=["an MLP", "a layer too many", "three numbers", "no batch"],
)
def test_what_cannot_be_measured_is_said(moved, options, message):
    model, start = moved("bert")
    with pytest.raises(ConfigError, match=message):
        what_moved(model, start=start, **options)


def test_an_empty_batch_is_refused(moved):
    model, start = moved("bert")
    with pytest.raises(ConfigError, match="an empty batch of bit_xor"):
        what_moved(model, start=start, batch=model.task.distinct(2, "validation")[:0])
