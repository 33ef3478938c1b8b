"""What is captured while a model trains changes nothing of the training, and survives whatever cuts the run off."""

from __future__ import annotations

from dataclasses import replace
import os
from pathlib import Path
import runpy
import shutil
import signal

import pytest
import torch

from fpt_viz.capture import capture_attention
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import ConfigError, RecordError, RunFolderError
from fpt_viz.loading import build_model, load_model
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.records import RunRecord, Telemetry, TelemetryFrame, load_run, store
from fpt_viz.records.telemetry import frame_path, frames_of
from fpt_viz.run_folder import RunFolder
from fpt_viz.telemetry import Probe
from fpt_viz.train import run

pytestmark = pytest.mark.slow  # a minute or so in all

forked = runpy.run_path(str(Path(__file__).with_name("interrupted_runs.py")))["forked"]
EVERY = 3
CONFIG = RunConfig(
    task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
    backbone=BackboneConfig(name="bert-tiny-random", init="random", n_layers=2),
    train=TrainConfig(
        n_steps=10, batch_size=8, learning_rate=1e-2, checkpoint_every=4, seed=5, telemetry_every=EVERY, n_telemetry=4
    ),
)
OFF = replace(CONFIG, train=replace(CONFIG.train, telemetry_every=0))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> RunRecord:
    return run(CONFIG, tmp_path_factory.mktemp("recorded") / "run")


def adapter(record: RunRecord) -> dict[str, torch.Tensor]:
    return store.read_tensors(record.path / "adapter.safetensors", "adapter")[0]


def same(first: Telemetry, second: Telemetry) -> bool:
    """Whether two runs showed the same, bit for bit."""
    names = ("patterns", "routing_score", "gain_change", "gain_rms", "queries")
    return first.steps == second.steps and all(torch.equal(getattr(first, n), getattr(second, n)) for n in names)


# It changes nothing


@pytest.mark.parametrize("dropout", [None, 0.0, 0.3])
def test_a_run_ends_with_the_same_weights_bit_for_bit_with_telemetry_or_without(tmp_path, dropout):
    records = []
    for name, config in (("on", CONFIG), ("off", OFF)):
        train = replace(config.train, dropout=dropout, telemetry_every=1 if name == "on" else 0)
        records.append(run(replace(config, train=train), tmp_path / name))
    on, off = map(adapter, records)
    assert on.keys() == off.keys()
    assert all(torch.equal(on[name], off[name]) for name in on)
    assert [step.loss for step in records[0].steps] == [step.loss for step in records[1].steps]
    assert records[1].telemetry() is None
    assert not (records[1].path / "telemetry").exists()


