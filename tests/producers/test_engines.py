"""Engines: jobs in, outcomes out, and no job takes the others with it."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal

import fatal_task
import pytest

from fpt_viz import registry
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.engines import local
from fpt_viz.engines._job import failure_in, job_as_data, job_from_data
from fpt_viz.engines.base import Engine, Job, Measure
from fpt_viz.engines.in_process import InProcess
from fpt_viz.engines.local import MOST_TRIES, Local
from fpt_viz.errors import ConfigError
from fpt_viz.records import load_run


def job(folder: Path, *, task: str = "bit_xor", seed: int = 0, measures: tuple[Measure, ...] = ()) -> Job:
    config = RunConfig(
        task=TaskConfig(name=task, options={"n_bits": 2}),
        backbone=BackboneConfig(name="bert-tiny-random", init="random"),
        train=TrainConfig(n_steps=3, batch_size=4, seed=seed),
    )
    return Job(config=config, folder=folder, measures=measures)


@pytest.mark.parametrize("name", registry.names("engines"))
def test_each_entry_is_an_engine(name):
    assert isinstance(registry.load("engines", name)(workers=1, threads=1, device="cpu"), Engine)


def test_a_job_says_all_of_itself():
    whole = job(Path("a/b"), measures=(Measure(name="evaluate", split="train"),))
    assert job_from_data(job_as_data(whole)) == whole


def test_measures_are_taken_once_and_saved_beside_the_run(tmp_path):
    one = job(tmp_path / "run", measures=(Measure(name="evaluate", split="train"), Measure(name="head_statistics")))
    [outcome] = InProcess().run([one])
    assert (outcome.status, outcome.error) == ("finished", "")
    saved = tmp_path / "run/evaluate_train.json"
    first = saved.stat().st_mtime_ns
    assert load_run(tmp_path / "run").statistics() is not None
    [outcome] = InProcess().run([one])
    assert outcome.status == "finished"
    assert saved.stat().st_mtime_ns == first


def test_a_damaged_note_of_a_failure_says_so_and_stops_nothing(tmp_path):
    (tmp_path / "failure.json").write_text("{ cut o")
    failure = failure_in(tmp_path)
    assert failure is not None
    assert failure["kind"] == "failed"
    assert "failure.json" in failure["message"]


def test_jobs_are_drawn_when_there_is_a_place_for_them(tmp_path):
    drawn = []

    def jobs() -> Iterator[Job]:
        for seed in range(3):
            drawn.append(seed)
            yield job(tmp_path / str(seed), seed=seed)

    outcomes = InProcess().run(jobs())
    next(outcomes)
    assert drawn == [0]


def test_one_process_takes_no_workers():
    with pytest.raises(ConfigError, match="take --engine local"):
        InProcess(workers=2)


@pytest.mark.parametrize("options", [{"workers": 0}, {"threads": 0}])
def test_no_worker_and_no_thread_are_errors(options):
    with pytest.raises(ConfigError, match="must be at least 1, got 0"):
        Local(**options)


def test_workers_share_the_cores_without_overlap():
    n_cores = len(os.sched_getaffinity(0))
    engine = Local(device="cpu")
    shares = [engine._share(place) for place in range(engine.n_workers)]
    assert (engine.n_workers, engine.n_threads) == (n_cores, 1)
    assert sorted(core for share in shares for core in share) == sorted(os.sched_getaffinity(0))
    assert Local(workers=1).n_threads == n_cores
    assert Local(workers=4 * n_cores)._share(0) == []


@pytest.mark.slow
def test_a_job_that_ends_its_worker_is_given_up_and_the_others_are_done(tmp_path):
    jobs = [job(tmp_path / "fatal", task=fatal_task.__file__), job(tmp_path / "well")]
    outcomes = {outcome.job.folder.name: outcome for outcome in Local(workers=1, threads=1).run(jobs)}
    assert outcomes["well"].status == "finished"
    assert outcomes["fatal"].status == "failed"
    assert f"ended with exit code 3 in each of {MOST_TRIES} tries" in outcomes["fatal"].error
    failure = failure_in(tmp_path / "fatal")
    assert failure is not None
    assert failure["error"] == "WorkerError"


@pytest.mark.parametrize(("stuck", "n_cut_off"), [(True, 1), (False, 0)], ids=["stuck", "ends"])
def test_a_worker_that_does_not_end_when_asked_is_counted(monkeypatch, tmp_path, stuck, n_cut_off):
    monkeypatch.setattr(local, "LONGEST_SAVE_SECONDS", 0.2 if stuck else 60.0)
    engine = Local(workers=1, device="cpu")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN if stuck else signal.SIG_DFL)  # as its child inherits it
    try:
        worker = local._Worker([], 1, "cpu")
    finally:
        signal.signal(signal.SIGTERM, before)
    worker.give(job(tmp_path / "run"), 1)
    engine._end([worker])
    assert engine.n_cut_off == n_cut_off
    assert worker.process.poll() is not None
