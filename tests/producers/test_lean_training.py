"""What a training step computes, keeps and reads: counted exactly, never timed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import fpt_viz as fpt
from fpt_viz import training_pass
from fpt_viz.backbones import base
from fpt_viz.config import LATER, RunConfig, TaskConfig, TrainConfig
from fpt_viz.dropout import Dropout, draw_kept, dropout
from fpt_viz.errors import ConfigError, TrainingError
from fpt_viz.freeze import PAPER_GROUPS
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.plain_attention import plain_attention
from fpt_viz.run_folder import RunFolder
from fpt_viz.tasks import Batch, Task, load_task
from fpt_viz.training_pass import TrainingPass, pick_precision
from fpt_viz.training_state import TrainingState
from fpt_viz.updates import Updates

ROOT = Path(__file__).parents[2]
FAMILIES = ("bert", "gpt2", "llama", "vit", "t5", "longformer")
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)
BATCH, N_BITS = 8, 3
N_TOKENS, N_READOUT = 2 * N_BITS, N_BITS
STILL = TrainConfig(dropout=0.0, batch_size=BATCH)


def make(family: str = "bert", task: str = "bit_xor", **options: Any) -> FrozenPretrainedTransformer:
    options = options or ({"n_bits": N_BITS} if task == "bit_xor" else {})
    return joined(family, load_task(task, **options))


def joined(family: str, task: Task, trained: Collection[str] = PAPER_GROUPS) -> FrozenPretrainedTransformer:
    backbone = fpt.load_backbone(f"{family}-tiny-random", init="random")
    model = FrozenPretrainedTransformer(backbone, task, trained).train()
    model.set_dropout(0.0)
    return model


def draw(model: FrozenPretrainedTransformer, n: int = BATCH) -> Batch:
    return model.task.sample(n, torch.Generator().manual_seed(1))


def gradients(model: FrozenPretrainedTransformer, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    model.task.loss(logits, batch.targets).backward()
    return {name: tensor.grad.clone() for name, tensor in model.trained_tensors().items() if tensor.grad is not None}


def same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> bool:
    scale = max(float(tensor.abs().max()) for tensor in b.values())
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=tolerance * scale) for name in b)


def step_of(model: FrozenPretrainedTransformer, config: TrainConfig = STILL) -> Callable[[], dict[str, Tensor]]:
    """One gradient step, with its pass and optimizer made beforehand."""
    state = TrainingState(model, config)
    passes, updates = TrainingPass(model, config), Updates(model.task, state, config, waits=False)
    batch = draw(model, config.batch_size)
    return lambda: updates.take([batch], passes.of, 1e-3)


# What is left out changes nothing


@EACH_FAMILY
def test_the_loss_and_its_gradients_are_those_of_the_whole_model(family):
    model = make(family)
    batch = draw(model)
    whole = model(batch.inputs)
    wanted = gradients(model, whole, batch)
    with TrainingPass(model, STILL).of(batch) as logits_of:
        lean = logits_of()
        found = gradients(model, lean, batch)
    assert torch.allclose(lean, whole, atol=1e-5)
    assert same(found, wanted)


@EACH_FAMILY
def test_they_are_with_padding_too(family):
    model = make(family, "listops", min_tokens=8, max_tokens=24)
    batch = draw(model)
    assert batch.mask is not None
    assert not batch.mask.all()
    whole = model(batch.inputs, batch.mask)
    wanted = gradients(model, whole, batch)
    with TrainingPass(model, STILL).of(batch) as logits_of:
        lean = logits_of()
        assert torch.allclose(lean, whole, atol=1e-5)
        assert same(gradients(model, lean, batch), wanted)


def test_a_hook_around_the_blocks_sees_every_token_in_training():
    model = make("bert")
    seen: list[int] = []
    around = model.backbone.network.get_submodule("encoder")
    with around.register_forward_hook(lambda module, given, found: seen.append(found.last_hidden_state.shape[1])):
        step_of(model)()
    last = model.backbone.blocks[-1]
    with last.register_full_backward_hook(lambda module, given, found: seen.append(found[0].shape[1])):
        step_of(model)()
    assert seen == [N_TOKENS, N_TOKENS]


def test_a_model_with_a_forward_or_a_hook_of_its_own_is_called_whole():
    class Counted(FrozenPretrainedTransformer):
        n_calls = 0

        def forward(self, *given: Any, **options: Any) -> Tensor:
            self.n_calls += 1
            return super().forward(*given, **options)

    own = Counted(fpt.load_backbone("bert-tiny-random", init="random"), load_task("bit_xor", n_bits=N_BITS))
    step_of(own)()
    assert own.n_calls == 1
    model, seen = make("bert"), []
    with model.register_forward_hook(lambda module, given, found: seen.append(found.shape[1])):
        step_of(model)()
    assert seen == [N_READOUT]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_hook_on_the_last_block_sees_every_token_in_training(family):
    model = make(family)
    seen: list[int] = []
    name = f"blocks.{model.cfg.n_layers - 1}.hook_mlp_out"
    with model.hooks([(name, lambda x, point: seen.append(x.shape[1]))]):
        step_of(model)()
    assert seen == [N_TOKENS]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_nothing_of_the_pass_stays_on_the_model(family):
    model = make(family)
    before = model.backbone.network.config._attn_implementation
    step_of(model)()
    assert model.leaked_hooks() == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.backbone.network.config._attn_implementation == before
    assert model(draw(model).inputs).shape[1] == N_READOUT


# Operations, bytes and reads


def products_of(model: FrozenPretrainedTransformer) -> int:
    """Floating-point operations of the matrix products of one step, by hand: two for each multiplication and addition.

    Forwards: each matrix on every token, the last feed-forward on the read-out tokens alone, scores and their products
    with values. Backwards: the gradient of the input of each, once; of weights, those of the two new layers alone.
    """
    d, n, f = model.cfg.d_model, model.cfg.n_layers, model.backbone.network.config.intermediate_size
    tokens, readout = BATCH * N_TOKENS, BATCH * N_READOUT
    attention = 2 * tokens * 4 * d * d + 2 * 2 * BATCH * N_TOKENS**2 * d
    narrow_output = 2 * d * d * (tokens - readout)  # the last block's output projection, too, in a post-LN family
    feed_forward = 2 * 2 * d * f
    forwards = n * attention - narrow_output + feed_forward * (tokens * (n - 1) + readout)
    # scores and values have two inputs each, both with a gradient
    backwards = forwards + n * 2 * 2 * BATCH * N_TOKENS**2 * d
    n_values, n_outputs = model.task.n_values, model.output.out_features
    new = 2 * (2 * tokens * n_values * d) + 3 * (2 * readout * d * n_outputs)  # the inputs themselves need no gradient
    return forwards + backwards + new


def test_a_step_multiplies_what_the_loss_needs_and_nothing_else():
    model = make("bert")
    step = step_of(model)
    with FlopCounterMode(display=False) as counted:
        step()
    assert counted.get_total_flops() == products_of(model)


class Seen(TorchDispatchMode):
    """Counts reads back to the host, and keeps the size of each new tensor."""

    READS = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.nonzero.default")

    def __init__(self) -> None:
        super().__init__()
        self.n_reads, self.sizes = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_reads += str(func) in self.READS
        found = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_leaves(found):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in given:  # no view, nothing in place
                self.sizes.append(made.untyped_storage().nbytes())
        return found


def test_a_step_reads_nothing_back_to_the_host():
    step = step_of(make("bert"))
    step()
    with Seen() as seen:
        measured = step()
    assert seen.n_reads == 0
    with Seen() as seen:
        float(measured["loss"])
    assert seen.n_reads == 1  # the count is able to count


def test_of_a_padded_batch_only_its_lengths_are_read_where_it_was_made():
    step = step_of(make("bert", "listops", min_tokens=8, max_tokens=24))
    step()
    with Seen() as seen:
        step()
    assert seen.n_reads == 1  # on the host, which is the device here


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_family_reads_nothing_either_unless_its_sequences_are_long(family, monkeypatch):
    """Then transformers asks whether positions are packed (``find_packed_sequence_indices``)."""
    step = step_of(make(family))
    step()
    with Seen() as seen:
        step()
    assert seen.n_reads == 0
    monkeypatch.setattr(base, "PAIR_TOKENS", N_TOKENS - 1)
    with Seen() as seen:
        step()
    assert seen.n_reads == 1


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_mask_of_numbers_means_what_a_mask_of_truths_means(family):
    """Others give masks of 0 and 1."""
    model = make(family, "listops", min_tokens=8, max_tokens=24)
    vectors, mask = model.embedded(draw(model).inputs), draw(model).mask
    assert mask is not None
    wanted = model.backbone(vectors, mask)
    found = model.backbone(vectors, model.backbone.seen.__wrapped__(model.backbone, vectors, mask.long()))
    torch.testing.assert_close(found, wanted)


def saved_bytes(model: FrozenPretrainedTransformer, config: TrainConfig = STILL) -> int:
    """Bytes kept for the backward pass of one batch, other than parameters; each storage once."""
    kept: dict[int, int] = {}
    passes = TrainingPass(model, config)
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = draw(model)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), passes.of(batch) as logits_of:
        loss = model.task.loss(logits_of(), batch.targets)
        return sum(kept.values()) if loss.requires_grad else 0


def test_no_input_of_a_frozen_matrix_is_kept_for_the_backward_pass():
    frozen = make("bert")
    tuned = joined("bert", frozen.task, ("all",))
    f, d, n = tuned.backbone.network.config.intermediate_size, tuned.cfg.d_model, tuned.cfg.n_layers
    tokens, readout = BATCH * N_TOKENS, BATCH * N_READOUT
    # The feed-forward's inner values after GELU, z, and the states that queries, keys and values are made of are kept
    # for the gradients of the matrices that read them alone; layer norms keep the states anyway, but for the first.
    inner = 4 * f * (tokens * (n - 1) + readout)
    z = 4 * d * (tokens * (n - 1) + readout)
    assert saved_bytes(tuned) - saved_bytes(frozen) >= inner + z


def test_in_the_last_block_only_the_tokens_that_are_read_are_kept(monkeypatch):
    model = make("bert")
    kept = saved_bytes(model)
    monkeypatch.setattr(training_pass, "_looked_at", lambda model: True)
    d, f, left_out = model.cfg.d_model, model.backbone.network.config.intermediate_size, BATCH * (N_TOKENS - N_READOUT)
    # The inputs of two layer norms, what GELU takes, and two numbers of either norm for each token; for the places of
    # those that are read, which both inputs are cut to.
    places = 8 * (2 * BATCH + N_READOUT)
    assert saved_bytes(model) - kept == 4 * left_out * (2 * d + f + 2 * 2) - places


def test_checkpointed_blocks_keep_far_less_and_learn_the_same():
    model = make("bert")
    again = replace(STILL, checkpoint_blocks=True)
    batch = draw(model)
    found = []
    for config in (STILL, again):
        with TrainingPass(model, config).of(batch) as logits_of:
            found.append(gradients(model, logits_of(), batch))
    assert same(found[1], found[0])
    kept, kept_again = saved_bytes(model), saved_bytes(model, again)
    assert kept_again < kept / 2
    assert saved_bytes(model) == kept  # switched off again


def test_a_family_that_cannot_compute_a_block_again_says_so():
    model = joined("lstm", load_task("bit_xor", n_bits=3))
    with pytest.raises(ConfigError, match="lstm-tiny-random cannot compute its blocks again"):
        TrainingPass(model, replace(STILL, checkpoint_blocks=True))


def test_frozen_tensors_have_no_gradient_and_no_optimizer_state():
    model = make("bert")
    state = TrainingState(model, STILL)
    updates, passes = Updates(model.task, state, STILL), TrainingPass(model, STILL)
    updates.take([draw(model)], passes.of, 1e-3)
    assert [name for name, p in model.named_parameters() if p.grad is not None] == list(model.trained_tensors())
    assert len(state.optimizer.state) == len(model.trained_tensors())


def test_the_largest_tensors_of_a_step_are_the_inner_values_of_the_feed_forward():
    model = make("bert")
    step = step_of(model)
    step()
    with Seen() as seen:
        step()
    inner = 4 * BATCH * N_TOKENS * model.backbone.network.config.intermediate_size
    assert max(seen.sizes) == inner
    # Forwards the product and its GELU, backwards the gradient of each; the last block's are smaller.
    assert seen.sizes.count(inner) == 4 * (model.cfg.n_layers - 1)


def test_parts_of_a_batch_make_the_step_of_the_whole():
    found = []
    for n_parts in (1, 3):
        model = make("bert")
        [*_] = fpt.train(model, config=replace(STILL, n_steps=3, n_parts=n_parts))
        found.append({name: tensor.detach() for name, tensor in model.trained_tensors().items()})
    assert same(found[1], found[0], 1e-4)
    with pytest.raises(ConfigError, match=r"train.n_parts is 9, and a batch has 8 examples"):
        TrainConfig(batch_size=8, n_parts=9)


@pytest.mark.parametrize("waits", [True, False])
def test_every_trained_tensor_tells_that_it_was_written_to(waits):
    """Widgets ask by it whether a model is still the one that they show."""
    model = make("bert")
    state = TrainingState(model, STILL)
    before = {name: tensor._version for name, tensor in model.trained_tensors().items()}
    version = model.version()
    Updates(model.task, state, STILL, waits=waits).take([draw(model)], TrainingPass(model, STILL).of, 1e-3)
    assert model.version() != version
    assert all(tensor._version > before[name] for name, tensor in model.trained_tensors().items())


# Where looking would make the host wait


@pytest.mark.parametrize("bad_step", [0, 2])
def test_the_first_step_that_is_not_finite_and_all_after_it_change_nothing(bad_step):
    model = make("bert")
    config = replace(STILL, n_steps=100)
    state = TrainingState(model, config)
    passes, updates = TrainingPass(model, config), Updates(model.task, state, config, waits=False)
    kept: list[dict[str, Tensor]] = []
    for index in range(4):
        batch = draw(model)
        if index == bad_step:
            batch = Batch(batch.inputs * torch.nan, batch.targets)
        kept.append({name: tensor.detach().clone() for name, tensor in model.trained_tensors().items()})
        updates.take([batch], passes.of, 1e-3)
        state.n_steps += 1
    assert all(torch.equal(kept[bad_step][name], tensor) for name, tensor in model.trained_tensors().items())
    with pytest.raises(TrainingError, match=f"is nan at step {bad_step}, and the weights are left as before it"):
        updates.look()


def test_nothing_is_saved_of_a_training_that_went_wrong_unseen():
    model = make("bert")
    state = TrainingState(model, STILL)
    passes, updates = TrainingPass(model, STILL), Updates(model.task, state, STILL, waits=False)
    updates.take([draw(model)], passes.of, 1e-3)
    state.n_steps = 1
    assert state.tensors()
    batch = draw(model)
    updates.take([Batch(batch.inputs * torch.nan, batch.targets)], passes.of, 1e-3)
    with pytest.raises(TrainingError, match="is nan at step 1"):
        state.tensors()


def test_training_looks_before_it_saves_checks_or_ends():
    model = make("bert")
    config = replace(STILL, n_steps=7, checkpoint_every=3, validate_every=5)
    state = TrainingState(model, config)
    updates = Updates(model.task, state, config, waits=False)
    looks = []
    for n_steps in range(1, 8):
        state.n_steps = n_steps
        looks += [n_steps] if updates.due() else []
    assert looks == [3, 5, 6, 7]


# Precision


def test_frozen_matrices_alone_are_held_in_low_precision_too():
    model = make("bert")
    passes = TrainingPass(model, replace(STILL, precision="bfloat16"))
    layers = {name for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)}
    assert set(passes.low) == {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    assert not any(model.backbone.get_parameter(name).requires_grad for name in passes.low)
    assert {tensor.dtype for tensor in passes.low.values()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert passes.size_bytes == 2 * sum(tensor.numel() for tensor in passes.low.values())


@EACH_FAMILY
@pytest.mark.parametrize("trained", [PAPER_GROUPS, ("all",)], ids=["frozen", "whole"])
def test_bfloat16_computes_nearly_the_same_and_its_gradients(family, trained):
    model = joined(family, load_task("bit_xor", n_bits=N_BITS), trained)
    batch = draw(model)
    found = []
    for precision in ("float32", "bfloat16"):
        with TrainingPass(model, replace(STILL, precision=precision)).of(batch) as logits_of:
            logits = logits_of()
            found.append((logits.detach(), gradients(model, logits, batch)))
    (exact, of_exact), (low, of_low) = found
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    assert torch.allclose(low, exact, atol=0.05 * float(exact.abs().max()))
    assert same(of_low, of_exact, 0.1)


def test_frozen_matrices_that_somebody_wrote_to_are_copied_again():
    model = make("bert")
    passes = TrainingPass(model, replace(STILL, precision="bfloat16"))
    name = next(iter(passes.low))
    with torch.no_grad():
        model.backbone.get_parameter(name).mul_(3)
    with passes.of(draw(model)):
        assert torch.equal(passes.low[name], model.backbone.get_parameter(name).bfloat16())


def test_a_run_in_bfloat16_is_recorded_repeatable_and_measured_in_float32(tmp_path):
    train = replace(STILL, n_steps=6, checkpoint_every=3, precision="bfloat16", dropout=0.1)
    config = RunConfig(task=TaskConfig(name="bit_xor", options={"n_bits": 3}), train=train)
    config = replace(config, backbone=replace(config.backbone, name="bert-tiny-random", init="random"))
    record = fpt.run(config, tmp_path / "run", progress=False)
    assert record.config["train"]["precision"] == "bfloat16"
    half = replace(config, train=replace(train, n_steps=3))
    first = fpt.run(half, tmp_path / "half", progress=False)
    assert [step.loss for step in first.steps] == [step.loss for step in record.steps][:3]
    model = fpt.load_model(record)
    assert fpt.evaluate(model, split="test", n_examples=1024, seed=0).loss == record.evaluation.loss
    assert model.verify(record.ledger) == []


def test_auto_is_what_the_device_is_faster_in(monkeypatch):
    cpu = torch.device("cpu")
    for has_amx, wanted in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_amx=has_amx: has_amx)
        assert pick_precision("auto", cpu) == wanted
        assert pick_precision("bfloat16", cpu) == "bfloat16"
        assert pick_precision("float32", cpu) == "float32"


def test_a_precision_that_the_device_lacks_falls_back_with_one_line(monkeypatch, caplog):
    monkeypatch.setattr(training_pass, "_computes_bfloat16", lambda device: False)
    with caplog.at_level(logging.WARNING):
        assert pick_precision("bfloat16", torch.device("cuda")) == "float32"
    [line] = caplog.messages
    assert line == "train.precision=bfloat16: cuda does not compute in it, so this run is in float32"


def test_auto_is_recorded_as_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    train = replace(STILL, n_steps=1, precision="auto")
    config = RunConfig(task=TaskConfig(name="bit_xor", options={"n_bits": 3}), train=train)
    config = replace(config, backbone=replace(config.backbone, name="bert-tiny-random", init="random"))
    assert fpt.run(config, tmp_path / "run", progress=False).config["train"]["precision"] == "bfloat16"


@pytest.mark.parametrize("path", sorted((ROOT / "data/results/runs").glob("bit_xor-*"))[:3], ids=lambda path: path.name)
def test_runs_from_before_these_options_keep_their_ids(path):
    record = fpt.load_run(path)
    config = RunConfig.from_dict(record.config)
    assert RunFolder(path, config).run_id == record.result["run_id"]
    assert not set(LATER) & set(config.to_dict()["train"])


# Attention


def test_second_derivatives_of_plain_attention_are_refused_rather_than_wrong():
    query = torch.randn(1, 1, 3, 4, requires_grad=True)
    found = plain_attention(query, query, query, None, scaling=0.5, rate=0.0)
    [first] = torch.autograd.grad(found.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("masked", ["none", "bool", "added"])
def test_plain_attention_and_its_gradients_are_those_of_autograd(rate, masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 5, dtype=torch.float64, requires_grad=True) for n in (4, 6, 6))
    visible = torch.rand(2, 1, 4, 6) < 0.7
    visible[..., 0] = True
    mask = {"none": None, "bool": visible, "added": torch.randn(2, 1, 4, 6, dtype=torch.float64)}[masked]

    state = torch.get_rng_state()
    keep, factor = draw_kept(torch.Size((2, 3, 4, 6)), rate) if rate else (torch.ones(()), 1.0)
    torch.set_rng_state(state)
    found = plain_attention(query, key, value, mask, scaling=0.3, rate=rate)

    scores = query @ key.transpose(2, 3) * 0.3
    scores = scores + mask if masked == "added" else scores
    scores = scores.masked_fill(~visible, float("-inf")) if masked == "bool" else scores
    wanted = (scores.softmax(-1) * keep * factor) @ value
    assert torch.allclose(found, wanted, atol=1e-6)
    direction = torch.randn_like(wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found, (query, key, value), direction),
        torch.autograd.grad(wanted, (query, key, value), direction),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


# Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_share_of_values_is_dropped_and_the_rest_scaled(rate):
    values = torch.ones(400, 501, requires_grad=True)
    torch.manual_seed(0)
    found = dropout(values, rate, training=True)
    share = float((found.detach() == 0).float().mean())
    assert share == pytest.approx(rate, abs=5 * (rate * (1 - rate) / values.numel()) ** 0.5)
    assert float(found.detach().max()) == pytest.approx(1 / (1 - rate), rel=1e-4)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found.detach())  # the gradient passes where the value did, scaled alike


def test_values_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(1)
    kept = (dropout(torch.ones(200_000), 0.5, training=True) > 0).double()
    for lag in (1, 2, 3, 4, 5, 8):  # four share one random word
        assert abs(float(torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1])) < 0.01


def test_dropout_keeps_one_byte_a_value_and_draws_from_the_seed():
    sizes = []
    values = torch.ones(1000, requires_grad=True)

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.manual_seed(3)
        first = dropout(values, 0.1, training=True)
    torch.manual_seed(3)
    assert sizes == [1000]
    assert torch.equal(dropout(values, 0.1, training=True), first)
    assert dropout(values, 0.1, training=False) is values
    assert dropout(values, 0.0, training=True) is values


@EACH_FAMILY
def test_every_dropout_of_a_network_is_ours(family):
    network = fpt.load_backbone(f"{family}-tiny-random", init="random").network
    assert not [name for name, module in network.named_modules() if type(module) is nn.Dropout]
    assert family == "llama" or any(isinstance(module, Dropout) for module in network.modules())
