"""Training beside other work: the same steps and weights as a plain loop, whatever else runs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import gc
import itertools
from pathlib import Path
import runpy
import threading
import time
from typing import Any

from notebook_runs import run_cells
import pytest
import torch

from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError
from fpt_viz.loading import build_model
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Step
from fpt_viz.tasks import load_task
from fpt_viz.train import train
from fpt_viz.widgets.live_training import MOST_A_SECOND, LiveTraining

made = runpy.run_path(str(Path(__file__).parents[1] / "viewers" / "conftest.py"))
TRAIN = TrainConfig(n_steps=12, batch_size=8, learning_rate=1e-2, validate_every=5, n_validation=4, seed=3)
CONFIG = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="bert-tiny-random", init="random", n_layers=1),
    train=TRAIN,
)


def apart(call: Callable[[], Any]) -> Any:
    """What ``call`` returns in a thread without an event loop; the browser's tests leave one in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


def looped(call: Callable[[], Any]) -> Any:
    """What the coroutine of ``call`` returns on an event loop, as a notebook's kernel runs one."""
    return apart(lambda: asyncio.run(call()))


def steps(n: int, seconds: float = 0.0) -> Iterator[Step]:
    for step in made["make_steps"](n, 12.0 * n):
        time.sleep(seconds)
        yield step


