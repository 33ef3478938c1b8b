"""Frozen weights that are packed for the processor: the same products, fewer bytes moved, and never stale."""

from __future__ import annotations

import copy
from dataclasses import replace
import gc
import logging
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

import fpt_viz as fpt
from fpt_viz import memory, prepacked
from fpt_viz.config import TrainConfig
from fpt_viz.freeze import PAPER_GROUPS
from fpt_viz.memory import check_fits, estimate
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.prepacked import Prepacked, PrepackedWeights, bytes_to_pack
from fpt_viz.tasks import Batch, load_task
from fpt_viz.training_pass import TrainingPass

BATCH, N_TOKENS, N_READOUT = 8, 6, 3
STILL = TrainConfig(dropout=0.0, batch_size=BATCH)
pytestmark = pytest.mark.skipif(not prepacked.can_pack(), reason="this build of torch has no MKL")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(prepacked, "MIN_SIDE", 16)


def make(family: str = "bert", trained: tuple[str, ...] = PAPER_GROUPS) -> FrozenPretrainedTransformer:
    backbone = fpt.load_backbone(f"{family}-tiny-random", init="random")
    model = FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=N_READOUT), trained).train()
    model.set_dropout(0.0)
    return model


def draw(model: FrozenPretrainedTransformer, n: int = BATCH) -> Batch:
    return model.task.sample(n, torch.Generator().manual_seed(1))


def learned(model: FrozenPretrainedTransformer, config: TrainConfig = STILL, n: int = BATCH) -> list[Tensor]:
    """The logits of a training pass, and the gradient of each trained tensor."""
    batch = draw(model, n)
    with TrainingPass(model, config).of(batch) as logits_of:
        logits = logits_of()
        gradients = torch.autograd.grad(
            model.task.loss(logits, batch.targets), list(model.trained_tensors().values()), allow_unused=True
        )
    return [logits.detach(), *(gradient for gradient in gradients if gradient is not None)]


class Products(TorchDispatchMode):
    """Counts products by the packed weight and by any other matrix, with the operations of the former."""

    def __init__(self) -> None:
        super().__init__()
        self.n_packed = self.n_plain = self.n_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name == "_mkl_linear" and args[0].shape[:-1].numel() == args[4]:
            self.n_packed += 1
            self.n_operations += 2 * args[0].numel() * args[2].shape[0]
        self.n_plain += name in ("mm", "addmm", "linear")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["linear", "linear-without-bias", "conv1d"])
@pytest.mark.parametrize("n_rows", [24, 7], ids=["packed-for", "other-rows"])
def test_a_packed_product_and_its_gradient_are_those_of_the_layer(kind, n_rows):
    torch.manual_seed(0)
    layer = Conv1D(40, 24) if kind == "conv1d" else nn.Linear(24, 40, bias=kind == "linear")
    layer.requires_grad_(requires_grad=False)
    values = torch.randn(n_rows, 24, requires_grad=True)
    wanted = layer(values)
    direction = torch.randn_like(wanted)
    [of_wanted] = torch.autograd.grad(wanted, values, direction)
    weights = PrepackedWeights(nn.Sequential(layer), 24)
    with weights.used():
        found = layer(values)
        [of_found] = torch.autograd.grad(found, values, direction)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(of_found, of_wanted, atol=1e-5)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "vit", "t5"])
def test_a_step_on_packed_weights_is_the_step(family, monkeypatch):
    model = make(family)
    found = learned(model)
    assert TrainingPass(model, STILL).packed.packed
    monkeypatch.setattr(prepacked, "MAX_ROWS", 0)
    wanted = learned(model)
    scale = max(float(tensor.abs().max()) for tensor in wanted[1:])
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(found[1:], wanted[1:], strict=True))


