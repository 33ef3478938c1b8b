"""The LSTM: its numbers are torch's own, its parts are those that its presets say, and its runs are as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fpt_viz import registry
from fpt_viz.backbones import Backbone, load_backbone
from fpt_viz.backbones.lstm import LstmConfig, LstmNetwork
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, SourceError
from fpt_viz.freeze import group_of
from fpt_viz.measures.probe_states import probe_states
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Step, store
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import load_task
from fpt_viz.train import run, train

PRESETS = registry.load("backbones", "lstm").presets
GROUPS = {
    "lstm": {"recurrent"},
    "lstm-norm": {"recurrent", "layer_norm"},
    "lstm-12": {"recurrent", "layer_norm", "position"},
}
"""By preset, what there is to train in the network."""


def tiny(*, layer_norm: bool = False, residual: bool = False, n_layers: int = 3) -> LstmNetwork:
    torch.manual_seed(4)
    config = LstmConfig(hidden_size=8, num_hidden_layers=n_layers, layer_norm=layer_norm, residual=residual)
    config._attn_implementation = "eager"
    return LstmNetwork(config).eval()


def vectors(*, seed: int = 1) -> Tensor:
    return torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(seed))


def small(preset: str) -> Backbone:
    """The preset's parts at a size for tests."""
    backbone = load_backbone(preset, "random", 2)
    backbone.fit_positions(6)
    return backbone


