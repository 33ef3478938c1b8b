"""Switch heads off and on, and see what becomes of one example and of the accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets

from fpt_viz import figures
from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import ConfigError
from fpt_viz.export import SCALES, Figure
from fpt_viz.figures.base import Head, array, head_name, interval, number, origin, percent, place_of, scale_top
from fpt_viz.records import AblationEffects, AttentionMaps
from fpt_viz.records.parts import part_of
from fpt_viz.widgets import _patterns
from fpt_viz.widgets._cuts import KINDS, N_REFERENCE, Cut, Cuts
from fpt_viz.widgets._live import live_model
from fpt_viz.widgets.base import Choice, Widget, packed

__all__ = ["HeadLab"]

N_PAST = 50
N_SCORED = 8
"""Validation examples over which routing scores are taken."""
N_TILED = 32
"""Examples to choose from."""
WORDS = {"routing": "routing score", "ablation": "accuracy lost when cut alone"}


class HeadLab(Widget):
    """All heads as tiles: click one to switch it off, click again to switch it on; or arrow keys and space.

    The prediction on the example follows at once, accuracy and loss over the validation examples piece by piece.
    """

    script = "head_lab.js"
    depends = {  # noqa: RUF012
        "prediction": ("example", "kind", "cut"),
        "python": ("kind", "cut", "example"),
        "totals": ("kind", "cut", "n"),
        "tiles": ("example",),
    }
    optional = ("totals", "tiles")

    prediction = traitlets.Dict().tag(sync=True)
    """Each answer to the example, of the intact model and without the heads that are off."""
    python = traitlets.Unicode().tag(sync=True)
    """What gives the same numbers without a widget."""
    totals = traitlets.Dict(allow_none=True).tag(sync=True)
    """Accuracy and loss over the first n examples, intact and without the heads that are off."""
    tiles = traitlets.Dict(allow_none=True).tag(sync=True)
    """Every head's pattern on the example, intact, in 8 bits."""

    def __init__(
        self,
        source: Any,
        task: Any = None,
        *,
        effects: AblationEffects | None = None,
        n_examples: int = 256,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Show the heads of ``source``.

        Args:
            source: A model with attention.
            task: What examples are drawn from; the model's own unless given.
            effects: What cutting each head alone costs, to be written on its tile.
            n_examples: Distinct validation examples over which accuracy and loss are taken; fewer where the split
                holds fewer.
            seed: Of their choice, of the reference set of mean and resample, and of who stands in for whom.
            state: The :attr:`state` of another one of the same source.

        Raises:
            ConfigError: No model that can be run.
        """
        live = live_model(source, "HeadLab")
        self._live, self._task, self._own = live, _patterns.task_of(live, task), task is None
        batch = self._task.distinct(n_examples, "validation", seed)
        self._cuts = Cuts(live, self._task, batch, seed=seed)
        self._maps: tuple[int, AttentionMaps] | None = None
        maps, n = self._maps_of(0), len(batch)
        self._origin = origin(maps.source)
        fixed = {
            "title": f"Heads of {self._origin}, off and on",
            "layers": list(maps.layers),
            "heads": list(maps.heads),
            "n_examples": min(n, N_TILED),
            "n": n,
            "split": "validation",
            "kinds": list(KINDS),
            "causal": maps.causal,
            "metrics": self._metrics(effects, seed),
            "answers": _answer_names(self._task),
            "n_classes": self._task.n_classes,
            "n_past": N_PAST,
            "scales": {name: list(stops) for name, stops in SCALES.items()},
        }
        first = {
            "example": 0,
            "kind": "zero",
            "cut": [],
            "n": 0,
            "layer": maps.layers[0],
            "head": maps.heads[0],
            "past": [],
            "future": [],
            "intact": False,
        }
        super().__init__(first=first, fixed=fixed, state=state)
        self.watch(live)

    # What a reader of the notebook uses.

    def choose(self, **fields: Any) -> None:
        """As of :meth:`Widget.choose`; accuracy and loss are taken over all examples unless ``n`` says otherwise."""
        if {"cut", "kind"} & set(fields):
            fields = {"n": self.fixed["n"], **fields}
        if "cut" in fields and not {"past", "future"} & set(fields):
            fields |= {"past": [*self.choice["past"], self.choice["cut"]][-N_PAST:], "future": []}
        super().choose(**fields)

    def toggle(self, *heads: Head | str) -> None:
        """Switch each of ``heads``, such as ``(0, 9)`` or ``"L0H9"``, off if it is on and on if it is off."""
        named = {_named(head) for head in heads}
        self.choose(cut=sorted(named ^ set(self.cut)))

    def toggle_layer(self, layer: int) -> None:
        """Switch off all heads of ``layer``, or on if all of them are off."""
        row, cut = {(layer, head) for head in self.fixed["heads"]}, set(self.cut)
        self.choose(cut=sorted(cut - row if row <= cut else cut | row))

    def all_on(self) -> None:
        """Switch every head on."""
        self.choose(cut=[])

    def undo(self) -> None:
        """Take the last switching back."""
        *past, last = self.choice["past"] or [self.choice["cut"]]
        future = [self.choice["cut"], *self.choice["future"]] if self.choice["past"] else self.choice["future"]
        self.choose(cut=last, past=past, future=future[:N_PAST])

    def redo(self) -> None:
        """Do again what was last taken back."""
        following, *future = self.choice["future"] or [self.choice["cut"]]
        past = [*self.choice["past"], self.choice["cut"]] if self.choice["future"] else self.choice["past"]
        self.choose(cut=following, past=past[-N_PAST:], future=future)

    @property
    def cut(self) -> Cut:
        """The heads that are off, each as layer and head."""
        return _as_cut(self.choice["cut"])

    # What the page asks for.

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it is of this model, the heads that are off in order."""
        fixed = self.fixed
        place_of(choice["example"], range(fixed["n_examples"]), "example")
        place_of(choice["layer"], fixed["layers"], "layer")
        place_of(choice["head"], fixed["heads"], "head")
        if choice["kind"] not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {choice['kind']!r}")
        if not isinstance(choice["n"], int) or not 0 <= choice["n"] <= fixed["n"]:
            raise ConfigError(f"n must lie between 0 and the {fixed['n']} examples there are, got {choice['n']!r}")
        try:
            cut = sorted(set(_as_cut(choice["cut"])))
        except (TypeError, ValueError):
            raise ConfigError(f"cut must be pairs of layer and head, got {choice['cut']!r:.60}") from None
        for layer, head in cut:
            if layer not in fixed["layers"] or head not in fixed["heads"]:
                raise ConfigError(
                    f"no head {head_name((layer, head))} here: there are layers 0 to {len(fixed['layers']) - 1} and "
                    f"heads 0 to {len(fixed['heads']) - 1}"
                )
        return {**choice, "cut": [list(head) for head in cut]}

    def answer(self, trait: str, choice: Choice) -> Any:
        """What is answered, how often right, the patterns, or the Python that says the same."""
        kind, cut = choice["kind"], _as_cut(choice["cut"])
        if trait == "prediction":
            intact = self._cuts.answers(kind, (), choice["example"])
            without = self._cuts.answers(kind, cut, choice["example"])
            targets = self._cuts.batch.targets[choice["example"]].flatten().to(torch.int32)
            sides = {"intact": intact, "without": without}
            return {
                "targets": packed(array(targets)),
                **{side: {name: packed(v) for name, v in found._asdict().items()} for side, found in sides.items()},
            }
        if trait == "totals":
            return self._totals(kind, cut, choice["n"])
        if trait == "tiles":
            return self._tiles(choice["example"])
        return self._python(kind, cut, choice["example"])

    def _totals(self, kind: str, cut: Cut, n: int) -> dict[str, Any]:
        n = max(n, self._cuts.n_known(kind, cut))  # what is known is told at once
        following = min(n + self._cuts.piece, len(self._cuts.batch))
        if not n:
            return {"n": 0, "next": following}
        intact, without = self._cuts.outcome(kind, (), n), self._cuts.outcome(kind, cut, n)
        changes = torch.stack([w - i for w, i in zip(without, intact, strict=True)], dim=1)
        bounds = bootstrap_interval(changes).tolist() if n > 1 and cut else [[0.0, 0.0], [0.0, 0.0]]
        return {
            "n": n,
            "next": following,
            "accuracy": [float(intact.accuracy.mean()), float(without.accuracy.mean())],
            "loss": [float(intact.loss.mean()), float(without.loss.mean())],
            "intervals": bounds,
        }

    def _tiles(self, example: int) -> dict[str, Any]:
        found = _patterns.Patterns(maps=self._maps_of(example), statistics=None).weights(0)
        n_layers, n_heads, n_queries, n_keys = found.shape
        size = _patterns.bin_size(n_layers * n_heads, n_queries, n_keys)
        top = scale_top(found)
        return {"values": packed(_patterns.quantised(_patterns.binned(found, size), 0.0, top)), "high": top}

    def _python(self, kind: str, cut: Cut, example: int) -> str:
        seed, n = self._cuts.seed, len(self._cuts.batch)
        device = self._cuts.device
        moved = "" if device.type == "cpu" else f'.to("{device}")'
        lines = ["import torch", "import fpt_viz as fpt", ""]
        lines += ["task = model.task" if self._own else f"task = fpt.load_task({self._task.name!r}{self._options()})"]
        lines += [f'batch = task.distinct({n}, "validation", seed={seed}){moved}']
        options = f'kind="{kind}"'
        if kind != "zero":
            lines += [f'reference = task.distinct({N_REFERENCE}, "train", seed={seed})']
            options += f", reference=reference, seed={seed}"
        lines += [
            f"with torch.no_grad(), fpt.ablated(model.eval(), {list(cut)}, {options}):",
            "    logits = model(batch.inputs, batch.mask)",
            "accuracy = task.correct(logits, batch.targets).float().mean()",
            "loss = task.loss(logits, batch.targets)",
            f"probabilities = logits[{example}].softmax(-1)",
        ]
        return "\n".join(lines)

    def _options(self) -> str:
        return "".join(f", {name}={value!r}" for name, value in self._task.options().items())

    def offline(self, trait: str) -> Iterable[Choice]:
        """The choice on screen, the intact model, and each head alone cut, on this example."""
        if trait == "tiles":
            return [self.choice]
        now = self.choice
        heads = [[layer, head] for layer in self.fixed["layers"] for head in self.fixed["heads"]]
        cuts: list[Choice] = [{"cut": [], "future": [], "past": []}, *({"cut": [head]} for head in heads)]
        if trait == "totals":
            return [{**now, "n": self.fixed["n"]}, {"cut": [], "n": self.fixed["n"]}]
        return [now, *cuts]

    def to_html(self, path: str | Path | None = None) -> str:
        """As of :meth:`Widget.to_html`: with single heads off, and the accuracy of what is on screen."""
        if self._changed_model():
            return super().to_html(path)
        self.choose(n=self.fixed["n"])
        return super().to_html(path)

    def figure(self) -> Figure:
        """The patterns of all heads on the example, those that are off outlined."""
        maps = self._maps_of(self.choice["example"])
        found: Figure = figures.head_grid(maps, highlight=self.cut)
        return replace(
            found,
            title=f"Without {self._cut_words()}" if self.cut else "All heads on",
            alt=self._alt(),
            note=f"{self._said()} {found.note} Patterns are those of the intact model; outlined heads are off "
            f"({self.choice['kind']} ablation).",
            finding=self._said(),
            source={**found.source, "cut": [head_name(head) for head in self.cut], "ablation": self.choice["kind"]},
        )

    def _alt(self) -> str:
        if self._changed_model():
            return str(self.alt)
        layers, heads = self.fixed["layers"], self.fixed["heads"]
        return (
            f"Grid of {len(layers)} layers by {len(heads)} heads of {self._origin}; off ({self.choice['kind']} "
            f"ablation): {self._cut_words() if self.cut else 'none'}. {self._said()}"
        )

    def _answered(self, trait: str, choice: Choice) -> Any:
        """Totals are not kept: they hold more once more is known."""
        return self.answer(trait, choice) if trait == "totals" else super()._answered(trait, choice)

    def _cut_words(self) -> str:
        named = [head_name(head) for head in self.cut]
        return ", ".join(named) if len(named) <= 12 else f"{', '.join(named[:12])} and {len(named) - 12} more heads"

    def _said(self) -> str:
        """The numbers on screen, in words."""
        example, targets = self.choice["example"], self._cuts.batch.targets[self.choice["example"]].flatten()
        right = [
            int((torch.from_numpy(self._cuts.answers(self.choice["kind"], cut, example).predicted) == targets).sum())
            for cut in ((), self.cut)
        ]
        said = f"Example {example}: {right[1]} of {len(targets)} answers right, intact {right[0]}."
        totals = self.totals or {}
        if not totals.get("n"):
            return f"{said} Accuracy is not measured yet."
        accuracy, loss = totals["accuracy"], totals["loss"]
        change = f" (change {interval(totals['intervals'][0])}, 95 % interval)" if self.cut else ""
        return (
            f"{said} On {totals['n']} validation examples accuracy {percent(accuracy[1])}{change}, intact "
            f"{percent(accuracy[0])}; loss {number(loss[1])}, intact {number(loss[0])}."
        )

    def _maps_of(self, example: int) -> AttentionMaps:
        """Whole patterns of the intact model on one example; the last ones are kept."""
        if self._maps is None or self._maps[0] != example:
            one = self._cuts.batch[example : example + 1].trimmed()
            self._maps = example, self._live.capture(one, queries=None)
        return self._maps[1]

    def _metrics(self, effects: AblationEffects | None, seed: int) -> dict[str, Any]:
        """What is written on the tiles: routing scores where the task has needs, and the effects given."""
        if self._task.needs(self._cuts.batch.inputs[:1]) is None and effects is None:
            return {}
        found = _patterns.patterns_of(self._live, self._task, effects=effects, n_examples=N_SCORED, seed=seed).metrics
        return {name: {"words": words, "values": _plain(found[name])} for name, words in WORDS.items() if name in found}


def _plain(values: Any) -> list[list[float | None]]:
    """``values`` as JSON bears them: None for NaN."""
    return [[None if np.isnan(one) else float(one) for one in row] for row in values]


def _as_cut(pairs: Iterable[Iterable[Any]]) -> Cut:
    return tuple((int(layer), int(head)) for layer, head in pairs)


def _named(head: Head | str) -> Head:
    """``head`` as layer and head."""
    part = part_of(head) if isinstance(head, str) else tuple(head)
    if len(part) != 2 or part[0] == "mlp":
        raise ConfigError(f"HeadLab switches heads, such as (0, 9) or 'L0H9'; got {head!r}")
    return int(part[0]), int(part[1])


def _answer_names(task: Any) -> list[str]:
    """One name an answer: the token that gives it where inputs are of one length, else its number."""
    n_each = torch.Size(task.output_shape[:-1]).numel()
    if task.n_readout * n_each == 1:
        return ["the answer"]
    last = list(task.token_names())[-task.n_readout :]
    return last if n_each == 1 else [f"{name}.{i}" for name in last for i in range(n_each)]
