"""A config goes to TOML and back, and what cannot be meant is one clear error that names the option."""

from __future__ import annotations

from dataclasses import fields, replace
import inspect
import tomllib

from hypothesis import given, strategies as st
import pytest

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig, with_settings
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.freeze import PAPER_GROUPS

DEFAULT = RunConfig(task=TaskConfig(name="bit_xor"))
EVERYTHING = RunConfig(
    task=TaskConfig(name="bit_memory", options={"n_bits": 4, "mask_rate": 0.25, "on": True, "deep": {"a": [1]}}),
    backbone=BackboneConfig(name="llama:some folder/ü", init="random", n_layers=3),
    trained=("output", "attention:2"),
    input_init="paper",
    train=TrainConfig(
        n_steps=7, batch_size=3, learning_rate=1.25e-4, schedule="cosine", n_warmup_steps=2, max_grad_norm=0.3,
        dropout=0.0, seed=2**62, validate_every=5, n_validation=9, stop_when_solved=True, checkpoint_every=6,
        telemetry_every=8, telemetry_heads=("L0H1",), n_telemetry=11, cache_features=False,
        precision="bfloat16", n_parts=2, checkpoint_blocks=True, compile=True,
    ),
)  # fmt: skip


@pytest.mark.parametrize("config", [DEFAULT, EVERYTHING], ids=["defaults", "everything"])
def test_a_config_goes_to_toml_and_back(config, tmp_path):
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert RunConfig.load(tmp_path / "config.toml") == config
    assert RunConfig.from_dict(config.to_dict()) == config


def test_everything_is_set_to_something_else_than_its_default():
    """So the test above sees every option."""
    for part in ("backbone", "train"):
        for field in fields(getattr(EVERYTHING, part)):
            assert getattr(getattr(EVERYTHING, part), field.name) != field.default, field.name


@given(st.floats(1e-30, 1e30), st.integers(0, 2**63 - 1))
def test_numbers_go_to_toml_and_back_exactly(rate, seed):
    config = replace(DEFAULT, train=TrainConfig(learning_rate=rate, seed=seed))
    assert RunConfig.from_dict(tomllib.loads(config.to_toml())) == config


def test_only_a_task_must_be_given():
    assert RunConfig.from_dict({"task": {"name": "bit_xor"}}) == DEFAULT
    assert DEFAULT.trained == PAPER_GROUPS
    with pytest.raises(ConfigError, match=r"^task must be given"):
        RunConfig.from_dict({})
    with pytest.raises(ConfigError, match=r"^task\.name must be given"):
        RunConfig.from_dict({"task": {}})