def weights(model: FrozenPretrainedTransformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights and steps of a plain loop."""
    model = build_model(CONFIG)
    taken = [step.loss for step in train(model, config=TRAIN)]
    return weights(model), taken


def same(model: FrozenPretrainedTransformer, wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


# The weights


def test_weights_are_those_of_a_plain_loop_whatever_ran_between_the_steps(plain):
    model = build_model(CONFIG)
    before = weights(model)

    async def cells() -> LiveTraining:
        live, n = LiveTraining(train(model, config=TRAIN)), 0
        while live.status == "running":
            torch.manual_seed(n)  # all that a cell may do to the state that everybody shares
            torch.rand(n + 1)
            model.eval()
            with torch.no_grad():
                model(model.task.sample(2, torch.Generator().manual_seed(n)).inputs)
            n += 1
            await asyncio.sleep(0)
        assert n >= TRAIN.n_steps
        return live

    live = looped(cells)
    assert live.status == "finished"
    assert [step.loss for step in live.steps] == plain[1]
    assert same(model, plain[0])
    assert not same(model, before)


def test_weights_are_those_of_a_plain_loop_after_a_stop_and_a_run(plain):
    model = build_model(CONFIG)

    async def stopped() -> LiveTraining:
        live = LiveTraining(train(model, config=TRAIN))
        while len(live.steps) < 5:
            await asyncio.sleep(0)
        live.stop()
        return live

    live = looped(stopped)
    assert (live.status, len(live.steps)) == ("stopped", 5)
    apart(live.run)
    assert same(model, plain[0])


# Between the steps


def test_one_step_at_a_time_and_everybody_else_has_a_turn_between():
    async def cells() -> list[int]:
        live, seen = LiveTraining(steps(20)), []
        while live.status == "running":
            seen.append(len(live.steps))
            await asyncio.sleep(0)
        return seen

    seen = looped(cells)
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1
    assert len(seen) >= 20


def test_it_begins_at_once_or_not_at_all():
    async def cells() -> tuple[str, str, int]:
        now, later = LiveTraining(steps(3)), LiveTraining(steps(3), running=False)
        await now.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        return now.status, later.status, len(later.steps)

    assert looped(cells) == ("finished", "waiting", 0)


def test_stop_and_go_on_lose_no_step_and_take_none_twice():
    async def cells() -> LiveTraining:
        live = LiveTraining(steps(30))
        for _ in range(8):
            await asyncio.sleep(0)
        live.stop()
        n = len(live.steps)
        live.go_on()  # before the task has noticed
        live.stop()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (len(live.steps), live.status) == (n, "stopped")
        live.go_on()
        await live.wait()
        return live

    live = looped(cells)
    assert [step.index for step in live.steps] == list(range(30))
    assert live.status == "finished"


def test_going_on_before_the_stop_was_noticed_takes_one_step_at_a_time_as_before():
    async def cells() -> list[int]:
        live, seen = LiveTraining(steps(20)), []
        await asyncio.sleep(0)
        live.stop()
        live.go_on()
        while live.status == "running":
            seen.append(len(live.steps))
            await asyncio.sleep(0)
        return seen

    assert max(after - before for before, after in itertools.pairwise(looped(cells))) == 1


def test_the_page_is_told_a_few_times_a_second_whatever_the_number_of_steps():
    async def cells() -> tuple[int, float, LiveTraining]:
        live = LiveTraining(steps(300, 0.003))
        told: list[Any] = []
        live.observe(told.append, names="progress")
        began = time.perf_counter()
        await live.wait()
        return len(told), time.perf_counter() - began, live

    n_told, seconds, live = looped(cells)
    assert 2 <= n_told <= seconds * MOST_A_SECOND + 2
    assert live.progress["curves"]["batch"]["step"][-1] == 300  # the end is always told


def test_waiting_for_the_end_can_be_given_up_and_training_goes_on():
    async def cells() -> tuple[int, str]:
        live = LiveTraining(steps(2_000, 0.001))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(live.wait(), 0.05)
        n = len(live.steps)
        await asyncio.sleep(0.05)
        live.stop()
        return len(live.steps) - n, live.status

    n_more, status = looped(cells)
    assert n_more > 0
    assert status == "stopped"


def test_a_loop_that_ends_leaves_it_stopped_between_two_steps():
    async def cells() -> LiveTraining:
        live = LiveTraining(steps(100))
        await asyncio.sleep(0)
        return live

    live = looped(cells)
    assert live.status == "stopped"
    apart(live.run)
    assert [step.index for step in live.steps] == list(range(100))


# Plain Python


def test_without_a_loop_it_says_so_and_runs_when_asked():
    live = apart(lambda: LiveTraining(steps(12)))
    assert live.status == "waiting"
    assert ".run() takes the steps" in live.notice
    apart(lambda: live.run(5))
    assert (len(live.steps), live.status, live.notice) == (5, "stopped", "")
    apart(live.run)
    assert (len(live.steps), live.status) == (12, "finished")
    assert not live.choice["running"]


def test_it_does_not_run_here_while_it_trains_on_the_loop():
    async def cells() -> None:
        live = LiveTraining(steps(50))
        with pytest.raises(ConfigError, match="await live.wait"):
            live.run()
        live.close()

    looped(cells)


# What goes wrong


def failing(error: BaseException) -> Iterator[Step]:
    yield from steps(3)
    raise error


@pytest.mark.parametrize("on_a_loop", [True, False], ids=["notebook", "plain"])
def test_an_error_in_a_step_is_shown_and_kept_and_ends_training(on_a_loop):
    error = RuntimeError("the loss is nan at step 3")

    async def cells() -> LiveTraining:
        live = LiveTraining(failing(error))
        await live.wait()
        return live

    if on_a_loop:
        live = looped(cells)
    else:
        live = apart(lambda: LiveTraining(failing(error)))
        apart(live.run)
    assert live.status == "failed"
    assert live.error is error
    assert live.notice == "Training failed after 3 steps: RuntimeError: the loss is nan at step 3"
    assert len(live.steps) == 3
    live.go_on()
    assert live.status == "failed"
    assert live.notice.startswith("Training failed")


def test_an_interrupt_within_a_step_stops_training_and_not_the_loop():
    async def cells() -> LiveTraining:
        live = LiveTraining(failing(KeyboardInterrupt()))
        await live.wait()
        return live

    live = looped(cells)
    assert live.status == "failed"
    assert "Interrupted within a step" in live.notice


def test_an_interrupt_reaches_who_called_run():
    live = apart(lambda: LiveTraining(failing(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        apart(live.run)


def test_an_iterator_that_somebody_else_advances_is_left_to_them_and_taken_up_later():
    entered, go = threading.Event(), threading.Event()

    def slow() -> Iterator[Step]:
        for step in steps(4):
            if step.index == 1:
                entered.set()
                go.wait(30)
            yield step

    iterator = slow()
    live = apart(lambda: LiveTraining(iterator))
    apart(lambda: live.run(1))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(next, iterator)
        entered.wait(30)
        apart(live.run)
        assert live.status == "stopped"
        assert "a step goes to one alone" in live.notice
        assert isinstance(live.error, ValueError)
        go.set()
        assert other.result(30).index == 1
    apart(live.run)
    assert [step.index for step in live.steps] == [0, 2, 3]
    assert (live.status, live.error, live.notice) == ("finished", None, "")


def test_a_cell_that_is_run_again_does_not_train_a_model_twice_at_a_time():
    model = build_model(CONFIG)

    async def cells() -> tuple[LiveTraining, LiveTraining]:
        first = LiveTraining(train(model, config=TRAIN))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = LiveTraining(train(model, config=TRAIN))
        assert first.status == "stopped"
        await second.wait()
        return first, second

    first, second = looped(cells)
    assert len(first.steps) < TRAIN.n_steps == len(second.steps)
    assert "another widget began to train the same model" in first.notice


@pytest.mark.parametrize(
    ("source", "told"),
    [(3, "got int: LiveTraining"), (lambda: 3, "got function"), (["no step"], "gave str")],
    ids=["number", "function", "words"],
)
def test_what_gives_no_steps_is_refused(source, told):
    def whole() -> None:
        live = LiveTraining(source)
        live.run()
        if live.error is not None:
            assert live.status == "failed"
            raise live.error

    with pytest.raises(ConfigError, match=told):
        apart(whole)


def test_a_finished_run_is_told_which_widget_shows_it(tmp_path):
    with pytest.raises(ConfigError, match="TrainingMovie shows it"):
        LiveTraining(made["make_run"](tmp_path / "run"))


def test_no_step_at_all_is_an_end_and_no_error():
    live = apart(lambda: LiveTraining(iter(())))
    apart(live.run)
    assert (live.status, live.steps, live.error) == ("finished", (), None)
    assert live.figure().alt
    apart(live.run)
    assert live.status == "finished"


def test_closing_twice_takes_no_further_step_and_leaves_the_iterator_to_others():
    async def cells() -> tuple[LiveTraining, Iterator[Step], int]:
        iterator = steps(40)
        live = LiveTraining(iterator)
        for _ in range(6):
            await asyncio.sleep(0)
        n = len(live.steps)
        live.close()
        live.close()
        for _ in range(6):
            await asyncio.sleep(0)
        assert live.status == "closed"
        return live, iterator, n

    live, iterator, n = looped(cells)
    assert len(live.steps) == n
    assert next(iterator).index == n


# What it shows


def test_lines_of_chance_come_from_the_task_and_then_from_the_checks():
    task = load_task("bit_memory")
    live = apart(lambda: LiveTraining(steps(12), task))
    assert live.progress["levels"] == [
        [0.5, "chance 50.0 %"], [0.75, "copy shown bits 75.0 %"], [0.8438, "copy and majority 84.4 %"],
    ]  # fmt: skip
    apart(live.run)
    assert live.progress["levels"] == [[0.5, "chance, copy a 50.0 %"], [0.55, "majority 55.0 %"]]
    assert apart(lambda: LiveTraining(steps(1))).progress["levels"] == []


def test_the_axis_is_as_long_as_the_config_says():
    model = build_model(CONFIG)
    live = apart(lambda: LiveTraining(train(model, config=TRAIN)))
    assert live.progress["ranges"]["step"] == [0.0, 12.0]
    assert apart(lambda: LiveTraining(steps(3), n_steps=90)).progress["ranges"]["step"] == [0.0, 90.0]
    grown = apart(lambda: LiveTraining(steps(7)))
    apart(grown.run)
    assert grown.progress["ranges"]["step"] == [0.0, 7.0]
    assert "7 steps of" not in grown.alt


def test_the_figure_and_the_alt_text_hold_what_was_reached(tmp_path):
    live = apart(lambda: LiveTraining(steps(20), title="On bits"))
    live.save(tmp_path / "before.svg")
    apart(live.run)
    check = live.steps[-1].validation
    assert f"Validation accuracy {check.accuracy:.3f} at step 20" in live.figure().alt
    assert "finished, 20 steps" in live.alt
    assert live.figure().title == "On bits"
    page = live.to_html(tmp_path / "live.html")
    assert "finished, 20 steps" in page


def test_a_closed_and_forgotten_one_holds_no_model():
    import weakref

    model = build_model(CONFIG)
    live = apart(lambda: LiveTraining(train(model, config=TRAIN)))
    apart(lambda: live.run(1))
    watched = weakref.ref(model)
    live.close()
    del model, live
    gc.collect()
    assert watched() is None


# In a real kernel


CELLS = (
    """
import torch
import fpt_viz as fpt
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig
from fpt_viz.loading import build_model
from fpt_viz.widgets.live_training import LiveTraining
config = fpt.TrainConfig(n_steps=60, batch_size=8, learning_rate=1e-2, validate_every=5, n_validation=4, seed=3)
whole = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="bert-tiny-random", init="random", n_layers=1),
)
plain = build_model(whole)
for step in fpt.train(plain, config=config): ...
model = build_model(whole)
live = LiveTraining(fpt.train(model, config=config))
live""",
    "torch.manual_seed(9); seen = [len(live.steps)]; model.eval(); assert live.status == 'running', live.status",
    "torch.rand(7); seen.append(len(live.steps)); assert 0 <= seen[0] <= seen[1] < 60, seen",
    "live.stop(); n = len(live.steps)",
    "assert live.status == 'stopped' and len(live.steps) == n < 60; live.go_on()",
    "seen.append(len(live.steps)); await live.wait()",
    "assert live.status == 'finished' and len(live.steps) == 60 and live.steps[-1].loss == step.loss",
    "assert all(torch.equal(ours, plain.state_dict()[name]) for name, ours in model.state_dict().items())",
    "live.close(); live.close(); print(seen)",
)


@pytest.mark.slow
def test_in_a_real_kernel_other_cells_run_meanwhile_and_the_weights_are_those_of_a_plain_loop(tmp_path):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    run_cells(notebook, tmp_path, timeout=120)
    shown = notebook.cells[0].outputs
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown)
    assert any("fpt-still" in output.get("data", {}).get("text/html", "") for output in shown)
    assert "stderr" not in {output.get("name") for cell in notebook.cells for output in cell.outputs}
