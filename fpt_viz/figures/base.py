"""What several figures say and do alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any, Literal, NamedTuple, SupportsFloat

from jaxtyping import Shaped
import numpy as np
from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.export.provenance import of_run
from fpt_viz.records import AttentionMaps, Evaluation, RunRecord

Head = tuple[int, int]
"""Layer and head, both zero-based."""
Array = Shaped[np.ndarray, "..."]
Maps = AttentionMaps | Tensor | np.ndarray | Sequence[Tensor] | Sequence[np.ndarray]
"""Captured attention, or arrays ``[layer batch head query key]`` from elsewhere."""


def array(tensor: Tensor) -> Array:
    """``tensor`` as numpy; half precision becomes float32, all else keeps its numbers."""
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype.itemsize < 4 and plain.is_floating_point() else plain).numpy()


def as_maps(source: Maps) -> AttentionMaps:
    """``source`` as maps; arrays are checked to be attention."""
    return source if isinstance(source, AttentionMaps) else AttentionMaps.from_arrays(source)


def head_name(head: Head) -> str:
    """``"L3H5"`` for layer 3, head 5."""
    return f"L{head[0]}H{head[1]}"


def listed(words: Iterable[str]) -> str:
    """``"a, b and c"``."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def short(value: SupportsFloat) -> str:
    """Two decimals without the leading zero, as in ``".58"`` and ``"-.01"``."""
    rounded = f"{float(value):.2f}"
    return "0" if float(rounded) == 0 else rounded.replace("0.", ".", 1)


def percent(value: SupportsFloat) -> str:
    """``"84.4 %"``."""
    return f"{100 * float(value):.1f} %"


def number(value: SupportsFloat) -> str:
    """``value`` to three decimals, for words that are compared with the data."""
    return f"{float(value):.3f}"


def interval(bounds: Sequence[SupportsFloat]) -> str:
    """``"0.551 to 0.602"``."""
    return f"{number(bounds[0])} to {number(bounds[1])}"


def origin(source: Mapping[str, Any]) -> str:
    """The model and task of a picture, as far as ``source`` tells: ``"minilm pretrained on bit_xor, seed 0"``."""
    model = " ".join(str(source[name]) for name in ("backbone", "init") if source.get(name))
    seed = f", seed {source['seed']}" if source.get("seed") is not None else ""
    task = f" on {source['task']}" if source.get("task") else ""
    return f"{model or 'a model'}{task}{seed}"


def place_of(value: int, there: Sequence[int], what: str) -> int:
    """Where ``value`` stands in ``there``; an error lists what there is."""
    if value not in there:
        raise ConfigError(f"there is no {what} {value} here; there {_are(list(there), what)}")
    return list(there).index(value)


def _are(there: list[int], what: str) -> str:
    if not there:
        return f"is no {what} at all"
    contiguous = there == list(range(there[0], there[-1] + 1)) and len(there) > 2
    every = f"{there[0]} to {there[-1]}" if contiguous else ", ".join(map(str, there))
    return f"{'is' if len(there) == 1 else 'are'} {what}{'' if len(there) == 1 else 's'} {every}"


def scale_top(values: Array) -> float:
    """The end of a scale that starts at 0: the largest value, rounded up to a twentieth."""
    largest = float(np.nanmax(values)) if values.size and not np.all(np.isnan(values)) else 0.0
    return max(0.05, math.ceil(round(largest * 20, 6)) / 20)


def as_runs(runs: RunRecord | Iterable[RunRecord]) -> list[RunRecord]:
    """``runs`` as a list of one or more runs of one task."""
    records = [runs] if isinstance(runs, RunRecord) else list(runs)
    if not records:
        raise ConfigError("no run was given: this figure shows one RunRecord or several")
    tasks = {str(record.config["task"]["name"]) for record in records}
    if len(tasks) > 1:
        raise ConfigError(f"accuracies of different tasks share no axis; the runs given are of {listed(sorted(tasks))}")
    return records


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """What tells ``runs`` apart in a legend; those of one name are numbered."""
    names = [record.name for record in runs]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if names.count(name) > 1:
            names[i] = f"{name} ({seen[name]})" if seen[name] > 1 else name
    return names


