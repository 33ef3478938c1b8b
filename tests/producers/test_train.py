"""The loop: a step at a time, one seed for everything, and nothing that a caller does between steps matters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
import math

import pytest
import torch

from fpt_viz.config import TrainConfig
from fpt_viz.errors import ConfigError, TrainingError
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.tasks import Batch, load_task
from fpt_viz.tasks.bit_xor import BitXor
from fpt_viz.train import learning_rate, pick_device, train
from fpt_viz.training_state import TrainingState


@dataclass(frozen=True)
class Echo(BitXor):
    """The last string's own bits are asked for: learnt in a few steps."""

    def _batch(self, rows) -> Batch:
        batch = super()._batch(rows)
        return Batch(batch.inputs, batch.inputs[:, -self.n_readout :, 0].long())


QUICK = {"n_steps": 6, "batch_size": 16, "learning_rate": 1e-2}


def final(model, **options) -> dict[str, torch.Tensor]:
    """The weights after a whole training."""
    for _ in train(model, config=TrainConfig(**(QUICK | options))):
        pass
    return dict(model.named_parameters())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_loss_falls(family, tiny):
    model = tiny(family, Echo(n_bits=3))
    losses = [step.loss for step in train(model, config=TrainConfig(n_steps=40, batch_size=32, learning_rate=1e-2))]
    assert losses[0] == pytest.approx(math.log(2), abs=0.5)  # of a model that knows nothing
    assert sum(losses[-5:]) / 5 < losses[0] / 3


def test_the_first_steps_numbers_are_those_of_its_batch(tiny):
    model = tiny("gpt2")
    batch = model.task.sample(16, torch.Generator().manual_seed(4))
    logits = model(batch.inputs)  # in eval mode, which equals training without dropout
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    gradient = torch.autograd.grad(loss, list(model.trained_tensors().values()))

    step = next(train(model, config=TrainConfig(batch_size=16, dropout=0.0, seed=4)))

    assert step.loss == pytest.approx(loss.item(), rel=1e-5)
    assert step.accuracy == pytest.approx(float((logits.argmax(-1) == batch.targets).float().mean()))
    assert step.grad_norm == pytest.approx(
        float(torch.stack([g.square().sum() for g in gradient]).sum().sqrt()), rel=1e-5
    )
    assert (step.index, step.n_examples, step.validation) == (0, 16, None)
    assert step.elapsed_seconds > 0


def test_the_update_is_adam_on_the_clipped_gradient(tiny):
    """The first step of Adam moves each weight by the rate times g / (|g| + eps); Kingma and Ba, 2015, algorithm 1."""
    model = tiny("gpt2", trained=("output",))
    before = model.output.weight.detach().clone()
    batch = model.task.sample(16, torch.Generator().manual_seed(0))
    model.task.loss(model(batch.inputs), batch.targets).backward()
    gradient = model.output.weight.grad.clone()
    total = torch.cat([gradient.flatten(), model.output.bias.grad]).norm()
    gradient *= 1e-6 / total

    next(train(model, config=TrainConfig(batch_size=16, learning_rate=0.1, max_grad_norm=1e-6, dropout=0.0)))

    moved = before - model.output.weight.detach()
    torch.testing.assert_close(moved, 0.1 * gradient / (gradient.abs() + 1e-8), atol=1e-4, rtol=1e-2)


