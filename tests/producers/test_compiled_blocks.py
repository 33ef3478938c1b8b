"""Blocks compiled for training: the same step, few graphs, and a plain step with one line where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import logging
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
import torch._dynamo.utils

import fpt_viz as fpt
from fpt_viz import compiled
from fpt_viz.config import TrainConfig
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch, load_task
from fpt_viz.training_pass import TrainingPass

pytestmark = pytest.mark.slow  # torch takes seconds to trace a block, whatever compiles it

CONFIG = TrainConfig(batch_size=8, compile=True)
PLAIN = replace(CONFIG, compile=False)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch):
    """Graphs are traced and differentiated as ever, but run by torch's own operators: no compiler is needed."""

    def made(forward: compiled.Forward, *, graphs: bool) -> compiled.Forward:
        assert not graphs  # the CPU has none
        return torch.compile(forward, backend="aot_eager", dynamic=True)

    monkeypatch.setattr(compiled, "compiled", made)


def make(family: str = "bert") -> FrozenPretrainedTransformer:
    backbone = fpt.load_backbone(f"{family}-tiny-random", init="random", n_layers=2)
    return FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=3)).train()


def draw(model: FrozenPretrainedTransformer, n: int = 8) -> Batch:
    return model.task.sample(n, torch.Generator().manual_seed(1))


def learned(passes: TrainingPass, batch: Batch) -> list[Tensor]:
    """The logits and the gradient of each trained tensor, with the dropout that seed 3 draws."""
    torch.manual_seed(3)
    model = passes.model
    with passes.of(batch) as logits_of:
        logits = logits_of()
        trained = list(model.trained_tensors().values())
        found = torch.autograd.grad(model.task.loss(logits, batch.targets), trained, allow_unused=True)
    return [logits.detach(), *(gradient for gradient in found if gradient is not None)]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    scale = max(float(tensor.abs().max()) for tensor in wanted[1:])
    tolerances = [1e-5, *[1e-5 * scale] * (len(wanted) - 1)]
    return all(torch.allclose(a, b, atol=t) for a, b, t in zip(found, wanted, tolerances, strict=True))


def n_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fpt_viz.compiled"]


def test_a_compiled_step_is_the_step_dropout_included(traced):
    model = make()
    batch = draw(model)
    wanted = learned(TrainingPass(model, PLAIN), batch)
    passes = TrainingPass(model, CONFIG)
    assert set(passes.compiled.forwards) == {*model.backbone.blocks[:-1], *model.backbone.attentions[:-1]}
    assert n_graphs() > 0
    assert same(learned(passes, batch), wanted)
    assert not any("forward" in vars(module) for module in model.modules())


def test_compiling_draws_nothing_of_the_runs_random_numbers(traced):
    model = make()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    TrainingPass(model, CONFIG)
    assert torch.equal(torch.rand(3), wanted)


def test_graphs_are_warmed_up_recorded_and_replayed_before_they_are_used(monkeypatch):
    begun, made = [], []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    monkeypatch.setattr(compiled, "compiled", lambda forward, graphs: made.append(graphs) or forward)
    model, passes = make(), []
    blocks = compiled.CompiledBlocks(model.backbone, lambda: False, graphs=True)
    blocks.make(lambda: passes.append(1))
    assert (made, len(passes), begun) == ([True], 3, [])
    with blocks.used():
        assert len(begun) == 1
    with compiled.CompiledBlocks(model.backbone, lambda: False, graphs=True).used():
        assert len(begun) == 1  # nothing is compiled there


def test_torch_is_asked_for_graphs(monkeypatch):
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **options: told.append(options["options"]) or forward)
    for graphs in (True, False):
        compiled.compiled(abs, graphs=graphs)
    assert [options["triton.cudagraphs"] for options in told] == [True, False]


def test_other_numbers_of_examples_and_tokens_are_not_compiled_again(traced):
    model = make()
    passes = TrainingPass(model, CONFIG)
    before = n_graphs()
    assert before > 0
    for n_examples, n_tokens in ((8, 6), (5, 5), (7, 4), (16, 6), (3, 5)):
        batch = draw(model, n_examples)
        learned(passes, Batch(batch.inputs[:, -n_tokens:], batch.targets))
    assert n_graphs() == before


