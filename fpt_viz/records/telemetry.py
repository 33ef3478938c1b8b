"""What a run showed of its heads while it trained, on one fixed probe batch: a file a capture, and all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Float16, Int
import torch
from torch import Tensor

from fpt_viz.errors import RecordError
from fpt_viz.records import store
from fpt_viz.records._saved import Saved, by_cell

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "telemetry"
_FRAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class TelemetryFrame(Saved):
    """One capture."""

    KIND: ClassVar[str] = "telemetry_frame"

    step: int
    """Gradient steps taken; 0 is before the first."""
    every: int
    """Steps from one capture to the next."""
    heads: tuple[tuple[int, int], ...]
    """Layer and head of each pattern."""
    patterns: Float16[Tensor, "pair batch query key"]
    """Rows of the tokens that are read out; 0 in a row of no token."""
    queries: Int[Tensor, "batch query"]
    """The token of each row; -1 for none."""
    routing_score: Float[Tensor, "layer head"] | None = None
    """Of every head, over all of its scored queries; None where the task has no needs."""
    norms: tuple[str, ...]
    """The parameters that are gains of a layer norm, trained or not."""
    gain_change: Float[Tensor, " norm"]
    """Mean absolute deviation of each norm's gains from their start."""
    gain_rms: Float[Tensor, " norm"]
    """Root mean square of each norm's gains."""
    labels: tuple[tuple[str, ...], ...]
    """Of each example, one text a token."""
    split: str
    seed: int
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Telemetry:
    """Every capture of a run, in the order of training, all of one probe batch."""

    steps: tuple[int, ...]
    """Gradient steps taken at each capture, from 0."""
    heads: tuple[tuple[int, int], ...]
    patterns: Float16[Tensor, "step pair batch query key"]
    queries: Int[Tensor, "batch query"]
    routing_score: Float[Tensor, "step layer head"] | None = None
    norms: tuple[str, ...]
    gain_change: Float[Tensor, "step norm"]
    gain_rms: Float[Tensor, "step norm"]
    labels: tuple[tuple[str, ...], ...]
    split: str
    seed: int
    source: dict[str, Any] = field(default_factory=dict)
    """As of the last capture."""

    @classmethod
    def of(cls, frames: list[TelemetryFrame]) -> Telemetry:
        """``frames`` in one; they are of one run."""
        last = frames[-1]
        scores = [frame.routing_score for frame in frames if frame.routing_score is not None]
        return cls(
            steps=tuple(frame.step for frame in frames),
            heads=last.heads,
            patterns=torch.stack([frame.patterns for frame in frames]),
            queries=last.queries,
            routing_score=torch.stack(scores) if len(scores) == len(frames) else None,
            norms=last.norms,
            gain_change=torch.stack([frame.gain_change for frame in frames]),
            gain_rms=torch.stack([frame.gain_rms for frame in frames]),
            labels=last.labels,
            split=last.split,
            seed=last.seed,
            source=last.source,
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a capture and head: step, layer, head, routing_score.

        Raises:
            RecordError: The task has no needs, so no head has a score.
        """
        if self.routing_score is None:
            raise RecordError("this telemetry holds no routing scores: its task does not say what a query needs")
        _n_steps, n_layers, n_heads = self.routing_score.shape
        axes = {"step": self.steps, "layer": range(n_layers), "head": range(n_heads)}
        return by_cell(axes, {"routing_score": self.routing_score})

    def __repr__(self) -> str:
        return (
            f"Telemetry({len(self.steps)} captures to step {self.steps[-1]}, patterns of {len(self.heads)} heads on "
            f"{len(self.labels)} {self.split} examples)"
        )


def frame_path(run: Path, step: int) -> Path:
    """Where the capture at ``step`` of the run in the folder ``run`` lies."""
    return run / FOLDER / f"step_{step:08d}.safetensors"


def frames_of(run: Path) -> dict[int, Path]:
    """The captures in a run's folder by step, in order."""
    found = ((_FRAME.fullmatch(path.name), path) for path in (run / FOLDER).glob("step_*.safetensors"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def check_complete(run: Path, every: int, n_steps: int) -> None:
    """Raise where the captures in ``run`` are not exactly those due from step 0 to ``n_steps``."""
    due, there = range(0, n_steps + 1, every) if every else range(0), frames_of(run)
    for step in due:
        if step not in there:
            raise RecordError(
                f"{frame_path(run, step)} is missing: the run took {n_steps} steps with a capture every {every}; "
                "restore it, or train again with --overwrite"
            )
    for step, path in there.items():
        if step not in due:
            raise RecordError(f"{path} is of no step of the run: it took {n_steps} steps with a capture every {every}")


def load_telemetry(run: Path, every: int, n_steps: int) -> Telemetry | None:
    """The captures of a run of ``n_steps`` steps that made one ``every`` so many; None where it made none.

    Memory: all patterns, at two bytes a weight.

    Raises:
        RecordError: A capture is missing, damaged or of another run; the message names its file.
    """
    if not every:
        return None
    check_complete(run, every, n_steps)
    frames = []
    for step, path in frames_of(run).items():
        frame = TelemetryFrame.load(path)
        if (frame.step, frame.every) != (step, every):
            raise RecordError(f"{path} holds step {frame.step}, captured every {frame.every}: wanted {step}, {every}")
        frames.append(frame)
    return store.note(Telemetry.of(frames), run / FOLDER)
