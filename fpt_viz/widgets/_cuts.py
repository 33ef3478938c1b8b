"""What a model answers without some of its heads, example by example."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from fpt_viz.figures.base import Head, array
from fpt_viz.records import LiveModel
from fpt_viz.widgets._live import device_of, logits_of

KINDS = ("zero", "mean", "resample")
N_REFERENCE = 256
"""Training examples in the reference set of mean and resample: as many as ``ablate_heads`` takes."""
AT_ONCE_TOKENS = 256
"""In one forward pass over the data set, so that a click has not long to wait for it."""
KEPT_SETS = 128

Cut = tuple[Head, ...]


class Answers(NamedTuple):
    """What is answered on one example; of a classifier of many classes, only what is needed."""

    predicted: Int[np.ndarray, " answer"]
    share: Float[np.ndarray, " answer"]
    """Of the predicted class."""
    right: Float[np.ndarray, " answer"]
    """The share of the right class."""


class Outcome(NamedTuple):
    """By example."""

    accuracy: Float[Tensor, " example"]
    """Share of right targets."""
    loss: Float[Tensor, " example"]
    """Cross-entropy, in nats a target."""


NOTHING = Outcome(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))


class Cuts:
    """A model and a batch; answers are kept by what is cut, and those of the intact model for good."""

    def __init__(self, model: LiveModel, task: Any, batch: Any, *, seed: int) -> None:
        """Answer ``batch`` of ``task``; ``seed`` is of reference sets and of who stands in for whom."""
        self.model, self.task, self.batch, self.seed = model, task, batch, seed
        self.device = device_of(model)
        self.piece = max(1, AT_ONCE_TOKENS // batch.inputs.shape[1])
        self._stand_ins: dict[str, Any] = {}
        self._donors: Any = None
        self._answers: OrderedDict[tuple[str, Cut, int], Answers] = OrderedDict()
        self._outcomes: OrderedDict[tuple[str, Cut], Outcome] = OrderedDict()
        self._intact: Outcome = NOTHING

    def answers(self, kind: str, cut: Cut, example: int) -> Answers:
        """Those to one example; costs a forward pass where they are not known."""
        place = (kind if cut else "zero"), cut, example
        if place not in self._answers:
            one = slice(example, example + 1)
            shares = self._logits(kind, cut, one).flatten(0, -2).float().softmax(-1).cpu()
            wanted = self.batch.targets[one].reshape(-1, 1).cpu()
            best = shares.max(-1)
            self._answers[place] = Answers(
                array(best.indices).astype(np.int32),
                array(best.values).astype(np.float32),
                array(shares.gather(-1, wanted)[:, 0]).astype(np.float32),
            )
            while len(self._answers) > KEPT_SETS:
                self._answers.popitem(last=False)
        return self._answers[place]

    def outcome(self, kind: str, cut: Cut, n: int) -> Outcome:
        """That of the first ``n`` examples; only those that are not known yet are run."""
        place = kind, cut
        known = self._intact if not cut else self._outcomes.get(place, NOTHING)
        while len(known.loss) < n:
            part = slice(len(known.loss), min(len(known.loss) + self.piece, n))
            known = Outcome(*map(torch.cat, zip(known, self._outcome(kind, cut, part), strict=True)))
        if not cut:
            self._intact = known
            return Outcome(*(values[:n] for values in known))
        self._outcomes[place] = known
        self._outcomes.move_to_end(place)
        while len(self._outcomes) > KEPT_SETS:
            self._outcomes.popitem(last=False)
        return Outcome(*(values[:n] for values in known))

    def n_known(self, kind: str, cut: Cut) -> int:
        """Examples on which both the intact model and the one without ``cut`` are known."""
        known = self._outcomes.get((kind, cut), NOTHING) if cut else self._intact
        return min(len(known.loss), len(self._intact.loss))

    def _outcome(self, kind: str, cut: Cut, part: slice) -> Outcome:
        logits, targets = self._logits(kind, cut, part).cpu(), self.batch.targets[part].cpu()
        log_shares = logits.double().log_softmax(-1)
        loss = -log_shares.gather(-1, targets.reshape(*logits.shape[:-1], 1))
        right = self.task.correct(logits, targets).double()
        return Outcome(right.flatten(1).mean(1), loss.flatten(1).mean(1))

    def _logits(self, kind: str, cut: Sequence[Head], part: slice) -> Tensor:
        """In eval mode, whatever the mode of the model; both it and the random state stay as they are."""
        batch = self.batch[part].trimmed().to(self.device)
        if not cut:
            return logits_of(self.model, batch)
        stand_ins = self._stand_ins_of(kind)
        donors = None if self._donors is None or kind != "resample" else self._donors[part]
        with self.model.ablated(list(cut), kind, stand_ins=stand_ins, donors=donors):
            return logits_of(self.model, batch)

    def _stand_ins_of(self, kind: str) -> Any:
        """Worked out once; of resampling also who stands in for each example, as ``ablate_heads`` draws it."""
        if kind not in self._stand_ins:
            reference = None if kind == "zero" else self.task.distinct(N_REFERENCE, "train", self.seed)
            found = self._stand_ins[kind] = self.model.stand_ins(kind, reference=reference, seed=self.seed)
            if kind == "resample":
                self._donors = found.donors(len(self.batch), torch.Generator().manual_seed(self.seed))
        return self._stand_ins[kind]
