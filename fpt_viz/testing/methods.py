"""The project's own methods, asked of a circuit, and what they find compared with what is planted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.head_statistics import head_statistics
from fpt_viz.measures.patch_activations import patch_activations
from fpt_viz.measures.patch_paths import patch_paths
from fpt_viz.records import PatchingEffects
from fpt_viz.reference import Ablation
from fpt_viz.testing.verdicts import INPUTS, OUTPUT, Circuit, Unit

Scores = dict[Unit, float]
MIN_GAP = 1.0
"""Logits between the clean and the corrupted run, below which there is no answer to restore."""


@dataclass(frozen=True)
class Method:
    """A method of the project, as a question with a yes or a no for each unit of a circuit."""

    scores: Callable[[Circuit], Scores]
    """A number for each unit that the circuit's verdict is about."""
    threshold: float
    """Yes from here on."""
    says: str
    """What the number is."""


def _routing(circuit: Circuit) -> Scores:
    statistics = head_statistics(circuit.model, circuit.task, n_examples=circuit.n_examples, split="test")
    assert statistics.routing_interval is not None and statistics.uniform is not None  # planted tasks have needs
    scores = {}
    for unit in circuit.verdicts["routing"].among:
        permuted = 0.0 if statistics.permuted is None else float(statistics.permuted[unit])
        scores[unit] = float(statistics.routing_interval[unit][0]) - max(statistics.uniform, permuted)
    return scores


def _ablation(method: str, kind: Ablation = "zero") -> Callable[[Circuit], Scores]:
    def measure(circuit: Circuit) -> Scores:
        units = circuit.verdicts[method].among
        effects = ablate_heads(
            circuit.model, circuit.task, kind=kind, heads=list(units), n_examples=circuit.n_examples, split="test"
        )
        return {unit: low for unit, (low, _high) in zip(units, effects.accuracy_interval, strict=True)}

    return measure


def _patching(method: str, site: str) -> Callable[[Circuit], Scores]:
    def measure(circuit: Circuit) -> Scores:
        units, at = circuit.verdicts[method].among, circuit.corrupt_position if site == "resid_pre" else None
        effects = patch_activations(
            circuit.model, circuit.task, site=site, n_examples=circuit.n_examples, split="test", corrupt_position=at
        )
        return _restored(effects, units, [effects.intervals[unit[-2:]][0] for unit in units])

    return measure


def _path_patching(circuit: Circuit) -> Scores:
    """Of paths through MLPs, too: the planted exclusive or is one, above every planted head."""
    model, task, among = circuit.model, circuit.task, circuit.verdicts["path_patching"].among
    scores: Scores = {}
    for into in (*INPUTS, OUTPUT):
        units = [unit for unit in among if unit[-1] == into]
        senders = sorted({unit[0] for unit in units})
        receivers = sorted({unit[1] for unit in units}) if into != OUTPUT else None
        if not units:
            continue
        effects = patch_paths(
            model, task, senders=senders, receivers=receivers, into=into, mlps="recomputed",
            n_examples=circuit.n_examples, split="test",
        )  # fmt: skip
        cells = [(senders.index(unit[0]), 0 if receivers is None else receivers.index(unit[1])) for unit in units]
        scores |= _restored(effects, units, [effects.intervals[cell][0] for cell in cells])
    return scores


def _restored(effects: PatchingEffects, units: Sequence[Unit], lows: Sequence[Tensor]) -> Scores:
    """``lows`` where the model tells the clean from the corrupted input at all, else 0: there is nothing to restore."""
    told_apart = effects.clean - effects.corrupted >= MIN_GAP
    return {unit: float(low) if told_apart else 0.0 for unit, low in zip(units, lows, strict=True)}


