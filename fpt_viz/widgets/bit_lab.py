"""Flip bits and watch what the model answers, what a head reads, and by which heads the answer gets there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
import traitlets

from fpt_viz import figures
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.export import SCALES, Figure
from fpt_viz.figures.base import Head, array, head_name, number, origin, place_of
from fpt_viz.records import LiveModel
from fpt_viz.widgets import _patterns
from fpt_viz.widgets._bit_runs import LETTERS, BitRuns
from fpt_viz.widgets._live import live_model
from fpt_viz.widgets._routing_edges import Edge, edges_towards
from fpt_viz.widgets.base import Choice, Widget, packed

__all__ = ["BitLab"]

EDGES = (8, 16, 24, 48, 96)
N_TOP = 8
"""Heads of the graph, unless all are asked for: those with the highest routing score."""
ALL_INPUTS_BITS = 10
"""A saved page answers every input of at most so many bits; of more bits, single flips of the one shown."""
N_FLIPS = 64
OFFLINE_BYTES = 2_000_000
"""The most that a saved page carries of patterns, once for other bits and once for other heads."""
N_POOL = 64
N_SCORED = 16
"""Validation examples on which heads are ranked."""
PAST_LETTERS = 100_000
"""The most that is kept for undoing."""


class BitLab(Widget):
    """The strings of a task whose tokens are bits: click a bit to flip it, or move with the arrow keys and press space.

    The right answer follows from the task's own rule. A bit that the task can mask can be masked in any string.
    """

    script = "bit_lab.js"
    depends = {  # noqa: RUF012
        "run": ("bits", "draw"),
        "pattern": ("bits", "layer", "head"),
        "graph": ("bits", "edges", "towards", "among"),
    }
    optional = ("pattern", "graph")

    run = traitlets.Dict().tag(sync=True)
    """The probability of each answer, and what the input decides."""
    pattern = traitlets.Dict(allow_none=True).tag(sync=True)
    """The weights of the chosen head on the bits shown."""
    graph = traitlets.Dict(allow_none=True).tag(sync=True)
    """The largest edges towards the read-out tokens, or the one chosen."""

    def __init__(
        self,
        source: Any,
        task: Any = None,
        *,
        n_examples: int = 16,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Show what ``source`` makes of bits.

        Args:
            source: A model of a task whose tokens are bits.
            task: What examples are drawn from; the model's own unless given.
            n_examples: Distinct validation examples to start from.
            seed: Of their choice.
            state: The :attr:`state` of another one of the same source.

        Raises:
            ConfigError: No model, or a task whose tokens are no bits.
        """
        live = live_model(source, "BitLab")
        task = _patterns.task_of(live, task)
        batch = task.distinct(n_examples, "validation", seed)
        self._task, self._runs = task, BitRuns(live, task, batch)
        examples = [self._runs.read(inputs) for inputs in batch.inputs]
        maps, heads = self._runs[examples[0]].maps, _ranked_heads(live, task, seed)
        scored = heads[0][2] is not None
        geometry, names, n_bits = task.geometry(), list(task.token_names()), len(examples[0])
        pool = task.sample(N_POOL, torch.Generator().manual_seed(seed), "validation").inputs
        fixed = {
            "title": f"Bits of {origin(maps.source)}",
            "groups": list(geometry.groups),
            "group": list(geometry.group),
            "position": list(geometry.position),
            "names": names,
            "readout": list(range(len(names) - task.n_readout, len(names))),
            "n_values": n_bits // len(names),
            "n_answers": torch.Size(task.output_shape[:-1]).numel(),
            "maskable": len(self._runs.letters) == 3,
            "examples": examples,
            "pool": [self._runs.read(inputs) for inputs in pool] if n_bits <= ALL_INPUTS_BITS else [],
            "n_past": max(2, min(100, PAST_LETTERS // n_bits)),
            "heads": heads,
            "n_top": min(N_TOP, len(heads)) if scored else 0,
            "n_layers": len(maps.layers),
            "causal": maps.causal,
            "edges": list(EDGES),
            "scales": {name: list(stops) for name, stops in SCALES.items()},
        }
        first = {
            "example": 0,
            "bits": examples[0],
            "draw": None,
            "past": [],
            "layer": heads[0][0],
            "head": heads[0][1],
            "towards": -1,
            "among": "top" if scored else "all",
            "edges": 24,
            "brush": "flip",
        }
        super().__init__(first=first, fixed=fixed, state=state)
        self.watch(live)

    # What a reader of the notebook uses.

    def choose(self, **fields: Any) -> None:
        """As of :meth:`Widget.choose`; an example brings its own bits unless others are given."""
        if "example" in fields and "bits" not in fields:
            place_of(fields["example"], range(len(self.fixed["examples"])), "example")
            fields["bits"] = self.fixed["examples"][fields["example"]]
        if "bits" in fields and "past" not in fields:
            now = [self.choice["example"], self.choice["bits"]]
            fields["past"] = [*self.choice["past"], now][-self.fixed["n_past"] :]
        super().choose(**fields)

    def flip(self, token: str, value: int = 0) -> None:
        """Flip the bit of ``token``, such as ``"a3"``; ``value`` tells those of one token apart. A masked one is 1."""
        self._put(token, value, {"0": "1", "1": "0", "?": "1"})

    def mask(self, token: str, value: int = 0) -> None:
        """Mask the bit of ``token``; one that is masked stays so.

        Raises:
            ConfigError: The task has no masked bits.
        """
        self._put(token, value, dict.fromkeys(LETTERS, "?"))

    def undo(self) -> None:
        """Take the last change of the bits back."""
        *before, (example, bits) = self.choice["past"] or [[self.choice["example"], self.choice["bits"]]]
        self.choose(example=example, bits=bits, past=before)

    @property
    def inputs(self) -> Tensor:
        """The bits shown as the model reads them, ``[1 seq values]``."""
        return self._runs.inputs(self.choice["bits"])

    def _put(self, token: str, value: int, becomes: Mapping[str, str]) -> None:
        names, n_values = self.fixed["names"], self.fixed["n_values"]
        if token not in names:
            raise UnknownNameError("token", token, names)
        place_of(value, range(n_values), "value")
        bits, place = self.choice["bits"], names.index(token) * n_values + value
        self.choose(bits=bits[:place] + becomes[bits[place]] + bits[place + 1 :])

    # What the page asks for.

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it is of this task; where one is to be drawn, with its bits."""
        fixed = self.fixed
        place_of(choice["example"], range(-1, len(fixed["examples"])), "example")
        if choice["draw"] is not None:
            drawn = self._task.sample(1, torch.Generator().manual_seed(int(choice["draw"])), "validation").inputs[0]
            choice = {**choice, "draw": None, "example": -1, "bits": self._runs.read(drawn)}
        bits, letters = choice["bits"], self._runs.letters
        if not isinstance(bits, str) or len(bits) != len(fixed["examples"][0]) or set(bits) - set(letters):
            shown = f"{bits!r:.40}" + (f" of {len(bits)} letters" if isinstance(bits, str) else "")
            masked = ", ? for a masked bit" if fixed["maskable"] else ": no bit of this task can be masked"
            raise ConfigError(f"bits must be {len(fixed['examples'][0])} letters 0 or 1{masked}; got {shown}")
        if [choice["layer"], choice["head"]] not in [head[:2] for head in fixed["heads"]]:
            raise ConfigError(f"there is no head {head_name((choice['layer'], choice['head']))} in this model")
        place_of(choice["towards"], [-1, *fixed["readout"]], "read-out token")
        place_of(choice["edges"], fixed["edges"], "number of edges")
        self._mixed(choice["among"])
        return choice

    def answer(self, trait: str, choice: Choice) -> Any:
        """What the model answers, what a head reads, or by which edges."""
        run = self._runs[choice["bits"]]
        if trait == "run":
            return {"ones": packed(run.ones), "decided": packed(self._runs.decided(choice["bits"]))}
        if trait == "graph":
            return {"edges": [[*edge[:4], round(edge.weight, 5)] for edge in self._edges(choice)]}
        maps, head = run.maps, (choice["layer"], choice["head"])
        weights = array(maps.weights[head[0], 0, head[1]]).astype(np.float32)
        if maps.causal:
            weights[np.triu_indices(len(weights), 1)] = np.nan
        return {
            "values": packed(weights),
            "labels": list(maps.labels[0]),
            "needs": [] if maps.needs is None else maps.needs[0].nonzero().tolist(),
            "score": run.scores().get(head),
        }

    def offline(self, trait: str) -> Iterable[Choice]:
        """Every input where there are few; else the examples, and single flips of the input shown."""
        followed: list[Choice] = [{"bits": bits, "draw": None} for bits in self._offline_inputs()]
        if trait == "pattern":
            n_patterns = max(1, OFFLINE_BYTES // (6 * len(self.fixed["names"]) ** 2))
            others = [{"layer": x, "head": h} for x, h, _ in self.fixed["heads"]]
            return [self.choice, *followed[:n_patterns], *others[:n_patterns]]
        if trait == "graph":
            heads = [head_name((x, h)) for x, h, _ in self.fixed["heads"]]
            goals = [{"edges": n, "towards": t} for n in EDGES for t in [-1, *self.fixed["readout"]]]
            among = [{"among": one} for one in ("all", *(["top"] if self.fixed["n_top"] else []), *heads)]
            return [*followed, *goals, *among]
        return followed

    def _offline_inputs(self) -> list[str]:
        bits = self.choice["bits"]
        if len(bits) <= ALL_INPUTS_BITS and not self.fixed["maskable"]:
            return ["".join(letters) for letters in product("01", repeat=len(bits))]
        flips = [bits[:i] + ("1" if bits[i] == "0" else "0") + bits[i + 1 :] for i in range(min(len(bits), N_FLIPS))]
        return list(dict.fromkeys([bits, *self.fixed["examples"], *flips]))

    def to_html(self, path: str | Path | None = None) -> str:
        """As of :meth:`Widget.to_html`: every input of 10 bits or less; of more, the examples and single flips."""
        if self._changed_model():
            return super().to_html(path)
        with self._runs.all_of(self._offline_inputs()):
            return super().to_html(path)

    def figure(self) -> Figure:
        """The chosen head's pattern and the graph, side by side."""
        maps, choice = self._runs[self.choice["bits"]].maps, self.choice
        pattern: Figure = figures.attention_heatmap(maps, layer=choice["layer"], head=choice["head"])
        edges = self._edges(choice)
        if not edges:
            return replace(pattern, alt=self._alt())
        kept = torch.zeros_like(maps.weights)
        for edge in edges:
            kept[edge.layer, 0, edge.head, edge.query, edge.key] = edge.weight
        graph: Figure = figures.routing_graph(replace(maps, weights=kept), edges=len(edges))
        panels = (
            replace(pattern.panels[0], title=f"head {head_name((choice['layer'], choice['head']))}"),
            replace(graph.panels[0], title=f"the {len(edges)} largest edges"),
        )
        return replace(
            pattern,
            title=f"What becomes of the bits {self._shown_bits()}",
            panels=panels,
            columns=2,
            note=f"{self._said()} {pattern.note} Edges towards {self._goal()}: each ends at the token that reads, and "
            "is of the head that reads most there.",
            alt=self._alt(),
            finding=f"{self._said()} {pattern.finding}",
            source={**pattern.source, "bits": choice["bits"]},
        )

    def _alt(self) -> str:
        if self._changed_model():
            return str(self.alt)
        edges = self._edges(self.choice)
        labels = self._runs[self.choice["bits"]].maps.labels[0]
        most = ", ".join(
            f"{head_name((e.layer, e.head))}: {labels[e.query]} reads {labels[e.key]} ({number(e.weight)})"
            for e in edges[:3]
        )
        head = head_name((self.choice["layer"], self.choice["head"]))
        return (
            f"Bits {self._shown_bits()} of {self.fixed['title'].removeprefix('Bits of ')}. {self._said()} The pattern "
            f"of head {head}, and the {len(edges)} largest attention edges towards {self._goal()}: {most or 'none'}."
        )

    def _shown_bits(self) -> str:
        """String by string; of long ones the beginning."""
        bits, n = self.choice["bits"], len(self.choice["bits"]) // len(self.fixed["groups"])
        strings = [bits[i : i + n] for i in range(0, len(bits), n)]
        return " ".join(string if len(string) <= 12 else f"{string[:12]}…" for string in strings)

    def _goal(self) -> str:
        towards = self.choice["towards"]
        goal = "the read-out tokens" if towards < 0 else str(self.fixed["names"][towards])
        heads = self._mixed(self.choice["among"])
        return goal if heads is None else f"{goal}, of {', '.join(head_name(head) for head in heads)}"

    def _said(self) -> str:
        """How many answers are right."""
        ones, decided = self._runs[self.choice["bits"]].ones, self._runs.decided(self.choice["bits"])
        known = decided >= 0
        n_right = int(((ones > 0.5) == decided)[known].sum())
        return f"{n_right} of {int(known.sum())} answers that the bits decide are right."

    # The graph.

    def _edges(self, choice: Choice) -> list[Edge]:
        """Those of the heads asked for; of any other head the weights count as nothing."""
        maps = self._runs[choice["bits"]].maps
        weights = array(maps.weights[:, 0])
        chosen = self._mixed(choice["among"])
        if chosen is not None:
            mine = np.zeros(weights.shape[:2], dtype=bool)
            for layer, head in chosen:
                mine[layer, head] = True
            weights = np.where(mine[..., None, None], weights, 0)
        goal = self.fixed["readout"] if choice["towards"] < 0 else [choice["towards"]]
        return edges_towards(weights, goal, choice["edges"])

    def _mixed(self, among: str) -> list[Head] | None:
        """The heads whose edges are drawn; None for all."""
        heads = self.fixed["heads"]
        if among == "all":
            return None
        if among == "top" and self.fixed["n_top"]:
            return [(layer, head) for layer, head, _ in heads[: self.fixed["n_top"]]]
        for layer, head, _ in heads:
            if head_name((layer, head)) == among:
                return [(layer, head)]
        there = ["all", *(["top"] if self.fixed["n_top"] else []), "a head such as L0H0"]
        raise ConfigError(f"the graph is of {', '.join(there)}; got {among!r}")


def _ranked_heads(model: LiveModel, task: Any, seed: int) -> list[list[Any]]:
    """Layer, head and routing score of each head, the highest score first; in order where there are no scores."""
    found = _patterns.patterns_of(model, task, n_examples=N_SCORED, seed=seed)
    scores = found.metrics.get("routing")
    heads = [
        [x, h, None if scores is None else float(scores[i, j])]
        for i, x in enumerate(found.layers)
        for j, h in enumerate(found.heads)
    ]
    return heads if scores is None else sorted(heads, key=lambda head: (-head[2], head[:2]))