def test_two_runs_of_one_seed_are_bit_equal_and_another_seed_is_not(family, tiny):
    one, again, other = (final(tiny(family), seed=seed) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def test_what_the_caller_does_between_steps_changes_nothing(family, tiny):
    expected = final(tiny(family))
    model = tiny(family)

    for step in train(model, config=TrainConfig(**QUICK)):
        torch.manual_seed(step.index)
        torch.rand(100)
        model.eval()
        evaluate(model, n_examples=4)
        model.capture(model.task.distinct(4, "test"))
        with torch.no_grad():
            model(model.task.distinct(4, "test").inputs)
        model.output.weight.grad.fill_(7)

    assert same(expected, dict(model.named_parameters()))


def test_training_leaves_the_callers_random_state(tiny):
    steps = train(tiny("bert"), config=TrainConfig(**QUICK))
    before = torch.get_rng_state()
    next(steps)
    assert torch.equal(torch.get_rng_state(), before)


def test_looking_on_changes_nothing(family, tiny):
    assert same(final(tiny(family)), final(tiny(family), validate_every=2, n_validation=8))


def test_dropout_is_on_while_training_and_its_rate_is_an_option(tiny):
    with_rates = [final(tiny("gpt2"), dropout=rate) for rate in (None, 0.0, 0.5)]
    assert not same(with_rates[0], with_rates[1])
    assert not same(with_rates[1], with_rates[2])


def test_a_check_is_made_every_so_many_steps_on_the_validation_split(tiny):
    steps = list(train(tiny("bert"), config=TrainConfig(**QUICK, validate_every=3, n_validation=5)))
    assert [step.index for step in steps if step.validation] == [2, 5]
    assert steps[2].validation.split == "validation"
    assert steps[2].validation.n_examples == 5


def test_training_stops_at_the_second_check_in_a_row_with_everything_right(tiny):
    model = tiny("gpt2", Echo(n_bits=3))
    config = TrainConfig(n_steps=200, batch_size=32, learning_rate=1e-2, validate_every=5, stop_when_solved=True)
    state = TrainingState(model, config)

    steps = list(train(model, config=config, state=state))

    checks = [(step.index + 1, step.validation.exact == 1) for step in steps if step.validation]
    assert [right for _, right in checks[-2:]] == [True, True]
    assert not any(one and other for (_, one), (_, other) in pairwise(checks[:-1]))
    assert state.steps_to_solve == checks[-2][0] == len(steps) - 5
    assert len(steps) < 200


def test_one_right_check_between_wrong_ones_does_not_solve_a_task(tiny):
    config = TrainConfig(validate_every=1, stop_when_solved=True)
    state = TrainingState(tiny("bert"), config)
    told = []
    for n_steps, solved in enumerate([True, False, True, False, True, True, False], 1):
        state.n_steps = n_steps
        state.note_check(solved=solved)
        told.append(state.done(config))
    assert told == [False] * 5 + [True, True]
    assert state.steps_to_solve == 5


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_the_learning_rate_rises_and_falls_as_its_closed_form_says(tiny, schedule, expected):
    config = TrainConfig(n_steps=6, n_warmup_steps=2, schedule=schedule, learning_rate=0.01, batch_size=2)
    assert [learning_rate(config, step) for step in range(6)] == pytest.approx([0.01 * factor for factor in expected])
    taken = list(train(tiny("bert"), config=config))
    assert [step.learning_rate for step in taken] == [learning_rate(config, step) for step in range(6)]


def test_the_rate_that_a_step_tells_is_the_one_that_adam_uses(tiny):
    """Adam's first move of a weight is as long as the rate, where the gradient is far above its epsilon."""
    model = tiny("gpt2", trained=("output",))
    before = model.output.weight.detach().clone()
    step = next(train(model, config=TrainConfig(batch_size=16, learning_rate=0.1, n_warmup_steps=10)))
    moved = (model.output.weight.detach() - before).abs().max()
    assert float(moved) == pytest.approx(step.learning_rate, rel=1e-3)
    assert step.learning_rate == pytest.approx(0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_training_and_leaves_the_weights(tiny, bad):
    model = tiny("gpt2")
    steps = train(model, config=TrainConfig(**QUICK))
    list(islice(steps, 2))
    with torch.no_grad():
        model.output.bias[0] = bad
    before = {name: value.detach().clone() for name, value in model.named_parameters()}

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 2.*lower train\.learning_rate"):
        next(steps)

    after = dict(model.named_parameters())
    assert all(torch.equal(before[name], after[name]) or name == "output.bias" for name in before)


def test_the_model_counts_its_steps(tiny):
    model = tiny("bert")
    final(model)
    assert model.step == model.source["step"] == 6


def test_a_task_may_be_given_that_is_not_the_models_own(tiny):
    model = tiny("bert")
    other = load_task("bit_xor", n_bits=3, split_seed=9)
    one, mine = (next(train(tiny("bert"), task, TrainConfig(batch_size=16))) for task in (other, model.task))
    assert one.loss != mine.loss


def test_the_cpu_is_there_and_what_is_not_there_is_an_error():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"no device 'tpu' on this machine; there are: cpu"):
        pick_device("tpu")
