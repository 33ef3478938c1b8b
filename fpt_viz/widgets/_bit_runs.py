"""What a model does with inputs that are written as bits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.errors import ConfigError
from fpt_viz.figures.base import Head, array
from fpt_viz.records import AttentionMaps, LiveModel

LETTERS = "01?"
"""A bit 0, a bit 1, a masked one."""
KEPT_RUNS = 32
AT_ONCE_TOKENS = 1024
"""Of inputs that are run together, where many are asked for."""


@dataclass(frozen=True, eq=False)
class BitRun:
    """What the model does with one input."""

    maps: AttentionMaps
    """Whole patterns of all heads."""
    ones: Float[np.ndarray, " answer"]
    """The probability that each answer is 1, read-out token by read-out token."""

    def scores(self) -> dict[Head, float]:
        """The routing score of each head on this input; empty where nothing is needed."""
        maps = self.maps
        if maps.needs is None or not bool(maps.needs.any()):
            return {}
        found = routing_score(maps.weights.float(), maps.needs, maps.queries).score[:, 0]
        return {(x, h): float(found[i, j]) for i, x in enumerate(maps.layers) for j, h in enumerate(maps.heads)}


class BitRuns:
    """Runs of one model, by the bits of the input; the last ones are kept."""

    def __init__(self, model: LiveModel, task: Any, batch: Any) -> None:
        """Run ``model`` on inputs shaped as those of ``batch``.

        Raises:
            ConfigError: The tokens of ``task`` are no bits.
        """
        self.model, self.task = model, task
        self.code = _code_of(task)
        self._batch = batch
        self._kept: OrderedDict[str, BitRun] = OrderedDict()
        self._room = KEPT_RUNS

    @property
    def letters(self) -> str:
        """Those that an input is written in."""
        return LETTERS[: len(self.code)]

    def read(self, inputs: Tensor) -> str:
        """The bits of one example as letters."""
        letters = dict(zip(self.code, self.letters, strict=True))
        return "".join(letters[value] for value in inputs.flatten().tolist())

    def inputs(self, *each: str) -> Tensor:
        """Bits as the model reads them."""
        values = [[self.code[LETTERS.index(letter)] for letter in bits] for bits in each]
        return torch.tensor(values, dtype=self._batch.inputs.dtype).view(len(each), *self._batch.inputs.shape[1:])

    def decided(self, bits: str) -> Int[np.ndarray, " answer"]:
        """Each answer as the task's rule says; -1 where it does not."""
        found = self.task.answer(self.inputs(bits))
        if found is None:
            return np.full(self._batch.targets[0].numel(), -1, np.int32)
        return array(found.flatten()).astype(np.int32)

    def __getitem__(self, bits: str) -> BitRun:
        if bits not in self._kept:
            self._run([bits])
        self._kept.move_to_end(bits)
        return self._kept[bits]

    @contextmanager
    def all_of(self, inputs: Iterable[str]) -> Iterator[None]:
        """Within the block all of ``inputs`` are at hand, run several at once."""
        missing = [bits for bits in dict.fromkeys(inputs) if bits not in self._kept]
        self._room += len(missing)
        n_at_once = max(1, AT_ONCE_TOKENS // self._batch.inputs.shape[1])
        for start in range(0, len(missing), n_at_once):
            self._run(missing[start : start + n_at_once])
        yield
        self._room = KEPT_RUNS
        self._let_go()

    def _run(self, each: Sequence[str]) -> None:
        """One forward pass, read at its heads and at its end."""
        seen: list[Tensor] = []
        batch = type(self._batch)(self.inputs(*each), self._batch.targets[:1].repeat_interleave(len(each), 0))
        with self.model.hooks([("readout.hook_out", lambda logits, _: seen.append(logits.detach().float().cpu()))]):
            maps = self.model.capture(batch, queries=None)
        ones = array(seen[-1].reshape(len(each), -1, 2).softmax(-1)[..., 1]).astype(np.float32)
        for i, bits in enumerate(each):
            self._kept[bits] = BitRun(_example(maps, i), ones[i])
        self._let_go()

    def _let_go(self) -> None:
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)


def _example(maps: AttentionMaps, i: int) -> AttentionMaps:
    """Example ``i`` of ``maps`` alone."""
    one = slice(i, i + 1)
    return replace(
        maps,
        weights=maps.weights[:, one].clone(),
        queries=maps.queries[one],
        labels=maps.labels[one],
        mask=maps.mask[one],
        needs=None if maps.needs is None else maps.needs[one],
    )


def _code_of(task: Any) -> tuple[float, ...]:
    """What stands for 0, 1 and perhaps a masked bit; an error where tokens are no bits."""
    code = getattr(task, "bit_values", None)
    if code is None or task.n_classes != 2:
        what = "symbols" if task.n_values is None else f"{task.n_values} value{'s' if task.n_values != 1 else ''} each"
        raise ConfigError(
            f"BitLab flips bits, and the {task.n_tokens} tokens of {task.name} hold none ({what}): it shows bit_xor, "
            "bit_memory, and tasks that say their bit_values; for others there are AttentionExplorer and HeadLab"
        )
    return tuple(code)
