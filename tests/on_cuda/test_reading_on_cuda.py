"""What is read from a model on a CUDA device: captures, interventions and measures are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import fpt_viz as fpt
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.measures.ablate_top_heads import ablate_top_heads
from fpt_viz.measures.attribute_inputs import attribute_inputs
from fpt_viz.measures.attribution_sanity import attribution_sanity
from fpt_viz.measures.logit_attribution import logit_attribution
from fpt_viz.measures.logit_lens import logit_lens
from fpt_viz.measures.patch_activations import patch_activations
from fpt_viz.measures.patch_paths import patch_paths
from fpt_viz.measures.probe_states import probe_states
from fpt_viz.measures.routing_breakdown import routing_breakdown
from fpt_viz.measures.what_moved import what_moved
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttentionMaps

pytestmark = pytest.mark.cuda

FAMILIES = ("bert", "gpt2", "llama", "vit", "t5", "longformer")
MEASURES: dict[str, Callable[[FrozenPretrainedTransformer], Any]] = {
    "evaluate": lambda model: fpt.evaluate(model, n_examples=16),
    "head_statistics": lambda model: fpt.head_statistics(model, n_examples=16),
    "ablate_heads": lambda model: fpt.ablate_heads(model, n_examples=16),
    "ablate_heads by resampling": lambda model: fpt.ablate_heads(model, n_examples=16, kind="resample"),
    "ablate_top_heads": lambda model: ablate_top_heads(model, ranking=[(0, 0), (1, 1)], ks=(1, 2), n_random=2),
    "attribute_inputs": lambda model: attribute_inputs(model, n_examples=4, n_steps=8),
    "attribute_inputs by captum": lambda model: attribute_inputs(model, n_examples=2, method="shapley", n_samples=3),
    "attribution_sanity": lambda model: attribution_sanity(model, n_examples=2, n_steps=4, n_samples=2, seeds=(0,)),
    "logit_attribution": lambda model: logit_attribution(model, n_examples=8),
    "logit_lens": lambda model: logit_lens(model, n_examples=8),
    "patch_activations": lambda model: patch_activations(model, n_examples=8, site="z"),
    "patch_paths": lambda model: patch_paths(model, n_examples=8),
    "probe_states": lambda model: probe_states(model, n_examples=32, n_test=32, seeds=(0,)),
    "routing_breakdown": lambda model: routing_breakdown(model, n_examples=8),
    "what_moved": lambda model: what_moved(
        model, n_examples=8, start={name: 0.9 * tensor.detach() for name, tensor in model.trained_tensors().items()}
    ),
}


def make(device: str, family: str = "bert") -> FrozenPretrainedTransformer:
    torch.manual_seed(0)
    backbone = fpt.load_backbone(f"{family}-tiny-random", init="random")
    return FrozenPretrainedTransformer(backbone, fpt.load_task("bit_xor", n_bits=3)).to(device)


def numbers(result: object) -> dict[str, Any]:
    """Every tensor of a result by its path, and everything else as it is; all on the host."""
    found: dict[str, Any] = {}

    def walk(path: str, value: object) -> None:
        if is_dataclass(value) and not isinstance(value, type):
            for field in fields(value):
                walk(f"{path}.{field.name}", getattr(value, field.name))
        elif isinstance(value, Tensor):
            assert value.device.type == "cpu", f"{path} stayed on {value.device}"
            found[path] = value
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(f"{path}[{key}]", each)
        elif isinstance(value, float):
            found[path] = torch.tensor(value)
        else:
            found[path] = value

    walk("", result)
    return found


def assert_same(found: object, wanted: object) -> None:
    there, here = numbers(found), numbers(wanted)
    assert there.keys() == here.keys()
    tensors = [path for path, value in here.items() if isinstance(value, Tensor)]
    assert tensors
    torch.testing.assert_close(
        {path: there[path] for path in tensors},
        {path: here[path] for path in tensors},
        atol=1e-3,
        rtol=1e-3,
        equal_nan=True,
    )


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_those_of_the_cpu(name):
    assert_same(MEASURES[name](make("cuda")), MEASURES[name](make("cpu")))


@pytest.mark.parametrize("family", FAMILIES)
def test_captures_are_those_of_the_cpu(family):
    batch = make("cpu").task.distinct(4, "test")
    for options in ({}, {"queries": "readout"}, {"layers": [1], "heads": [0]}):
        there, here = (make(device, family).capture(batch, **options) for device in ("cuda", "cpu"))
        assert there.weights.device.type == "cpu"
        torch.testing.assert_close(there.weights, here.weights, atol=1e-5, rtol=1e-3)


def test_captures_are_packed_and_written_to_a_file(tmp_path):
    batch = make("cpu").task.distinct(4, "test")
    whole = make("cpu").capture(batch)
    made = make("cuda").capture(batch, dtype="uint8", precision="bfloat16", out=tmp_path / "maps.safetensors")
    read = AttentionMaps.load(tmp_path / "maps.safetensors", layers=[1], heads=[0])
    chosen = [maps.select(layers=[1], heads=[0]).to_dtype("float32").weights for maps in (made, read, whole)]
    assert torch.equal(chosen[0], chosen[1])
    torch.testing.assert_close(chosen[1], chosen[2], atol=0.02, rtol=0)


def test_activations_are_those_of_the_cpu():
    batch = make("cpu").task.distinct(4, "test")
    found = {device: make(device).run_with_cache(batch.inputs) for device in ("cuda", "cpu")}
    (there, cached), (here, wanted) = found["cuda"], found["cpu"]
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-3)
    cached = {name: activation.cpu() for name, activation in cached.items()}
    torch.testing.assert_close(cached, dict(wanted), atol=1e-4, rtol=1e-3)


def test_a_run_is_saved_resumed_and_read_where_there_is_no_device(tmp_path):
    train = TrainConfig(n_steps=6, batch_size=8, dropout=0.0, validate_every=3, checkpoint_every=3, n_validation=16)
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 3}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=train,
    )
    there = fpt.run(config, tmp_path / "there", device="cuda")
    here = fpt.run(config, tmp_path / "here", device="cpu")
    torch.testing.assert_close(
        torch.tensor([there.evaluation.loss]), torch.tensor([here.evaluation.loss]), atol=1e-4, rtol=1e-3
    )
    assert fpt.run(config, tmp_path / "there", device="cuda", resume=True).evaluation == there.evaluation
    assert_same(fpt.evaluate(fpt.load_model(there), n_examples=16), fpt.evaluate(fpt.load_model(here), n_examples=16))


def test_features_of_the_output_layer_alone_are_kept_on_the_device():
    def trained(device: str) -> Tensor:
        torch.manual_seed(0)
        backbone = fpt.load_backbone("bert-tiny-random", init="random")
        model = FrozenPretrainedTransformer(backbone, fpt.load_task("bit_xor", n_bits=3), ["output"]).to(device)
        steps = fpt.train(model, config=TrainConfig(n_steps=40, batch_size=8, dropout=0.0))
        return torch.tensor([float(next(steps).measured["loss"]) for _ in range(4)])

    torch.testing.assert_close(trained("cuda"), trained("cpu"), atol=1e-4, rtol=1e-3)
