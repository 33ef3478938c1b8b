"""What a backbone's weights are at the start: pretrained statistics alone, or what another run left."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

import fpt_viz as fpt
from fpt_viz import registry
from fpt_viz.backbones import Backbone, load_backbone
from fpt_viz.cli import main
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.engines._job import shed_weights
from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.freeze import group_of
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import RunRecord, Step
from fpt_viz.records.run import load_run, seal
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import load_task
from fpt_viz.train import run

FAMILIES = registry.names("backbones")
PUBLISHED = [name for name in FAMILIES if registry.load("backbones", name).published]


def values_of(backbone: Backbone) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}


# Statistics


@pytest.fixture(scope="module")
def trained_weights(tmp_path_factory) -> Path:
    """A folder for each family, with weights whose mean and spread differ from tensor to tensor."""
    top = tmp_path_factory.mktemp("published")
    for family in PUBLISHED:
        kind = registry.load("backbones", family)
        torch.manual_seed(7)
        config = kind.config_class(**kind.presets[f"{family}-tiny-random"].config)
        network = kind.network_class(config, **kind.network_options)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in network.parameters():
                mean, scale = torch.randn(2, generator=generator).tolist()
                parameter.mul_(1 + abs(scale)).add_(mean + 0.1 * torch.rand(parameter.shape, generator=generator))
        network.save_pretrained(top / family)
    return top


@pytest.fixture(params=PUBLISHED)
def name(request, trained_weights) -> str:
    return f"{request.param}:{trained_weights / request.param}"


def test_each_tensor_has_the_mean_and_spread_of_the_pretrained_one_and_other_values(name):
    source, drawn = load_backbone(name), load_backbone(name, "statistics", seed=1)
    groups = source.parameter_groups()

    for tensor, then in values_of(source).items():
        now = drawn.get_parameter(tensor).detach()
        if group_of(tensor, groups) == "layer_norm":
            assert torch.equal(now, then), tensor
            continue
        std, n = float(then.std(correction=0)), then.numel()
        assert abs(float(now.mean() - then.mean())) < 5 * std / n**0.5, tensor
        assert abs(float(now.std(correction=0)) - std) < 5 * std / (2 * n) ** 0.5 + 1e-7, tensor
        correlation = torch.corrcoef(torch.stack([now.flatten(), then.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / n**0.5, tensor


def test_statistics_of_a_seed_are_always_the_same(name):
    one, same, other = (values_of(load_backbone(name, "statistics", seed=seed)) for seed in (3, 3, 4))

    assert all(torch.equal(one[tensor], same[tensor]) for tensor in one)
    assert not all(torch.equal(one[tensor], other[tensor]) for tensor in one)


def test_drawing_from_statistics_leaves_the_callers_random_state(name):
    before = torch.get_rng_state()
    load_backbone(name, "statistics")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_provenance_says_of_which_weights_the_statistics_are(name):
    source, drawn = load_backbone(name).provenance, load_backbone(name, "statistics").provenance

    assert (drawn.init, drawn.weights_sha256) == ("statistics", source.weights_sha256)
    assert len(drawn.weights_sha256) == 64
    assert (
        "mean and standard deviation of each pretrained tensor; the layer norms are the pretrained ones" in drawn.note
    )
    assert load_backbone(name, "statistics", 2).n_layers == 2


def test_a_run_on_statistics_is_recorded_and_loads_again(trained_weights, tmp_path):
    folder = tmp_path / "run"
    backbone = f"gpt2:{trained_weights / 'gpt2'}"
    command = ["train", "--task", "bit_xor", "--backbone", backbone, "--init", "statistics", "--seed", "5"]
    assert main([*command, "--out", str(folder), "--set", "n_bits=2", "n_steps=3", "batch_size=4"]) == 0

    record = load_run(folder)
    model = fpt.load_model(record)

    assert record.ledger.backbone["init"] == record.source["init"] == "statistics"
    assert "-statistics-s5-" in record.result["run_id"]
    expected = load_backbone(backbone, "statistics", seed=5)
    for tensor, value in expected.named_parameters():
        if ".mlp." in tensor or ".attn." in tensor:
            assert torch.equal(model.backbone.get_parameter(tensor), value)


# The weights of another run


def settings(
    family: str = "gpt2", init: str = "random", n_bits: int = 4, trained: tuple[str, ...] = ("all",), **options: Any
) -> RunConfig:
    return RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": n_bits}),
        backbone=BackboneConfig(name=f"{family}-tiny-random", init=init, **options),
        trained=trained,
        train=TrainConfig(n_steps=2, batch_size=4, learning_rate=0.05, seed=6, checkpoint_every=1),
    )


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> dict[str, RunRecord]:
    """A finished run of each family, in which everything moved."""
    top = tmp_path_factory.mktemp("left")
    return {family: run(settings(family), top / family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return str(request.param)


def backbone_after(record: RunRecord) -> Backbone:
    """What the run itself ended with."""
    return fpt.load_model(record).backbone


def positions_of(backbone: Backbone) -> Tensor:
    return backbone.position_rows()


def test_every_tensor_of_the_backbone_is_as_the_run_left_it(family, left):
    record = left[family]
    wanted, start = backbone_after(record), load_backbone(f"{family}-tiny-random", "random", seed=6)

    found = load_backbone(f"{family}-tiny-random", str(record.path))
    found.fit_positions(8)

    assert dict(found.named_parameters()).keys() == dict(wanted.named_parameters()).keys()
    for name, value in wanted.named_parameters():
        assert torch.equal(found.get_parameter(name), value), name
    moved = [name for name, value in start.named_parameters() if "position" not in name]
    assert not any(torch.equal(start.get_parameter(name), wanted.get_parameter(name)) for name in moved)


@pytest.mark.parametrize("n_tokens", [4, 8, 12])
def test_positions_of_the_tokens_that_the_run_had_are_those_it_trained_and_the_rest_its_start(family, left, n_tokens):
    trained = positions_of(backbone_after(left[family]))
    start = load_backbone(f"{family}-tiny-random", "random", seed=6)
    start.fit_positions(12)
    expected = positions_of(start)[:n_tokens]
    expected[: min(8, n_tokens)] = trained[:n_tokens]

    found = load_backbone(f"{family}-tiny-random", str(left[family].path), seed=99)
    found.fit_positions(n_tokens)

    assert torch.equal(positions_of(found), expected)
    assert found(torch.ones(1, n_tokens, found.d_model)).isfinite().all()


def test_positions_that_the_run_grew_stay_and_can_grow_on(tmp_path):
    """The tiny BERT has 160 of its own; the run's task has 164, the next one's 168."""
    record = run(settings("bert", n_bits=82, trained=("output",)), tmp_path / "run")
    trained = positions_of(backbone_after(record))

    found = load_backbone("bert-tiny-random", str(record.path))
    assert (found.n_ctx, found.provenance.positions_new) == (164, 0)
    found.fit_positions(168)

    assert torch.equal(positions_of(found)[:164], trained)
    assert found.provenance.positions_new == 4
    assert found(torch.ones(1, 168, 32)).isfinite().all()


def test_a_run_that_trained_little_gives_its_frozen_weights_too(tmp_path):
    record = run(settings(trained=("output", "input", "layer_norm", "position")), tmp_path / "run")
    wanted = backbone_after(record)

    found = load_backbone("gpt2-tiny-random", str(record.path))
    found.fit_positions(8)

    for name, value in wanted.named_parameters():
        assert torch.equal(found.get_parameter(name), value), name


def test_a_run_goes_on_from_a_run_that_went_on_from_a_run(left, tmp_path):
    second = run(settings(init=str(left["gpt2"].path), trained=("layer_norm",)), tmp_path / "second")
    third = run(settings(init=str(second.path), trained=("output",)), tmp_path / "third")

    first_weights, third_weights = (dict(backbone_after(one).named_parameters()) for one in (left["gpt2"], third))
    for name, value in first_weights.items():
        assert torch.equal(third_weights[name], value) == (".ln_" not in name and "ln_f" not in name), name
    assert third.ledger.backbone["run_id"] == second.result["run_id"]


def test_the_new_layers_are_those_of_the_new_runs_seed(left):
    backbone = load_backbone("gpt2-tiny-random", str(left["gpt2"].path))
    model = FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=4), seed=1)
    other = FrozenPretrainedTransformer(load_backbone("gpt2-tiny-random", "random"), model.task, seed=1)

    assert torch.equal(model.output.weight, other.output.weight)
    assert not torch.equal(model.output.weight, fpt.load_model(left["gpt2"]).output.weight)


def test_the_record_says_which_run_by_its_id_and_the_checksum_of_its_adapter(left, tmp_path):
    first = left["gpt2"]
    record = run(settings(init=str(first.path), trained=("output",)), tmp_path / "second")

    told = record.ledger.backbone
    assert (told["run_id"], told["run_sha256"]) == (
        first.result["run_id"],
        first.result["files"]["adapter.safetensors"],
    )
    assert told["init"] == record.source["init"] == f"from {first.path.name}"
    assert record.name == "gpt2-tiny-random from gpt2 seed 6"
    assert "bit_xor-gpt2-tiny-random-from-gpt2-s6-" in record.result["run_id"]
    model = fpt.load_model(record)
    batch = model.task.distinct(4, "test")
    assert torch.equal(model(batch.inputs), fpt.load_model(load_run(record.path))(batch.inputs))
    assert (told["revision"], told["config"]["n_layers"]) == ("", 3)


@pytest.mark.parametrize("trained", [("output",), ("all",)])
def test_a_start_that_is_another_run_by_now_is_an_error_on_loading(left, tmp_path, trained):
    start = tmp_path / "start"
    shutil.copytree(left["gpt2"].path, start)
    record = run(settings(init=str(start), trained=trained), tmp_path / "second")
    run(replace(settings(), train=TrainConfig(n_steps=1, batch_size=4, seed=6)), start, overwrite=True)

    with pytest.raises(
        RecordError, match=rf"started from the weights that the run {left['gpt2'].result['run_id']} left"
    ):
        fpt.load_model(record)


def test_a_run_whose_own_start_is_another_by_now_is_no_start(left, tmp_path):
    shutil.copytree(left["gpt2"].path, tmp_path / "start")
    second = run(settings(init=str(tmp_path / "start")), tmp_path / "second")
    assert load_backbone("gpt2-tiny-random", str(second.path)).provenance.run_id == second.result["run_id"]
    run(replace(settings(), train=TrainConfig(n_steps=1, batch_size=4, seed=6)), tmp_path / "start", overwrite=True)

    with pytest.raises(RecordError, match=rf"{second.path} started from the weights that the run"):
        load_backbone("gpt2-tiny-random", str(second.path))


def test_a_start_that_is_another_run_by_now_is_an_error_on_resuming(left, tmp_path, monkeypatch):
    start = tmp_path / "start"
    shutil.copytree(left["gpt2"].path, start)
    config = settings(init=str(start))
    add = RunFolder.add

    def stops(folder: RunFolder, step: Step) -> None:
        add(folder, step)
        if step.index == 1:
            raise ZeroDivisionError

    monkeypatch.setattr(RunFolder, "add", stops)
    with pytest.raises(ZeroDivisionError):
        run(config, tmp_path / "second")
    monkeypatch.undo()
    run(replace(settings(), train=TrainConfig(n_steps=1, batch_size=4, seed=6)), start, overwrite=True)
    with pytest.raises(RecordError, match=r"started from the weights that the run .* put back what was"):
        run(config, tmp_path / "second", resume=True)
    shutil.rmtree(start)
    shutil.copytree(left["gpt2"].path, start)

    assert run(config, tmp_path / "second", resume=True).result["status"] == "finished"


def test_a_start_is_found_again_from_another_folder(left, tmp_path, monkeypatch):
    """Named as ``runs/start`` from the top, and read from below."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(left["gpt2"].path, tmp_path / "runs" / "start")
    monkeypatch.chdir(tmp_path)
    record = run(settings(init="runs/start", trained=("output",)), tmp_path / "runs" / "second")

    monkeypatch.chdir(tmp_path / "notebooks")
    assert fpt.load_model(load_run("../runs/second")).source["init"] == "from start"
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    assert fpt.load_model(load_run("../moved/second")).backbone.provenance.run_id == left["gpt2"].result["run_id"]
    shutil.rmtree(tmp_path / "moved" / "start")
    with pytest.raises(ConfigError, match=r"no folder runs/start: init takes pretrained, random, statistics, or"):
        fpt.load_model(load_run("../moved/second"))
    assert record.path == tmp_path / "runs" / "second"


