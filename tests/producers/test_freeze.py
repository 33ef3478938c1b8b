"""Exactly the asked-for groups learn, and the ledger proves that nothing else moved."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from torch import nn

from fpt_viz.backbones import load_backbone
from fpt_viz.config import TrainConfig
from fpt_viz.errors import ConfigError, FreezeError, RecordError, UnknownNameError
from fpt_viz.freeze import GROUPS, PAPER_GROUPS, freeze, group_of, parse_trained
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Ledger
from fpt_viz.tasks import load_task
from fpt_viz.train import train

EVERY_CHOICE = [
    ("output",), ("input",), ("layer_norm",), ("position",), ("feed_forward",), ("attention",), ("attention:1",),
    ("layer_norm:0",), PAPER_GROUPS, ("output", "feed_forward:2", "attention:0"), ("all",),
]  # fmt: skip


class Declared:
    """Three parameters in two layers, with the groups it is given."""

    def __init__(self, groups: dict[str, str]) -> None:
        self.module = nn.ParameterDict({name: nn.Parameter(torch.ones(2)) for name in ("norm", "mlp", "both")})
        self.groups = groups
        self.named_parameters, self.named_buffers = self.module.named_parameters, self.module.named_buffers

    def parameter_groups(self) -> dict[str, str]:
        return self.groups

    def layer_of(self, name: str) -> int | None:
        return None


def values_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def is_chosen(model: FrozenPretrainedTransformer, name: str, trained: tuple[str, ...]) -> bool:
    """Whether the parameter ``name`` is to learn, told from its declared group and the number in its name."""
    group = group_of(name, model.parameter_groups())
    numbers = [part for part in name.split(".") if part.isdecimal()]
    return any(
        entry == "all" or (entry.partition(":")[0] == group and entry.partition(":")[2] in ("", *numbers[:1]))
        for entry in trained
    )


@pytest.mark.parametrize("trained", EVERY_CHOICE, ids="+".join)
def test_exactly_the_chosen_groups_learn(family, tiny, trained):
    model = tiny(family, load_task("bit_xor", n_bits=3), trained=trained)
    before, ledger = values_of(model), model.ledger()

    for _ in islice(train(model, config=TrainConfig(batch_size=32)), 3):
        pass

    after = values_of(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name in after if is_chosen(model, name, trained)}
    assert moved == {row.name for row in ledger.rows if row.trained}
    assert model.verify(ledger) == []


def test_one_flipped_frozen_weight_is_named(family, tiny):
    model = tiny(family)
    ledger = Ledger.from_json(model.ledger().to_json())
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    name = next(name for name in frozen if group_of(name, model.parameter_groups()) == "attention")

    with torch.no_grad():
        bits = model.get_parameter(name).view(-1).view(torch.int32)
        bits[3] ^= 1  # the last bit of the mantissa

    assert model.verify(ledger) == [name]


def test_a_moved_buffer_is_named(tiny):
    model = tiny("bert")
    ledger = model.ledger()
    model.backbone.network.embeddings.position_ids[0, 1] = 0
    assert model.verify(ledger) == ["backbone.network.embeddings.position_ids"]


def test_a_frozen_tensor_that_is_gone_is_named(tiny):
    model = tiny("bert")
    ledger = model.ledger()
    model.backbone.network.encoder.layer[1].attention.self.query.bias = None
    assert model.verify(ledger) == ["backbone.network.encoder.layer.1.attention.self.query.bias"]


def test_a_parameter_in_no_group_is_an_error_that_names_it():
    model = Declared({"norm": "layer_norm", "mlp": "feed_forward"})
    with pytest.raises(FreezeError, match=r"parameter both is in no group"):
        freeze(model, ("layer_norm",))


def test_a_parameter_in_two_groups_is_an_error_that_names_them():
    model = Declared({"norm": "layer_norm", "[bm]*": "feed_forward", "bo*": "attention"})
    with pytest.raises(FreezeError, match=r"parameter both is in attention and feed_forward"):
        freeze(model, ("layer_norm",))


def test_two_globs_of_one_group_may_match_the_same_parameter():
    assert group_of("ln_1.weight", {"*weight": "layer_norm", "ln_*": "layer_norm"}) == "layer_norm"


def test_what_is_trained_is_said_once_and_in_the_order_given():
    assert parse_trained(["output", "attention:1", "output"], n_layers=2) == ("output", "attention:1")


@pytest.mark.parametrize("entry", ["attention:2", "attention:-1", "attention:", "attention:one"])
def test_a_layer_that_is_not_there_is_an_error(entry):
    with pytest.raises(ConfigError, match=r"names no layer: after the colon stands one of 0 to 1"):
        parse_trained((entry,), n_layers=2)


@pytest.mark.parametrize("entry", ["output:0", "input:0", "position:1", "all:0"])
def test_a_layer_of_what_lies_in_no_layer_is_an_error(entry):
    with pytest.raises(ConfigError, match=rf"'{entry}' names no layer: only .*attention, recurrent lie in layers"):
        parse_trained((entry,), n_layers=2)


def test_an_unknown_group_is_told_its_nearest_match():
    with pytest.raises(UnknownNameError, match=r"no parameter group 'atention'. Did you mean 'attention'\?"):
        parse_trained(("atention",), n_layers=2)


def test_training_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"nothing is trained"):
        parse_trained((), n_layers=2)


def test_one_name_in_place_of_a_list_of_names_is_an_error():
    with pytest.raises(ConfigError, match=r"write \('output',\)"):
        parse_trained("output", n_layers=2)


@pytest.mark.model
def test_minilm_on_xor_trains_the_counts_that_its_sizes_give():
    hidden, n_layers, n_tokens, feed_forward = 384, 6, 10, 1536
    model = FrozenPretrainedTransformer(load_backbone("minilm"), load_task("bit_xor"))
    counts = {
        "output": hidden * 2 + 2,
        "input": 1 * hidden + hidden,
        "layer_norm": (2 * n_layers + 1) * 2 * hidden,
        "position": n_tokens * hidden,
        "feed_forward": n_layers * (2 * hidden * feed_forward + feed_forward + hidden),
        "attention": n_layers * 4 * (hidden * hidden + hidden),
        "token": 2 * hidden,  # the two token types; the vocabulary is left out
        "buffer": 2 * 512,  # the numbers of positions and token types
    }

    ledger = model.ledger()

    assert ledger.counts() == counts
    assert ledger.n_trained == sum(counts[group] for group in PAPER_GROUPS) == 15_362
    assert ledger.n_total == sum(counts.values())
    assert set(counts) == {*GROUPS, "token", "buffer"} - {"recurrent"}
    assert Counter(row.trained for row in ledger.rows)[True] == 4 + 13 * 2 + 1


def test_the_ledger_says_where_the_weights_come_from(tiny):
    told = tiny("llama").ledger().backbone
    assert (told["name"], told["init"], told["family"]) == ("llama-tiny-random", "random", "llama")


@pytest.mark.parametrize(
    "written", ["{}", '{"rows": [{}], "backbone": {}}', '{"rows": [1], "backbone": {}}', "[]", '{"rows": []}']
)
def test_a_ledger_that_lacks_something_is_an_error_that_names_its_file(tmp_path, written):
    path = tmp_path / "ledger.json"
    path.write_text(written)
    with pytest.raises(RecordError, match=r"ledger\.json is no whole ledger"):
        Ledger.load(path)
