"""One job, done in this process: the run, then what is measured on it; a failure is written down, never raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
import inspect
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout

from fpt_viz import registry
from fpt_viz.config import RunConfig
from fpt_viz.engines.base import Job, Measure, Outcome
from fpt_viz.errors import RecordError, RunFolderError, TrainingError
from fpt_viz.loading import load_model
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import RunRecord, store
from fpt_viz.records.run import ADAPTER, ADAPTER_INITIAL, CHECKPOINT, LOCK, RESULT
from fpt_viz.train import pick_device, run

FAILURE = "failure.json"
WEIGHTS = (ADAPTER, ADAPTER_INITIAL)
LONGEST_WAIT_SECONDS = 60.0
"""For a run folder whose last writer is still saving."""
LONGEST_MESSAGE = 1500
"""In characters."""


def carry_out(job: Job, *, device: str | None = None, progress: bool | None = None) -> Outcome:
    """Train what ``job`` says, or go on with it, and measure what is asked for.

    Args:
        job: A finished run is not repeated.
        device: As in :func:`fpt_viz.train.run`.
        progress: Likewise.

    Raises:
        KeyboardInterrupt: The run was asked to stop; it is saved.
    """
    start = perf_counter()
    try:
        _wait_until_free(job.folder)
        record = run(job.config, job.folder, device=device, resume=True, progress=progress)
        _measure(job, record, device)
        _tidy(job)
    except Exception as error:  # whatever it is, the other jobs go on, and the table shows it
        note_failure(job.folder, error)
        return Outcome(job=job, status="failed", seconds=perf_counter() - start, error=told(error))
    (job.folder / FAILURE).unlink(missing_ok=True)
    return Outcome(job=job, status="finished", seconds=perf_counter() - start)


def told(error: BaseException) -> str:
    """``error`` in one line."""
    kind = "" if type(error).__module__ == "fpt_viz.errors" else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:LONGEST_MESSAGE]


def note_failure(folder: Path, error: BaseException) -> None:
    """Write down in a run's ``folder`` why it failed; ``diverged`` where the numbers were no longer finite."""
    diverged = isinstance(error, TrainingError)
    store.write_json(
        folder / FAILURE,
        {"kind": "diverged" if diverged else "failed", "error": type(error).__name__, "message": told(error)},
    )


def failure_in(folder: Path) -> Mapping[str, Any] | None:
    """What :func:`note_failure` wrote there, or that it cannot be read; None where nothing failed."""
    if not (folder / FAILURE).exists():
        return None
    try:
        found = dict(store.read_json(folder / FAILURE))
    except RecordError as error:  # it says no more than that something failed: the list goes on
        return {"kind": "failed", "message": str(error)}
    return {"kind": "failed", "message": f"{folder / FAILURE} is not whole", **found}


def saved_at(folder: Path, measure: Measure) -> Path:
    """The file of ``measure`` beside the run in ``folder``, named as ``fpt-viz measure`` names it."""
    parameters = inspect.signature(registry.load("measures", measure.name)).parameters
    stem = measure.name if parameters["split"].default == measure.split else f"{measure.name}_{measure.split}"
    return folder / f"{stem}.{'safetensors' if measure.name == 'head_statistics' else 'json'}"


def job_as_data(job: Job) -> dict[str, Any]:
    """``job`` as JSON can say it."""
    measures = [asdict(measure) for measure in job.measures]
    plain = {"folder": str(job.folder), "measures": measures, "most_weight_bytes": job.most_weight_bytes}
    return {"config": job.config.to_dict(), **plain}


def job_from_data(data: Mapping[str, Any]) -> Job:
    """The job that :func:`job_as_data` said."""
    measures = tuple(Measure(**measure) for measure in data["measures"])
    rest = {"folder": Path(data["folder"]), "measures": measures, "most_weight_bytes": data["most_weight_bytes"]}
    return Job(config=RunConfig.from_dict(data["config"]), **rest)


def _measure(job: Job, record: RunRecord, device: str | None) -> None:
    """Take and save those measures of ``job`` that are not there yet; the model is loaded only for them."""
    model: FrozenPretrainedTransformer | None = None
    for measure in job.measures:
        path = saved_at(job.folder, measure)
        if path.exists():
            continue
        model = model or load_model(record, device=pick_device(device))
        found = registry.load("measures", measure.name)(model, split=measure.split, n_examples=measure.n_examples)
        if hasattr(found, "save"):
            found.save(path)
        else:
            store.write_json(path, store.sealed(asdict(found)))


def shed_weights(folder: Path) -> None:
    """Remove the trained weights of the finished run in ``folder``; its numbers, and their checksums, stay."""
    result = store.unsealed(store.read_json(folder / RESULT), folder / RESULT)
    shed = {name: result["files"][name] for name in WEIGHTS if name in result["files"]}
    kept = {name: checksum for name, checksum in result["files"].items() if name not in shed}
    if shed:
        told = {"files": kept, "weights_left_out": {**result.get("weights_left_out", {}), **shed}}
        store.write_json(folder / RESULT, store.sealed({**result, **told}))
    for name in WEIGHTS:
        (folder / name).unlink(missing_ok=True)


def _tidy(job: Job) -> None:
    """Remove what only an unfinished run needs, and weights that are larger than the job keeps."""
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    paths = [job.folder / name for name in WEIGHTS]
    size = sum(path.stat().st_size for path in paths if path.exists())
    if job.most_weight_bytes is not None and size > job.most_weight_bytes:
        shed_weights(job.folder)


def _wait_until_free(folder: Path) -> None:
    """Wait for a writer that is about to end, such as the worker of a list whose parent was killed."""
    if not (folder / LOCK).exists():
        return
    try:
        with FileLock(folder / LOCK, timeout=LONGEST_WAIT_SECONDS):
            pass
    except Timeout:
        raise RunFolderError(
            f"{folder} is still being written by another process after {LONGEST_WAIT_SECONDS:.0f} s: wait for it"
        ) from None