LOOK_ON = tuple(
    f"train.{name}" for name in ("checkpoint_every", "n_telemetry", "n_validation", "telemetry_every", "validate_every")
)
"""Options that change how closely training is watched; in names they stand only where nothing else sets two apart."""


def system_names(records: Sequence[RunRecord], *, leave_out: Sequence[str] = ()) -> list[str]:
    """Backbone and initialisation of each run; those alike in both also get the options that set them apart.

    Args:
        records: One of each system: they differ in more than the seed.
        leave_out: Options, by dotted name, or groups of them (``"task"``), that are told elsewhere.
    """
    names = [record.name.rpartition(" seed ")[0] for record in records]
    flats = [flat_config(record.config) for record in records]
    told = []
    for name, own in zip(names, flats, strict=True):
        alike = [other for other, called in zip(flats, names, strict=True) if called == name and other is not own]
        apart = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        plain = [key for key in apart if key not in LOOK_ON]
        enough = all(any(other.get(key) != own[key] for key in plain) for other in alike)
        shown = [
            key
            for key in (plain if enough else apart)
            if not any(key == left or key.startswith(f"{left}.") for left in leave_out)
        ]
        said = ", ".join(f"{key.rpartition('.')[2]}={own[key]}" for key in shown)
        told.append(f"{name} ({said})" if said else name)
    return told


def flat_config(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The options of ``config`` by dotted name, without the seed of training; lists in words, sets in one order."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat_config(value, f"{above}{name}.")
        elif f"{above}{name}" != "train.seed":
            words = (
                sorted(map(str, value)) if name == "trained" else map(str, value) if isinstance(value, list) else None
            )
            found[f"{above}{name}"] = value if words is None else "+".join(words)
    return found


def levels(evaluations: Iterable[Evaluation]) -> dict[str, float]:
    """Chance and the accuracy of every solver that needs no routing, by name."""
    found: dict[str, float] = {}
    for evaluation in evaluations:
        found.setdefault("chance", evaluation.chance)
        for name, value in evaluation.trivial.items():
            found.setdefault(name.replace("_", " "), value)
    return found


def merged_levels(evaluations: Iterable[Evaluation]) -> list[tuple[float, str]]:
    """Each level once, with the names of all that reach it, as in ``(0.5, "chance, constant 50.0 %")``."""
    by_value: dict[float, list[str]] = {}
    for name, value in levels(evaluations).items():
        by_value.setdefault(round(value, 4), []).append(name)
    return [(value, f"{', '.join(names)} {percent(value)}") for value, names in by_value.items()]


def merged_source(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One source as it is; several under ``runs``."""
    return dict(sources[0]) if len(sources) == 1 else {"runs": [dict(source) for source in sources]}


def source_of(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Where the numbers of ``records`` come from: config hash, versions and data with what each says of itself."""
    return merged_source([of_run(record) for record in records])


class Outcome(NamedTuple):
    """One of the three things that an ablation changes, and how it is said."""

    change: str
    """Field of the effects that holds the change."""
    interval: str
    """Field that holds its intervals."""
    baseline: str
    """Field that holds the value without any cut."""
    words: str
    """The change, in a title or sentence."""
    axis: str
    """The change, beside a scale, with its unit."""
    of: str
    """What is measured."""
    least_extent: float
    """A scale is at least so wide, so that noise does not look like an effect."""


RANGE = "(0\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}1)"
"""In one line wherever it stands."""
OUTCOMES = {
    "accuracy": Outcome(
        "accuracy_drop", "accuracy_interval", "baseline_accuracy", "drop in accuracy", f"accuracy drop {RANGE}",
        "accuracy", 0.01,
    ),
    "loss": Outcome(
        "loss_rise", "loss_interval", "baseline_loss", "rise in loss", "loss rise (nats a target)", "loss", 0.01,
    ),
    "logit": Outcome(
        "logit_drop", "logit_interval", "baseline_logit", "drop in logit difference", "logit difference drop",
        "logit difference", 0.1,
    ),
}  # fmt: skip
OutcomeName = Literal["accuracy", "loss", "logit"]


def outcome_named(name: str) -> Outcome:
    """The outcome called ``name``."""
    if name not in OUTCOMES:
        raise UnknownNameError("outcome", name, OUTCOMES)
    return OUTCOMES[name]
