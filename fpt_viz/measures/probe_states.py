"""What a linear probe can read from the states of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
import warnings

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.cache import indices_of
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.kernel import HookPoint
from fpt_viz.measures._answers import answer_names, pieces, rows_at
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import ProbeAccuracy
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, Task

__all__ = ["probe_states"]

SITES = ("resid_pre", "resid_mid", "resid_post", "normalized_resid_mid", "normalized_resid_post", "attn_out", "mlp_out")
Label = Callable[[Batch], Int[Tensor, " batch"]]
BUDGET_BYTES = 512 << 20


def probe_states(
    model: FrozenPretrainedTransformer,
    task: Task | None = None,
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    tokens: str | Sequence[int] = "readout",
    answer: int | None = None,
    label: Label | None = None,
    n_examples: int = 512,
    n_test: int = 512,
    split: str = "test",
    seeds: Sequence[int] = (0, 1, 2),
    strength: float = 1.0,
    max_iter: int = 1000,
    batch_size: int = 256,
    budget_bytes: int = BUDGET_BYTES,
) -> ProbeAccuracy:
    """Held-out accuracy of logistic regressions that read a label from one token's state in one layer.

    Each probe is trained on training examples, with each dimension at mean 0 and variance 1 there. Beside it stands a
    control: the same probe on the same states with the training labels shuffled, tested on the true ones. It shows what
    the dimensions alone give, with nothing to read; the most frequent class is told too.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        task: None for the model's own.
        site: ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn_out"``, ``"mlp_out"``; of post-LN families
            also ``"normalized_resid_mid"`` and ``"normalized_resid_post"``.
        layers: Zero-based; None for all.
        tokens: ``"readout"`` probes each answer at the token that is read out for it; or token indices.
        answer: Of the task's answers, in the order of its targets, the one that is read at ``tokens``; None: with
            ``"readout"`` each at its own token, else the only one there is.
        label: A function of a batch, on the CPU, that gives one class an example, in place of the answer.
        n_examples: Training examples of each seed; all of the split where it holds fewer.
        n_test: Held-out examples, the same for all seeds.
        split: Of the held-out examples: ``"test"`` or ``"validation"``.
        seeds: One probe each: of its training examples and its shuffle. The first also draws the held-out examples.
        strength: Inverse of the L2 penalty (scikit-learn's ``C``).
        max_iter: Iterations of a probe at most; those that reach it are counted.
        batch_size: Examples in one forward pass.
        budget_bytes: The most memory that the kept states take. Layers that do not fit are read in a further pass.

    Cost: two regressions for each layer, place and seed (0.02 to 0.2 s for 512 examples of 384 dimensions), and a
    forward pass over the examples of each seed for as many layers as fit into the budget.

    Raises:
        ConfigError: The training labels of a probe are of one class; or no such layer, token or answer.
        CaptureError: The states of one layer at one token do not fit into the budget.
        UnknownNameError: No such site or split.

    Reference:
        Alain and Bengio, 2017, https://arxiv.org/abs/1610.01644; Hewitt and Liang, 2019,
        https://arxiv.org/abs/1909.03368, on controls.
    """
    task = task or model.task
    if site not in SITES or f"hook_{site}" not in model.backbone.places:
        raise UnknownNameError("site", site, [known for known in SITES if f"hook_{known}" in model.backbone.places])
    _check(seeds, strength, split)
    chosen = indices_of("layer", layers, model.backbone.n_layers)
    places = _places(task, tokens, answer, label)
    test = task.distinct(n_test, split, seeds[0])
    trains = [task.distinct(n_examples, "train", seed) for seed in seeds]
    labels = [_labels(task, batch, places, label) for batch in (test, *trains)]
    for seed, (classes, held) in zip(seeds, labels[1:], strict=True):
        _check_classes(classes, held, places, seed)
    found = _Found.empty(len(seeds), len(chosen), len(places), len(test))
    cells = [(i, j) for i in range(len(chosen)) for j in range(len(places))]
    for chunk in _chunks(cells, model, max(len(test), *map(len, trains)), budget_bytes):
        states = [f"blocks.{chosen[i]}.hook_{site}" for i, _ in chunk]
        wanted = [(name, places[j]) for name, (_, j) in zip(states, chunk, strict=True)]
        held_out = _states(model, test, wanted, batch_size)
        for s, train in enumerate(trains):
            shown = _states(model, train, wanted, batch_size)
            for c, (i, j) in enumerate(chunk):
                probe = _Probe(strength, max_iter, seeds[s])
                data = _Data(shown[c], labels[1 + s][0][:, j], labels[1 + s][1][:, j])
                found.put(s, i, j, probe, data, _Data(held_out[c], labels[0][0][:, j], labels[0][1][:, j]))
    return found.record(
        layers=tuple(chosen),
        places=tuple(place.name for place in places),
        site=site,
        label="target" if label is None else getattr(label, "__name__", type(label).__name__),
        seeds=tuple(seeds),
        n_train=len(trains[0]),
        n_test=len(test),
        n_classes=len({int(one) for classes, held in labels for one in classes[held].unique()}),
        note=task.note,
        source=model.source,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is read, and where


class _Place(NamedTuple):
    """Where a probe looks, and what for."""

    name: str
    token: int
    """Counted from the end of the real tokens where it is negative."""
    answer: int
    """In the order of the targets; without meaning where labels are given."""


def _check(seeds: Sequence[int], strength: float, split: str) -> None:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be at least one, each once, got {list(seeds)}")
    if not strength > 0:
        raise ConfigError(f"strength must be above 0, got {strength}")
    if split == "train":
        raise ConfigError('probes are trained on the split "train": hold out "test" or "validation"')


def _places(task: Task, tokens: str | Sequence[int], answer: int | None, label: Label | None) -> list[_Place]:
    answers = answer_names(task)
    if answer is not None and not 0 <= answer < len(answers):
        raise ConfigError(f"no answer {answer} of {task.name}: there are {len(answers)}, numbered from 0")
    if isinstance(tokens, str):
        if tokens != "readout":
            raise ConfigError(f'tokens must be "readout" or token indices, got {tokens!r}')
        if label is not None:
            last = task.token_names()[-task.n_readout :]
            return [_Place(name, i - task.n_readout, 0) for i, name in enumerate(last)]
        n_each = len(answers) // task.n_readout
        own = [_Place(name, i // n_each - task.n_readout, i) for i, name in enumerate(answers)]
        return own if answer is None else [own[answer]]
    if answer is None and label is None and len(answers) > 1:
        raise ConfigError(
            f"{task.name} has {len(answers)} answers: say which is read at these tokens, answer=0 to {len(answers) - 1}"
        )
    names = task.token_names()
    which = answer or 0
    several = len(answers) > 1 and label is None
    return [
        _Place(f"{names[token]} -> {answers[which]}" if several else names[token], token, which)
        for token in indices_of("token", list(tokens), task.n_tokens)
    ]


def _labels(task: Task, batch: Batch, places: Sequence[_Place], label: Label | None) -> tuple[Tensor, Tensor]:
    """``[example place]``: the class to read, and whether the example has the token."""
    n_tokens = batch.inputs.shape[1]
    ends = torch.full((len(batch),), n_tokens) if batch.mask is None else batch.mask.sum(1).cpu()
    held = torch.stack([ends > place.token if place.token >= 0 else ends >= -place.token for place in places], 1)
    if label is None:
        classes = batch.targets.reshape(len(batch), -1)[:, [place.answer for place in places]]
        return classes.cpu(), held
    given = torch.as_tensor(label(batch))
    if given.shape != (len(batch),) or given.is_floating_point():
        raise ConfigError(
            f"the label function returned {given.dtype} of shape {tuple(given.shape)}, wanted one whole number "
            f"for each of {len(batch)} examples"
        )
    return given.long().cpu()[:, None].expand(-1, len(places)), held


def _check_classes(classes: Tensor, held: Tensor, places: Sequence[_Place], seed: int) -> None:
    for j, place in enumerate(places):
        found = classes[held[:, j], j].unique().tolist()
        if len(found) < 2:
            told = f"all of class {found[0]}" if found else "none"
            raise ConfigError(
                f"the probe at {place.name} has labels of {len(found)} class, wanted at least 2: of "
                f"{int(held[:, j].sum())} training examples (seed {seed}) {told}; raise n_examples, or read another "
                "token or label"
            )


# ---------------------------------------------------------------------------------------------------------------------
# States


def _chunks(
    cells: Sequence[tuple[int, int]], model: FrozenPretrainedTransformer, n_examples: int, budget_bytes: int
) -> Iterator[Sequence[tuple[int, int]]]:
    """As many cells at a time as the budget holds, of the held-out and of one seed's training examples."""
    size = 2 * 4 * n_examples * model.backbone.d_model
    if size > budget_bytes:
        raise CaptureError(
            f"the states of one token of 2 x {n_examples} examples take {size / 1e6:,.1f} MB, over the budget of "
            f"{budget_bytes / 1e6:,.1f} MB: choose fewer examples or raise budget_bytes"
        )
    n_cells = budget_bytes // size
    for start in range(0, len(cells), n_cells):
        yield cells[start : start + n_cells]


def _states(
    model: FrozenPretrainedTransformer, batch: Batch, wanted: Sequence[tuple[str, _Place]], batch_size: int
) -> list[Float[np.ndarray, "example hidden"]]:
    """Of each name and place, the state; of examples without the token, that of another one."""
    places: dict[str, list[int]] = {}
    for c, (name, _place) in enumerate(wanted):
        places.setdefault(name, []).append(c)
    kept: list[list[Tensor]] = [[] for _ in wanted]
    with inspecting(model):
        for part in pieces(model, batch, batch_size):
            n_tokens = part.inputs.shape[1]
            ends = torch.full((len(part),), n_tokens) if part.mask is None else part.mask.sum(1)
            keep = _keeper(kept, places, wanted, ends.to(part.inputs.device), n_tokens)
            with model.hooks([(list(places), keep)]):
                model(part.inputs, part.mask)
    return [torch.cat(parts).float().cpu().numpy() for parts in kept]


def _keeper(
    kept: list[list[Tensor]],
    places: dict[str, list[int]],
    wanted: Sequence[tuple[str, _Place]],
    ends: Tensor,
    n_tokens: int,
) -> Callable[[Tensor, HookPoint], None]:
    def keep(activation: Tensor, hook: HookPoint) -> None:
        for c in places[hook.name]:
            token = wanted[c][1].token
            row = (ends + token if token < 0 else torch.full_like(ends, token)).clamp(0, n_tokens - 1)
            kept[c].append(rows_at(activation, row[:, None])[:, 0].cpu())

    return keep


# ---------------------------------------------------------------------------------------------------------------------
# Probes


class _Data(NamedTuple):
    """States with their labels, and which examples have the token at all."""

    states: Float[np.ndarray, "example hidden"]
    labels: Tensor
    held: Tensor

    def real(self) -> tuple[Any, Any]:
        held = self.held.numpy()
        return self.states[held], self.labels.numpy()[held]


@dataclass(frozen=True)
class _Probe:
    strength: float
    max_iter: int
    seed: int

    def right(self, train: _Data, test: _Data, *, shuffled: bool) -> tuple[Tensor, bool]:
        """Whether each held-out example is read rightly, NaN where it has no such token; and whether training ended."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        states, labels = train.real()
        if shuffled:
            labels = np.random.default_rng(self.seed).permutation(labels)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=self.max_iter))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(states, labels)
        right = torch.full((len(test.held),), torch.nan, dtype=torch.float64)
        held_states, held_labels = test.real()
        if len(held_labels):
            right[test.held] = torch.from_numpy((fitted.predict(held_states) == held_labels).astype(float))
        return right, int(fitted[-1].n_iter_.max()) < self.max_iter


@dataclass
class _Found:
    """What the probes got right, ``[seed layer place example]``; NaN where an example has no such token."""

    right: Tensor
    control: Tensor
    majority: Tensor
    n_unfinished: int = 0

    @classmethod
    def empty(cls, n_seeds: int, n_layers: int, n_places: int, n_test: int) -> _Found:
        shape = (n_seeds, n_layers, n_places, n_test)
        return cls(torch.zeros(shape).double(), torch.zeros(shape).double(), torch.zeros(n_seeds, n_places).double())

    def put(self, s: int, i: int, j: int, probe: _Probe, train: _Data, test: _Data) -> None:
        self.right[s, i, j], ended = probe.right(train, test, shuffled=False)
        self.control[s, i, j], control_ended = probe.right(train, test, shuffled=True)
        self.n_unfinished += (not ended) + (not control_ended)
        frequent = train.labels[train.held].mode().values
        self.majority[s, j] = (test.labels[test.held] == frequent).double().mean()

    def record(self, **told: Any) -> ProbeAccuracy:
        right, control = (_over_examples(values) for values in (self.right, self.control))
        return ProbeAccuracy(
            accuracy=right[0],
            interval=right[1],
            by_seed=self.right.nanmean(-1).float(),
            control=control[0],
            control_interval=control[1],
            majority=self.majority.mean(0).float(),
            n_unfinished=self.n_unfinished,
            **told,
        )


def _over_examples(right: Float[Tensor, "seed layer place example"]) -> tuple[Tensor, Tensor]:
    """Mean and interval, ``[layer place]``, over the held-out examples that have the token."""
    by_example = right.mean(0)  # whether an example has the token does not depend on the seed
    n_layers, n_places, _ = by_example.shape
    interval = torch.full((n_layers, n_places, 2), torch.nan)
    for j in range(n_places):
        has_token = ~by_example[0, j].isnan()
        if has_token.any():
            interval[:, j] = bootstrap_interval(by_example[:, j, has_token].T).float()
    return by_example.nanmean(-1).float(), interval