def test_a_word_that_is_no_initialisation_is_told_its_nearest_match():
    with pytest.raises(UnknownNameError, match=r"no init 'statistic'. Did you mean 'statistics'\?.*RUN, the folder"):
        load_backbone("gpt2-tiny-random", "statistic")


def test_a_run_of_another_backbone_or_depth_is_an_error(left, tmp_path):
    path = str(left["gpt2"].path)
    with pytest.raises(ConfigError, match=r"is a run of gpt2-tiny-random, wanted bert-tiny-random"):
        load_backbone("bert-tiny-random", path)
    for n_layers in (2, 4):
        with pytest.raises(ConfigError, match=rf"is a run of 3 layers of gpt2-tiny-random, wanted {n_layers}"):
            load_backbone("gpt2-tiny-random", path, n_layers)
    assert load_backbone("gpt2-tiny-random", path, 3).n_layers == 3
    short = run(settings(n_layers=2), tmp_path / "short")
    assert load_backbone("gpt2-tiny-random", str(short.path)).n_layers == 2


def test_a_run_that_was_kept_without_its_weights_is_no_start(left, tmp_path):
    folder = Path(shutil.copytree(left["gpt2"].path, tmp_path / "shed"))
    shed_weights(folder)
    with pytest.raises(RecordError, match="was kept without its weights"):
        load_backbone("gpt2-tiny-random", str(folder))


