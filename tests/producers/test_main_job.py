"""The main job on real weights: frozen MiniLM learns bit XOR, and its heads carry the bits."""

from __future__ import annotations

import pytest

import fpt_viz as fpt
from fpt_viz.config import RunConfig, TaskConfig, TrainConfig

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    train = TrainConfig(n_steps=300, validate_every=10, stop_when_solved=True, seed=0)
    return fpt.run(RunConfig(task=TaskConfig(name="bit_xor"), train=train), tmp_path_factory.mktemp("main") / "run")


def test_pretrained_minilm_solves_xor_on_inputs_that_training_never_saw(record):
    assert record.evaluation.accuracy >= 0.999
    assert record.evaluation.n_examples == 256
    assert record.steps_to_solve is not None
    assert record.steps_to_solve <= 290
    assert record.result["status"] == "solved"
    assert record.result["frozen_intact"] is True
    assert record.result["moved"] == []


def test_the_ledger_names_the_published_weights(record):
    told = record.ledger.backbone
    assert told["identity"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert told["weights_sha256"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert told["licence"] == "Apache-2.0"


def test_the_head_that_routes_best_on_validation_beats_both_baselines_on_test(record):
    model = fpt.load_model(record)
    layer, head = fpt.head_statistics(model, n_examples=512, split="validation").ranking()[0]

    stats = fpt.head_statistics(model, n_examples=512, split="test")

    low, high = stats.routing_interval[layer, head].tolist()
    score = float(stats.routing_score[layer, head])
    assert stats.n_examples == 256
    assert low <= score <= high
    assert low > stats.uniform == pytest.approx(0.10)
    assert low > float(stats.permuted[layer, head])


def test_a_loaded_model_is_as_right_as_the_record_says(record):
    found = fpt.evaluate(fpt.load_model(record), split="test")
    assert found.accuracy == record.evaluation.accuracy
    assert found.loss == record.evaluation.loss