def test_a_whole_number_serves_where_a_number_is_wanted():
    config = RunConfig.from_dict({"task": {"name": "bit_xor"}, "train": {"learning_rate": 1, "dropout": 0}})
    assert (config.train.learning_rate, config.train.dropout) == (1.0, 0.0)
    assert isinstance(config.train.learning_rate, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trian": {}}, r"no option 'trian'. Did you mean 'train'\?"),
        ({"train": {"learning_rat": 1}}, r"no option in \[train\] 'learning_rat'. Did you mean 'learning_rate'\?"),
        ({"backbone": {"layers": 2}}, r"no option in \[backbone\] 'layers'. Did you mean 'n_layers'\?"),
    ],
)
def test_an_unknown_option_is_told_its_nearest_match(data, message):
    with pytest.raises(UnknownNameError, match=message):
        RunConfig.from_dict({"task": {"name": "bit_xor"}} | data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": 3}, r"train must be a table of options, got 3"),
        ({"train": {"n_steps": 1.5}}, r"train\.n_steps must be a whole number, got 1\.5"),
        ({"train": {"n_steps": True}}, r"train\.n_steps must be a whole number, got True"),
        ({"train": {"learning_rate": "1e-3"}}, r"train\.learning_rate must be a number, got '1e-3'"),
        ({"train": {"dropout": "no"}}, r"train\.dropout must be a number or absent, got 'no'"),
        ({"train": {"stop_when_solved": 1}}, r"train\.stop_when_solved must be true or false, got 1"),
        ({"train": {"schedule": "cosin"}}, r"train\.schedule must be one of 'constant', 'linear', 'cosine'"),
        ({"backbone": {"init": 3}}, r"backbone\.init must be a text, got 3"),
        ({"backbone": {"n_layers": "2"}}, r"backbone\.n_layers must be a whole number or absent, got '2'"),
        ({"trained": "output"}, r"trained must be a list of a text, got 'output'"),
        ({"trained": ["output", 1]}, r"trained must be a list of a text"),
        ({"input_init": "none"}, r"input_init must be one of 'matched', 'paper'"),
        ({"task": {"name": 5}}, r"task\.name must be a text, got 5"),
        ({"task": {"name": "bit_xor", "options": [1]}}, r"task\.options must be dict, got \[1\]"),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_that_says_what_is_wanted(data, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_dict({"task": {"name": "bit_xor"}} | data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, r"train\.n_steps must be at least 1, got 0"),
        ({"batch_size": -1}, r"train\.batch_size must be at least 1"),
        ({"checkpoint_every": 0}, r"train\.checkpoint_every must be at least 1"),
        ({"n_validation": 0}, r"train\.n_validation must be at least 1"),
        ({"n_warmup_steps": -1}, r"train\.n_warmup_steps must be at least 0"),
        ({"validate_every": -1}, r"train\.validate_every must be at least 0"),
        ({"seed": -1}, r"train\.seed must be at least 0"),
        ({"seed": 2**63}, r"train\.seed must be below 2\^63"),
        ({"learning_rate": 0.0}, r"train\.learning_rate must be above 0 and finite"),
        ({"learning_rate": float("nan")}, r"train\.learning_rate must be above 0 and finite, got nan"),
        ({"max_grad_norm": float("inf")}, r"train\.max_grad_norm must be above 0 and finite"),
        ({"dropout": 1.0}, r"train\.dropout must be from 0 to below 1, got 1\.0"),
        ({"stop_when_solved": True}, r"stop_when_solved needs checks: set train\.validate_every"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_says_the_range(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


def test_a_file_that_is_no_config_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file .*absent\.toml"):
        RunConfig.load(tmp_path / "absent.toml")
    for content in (b"task = {", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml is no TOML"):
            RunConfig.load(tmp_path / "bad.toml")


def test_every_option_is_explained():
    for kind in (TrainConfig, BackboneConfig, TaskConfig, RunConfig):
        body = inspect.getsource(kind)
        for field in fields(kind):
            if field.name in ("task", "backbone", "train"):  # say all in their name and type
                continue
            _, _, after = body.partition(f"\n    {field.name}: ")
            assert after.splitlines()[1].startswith('    """'), field.name


# Settings laid over a config

OPTIONS = ["n_bits", "n_strings", "encoding"]


def test_dotted_and_bare_names_set_the_same_options():
    dotted = {"task.n_bits": 8, "train.learning_rate": 0.1, "backbone.n_layers": 2, "trained": ["output"]}
    bare = {name.rpartition(".")[2]: value for name, value in dotted.items()}

    data = with_settings(DEFAULT.to_dict(), dotted, OPTIONS)

    config = RunConfig.from_dict(data)
    assert config.task.options == {"n_bits": 8}
    assert (config.train.learning_rate, config.backbone.n_layers, config.trained) == (0.1, 2, ("output",))
    assert with_settings(DEFAULT.to_dict(), bare, OPTIONS) == data


def test_a_name_that_is_an_option_by_itself_needs_no_section():
    data = with_settings({}, {"input_init": "paper"}, [*OPTIONS, "input_init"])
    assert data == {"input_init": "paper"}


def test_settings_leave_what_they_are_laid_over():
    before = EVERYTHING.to_dict()
    with_settings(before, {"n_bits": 9, "seed": 1}, OPTIONS)
    assert before == EVERYTHING.to_dict()


def test_settings_may_fill_an_empty_config():
    data = with_settings({}, {"task.name": "bit_xor", "seed": 4}, OPTIONS)
    assert data == {"task": {"name": "bit_xor"}, "train": {"seed": 4}}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learning_rat", r"no option 'learning_rat'. Did you mean 'train\.learning_rate'\?"),
        ("task.n_bit", r"no option 'task\.n_bit'. Did you mean 'task\.n_bits'\?"),
        ("model.seed", r"no option 'model\.seed'"),
        ("name", r"give its section\) 'name'.*There are: backbone\.name, task\.name"),
    ],
)
def test_a_setting_that_is_none_or_several_is_an_error(name, message):
    with pytest.raises(UnknownNameError, match=message):
        with_settings(DEFAULT.to_dict(), {name: 1}, OPTIONS)