def test_a_run_whose_ledger_does_not_tell_its_depth_is_no_start(left, tmp_path):
    folder = Path(shutil.copytree(left["gpt2"].path, tmp_path / "run"))
    ledger = json.loads((folder / "ledger.json").read_text())
    del ledger["backbone"]["config"]
    (folder / "ledger.json").write_text(json.dumps(ledger))
    seal(folder, {name: value for name, value in left["gpt2"].result.items() if name != "files"})
    with pytest.raises(RecordError, match="does not tell how many layers"):
        load_backbone("gpt2-tiny-random", str(folder))


def test_a_run_that_is_not_finished_or_not_whole_is_an_error(left, tmp_path):
    with pytest.raises(RecordError, match=r"holds no run: config.toml is missing"):
        load_backbone("gpt2-tiny-random", str(tmp_path))
    shutil.copytree(left["gpt2"].path, tmp_path / "run")
    content = (tmp_path / "run" / "adapter.safetensors").read_bytes()
    (tmp_path / "run" / "adapter.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RecordError, match=r"adapter\.safetensors was truncated or altered after the run"):
        load_backbone("gpt2-tiny-random", str(tmp_path / "run"))
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(RecordError, match=r"is not finished \(result\.json is missing\)"):
        load_backbone("gpt2-tiny-random", str(tmp_path / "run"))


def test_the_command_line_takes_a_run_and_says_what_is_wrong_with_it(left, tmp_path, capsys):
    command = ["train", "--task", "bit_xor", "--backbone", "gpt2-tiny-random", "--json"]
    small = ["--set", "n_bits=2", "n_steps=2", "batch_size=4"]
    assert main([*command, "--init", str(left["gpt2"].path), "--out", str(tmp_path / "run"), *small]) == 0
    assert "-from-gpt2-s0-" in json.loads(capsys.readouterr().out)["run_id"]
    for init, told in {
        "nowhere/at/all": "no folder nowhere/at/all",
        str(tmp_path): "holds no run",
        str(left["bert"].path): "is a run of bert-tiny-random, wanted gpt2-tiny-random",
        "pretrain": "Did you mean 'pretrained'",
    }.items():
        assert main([*command, "--init", init, "--out", str(tmp_path / "new"), *small]) == 2
        assert told in capsys.readouterr().err