def test_each_frozen_matrix_is_multiplied_packed_once_each_way():
    model = make("bert")
    learned(model)
    with Products() as counted:
        learned(model)
    d, f, n = model.cfg.d_model, model.backbone.network.config.intermediate_size, model.cfg.n_layers
    tokens = BATCH * N_TOKENS
    # Of the last block, the three after attention see the read-out tokens alone, for which nothing is packed.
    on_all_tokens = 6 * n - 3
    assert counted.n_packed == 2 * on_all_tokens
    assert counted.n_operations == 2 * 2 * tokens * (n * 3 * d * d + (n - 1) * (d * d + 2 * d * f))


def test_hooks_of_a_packed_layer_run():
    model = make("bert")
    seen: list[int] = []
    with model.backbone.blocks[0].attention.self.query.register_forward_hook(
        lambda module, given, found: seen.append(found.shape[1])
    ):
        learned(model)
    assert seen == [N_TOKENS]


def test_a_weight_that_somebody_wrote_to_or_replaced_is_packed_again():
    model = make("bert")
    passes = TrainingPass(model, STILL)
    first, second = model.backbone.blocks[0].attention.self.query, model.backbone.blocks[1].attention.self.query
    with torch.no_grad():
        first.weight.mul_(3)
    second.weight = nn.Parameter(torch.ones_like(second.weight), requires_grad=False)
    kept = dict(passes.packed.packed)
    values = torch.randn(BATCH, N_TOKENS, model.cfg.d_model)
    wanted = [first(values), second(values)]
    with passes.of(draw(model)):
        assert all(
            torch.allclose(layer(values), x, atol=1e-5) for layer, x in zip((first, second), wanted, strict=True)
        )
    changed = {layer for layer, weight in passes.packed.packed.items() if kept[layer] is not weight}
    assert changed == {first, second}


def test_a_layer_that_learns_is_not_packed():
    model = make("bert")
    passes = TrainingPass(model, STILL)
    layer = model.backbone.blocks[0].attention.self.query
    assert layer in passes.packed.packed
    layer.bias.requires_grad_()
    with passes.of(draw(model)):
        assert layer not in passes.packed.packed
        assert "forward" not in vars(layer)
    assert not PrepackedWeights(make("bert", ("all",)).backbone, BATCH).packed


@pytest.mark.parametrize("why", ["bfloat16", "many rows", "no MKL"])
def test_nothing_is_packed_where_it_does_not_pay_or_cannot_be(why, monkeypatch):
    config = {"bfloat16": replace(STILL, precision="bfloat16"), "many rows": replace(STILL, batch_size=64)}.get(
        why, STILL
    )
    if why == "no MKL":
        monkeypatch.setattr(prepacked, "can_pack", lambda: False)
    model = make("bert")
    with Products() as counted:
        learned(model, config)
    assert not TrainingPass(model, config).packed.packed
    assert counted.n_packed == 0
    assert counted.n_plain > 0


def test_what_packing_takes_is_known_before():
    model = make("bert")
    layers = [module for module in model.backbone.modules() if isinstance(module, nn.Linear)]
    wanted = 2 * 4 * sum(layer.weight.numel() for layer in layers)
    assert TrainingPass(model, STILL).packed.size_bytes == wanted
    assert bytes_to_pack(model.backbone, BATCH * N_TOKENS) == wanted
    assert bytes_to_pack(model.backbone, prepacked.MAX_ROWS + 1) == 0


def n_packed(model: FrozenPretrainedTransformer, config: TrainConfig) -> int:
    """Products by packed weights in a step of training."""
    steps = fpt.train(model, config=config)
    with Products() as counted:
        next(steps)
    return counted.n_packed


def room_for(model: FrozenPretrainedTransformer, n_examples: int) -> int:
    """The bytes that must be free for a step of so many examples at a time, nothing packed."""
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    return estimate(model, STILL).of(n_examples) - held


def test_weights_are_packed_where_there_is_room_and_the_log_says_where_not(monkeypatch, caplog):
    model = make("bert")
    needed = room_for(model, BATCH) + bytes_to_pack(model.backbone, BATCH * N_TOKENS)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed)
    with caplog.at_level(logging.WARNING, "fpt_viz.memory"):
        assert n_packed(model, STILL)
        assert not caplog.messages
        monkeypatch.setattr(memory, "available_bytes", lambda device: needed - 1)
        assert not n_packed(model, STILL)
    [line] = caplog.messages
    assert line.startswith("frozen weights are not packed, and steps take up to a tenth longer")


