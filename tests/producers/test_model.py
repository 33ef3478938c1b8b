"""The model around the backbone: scale of the input layer, padding, read-out, and a trained model read back."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig

import fpt_viz as fpt
from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, RecordError, SourceError, TrainingError
from fpt_viz.loading import load_model
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import LiveModel
from fpt_viz.tap import Tappable
from fpt_viz.tasks import load_task
from fpt_viz.train import run, train

TASKS = {
    "bits": ("bit_xor", {}),
    "signs": ("bit_xor", {"encoding": "signs"}),
    "memory": ("bit_memory", {"n_bits": 4, "patch_size": 2}),
    "pixels": ("digits", {"patch_size": 2}),
}


def rms(values: torch.Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


def values_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.fixture
def deep_llama(tmp_path):
    """A folder that describes 12 narrow layers with large random weights."""
    LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=12, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.5,
    ).save_pretrained(tmp_path / "deep")  # fmt: skip
    return f"llama:{tmp_path / 'deep'}"


@pytest.fixture(params=registry.names("backbones"))
def family(request: pytest.FixtureRequest) -> str:
    """Each family of backbones in turn, with attention or without."""
    return str(request.param)


# The input layer's scale


@pytest.mark.parametrize("task", TASKS)
def test_the_input_layers_output_has_the_scale_of_the_token_embeddings(family, tiny, task):
    name, options = TASKS[task]
    model = tiny(family, load_task(name, **options))
    inputs = model.task.distinct(2000, "train", seed=3).inputs
    assert rms(model.input(inputs)) == pytest.approx(model.backbone.token_rms, rel=0.01)


@pytest.mark.parametrize("task", TASKS)
def test_the_zero_input_is_no_zero_vector(tiny, task):
    name, options = TASKS[task]
    model = tiny("llama", load_task(name, **options))
    vector = model.input(torch.zeros(1, 1, model.task.n_values))
    assert rms(vector) > 0.5 * model.backbone.token_rms


def test_symbols_are_embedded_at_the_scale_of_the_token_embeddings(family, tiny, symbols):
    model = tiny(family, symbols)
    assert rms(model.input.weight) == pytest.approx(model.backbone.token_rms, rel=0.2)  # 6 x 32 values drawn


def test_the_papers_input_layer_is_orthogonal_with_its_gain_and_no_bias(tiny):
    model = tiny("gpt2", load_task("digits", patch_size=2), input_init="paper")
    squared = model.input.weight.T @ model.input.weight
    torch.testing.assert_close(squared, torch.eye(4) * 1.41**2, atol=1e-5, rtol=0)
    assert not model.input.bias.any()


def test_new_layers_are_the_same_for_the_same_seed_only(tiny):
    one, same, other = (tiny("gpt2", seed=seed).input.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_building_a_model_leaves_the_callers_random_state(tiny):
    before = torch.get_rng_state()
    tiny("gpt2")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_zero_vector_into_deep_rmsnorm_stops_the_run_and_says_why(deep_llama):
    model = FrozenPretrainedTransformer(load_backbone(deep_llama, "random"), load_task("bit_xor"), input_init="paper")
    before = values_of(model)

    with pytest.raises(TrainingError, match=r"gradient's norm is (inf|nan) at step 0.* input_init=matched cures that"):
        next(train(model))

    assert all(torch.equal(old, new) for old, new in zip(before, values_of(model), strict=True))


def test_the_matched_input_layer_cures_that(deep_llama):
    model = FrozenPretrainedTransformer(load_backbone(deep_llama, "random"), load_task("bit_xor"))
    assert math.isfinite(next(train(model)).grad_norm)


# Padding and read-out


@torch.no_grad()
def test_a_padded_batch_has_the_logits_of_its_examples_one_by_one(family, tiny, padded, symbols):
    model = tiny(family, symbols)

    together = model(padded.inputs, padded.mask)

    for i, n_real in enumerate(padded.mask.sum(1).tolist()):
        alone = model(padded.inputs[i : i + 1, :n_real])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_lies_under_the_padding_changes_nothing(family, tiny, padded, symbols):
    model = tiny(family, symbols)
    other = torch.where(padded.mask, padded.inputs, 5)
    torch.testing.assert_close(model(other, padded.mask), model(padded.inputs, padded.mask), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_mask_without_padding_changes_nothing(family, tiny, symbols, padded):
    model = tiny(family, symbols)
    whole = padded.inputs.clamp(min=1)
    mask = torch.ones_like(padded.mask)
    torch.testing.assert_close(model(whole, mask), model(whole), atol=1e-6, rtol=0)


def test_the_last_real_tokens_are_read_out(tiny, padded, symbols):
    model = tiny("bert", symbols)
    assert model.readout_tokens(8, padded.mask).tolist() == [[6, 7], [3, 4], [5, 6], [0, 1]]
    assert model.readout_tokens(8).tolist() == [[6, 7]]


def test_an_example_too_short_to_be_read_out_is_an_error(tiny, padded, symbols):
    mask = padded.mask.clone()
    mask[3, 1] = False
    with pytest.raises(ConfigError, match=r"reads 2 tokens, an example has 1"):
        tiny("bert", symbols)(padded.inputs, mask)


def test_logits_have_the_shape_that_the_task_says(tiny):
    task = load_task("bit_memory", n_bits=4, patch_size=2)
    batch = task.distinct(3, "test")
    assert tiny("gpt2", task)(batch.inputs).shape == (3, task.n_readout, *task.output_shape)


# What it is


def test_a_model_is_what_viewers_and_taps_ask_for(tiny):
    model = tiny("bert")
    assert isinstance(model, LiveModel)
    assert isinstance(model, Tappable)


def test_a_backbone_serves_one_model_only():
    backbone = load_backbone("bert-tiny-random", "random")
    FrozenPretrainedTransformer(backbone, load_task("bit_xor"))
    with pytest.raises(ConfigError, match=r"already trained by a model of bit_xor: load another"):
        FrozenPretrainedTransformer(backbone, load_task("digits"))


def test_a_task_longer_than_rotary_positions_is_an_error():
    backbone = load_backbone("llama-tiny-random", "random")
    with pytest.raises(ConfigError, match=r"positions for 2048 tokens, the task has 2050"):
        FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=1025))


def test_it_says_what_it_is_in_one_line(tiny):
    told = repr(tiny("bert", trained=("output",)))
    assert told == (
        "FrozenPretrainedTransformer(bert-tiny-random random, 3 layers, bit_xor; trains 66 values in output)"
    )


# A trained model, read back


def config(**options) -> RunConfig:
    settings = {
        "task": TaskConfig(name="bit_xor", options={"n_bits": 2}),
        "backbone": BackboneConfig(name="llama-tiny-random", init="random"),
        "train": TrainConfig(n_steps=4, batch_size=8, seed=3),
    }
    return RunConfig(**(settings | options))


def test_a_loaded_model_has_the_trained_models_logits_bit_for_bit(family, tmp_path):
    wanted = config(backbone=BackboneConfig(name=f"{family}-tiny-random", init="random"))
    record = run(wanted, tmp_path / "run")
    task = load_task("bit_xor", n_bits=2)
    backbone = load_backbone(f"{family}-tiny-random", "random", seed=3)
    trained = FrozenPretrainedTransformer(backbone, task, seed=3)
    assert len(list(train(trained, config=wanted.train))) == 4
    batch = task.distinct(16, "test")

    loaded = fpt.load_model(fpt.load_run(tmp_path / "run"))

    assert not loaded.training
    assert torch.equal(loaded(batch.inputs), trained.eval()(batch.inputs))
    assert loaded.source == {name: value for name, value in record.source.items() if name != "seed"}


def test_loading_over_other_frozen_weights_is_an_error_that_names_a_tensor(tmp_path, monkeypatch):
    record = run(config(), tmp_path / "run")
    import fpt_viz.loading as module

    def other_seed(*args, seed, **options):
        return load_backbone(*args, seed=seed + 1, **options)

    monkeypatch.setattr(module, "load_backbone", other_seed)
    with pytest.raises(SourceError, match=r"frozen tensors differ from its ledger, such as backbone\.network\."):
        load_model(record)


def test_loading_trained_tensors_of_another_run_is_an_error(tmp_path):
    record = run(config(), tmp_path / "run")
    (tmp_path / "run" / "adapter.safetensors").unlink()
    run(config(trained=("output",)), tmp_path / "other")
    (tmp_path / "other" / "adapter.safetensors").rename(tmp_path / "run" / "adapter.safetensors")
    with pytest.raises(RecordError, match=r"adapter\.safetensors holds other tensors than the run trained"):
        load_model(record)


def test_a_users_own_task_file_runs_only_when_its_path_is_given_again(tmp_path):
    source = "from dataclasses import dataclass\nfrom fpt_viz.tasks.bit_xor import BitXor\n__all__ = ['Mine']\n"
    source += "@dataclass(frozen=True)\nclass Mine(BitXor):\n    n_bits: int = 2\n"
    file = tmp_path / "mine.py"
    file.write_text(source)
    record = run(config(task=TaskConfig(name=str(file))), tmp_path / "run")

    with pytest.raises(ConfigError, match=r"whose code would run: give task_file=PATH"):
        load_model(record)
    assert load_model(record, task_file=file).task.n_bits == 2
    file.write_text(source + "# changed\n")
    with pytest.raises(ConfigError, match=r"mine\.py is another file than the run was trained on"):
        load_model(record, task_file=file)
