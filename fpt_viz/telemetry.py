"""What is captured of a model while it trains: the same probe batch every few steps, without touching the training.

A capture is one forward pass in eval mode; it draws nothing at random, and the model's mode, kernel and weights are as
before afterwards. So a run ends with the same weights, bit for bit, with telemetry or without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fpt_viz.capture import fingerprint, query_rows
from fpt_viz.config import TrainConfig
from fpt_viz.errors import ConfigError
from fpt_viz.freeze import group_of
from fpt_viz.measures._probe import chosen_heads, probed
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.telemetry import TelemetryFrame

SPLIT = "validation"


class Probe:
    """A fixed batch of validation examples, captured every ``every`` steps."""

    def __init__(
        self,
        model: FrozenPretrainedTransformer,
        *,
        every: int,
        heads: Sequence[Sequence[int] | str] | None = None,
        n_examples: int = 32,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        """Take ``model`` as it is now for the start.

        Args:
            model: Before its first step: deviations of gains are measured from here.
            every: Steps from one capture to the next.
            heads: Whose patterns are kept: pairs of layer and head, or words such as ``"L3H5"``; None or none for all.
            n_examples: Asked for; where the split holds fewer, all of it is used once.
            seed: Of the choice of examples; the same examples all through training.
            batch_size: Examples in one forward pass.

        Raises:
            ConfigError: ``every`` is below 1, or there is no such head.
        """
        for name, value in (("n_examples", n_examples), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} of a probe must be at least 1, got {value}")
        if every < 1:
            raise ConfigError(
                f"telemetry every {every} steps captures nothing: every must be at least 1, got {every}; 50 is usual, "
                "and a run without telemetry makes no probe"
            )
        self.model, self.every, self.seed, self.batch_size = model, every, seed, batch_size
        self.heads = chosen_heads(model, heads)
        self.batch = model.task.distinct(n_examples, SPLIT, seed)
        self.rows = query_rows(model, self.batch.to(next(model.parameters()).device), "readout").cpu()
        labels = (model.task.labels(example) for example in self.batch.inputs)
        self.labels = tuple(tuple(texts) for texts in labels)
        self.gains = _gains(model)
        self.start = {name: gain.detach().clone() for name, gain in self.gains.items()}

    @classmethod
    def of(cls, model: FrozenPretrainedTransformer, config: TrainConfig) -> Probe | None:
        """The probe that ``config`` asks for; None where it asks for none."""
        if not config.telemetry_every:
            return None
        return cls(
            model,
            every=config.telemetry_every,
            heads=config.telemetry_heads,
            n_examples=config.n_telemetry,
            seed=config.seed,
        )

    def due(self, n_steps: int) -> bool:
        """Whether a capture is due after ``n_steps`` steps; it is before the first."""
        return n_steps % self.every == 0

    def frame(self) -> TelemetryFrame:
        """The model as it is now.

        Costs one forward pass over the probe batch. Memory: the rows of attention that are read out or scored, of all
        heads.
        """
        model, patterns, scores, counts = self.model, [], [], []
        layers, heads = ([pair[i] for pair in self.heads] for i in (0, 1))
        for first in range(0, len(self.batch), self.batch_size):
            here = slice(first, first + self.batch_size)
            found = probed(model, model.task, self.batch[here], self.rows[here], range(model.backbone.n_layers))
            patterns.append(found.pattern.transpose(1, 2)[layers, heads].half())
            if found.score is not None:
                scores.append(found.score.score)
                counts.append(found.score.n_scored)
        return TelemetryFrame(
            step=model.step,
            every=self.every,
            heads=self.heads,
            patterns=torch.cat(patterns, dim=1),
            queries=self.rows,
            routing_score=_mean_score(scores, counts),
            norms=tuple(self.gains),
            gain_change=_by_norm([(gain - self.start[name]).abs().mean() for name, gain in self.gains.items()]),
            gain_rms=_by_norm([gain.pow(2).mean().sqrt() for gain in self.gains.values()]),
            labels=self.labels,
            split=SPLIT,
            seed=self.seed,
            source={**model.source, "inputs": fingerprint(self.batch)},
        )


def _gains(model: FrozenPretrainedTransformer) -> dict[str, nn.Parameter]:
    """What each layer norm multiplies by, trained or not."""
    groups = model.parameter_groups()
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if group_of(name, groups) == "layer_norm" and name.endswith("weight")
    }


def _by_norm(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.detach().float().cpu() for value in values]) if values else torch.zeros(0)


def _mean_score(scores: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor | None:
    """The mean over all scored queries, ``[layer head]``; None where there is none."""
    if not counts or not int(torch.cat(list(counts)).sum()):
        return None
    n_scored = torch.cat(list(counts)).double()
    return (torch.einsum("lbh,b->lh", torch.cat(list(scores), dim=1).double(), n_scored) / n_scored.sum()).float()
