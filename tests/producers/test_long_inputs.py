"""Tasks that are longer than the learned positions of a backbone."""

from __future__ import annotations

from dataclasses import replace
import logging

import pytest
import torch

import fpt_viz as fpt
from fpt_viz.backbones import load_backbone
from fpt_viz.errors import ConfigError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task

LEARNED = ("bert-tiny-random", "gpt2-tiny-random")
N_OLD, N_NEW = 160, 40


def positions_of(backbone: fpt.backbones.Backbone) -> torch.Tensor:
    return backbone.network.get_submodule(backbone.position_path).weight


@pytest.mark.parametrize("name", LEARNED)
def test_old_rows_stay_and_new_ones_follow(name):
    backbone, before = load_backbone(name, "random"), load_backbone(name, "random")
    backbone.fit_positions(N_OLD + N_NEW)

    rows = positions_of(backbone)

    assert rows.shape == (N_OLD + N_NEW, backbone.d_model)
    assert torch.equal(rows[:N_OLD], positions_of(before))
    assert len(rows[N_OLD:].unique(dim=0)) == N_NEW


def test_new_rows_have_the_mean_and_spread_of_the_old_ones_in_each_dimension():
    backbone = load_backbone("bert-tiny-random", "random")
    with torch.no_grad():  # two dimensions that differ from the rest, one by its mean and one by its spread
        positions_of(backbone)[:, 0] += 3
        positions_of(backbone)[:, 1] *= 50
    old = positions_of(backbone).detach().clone()
    backbone.fit_positions(N_OLD + 4000)
    new = positions_of(backbone).detach()[N_OLD:]

    torch.testing.assert_close(new.mean(0), old.mean(0), atol=5e-2, rtol=0)
    torch.testing.assert_close(new.std(0) / old.std(0, correction=0), torch.ones(32), atol=0.06, rtol=0)


def test_new_rows_are_the_same_for_the_same_seed_only():
    rows = []
    for seed in (1, 1, 2):
        backbone = load_backbone("gpt2-tiny-random", "random")
        backbone.fit_positions(N_OLD + N_NEW, seed=seed)
        rows.append(positions_of(backbone))

    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@torch.no_grad()
@pytest.mark.parametrize("name", LEARNED)
def test_a_longer_backbone_is_the_network_with_a_longer_table(name):
    """The oracle is transformers' own network, made with the longer table from the start."""
    backbone = load_backbone(name, "random").eval()
    backbone.fit_positions(N_OLD + N_NEW)
    family, preset = type(backbone), type(backbone).presets[name]
    length = "n_positions" if "n_positions" in preset.config else "max_position_embeddings"
    options = {**preset.config, length: N_OLD + N_NEW}
    network = family.network_class(family.config_class(**options), **family.network_options).eval()
    weights = {key: value for key, value in backbone.network.state_dict().items() if key in network.state_dict()}
    weights[f"{family.position_path}.weight"] = positions_of(backbone)
    told = network.load_state_dict(weights, strict=False)
    assert told.missing_keys == [f"{family.vocabulary_path}.weight"]
    x = torch.randn(2, N_OLD + N_NEW, backbone.d_model)
    mask = torch.arange(N_OLD + N_NEW) < torch.tensor([N_OLD + N_NEW, N_OLD + 1])[:, None]

    expected = network(inputs_embeds=x, attention_mask=mask).last_hidden_state

    torch.testing.assert_close(backbone(x, mask)[mask], expected[mask], atol=1e-6, rtol=0)


@pytest.mark.parametrize("trained", [("output",), ("attention:1",), ("output", "position"), ("all",)])
@pytest.mark.parametrize("name", LEARNED)
def test_new_rows_train_whatever_else_does_and_are_counted_and_told(name, trained, caplog):
    with caplog.at_level(logging.INFO, "fpt_viz"):
        model = FrozenPretrainedTransformer(load_backbone(name, "random"), load_task("bit_xor", n_bits=90), trained)
    before = positions_of(model.backbone).detach().clone()
    ledger = model.ledger()

    for _ in fpt.train(model, model.task, fpt.TrainConfig(n_steps=2, batch_size=2)):
        pass

    assert caplog.messages == [
        f"{name} has positions for 160 tokens, the task has 180: the other 20 are new, and are trained"
    ]
    assert ledger.backbone["positions_new"] == 20
    assert ledger.counts()["new_position"] == 20 * 32
    assert ledger.counts()["position"] == 160 * 32
    [new] = [row for row in ledger.rows if row.group == "new_position"]
    assert (new.trained, new.shape) == (True, (20, 32))
    moved = (positions_of(model.backbone) != before).any(1)
    assert moved[160:].all()
    assert moved[:160].all() == bool({"position", "all"} & set(trained))
    assert moved[:160].any() == bool({"position", "all"} & set(trained))
    assert model.verify(ledger) == []


@pytest.mark.parametrize(
    "trained", [("output", "input", "layer_norm", "position"), pytest.param(("output",), marks=pytest.mark.slow)]
)
@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_run_with_new_rows_is_loaded_as_it_was(name, trained, tmp_path):
    config = fpt.RunConfig.from_dict(
        {
            "task": {"name": "bit_xor", "options": {"n_bits": 90}},
            "backbone": {"name": name, "init": "random"},
            "trained": list(trained),
            "train": {"n_steps": 2, "batch_size": 2, "seed": 3},
        }
    )
    record = fpt.run(config, out=tmp_path / "run")
    one, two = fpt.load_model(record), fpt.load_model(fpt.load_run(tmp_path / "run"))
    inputs = one.task.distinct(2, "test").inputs

    assert record.ledger.backbone["positions_new"] == 20
    assert torch.equal(one(inputs), two(inputs))
    start = fpt.loading.build_model(config)
    assert (positions_of(one.backbone)[160:] != positions_of(start.backbone)[160:]).any(1).all()
    assert one.verify(record.ledger) == []
    other = replace(config, train=replace(config.train, seed=4))
    assert not torch.equal(
        positions_of(one.backbone)[160:], positions_of(fpt.loading.build_model(other).backbone)[160:]
    )


def test_a_task_that_fits_has_no_new_rows():
    model = FrozenPretrainedTransformer(load_backbone("bert-tiny-random", "random"), load_task("bit_xor", n_bits=80))
    assert model.ledger().backbone["positions_new"] == 0


def test_rotary_positions_end_where_the_heads_were_trained():
    backbone = load_backbone("llama-tiny-random", "random")
    backbone.fit_positions(2048)
    with pytest.raises(ConfigError, match="has positions for 2048 tokens, the task has 2049, and its frozen"):
        load_backbone("llama-tiny-random", "random").fit_positions(2049)


@torch.no_grad()
@pytest.mark.model
def test_minilm_takes_a_thousand_tokens_and_its_first_512_positions_are_its_own():
    backbone, whole = load_backbone("minilm", n_layers=1).eval(), load_backbone("minilm", n_layers=1)
    backbone.fit_positions(1024)

    assert backbone.provenance.positions_new == 512
    assert torch.equal(positions_of(backbone)[:512], positions_of(whole))
    assert backbone(torch.randn(1, 1024, 384)).isfinite().all()
