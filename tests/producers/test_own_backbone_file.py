"""A backbone in a file of the user's own: named by its path, checked, and never run because a record names it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fpt_viz.backbones import load_backbone
from fpt_viz.capture import capture_attention
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, FreezeError, RecordError, SourceError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import load_run
from fpt_viz.records.run import CONFIG, RESULT, seal
from fpt_viz.records.store import read_json, unsealed
from fpt_viz.tasks import load_task
from fpt_viz.train import run, train

SIZES = {
    "vocab_size": 16,
    "embedding_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}
TEXT = f'''"""ELECTRA, which the package does not have."""

from transformers import ElectraConfig, ElectraModel

from fpt_viz.backbones import Preset
from fpt_viz.backbones.bert import Bert

__all__ = ["Electra"]


class Electra(Bert):
    network_class = ElectraModel
    config_class = ElectraConfig
    network_options = {{}}
    presets = {{"small": Preset(config={SIZES})}}
'''


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


@pytest.fixture
def two_presets(tmp_path) -> Path:
    path = tmp_path / "two.py"
    path.write_text(TEXT.replace('presets = {"small": ', 'presets = {"other": Preset(config={}), "small": '))
    return path


def test_its_hidden_states_are_those_of_the_network_that_it_names(file):
    from transformers import ElectraConfig, ElectraModel

    backbone = load_backbone(str(file), "random", seed=3)
    torch.manual_seed(3)
    reference = ElectraModel(ElectraConfig(**SIZES)).eval()
    vectors = torch.randn(2, 5, 16)
    expected = reference(inputs_embeds=vectors).last_hidden_state
    assert torch.equal(backbone.eval()(vectors), expected)
    assert (backbone.provenance.name, backbone.provenance.family) == (str(file), "mine")


def test_it_is_trained_frozen_and_tapped_like_any_other(file):
    model = FrozenPretrainedTransformer(load_backbone(str(file), "random"), load_task("bit_xor", n_bits=2))
    ledger = model.ledger()
    assert len(list(train(model, config=TrainConfig(n_steps=2, batch_size=4)))) == 2
    assert model.verify(ledger) == []
    maps = capture_attention(model, model.task.distinct(3, "test"))
    assert maps.weights.shape == (2, 3, 2, 2, 4)
    assert torch.allclose(maps.weights.sum(-1).float(), torch.ones(2, 3, 2, 2), atol=1e-3)


def test_a_preset_is_named_behind_the_path_where_there_are_several(two_presets):
    assert load_backbone(f"{two_presets}:small", "random").n_layers == 2
    with pytest.raises(ConfigError, match=r"2 presets, so one is to be named: .*two.py:other, .*two.py:small"):
        load_backbone(str(two_presets), "random")


def test_what_is_no_preset_behind_the_path_is_a_folder(file, tmp_path):
    with pytest.raises(SourceError, match=r"nowhere"):
        load_backbone(f"{file}:{tmp_path}/nowhere", "random")


def test_pretrained_weights_that_it_does_not_name_are_an_error_and_not_random_ones(file):
    with pytest.raises(SourceError, match=r"no package carries weights of .*mine.py.*init=random"):
        load_backbone(str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__all__ = ['size']\nsize = 64\n", r"public name 64 is no subclass of fpt_viz.backbones.Backbone"),
        ("__all__ = []\n", r"__all__ must hold the one public name"),
        ("__all__ = ['Mine'\n", r"cannot be loaded: SyntaxError"),
        (
            "from fpt_viz.backbones import Backbone\n__all__ = ['Mine']\nclass Mine(Backbone):\n    causal = False\n",
            r"Mine does not declare network_class, config_class, presets, groups, blocks_path, vocabulary_path, "
            r"block_places, attention_path, projection_path",
        ),
    ],
    ids=["no-backbone", "no-name", "no-python", "not-whole"],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path, text, told):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_backbone(str(path), "random")


def test_a_parameter_in_no_group_is_refused(tmp_path):
    path = tmp_path / "groups.py"
    path.write_text(f'{TEXT}    groups = {{"embeddings.position*": "position"}}\n')
    with pytest.raises(FreezeError, match=r"in no group"):
        FrozenPretrainedTransformer(load_backbone(str(path), "random"), load_task("bit_xor", n_bits=2))


def test_no_run_is_recorded_of_it_since_reading_it_back_would_run_the_file(file, tmp_path):
    config = RunConfig(
        task=TaskConfig(name="bit_xor"),
        backbone=BackboneConfig(name=f"{file}:small", init="random"),
        train=TrainConfig(n_steps=1),
    )
    with pytest.raises(ConfigError, match=r"no run is recorded of the backbone in .*mine.py:small.*step by step"):
        run(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["evil.py", "evil.py:small", "./evil.py:a:b"])
def test_a_record_that_names_a_file_as_its_backbone_is_not_read(tmp_path, name):
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=TrainConfig(n_steps=1, batch_size=2),
    )
    record = run(config, tmp_path / "run", progress=False)
    path = record.path / CONFIG
    path.write_text(path.read_text().replace("bert-tiny-random", name))
    result = unsealed(read_json(record.path / RESULT), record.path / RESULT)
    seal(record.path, {key: value for key, value in result.items() if key != "files"})
    with pytest.raises(RecordError, match=rf"names the file {name} as its backbone, whose code would run"):
        load_run(record.path)


def test_a_task_file_with_a_method_forgotten_is_told_which(tmp_path):
    path = tmp_path / "half.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom fpt_viz.tasks import Task\n__all__ = ['Half']\n"
        "@dataclass(frozen=True)\nclass Half(Task):\n    n_tokens = n_values = n_readout = 1\n"
        "    output_shape = (2,)\n    def labels(self, inputs): return []\n"
    )
    with pytest.raises(ConfigError, match=r"Half does not define distinct, geometry, n_examples, sample, token_names"):
        load_task(str(path))