METHODS: Mapping[str, Method] = {
    "routing": Method(
        _routing, 0.25, "low end of the routing score's 95 % interval, minus the higher of uniform and permuted"
    ),
    **{
        f"ablate_{kind}": Method(
            _ablation(f"ablate_{kind}", kind), 0.1,
            f"low end of the 95 % interval of the accuracy lost by {kind} ablation of a head",
        )
        for kind in ("zero", "mean", "resample")
    },
    "ablate_pair": Method(
        _ablation("ablate_pair"), 0.1,
        "low end of the 95 % interval of the accuracy lost by zero ablation of two heads at once",
    ),
    "ablate_edge": Method(
        _ablation("ablate_edge"), 0.02,
        "low end of the 95 % interval of the accuracy lost, over all answers, by cutting an edge of one query",
    ),
    "ablate_mlp": Method(
        _ablation("ablate_mlp"), 0.1, "low end of the 95 % interval of the accuracy lost by zero ablation of an MLP"
    ),
    "patching": Method(
        _patching("patching", "z"), 0.2,
        "low end of the 95 % interval of the effect restored by a head's clean z, over all positions",
    ),
    "patching_residual": Method(
        _patching("patching_residual", "resid_pre"), 0.1,
        "low end of the 95 % interval of the effect restored by a token's clean residual stream, one bit being flipped",
    ),
    "patching_pattern": Method(
        _patching("patching_pattern", "pattern"), 0.2,
        "low end of the 95 % interval of the effect restored by a head's clean pattern",
    ),
    "path_patching": Method(
        _path_patching, 0.2,
        "low end of the 95 % interval of the effect restored along a path; through MLPs too, since the XOR is one",
    ),
}  # fmt: skip
"""By name, in the order of the tables."""


@dataclass(frozen=True)
class Comparison:
    """What a method found in a circuit, beside what it must find."""

    circuit: str
    method: str
    expected: frozenset[Unit]
    found: frozenset[Unit]

    @property
    def missed(self) -> frozenset[Unit]:
        """Expected and not found."""
        return self.expected - self.found

    @property
    def false_alarms(self) -> frozenset[Unit]:
        """Found and not expected."""
        return self.found - self.expected

    @property
    def agrees(self) -> bool:
        """Whether nothing is missed and nothing is found that is not expected."""
        return self.found == self.expected


def measured(circuit: Circuit, method: str) -> Scores:
    """The numbers from which a method of the project answers, for each unit; see :data:`METHODS` for what they are."""
    return _method(method).scores(circuit)


def check(
    circuit: Circuit, method: str | Callable[[Circuit], Collection[Unit]], *, column: str | None = None
) -> Comparison:
    """Ask a method about a circuit.

    Args:
        circuit: From :func:`fpt_viz.testing.circuit`.
        method: One of :data:`METHODS`, or a function of your own from a circuit to what it finds there: heads as
            (layer, head), pairs of heads, or paths as (sender, receiver).
        column: For a function, whose verdicts it must match: the method in :data:`METHODS` that asks the same
            question, or ``"acting"`` for the heads on which the answers rest, whatever method would see them.

    Raises:
        UnknownNameError: No such method or column.
        ConfigError: A function comes without a column, or finds what the circuit does not have.
    """
    if isinstance(method, str):
        verdict = circuit.verdicts[_known(circuit, method)]
        found = frozenset(
            unit for unit, score in measured(circuit, method).items() if score >= _method(method).threshold
        )
        return Comparison(circuit.name, method, verdict.positive, found)
    if column is None:
        columns = ", ".join([*circuit.verdicts, "acting"])
        raise ConfigError(f"no column is named that the method must match: give column=, one of {columns}")
    found = frozenset(method(circuit))
    if column == "acting":
        expected, among = circuit.acting, circuit.verdicts["ablate_zero"].among
    else:
        verdict = circuit.verdicts[_known(circuit, column)]
        expected, among = verdict.positive, verdict.among
    if not found <= set(among):
        strange = sorted(map(str, found - set(among)))
        asked = ", ".join(map(str, among))
        raise ConfigError(f"{circuit.name} has no {strange[0]}, which was found; for {column} there are: {asked}")
    return Comparison(circuit.name, getattr(method, "__name__", "function"), frozenset(expected), found)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise UnknownNameError("method with planted verdicts", name, METHODS)
    return METHODS[name]


def _known(circuit: Circuit, column: str) -> str:
    if column not in circuit.verdicts:
        raise UnknownNameError(f"column of {circuit.name}", column, [*circuit.verdicts, "acting"])
    return column