def test_what_the_compiler_refuses_is_one_line_and_a_plain_step(monkeypatch, caplog):
    def refuse(*_given: object) -> Any:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(compiled, "compiled", lambda forward, graphs: torch.compile(forward, backend=refuse))
    model = make()
    batch = draw(model)
    wanted = learned(TrainingPass(model, PLAIN), batch)
    with caplog.at_level(logging.WARNING):
        passes = TrainingPass(model, CONFIG)
        assert same(learned(passes, batch), wanted)
        learned(passes, batch)
    [line] = lines(caplog)
    assert line.startswith("train.compile: backend='refuse' raised: RuntimeError: no C++ compiler was found")
    assert line.endswith("; so the steps are computed as without it")
    assert not any("forward" in vars(module) for module in model.modules())


def test_with_a_hook_on_the_model_a_step_is_not_compiled_and_one_line_says_so(traced, caplog):
    model = make()
    passes = TrainingPass(model, CONFIG)
    seen: list[torch.Size] = []
    name = "blocks.0.attn.hook_pattern"
    with caplog.at_level(logging.WARNING), model.hooks([(name, lambda x, point: seen.append(x.shape))]):
        learned(passes, draw(model))
        learned(passes, draw(model))
    assert len(seen) == 2
    assert lines(caplog) == ["train.compile: hooks are on the model; so the steps are computed as without it"]


def test_checkpointed_blocks_are_not_compiled_and_one_line_says_so(traced, caplog):
    model, before = make(), n_graphs()
    with caplog.at_level(logging.WARNING):
        passes = TrainingPass(model, replace(CONFIG, checkpoint_blocks=True))
        found = learned(passes, draw(model))
        assert same(found, learned(TrainingPass(model, replace(PLAIN, checkpoint_blocks=True)), draw(model)))
    assert not passes.compiled.forwards
    assert n_graphs() == before
    assert lines(caplog) == [
        "train.compile: checkpointed blocks are not compiled; so the steps are computed as without it"
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("part", ["block", "attention"])
def test_a_blocks_own_forward_is_called_and_kept_and_one_line_says_so(when, part, traced, caplog):
    model = make()
    module = model.backbone.blocks[0] if part == "block" else model.backbone.attentions[0]
    calls: list[int] = []
    plain = module.forward

    def own(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return plain(*given, **options)

    with caplog.at_level(logging.WARNING):
        passes = TrainingPass(model, CONFIG) if when == "after" else None
        module.forward = own
        learned(passes or TrainingPass(model, CONFIG), draw(model))
    assert calls == [1]
    assert vars(module)["forward"] is own
    [line] = lines(caplog)
    assert line.startswith("train.compile: a block or its attention has a forward of its own")


def test_a_family_without_attention_is_told(caplog):
    model = make("lstm")
    with caplog.at_level(logging.WARNING):
        assert not TrainingPass(model, CONFIG).compiled.forwards
    [line] = lines(caplog)
    assert line.startswith("train.compile: there is no block to compile")


COMPILED = """
import torch
import fpt_viz as fpt
from fpt_viz.training_pass import TrainingPass

model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("gpt2-tiny-random", init="random", n_layers=2),
                                        fpt.load_task("bit_xor", n_bits=3))
batch = model.task.sample(8, torch.Generator().manual_seed(1))
found = []
for compile in (False, True):
    passes = TrainingPass(model, fpt.TrainConfig(batch_size=8, compile=compile))
    assert bool(passes.compiled.forwards) == compile
    torch.manual_seed(3)
    with passes.of(batch) as logits_of:
        loss = model.task.loss(logits_of(), batch.targets)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(model.trained_tensors().values()))])
assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found))
print("same")
"""


def test_the_compiler_of_this_machine_makes_the_same_step_and_keeps_what_it_made(tmp_path):
    """In a process of its own, whose annotations nobody checks: what checks them would be compiled as well."""
    if not os.environ.get("CI") and not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")):
        pytest.skip("no C++ compiler: apt install g++")
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, env=environment)
    assert done.stdout == "same\n", done.stderr
    assert [*tmp_path.rglob("fxgraph")]  # what the next process takes from the disk