def test_a_capture_leaves_mode_weights_and_random_states_as_they_were():
    model = build_model(CONFIG).train()
    model.backbone.eval()  # modes may differ within a model
    probe = Probe(model, every=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state, kernel = torch.get_rng_state(), model.backbone.network.config._attn_implementation
    probe.frame()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert model.backbone.network.config._attn_implementation == kernel
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.leaked_hooks() == []


# What it holds


def test_every_capture_is_there_from_step_0(recorded):
    telemetry = recorded.telemetry()
    assert telemetry.steps == (0, 3, 6, 9)
    n_heads = 2 * load_model(recorded).backbone.n_heads
    assert telemetry.patterns.shape == (4, n_heads, 4, 2, 4)
    assert telemetry.patterns.dtype == torch.float16
    assert telemetry.source["run"] == recorded.result["run_id"]
    assert len(telemetry.to_pandas()) == 4 * n_heads


def test_a_capture_shows_what_the_model_shows_when_asked_at_that_step(tmp_path):
    record = run(replace(CONFIG, train=replace(CONFIG.train, n_steps=9)), tmp_path / "run")
    telemetry = record.telemetry()
    batch = build_model(CONFIG).task.distinct(4, "validation", CONFIG.train.seed)
    for index, model in ((0, build_model(CONFIG).eval()), (-1, load_model(record))):
        maps = capture_attention(model, batch)
        patterns = maps.weights.transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(telemetry.patterns[index].float(), patterns, atol=1e-3, rtol=0)
        statistics = head_statistics(model, n_examples=4, seed=CONFIG.train.seed)
        torch.testing.assert_close(telemetry.routing_score[index], statistics.routing_score, atol=1e-6, rtol=0)
        gains = dict(model.named_parameters())
        for i, name in enumerate(telemetry.norms):
            assert float(telemetry.gain_rms[index, i]) == pytest.approx(
                float(gains[name].detach().square().mean().sqrt())
            )
    assert float(telemetry.gain_change[0].abs().max()) == 0
    start = store.read_tensors(record.path / "adapter_initial.safetensors", "adapter")[0]
    end = adapter(record)
    wanted = [float((end[name] - start[name]).abs().mean()) for name in telemetry.norms]
    assert telemetry.gain_change[-1].tolist() == pytest.approx(wanted)
    assert min(wanted) > 0


def test_chosen_heads_alone_are_kept_and_every_head_is_scored(tmp_path, recorded):
    train = replace(CONFIG.train, telemetry_heads=("L1H0", "L0H1"))
    some, whole = run(replace(CONFIG, train=train), tmp_path / "run").telemetry(), recorded.telemetry()
    assert some.heads == ((1, 0), (0, 1))
    places = [whole.heads.index(head) for head in some.heads]
    assert torch.equal(some.patterns, whole.patterns[:, places])
    assert torch.equal(some.routing_score, whole.routing_score)


def test_padded_examples_are_probed_in_pieces_as_in_one(tiny, symbols):
    model = tiny("gpt2", symbols)
    whole, pieces = (Probe(model, every=1, n_examples=7, batch_size=size).frame() for size in (7, 3))
    torch.testing.assert_close(pieces.routing_score, whole.routing_score, atol=1e-6, rtol=0)
    torch.testing.assert_close(pieces.patterns, whole.patterns, atol=1e-3, rtol=0)
    statistics = head_statistics(model, n_examples=7)
    torch.testing.assert_close(whole.routing_score, statistics.routing_score, atol=1e-6, rtol=0)


def test_queries_that_are_not_read_out_are_scored_too(tiny, symbols, monkeypatch):
    def every_second(self, inputs):
        """Each real token from the third on needs the one two before it."""
        later = torch.eye(inputs.shape[1], dtype=torch.bool).roll(2, 0)
        later[:2] = False
        return later & (inputs > 0)[:, :, None]

    monkeypatch.setattr(type(symbols), "needs", every_second)
    model = tiny("bert", symbols)
    frame = Probe(model, every=1, n_examples=7).frame()
    statistics = head_statistics(model, n_examples=7)
    torch.testing.assert_close(frame.routing_score, statistics.routing_score, atol=1e-6, rtol=0)
    assert frame.patterns.shape[2] == 2


def test_every_norm_of_every_family_is_followed(tiny, family):
    model = tiny(family)
    frame = Probe(model, every=1, n_examples=2).frame()
    assert len(frame.norms) >= 2 * model.backbone.n_layers
    assert all(dict(model.named_parameters())[name].ndim == 1 for name in frame.norms)


def test_a_task_without_needs_has_patterns_and_no_scores(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(type(model.task), "needs", lambda *_: None)
    frame = Probe(model, every=1, n_examples=2).frame()
    assert frame.routing_score is None
    with pytest.raises(RecordError, match="holds no routing scores"):
        Telemetry.of([frame]).to_pandas()


# Cut off and resumed


def kill_at_step(index: int) -> None:
    add = RunFolder.add_frame

    def adding(self, frame):
        add(self, frame)
        if frame.step == index:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.add_frame = adding


def kill_in_the_middle_of(number: int) -> None:
    """In the middle of the ``number``-th capture's write."""
    write, seen = Path.write_bytes, []

    def writing(self, content):
        if self.name.startswith(".step_"):
            seen.append(self)
            if len(seen) == number:
                write(self, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        return write(self, content)

    Path.write_bytes = writing


@pytest.mark.parametrize(
    ("cut_off", "there"),
    [
        (lambda: kill_at_step(0), {0}),
        (lambda: kill_at_step(3), {0, 3}),
        (lambda: kill_at_step(6), {0, 3, 6}),
        (lambda: kill_at_step(9), {0, 3, 6, 9}),
        (lambda: kill_in_the_middle_of(1), set()),
        (lambda: kill_in_the_middle_of(3), {0, 3}),
    ],
    ids=["at step 0", "before a checkpoint", "after a checkpoint", "near the end", "within step 0", "within step 6"],
)
def test_a_killed_run_goes_on_without_a_gap_and_without_a_duplicate(tmp_path, recorded, cut_off, there):
    def act() -> str:
        cut_off()
        run(CONFIG, tmp_path / "run")
        return "finished"

    assert forked(act) == (-signal.SIGKILL, "")
    assert set(frames_of(tmp_path / "run")) == there

    record = run(CONFIG, tmp_path / "run", resume=True)
    assert record.telemetry().steps == (0, 3, 6, 9)
    assert same(record.telemetry(), recorded.telemetry())
    found, wanted = adapter(record), adapter(recorded)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert sorted(path.name for path in (record.path / "telemetry").iterdir()) == [
        f"step_{step:08d}.safetensors" for step in (0, 3, 6, 9)
    ]


def stopped(path: Path, monkeypatch, at: int) -> None:
    """Leave a run that raised after ``at`` steps."""
    add = RunFolder.add

    def adding(self, step):
        add(self, step)
        if step.index == at:
            raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "add", adding)
        with pytest.raises(ZeroDivisionError):
            run(CONFIG, path)


def test_captures_after_the_checkpoint_are_cut_off_before_the_run_goes_on(tmp_path, monkeypatch):
    stopped(tmp_path / "run", monkeypatch, 6)
    assert set(frames_of(tmp_path / "run")) == {0, 3, 6}
    restored, seen = RunFolder.begin, []

    def beginning(self, model, state):
        restored(self, model, state)
        seen.append((state.n_steps, set(frames_of(self.path))))

    monkeypatch.setattr(RunFolder, "begin", beginning)
    run(CONFIG, tmp_path / "run", resume=True)
    assert seen == [(4, {0, 3})]


def test_resuming_without_a_capture_is_an_error_that_names_it(tmp_path, monkeypatch):
    stopped(tmp_path / "run", monkeypatch, 5)
    frame_path(tmp_path / "run", 3).unlink()
    with pytest.raises(RecordError, match=r"step_00000003\.safetensors is missing: .*4 steps with a capture every 3"):
        run(CONFIG, tmp_path / "run", resume=True)


def test_a_run_goes_on_only_with_the_telemetry_that_it_began_with(tmp_path, monkeypatch):
    stopped(tmp_path / "run", monkeypatch, 5)
    with pytest.raises(RunFolderError, match=r"train\.telemetry_every is 3 there and 0 here"):
        run(OFF, tmp_path / "run", resume=True)


def test_a_run_that_is_overwritten_loses_its_captures_and_other_files_stay(tmp_path):
    run(CONFIG, tmp_path / "run")
    assert run(OFF, tmp_path / "run", overwrite=True).telemetry() is None
    assert not (tmp_path / "run" / "telemetry").exists()

    run(CONFIG, tmp_path / "run", overwrite=True)
    (tmp_path / "run" / "telemetry" / "notes.txt").write_text("mine")
    run(OFF, tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run" / "telemetry").iterdir()] == ["notes.txt"]


def test_a_run_of_before_there_was_telemetry_has_none(recorded):
    config = {**recorded.config, "train": {"seed": 0}}
    assert replace(recorded, config=config).telemetry() is None


# Damage and bad input


@pytest.fixture
def copied(recorded, tmp_path) -> RunRecord:
    return load_run(shutil.copytree(recorded.path, tmp_path / "run"))


def test_a_missing_capture_is_an_error_that_names_it(copied):
    frame_path(copied.path, 6).unlink()
    with pytest.raises(RecordError, match=r"step_00000006\.safetensors is missing: the run took 10 steps"):
        copied.telemetry()


def test_a_capture_of_no_step_of_the_run_is_an_error(copied):
    shutil.copy(frame_path(copied.path, 6), frame_path(copied.path, 7))
    with pytest.raises(RecordError, match=r"step_00000007\.safetensors is of no step of the run"):
        copied.telemetry()


def test_a_capture_under_another_name_is_an_error(copied):
    shutil.copy(frame_path(copied.path, 6), frame_path(copied.path, 3))
    with pytest.raises(RecordError, match=r"step_00000003\.safetensors holds step 6, captured every 3: wanted 3, 3"):
        copied.telemetry()


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_capture_is_an_error_that_names_it(copied, damage):
    path = frame_path(copied.path, 6)
    content = path.read_bytes()
    path.write_bytes(content[:-9] if damage == "truncated" else content[:-9] + b"\x00?\x01" + content[-6:])
    with pytest.raises(RecordError, match=r"step_00000006\.safetensors (was altered|is truncated)"):
        copied.telemetry()


def test_a_full_disk_names_the_capture_and_the_run_goes_on_later(tmp_path, monkeypatch, recorded):
    write = Path.write_bytes

    def writing(self, content):
        if self.name.startswith(".step_00000006"):
            raise OSError(28, "No space left on device")
        return write(self, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", writing)
        with pytest.raises(RecordError, match=r"step_00000006\.safetensors could not be written \(No space left"):
            run(CONFIG, tmp_path / "run")
    assert same(run(CONFIG, tmp_path / "run", resume=True).telemetry(), recorded.telemetry())


def test_a_frame_comes_back_from_its_file_and_no_other_file_is_taken_for_one(recorded, tmp_path):
    frame = TelemetryFrame.load(frame_path(recorded.path, 3))
    assert (frame.step, frame.every, frame.split, len(frame.labels)) == (3, 3, "validation", 4)
    with pytest.raises(RecordError, match=r"holds adapter, wanted telemetry_frame"):
        TelemetryFrame.load(recorded.path / "adapter.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"telemetry_every": -1}, r"train\.telemetry_every must be at least 0, got -1"),
        ({"n_telemetry": 0}, r"train\.n_telemetry must be at least 1, got 0"),
        ({"telemetry_heads": ("L0H0",)}, r"names L0H0, but train\.telemetry_every is 0.*set it to 50"),
    ],
    ids=["below 0", "no example", "heads for nothing"],
)
def test_options_that_capture_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize("every", [0, -3])
def test_a_probe_that_would_never_capture_is_refused_with_the_cure(tiny, every):
    with pytest.raises(ConfigError, match=rf"every must be at least 1, got {every}; 50 is usual"):
        Probe(tiny(), every=every)


def test_a_head_that_is_not_there_stops_a_run_before_its_first_step(tmp_path):
    train = replace(CONFIG.train, telemetry_heads=("L7H0",))
    with pytest.raises(ConfigError, match="no head L7H0"):
        run(replace(CONFIG, train=train), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()