@torch.no_grad()
def test_a_plain_lstm_is_torchs_own_of_as_many_layers():
    network, whole, x = tiny(), nn.LSTM(8, 8, num_layers=3, batch_first=True), vectors()
    for i, layer in enumerate(network.layers):
        for name, value in layer.lstm.named_parameters():
            whole.get_parameter(name.replace("l0", f"l{i}")).copy_(value)

    torch.testing.assert_close(network(x).last_hidden_state, whole(x)[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_steps_in_python_are_those_of_torchs_kernel():
    layer, x = tiny().layers[0], vectors()

    torch.testing.assert_close(layer._step_by_step(x), layer.lstm(x)[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_layer_norm_cell_is_that_of_ba_et_al():
    """Equations 20 to 22 of the paper, for one token after the other, with gains and biases that are none."""
    network, x = tiny(layer_norm=True, n_layers=1), vectors()
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    weights, norms = network.layers[0].lstm, network.layers[0].norms

    def normed(name: str, value: Tensor) -> Tensor:
        spread = (value - value.mean(-1, keepdim=True)) / (value.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        return norms[name].weight * spread + norms[name].bias

    h, c = torch.zeros(2, 8), torch.zeros(2, 8)
    for t in range(6):
        both = normed("input", x[:, t] @ weights.weight_ih_l0.T + weights.bias_ih_l0)
        both = both + normed("hidden", h @ weights.weight_hh_l0.T + weights.bias_hh_l0)
        i, f, g, o = both.split(8, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * normed("cell", c).tanh()
        torch.testing.assert_close(network(x).last_hidden_state[:, t], h, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_residual_block_adds_to_its_input():
    plain, residual, x = tiny(n_layers=1), tiny(residual=True, n_layers=1), vectors()
    residual.load_state_dict(plain.state_dict())

    torch.testing.assert_close(residual(x).last_hidden_state, x + plain(x).last_hidden_state)


@torch.no_grad()
def test_the_state_starts_at_zero_every_time():
    """The paper's code draws it anew in each forward pass, so that no two of them agree."""
    network, x = tiny(layer_norm=True), vectors()

    assert torch.equal(network(x).last_hidden_state, network(x).last_hidden_state)


def test_gains_start_at_one_biases_of_norms_at_zero_and_weights_within_the_root_of_the_width():
    """The paper's code puts small random numbers in the place of the gains."""
    backbone = load_backbone("lstm-tiny-random", "random")
    for name, parameter in backbone.named_parameters():
        if ".norms." in name:
            assert (parameter == float(name.endswith("weight"))).all(), name
        elif ".lstm." in name:
            assert 0.9 < float(parameter.detach().abs().max()) * 32**0.5 <= 1, name


@pytest.mark.parametrize("preset", GROUPS)
def test_a_preset_has_the_parts_that_its_name_says(preset):
    backbone = small(preset)
    groups = backbone.parameter_groups()

    found = {group_of(name, groups) for name, _ in backbone.named_parameters()}

    assert found == set(groups.values()) == GROUPS[preset]
    assert backbone.provenance.config["n_layers_published"] == (12 if preset == "lstm-12" else 3)
    assert ("hook_pos_embed" in backbone.outer_places) == ("position" in found)


@pytest.mark.parametrize("preset", GROUPS)
def test_each_preset_has_a_smaller_one_of_minilms_width(preset):
    wide, narrow = PRESETS[preset].config, PRESETS[f"{preset}-384"].config
    assert {**wide, "hidden_size": 384} == narrow


@pytest.mark.parametrize(
    "trained", [("output", "input", "layer_norm", "position"), ("output", "recurrent:1"), ("all",)]
)
def test_exactly_the_chosen_groups_learn(trained):
    model = FrozenPretrainedTransformer(load_backbone("lstm-tiny-random", "random"), load_task("bit_xor"), trained)
    before, ledger = {n: p.detach().clone() for n, p in model.named_parameters()}, model.ledger()

    assert len(list(train(model, config=TrainConfig(n_steps=3, batch_size=16)))) == 3

    moved = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    recurrent = {name for name in before if ".lstm." in name}
    expected = {
        4: {name for name in before if name not in recurrent},
        2: {"output.weight", "output.bias"} | {name for name in recurrent if ".layers.1." in name},
        1: set(before),
    }[len(trained)]
    assert moved == expected
    assert model.verify(ledger) == []


def test_groups_that_an_lstm_lacks_are_an_error_and_the_papers_may_be_absent():
    task = load_task("bit_xor")
    FrozenPretrainedTransformer(load_backbone("lstm-384", "random", 1), task)
    for entry in ("attention", "feed_forward", "attention:0", "layer_norm:0"):
        with pytest.raises(ConfigError, match=rf"'{entry}' cannot be trained: .*groups are output, input, recurrent"):
            FrozenPretrainedTransformer(load_backbone("lstm-384", "random", 1), task, ("output", entry))
    with pytest.raises(ConfigError, match=r"'recurrent' cannot be trained"):
        FrozenPretrainedTransformer(load_backbone("gpt2-tiny-random", "random"), task, ("recurrent",))


@pytest.mark.parametrize("init", ["pretrained", "statistics"])
def test_there_are_no_pretrained_weights(init):
    with pytest.raises(SourceError, match=r"weights of lstm-12: nobody publishes any .*init=random"):
        load_backbone("lstm-12", init)


def test_no_folder_and_no_repository_holds_one(tmp_path):
    for place in (tmp_path, "someone/lstm"):
        with pytest.raises(ConfigError, match=r"nobody publishes weights of lstm: name one of lstm, lstm-norm"):
            load_backbone(f"lstm:{place}")


def settings(n_steps: int = 6, **options) -> RunConfig:
    return RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 3}),
        backbone=BackboneConfig(name="lstm-tiny-random", init="random"),
        train=TrainConfig(n_steps=n_steps, batch_size=8, checkpoint_every=2, dropout=0.1),
        **options,
    )


def test_a_run_that_was_cut_off_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch):
    unbroken = run(settings(), tmp_path / "unbroken")

    class PoweredOffError(Exception): ...

    add = RunFolder.add

    def powered_off(folder: RunFolder, step: Step) -> None:
        add(folder, step)
        if step.index == 4:
            raise PoweredOffError

    monkeypatch.setattr(RunFolder, "add", powered_off)
    with pytest.raises(PoweredOffError):
        run(settings(), tmp_path / "cut")
    monkeypatch.undo()
    resumed = run(settings(), tmp_path / "cut", resume=True)

    one, other = (
        store.read_tensors(record.path / "adapter.safetensors", "adapter")[0] for record in (unbroken, resumed)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [step.loss for step in resumed.steps] == [step.loss for step in unbroken.steps]


def test_a_frozen_lstm_leaves_an_adapter_without_its_weights_and_an_intact_ledger(tmp_path):
    record = run(settings(), tmp_path / "run")
    adapter, _ = store.read_tensors(tmp_path / "run" / "adapter.safetensors", "adapter")

    assert record.result["frozen_intact"]
    assert not any(".lstm." in name for name in adapter)
    assert {row.group for row in record.ledger.rows if not row.trained} == {"recurrent"}


@pytest.mark.slow
def test_a_trained_lstm_learns_a_task_that_needs_memory(tmp_path):
    config = settings(300, trained=("all",))
    record = run(RunConfig(**{**vars(config), "train": TrainConfig(n_steps=400, learning_rate=3e-3)}), tmp_path / "run")
    assert record.evaluation.accuracy > 0.9


def test_probes_of_the_residual_stream_work_where_there_is_no_attention():
    model = FrozenPretrainedTransformer(load_backbone("lstm-tiny-random", "random"), load_task("bit_xor", n_bits=3))
    found = probe_states(model, n_examples=32).to_pandas()
    assert set(found["layer"].astype(str)) >= {"0", "1", "2"}
    assert found.select_dtypes("number").notna().any().all()


@torch.no_grad()
def test_a_hook_on_a_block_changes_what_comes_after_it():
    model = FrozenPretrainedTransformer(load_backbone("lstm-tiny-random", "random"), load_task("bit_xor")).eval()
    inputs = model.task.distinct(2, "test").inputs
    logits, cache = model.run_with_cache(inputs)
    with model.hooks([("blocks.2.hook_lstm_out", lambda out, hook: torch.zeros_like(out))]):
        without = model(inputs)

    read = functional.linear(cache["resid_pre", 2][:, -5:], model.output.weight, model.output.bias)
    torch.testing.assert_close(without, read.unflatten(-1, (2,)), atol=1e-6, rtol=0)
    assert not torch.allclose(without, logits)