def test_packing_refuses_no_run_and_no_advice(monkeypatch):
    model = make("bert")
    monkeypatch.setattr(memory, "available_bytes", lambda device: room_for(model, 16))
    with pytest.raises(
        fpt.errors.ConfigError, match=r"at most 16 fit: set train\.n_parts=4, which computes 16 at a time"
    ):
        check_fits(model, replace(STILL, batch_size=64))
    advised = replace(STILL, batch_size=64, n_parts=4)
    assert bytes_to_pack(model.backbone, 16 * N_TOKENS)
    check_fits(model, advised)
    assert not n_packed(model, advised)


def test_where_somebody_looks_on_no_step_is_taken_to_find_room():
    model = make("bert")
    seen: list[int] = []
    with model.backbone.blocks[0].register_forward_hook(lambda module, given, found: seen.append(len(given[0]))):
        next(fpt.train(model, config=STILL))
    assert seen == [BATCH]


@pytest.mark.parametrize(("batch_size", "n_parts", "pays"), [(8, 2, True), (9, 2, False)], ids=["equal", "unequal"])
def test_unequal_parts_are_not_packed_for(batch_size, n_parts, pays):
    assert bool(n_packed(make("bert"), replace(STILL, batch_size=batch_size, n_parts=n_parts))) == pays


def test_examples_of_different_lengths_are_not_packed_for():
    backbone = fpt.load_backbone("bert-tiny-random", init="random")
    model = FrozenPretrainedTransformer(backbone, load_task("listops", min_tokens=8, max_tokens=24))
    assert not TrainingPass(model, STILL).packed.packed


def test_values_put_in_the_place_of_a_weights_are_packed_again():
    model = make("bert")
    passes = TrainingPass(model, STILL)
    layer = model.backbone.blocks[0].attention.self.query
    layer.weight.data = 3 * layer.weight.data
    values = torch.randn(BATCH, N_TOKENS, model.cfg.d_model)
    wanted = layer(values)
    with passes.of(draw(model)):
        assert torch.allclose(layer(values), wanted, atol=1e-5)


@pytest.mark.slow
def test_a_parameter_that_is_replaced_is_noticed_though_it_lies_where_the_first_did():
    layer = nn.Linear(16, 16, bias=False).requires_grad_(requires_grad=False)
    weights = PrepackedWeights(nn.Sequential(layer), 4)
    values = torch.randn(4, 16)
    for factor in range(20):  # of a parameter that is gone, the next one would often have the address
        layer.weight = None
        layer.weight = nn.Parameter(torch.full((16, 16), float(factor)), requires_grad=False)
        gc.collect()
        with weights.used():
            assert torch.allclose(layer(values), factor * values.sum(1, keepdim=True).expand(4, 16), atol=1e-3)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deep", "pickle"]
)
def test_a_module_copied_during_a_packed_step_is_whole_and_its_own(copied):
    model = make("bert")
    passes, values = TrainingPass(model, STILL), torch.randn(BATCH, N_TOKENS, model.cfg.d_model)
    layer = model.backbone.blocks[0].attention.self.query
    wanted = layer(values)
    with passes.of(draw(model)):
        found = copied(layer)
    assert torch.allclose(found(values), wanted, atol=1e-5)
    with torch.no_grad():
        found.weight.mul_(2)
        found.bias.mul_(2)
    assert torch.allclose(found(values), 2 * wanted, atol=1e-5)
    assert torch.allclose(layer(values), wanted, atol=1e-5)


def test_second_derivatives_are_refused_rather_than_wrong():
    layer = nn.Linear(16, 16).requires_grad_(requires_grad=False)
    weight = Prepacked(layer, 4)
    values = torch.randn(4, 16, requires_grad=True)
    found = prepacked._multiplied(weight, values).square().sum()
    [first] = torch.autograd.grad(found, values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
