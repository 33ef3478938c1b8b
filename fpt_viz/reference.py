"""What stands in the place of a part that is cut: its mean over a reference set, or its value on another example."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import contextlib
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int
import torch
from torch import Tensor

from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.kernel import Hook, HookPoint
from fpt_viz.records.parts import Part, is_head, layer_of
from fpt_viz.tap import Tappable, hooked, inspecting
from fpt_viz.tasks.base import Batch

Ablation = Literal["zero", "mean", "resample"]
ABLATIONS = ("zero", "mean", "resample")
N_REFERENCE = 256
"""Training examples in the reference set, unless one is given."""
REFERENCE_BATCH = 64
"""Reference examples in one forward pass."""
REFERENCE_BUDGET_BYTES = 2 << 30


@dataclass(frozen=True)
class StandIns:
    """What parts of a model are on a reference set."""

    kind: Ablation
    z: Mapping[int, Float[Tensor, "example seq head d_head"]] = field(default_factory=dict)
    """By layer; for means, ``example`` is 1."""
    mlp: Mapping[int, Float[Tensor, "example seq hidden"]] = field(default_factory=dict)
    pattern: Mapping[Part, Float[Tensor, " example"]] = field(default_factory=dict)
    """By edge."""
    lengths: Int[Tensor, " example"] | None = None
    """Real tokens of each reference example; None where there is no padding, or for means."""

    @property
    def n_examples(self) -> int:
        """Reference examples that can stand in; 1 for a mean, 0 for nothing."""
        return max((len(one) for kept in (self.z, self.mlp, self.pattern) for one in kept.values()), default=0)

    @classmethod
    def of(
        cls,
        model: Tappable,
        parts: Collection[Part],
        kind: str,
        *,
        reference: Batch | None = None,
        seed: int = 0,
    ) -> StandIns:
        """What ``parts`` are on ``reference``, or its mean; nothing for zero ablation.

        Cost: one forward pass over the reference set. Memory: of means, one example's z and MLP outputs of the layers
        that are cut; of resampling, those of the whole reference set.
        """
        if kind not in ABLATIONS:
            raise UnknownNameError("kind of ablation", kind, ABLATIONS)
        if kind == "zero" or not parts:
            return cls("zero")
        reference = model.task.distinct(N_REFERENCE, "train", seed) if reference is None else reference
        if not len(reference):
            raise ConfigError(f"the reference set of the {kind} ablation is empty: give examples of {model.task.name}")
        _check_budget(model, parts, kind, reference)
        gathered = _Gathered(parts, total=kind == "mean")
        device = next(model.parameters()).device
        with inspecting(model):
            for start in range(0, len(reference), REFERENCE_BATCH):
                part = reference[start : start + REFERENCE_BATCH].to(device)
                with gathered.reading(part), hooked(model, gathered.hooks()):
                    model(part.inputs, part.mask)
        lengths = None if reference.mask is None else reference.mask.sum(1).to(device)
        return cls("mean", *gathered.means()) if kind == "mean" else cls("resample", *gathered.values(), lengths)

    def of_part(self, part: Part) -> bool:
        """Whether they say what stands in for ``part``."""
        if self.kind == "zero":
            return True
        if len(part) == 4:
            return part in self.pattern
        return layer_of(part) in (self.z if is_head(part) else self.mlp)

    def donors(self, n_examples: int, rng: torch.Generator) -> Int[Tensor, " batch"] | None:
        """Of each of ``n_examples``, the reference example that stands in; None where there is no choice."""
        return torch.randint(self.n_examples, (n_examples,), generator=rng) if self.kind == "resample" else None

    def taken(self, kept: Tensor, like: Tensor, donors: Int[Tensor, " batch"] | None) -> Tensor:
        """``kept`` for a batch whose activation is ``like``, ``[batch seq ...]``; both real tokens and padding."""
        n_tokens = like.shape[1]
        if donors is None:
            return _fitted(kept, n_tokens).to(like)
        donors, tokens = donors.to(kept.device), torch.arange(n_tokens, device=kept.device)
        if self.lengths is None:
            return kept[donors][:, tokens.clamp(max=kept.shape[1] - 1)].to(like)
        tokens = tokens % self.lengths[donors][:, None]  # a shorter donor is read again from its first token
        return kept[donors[:, None], tokens].to(like)


def _fitted(kept: Tensor, n_tokens: int) -> Tensor:
    """The first ``n_tokens`` tokens of ``kept``; the last one again where it has fewer."""
    index = torch.arange(n_tokens, device=kept.device).clamp(max=kept.shape[1] - 1)
    return kept[:, index]


def _check_budget(model: Tappable, parts: Collection[Part], kind: str, reference: Batch) -> None:
    """Raise where the stand-ins of ``parts`` would take too much memory."""
    backbone, n_tokens = model.backbone, reference.inputs.shape[1]
    wide = {("z", layer_of(part)) for part in parts if is_head(part)}
    wide |= {("mlp", layer_of(part)) for part in parts if part[0] == "mlp"}
    size = 4 * len(wide) * n_tokens * backbone.d_model * (1 if kind == "mean" else len(reference))
    if size > REFERENCE_BUDGET_BYTES:
        raise CaptureError(
            f"{kind} ablation would keep {len(wide)} activations x {len(reference)} examples x {n_tokens} tokens, "
            f"{size / 1e6:,.1f} MB, over the budget of {REFERENCE_BUDGET_BYTES / 1e6:,.1f} MB: give a smaller "
            "reference set, cut fewer layers at once, or choose kind='mean'"
        )


class _Gathered:
    """Activations of the parts on the reference set as they come: all of them, or their sums by token."""

    def __init__(self, parts: Collection[Part], *, total: bool) -> None:
        self.total = total
        self.edges = [part for part in parts if len(part) == 4]
        self.layers = sorted({layer_of(part) for part in parts if is_head(part)})
        self.mlps = sorted({layer_of(part) for part in parts if part[0] == "mlp"})
        self.kept: dict[tuple[str, int] | Part, list[Tensor]] = {}
        self.counts: dict[tuple[str, int] | Part, list[Tensor]] = {}
        self.batch: Batch | None = None

    @contextlib.contextmanager
    def reading(self, batch: Batch) -> Iterator[None]:
        """What the hooks are shown within the block is of ``batch``."""
        self.batch = batch
        yield
        self.batch = None

    def hooks(self) -> list[tuple[str, Hook]]:
        hooks = [(f"blocks.{layer}.attn.hook_z", self._keep_by_token("z")) for layer in self.layers]
        hooks += [(f"blocks.{layer}.hook_mlp_out", self._keep_by_token("mlp")) for layer in self.mlps]
        for layer in sorted({layer_of(edge) for edge in self.edges}):
            hooks.append((f"blocks.{layer}.attn.hook_pattern", self._keep_edges))
        return hooks

    def _keep_by_token(self, kind: str) -> Hook:
        def keep(activation: Tensor, hook: HookPoint) -> None:
            assert self.batch is not None  # hooks run within `reading`
            real = torch.ones(activation.shape[:2], device=activation.device)
            real = real if self.batch.mask is None else self.batch.mask.to(real)
            self._add((kind, hook.layer()), activation.detach(), real)

        return keep

    def _keep_edges(self, pattern: Tensor, hook: HookPoint) -> None:
        assert self.batch is not None
        n_tokens = pattern.shape[-1]
        for edge in self.edges:
            if layer_of(edge) != hook.layer():
                continue
            _, head, query, key = edge
            if max(query, key) >= n_tokens:
                continue  # no example of this batch is that long
            real = torch.ones(len(pattern), device=pattern.device)
            if self.batch.mask is not None:
                real = (self.batch.mask[:, query] & self.batch.mask[:, key]).to(real)
            self._add(edge, pattern[:, head, query, key].detach(), real)

    def _add(self, name: tuple[str, int] | Part, values: Tensor, real: Tensor) -> None:
        weighted = values * real.reshape([*real.shape, *[1] * (values.ndim - real.ndim)])
        if not self.total:
            self.kept.setdefault(name, []).append(values)
        elif name in self.kept:
            self.kept[name][0] += weighted.sum(0)
            self.counts[name][0] += real.sum(0)
        else:
            self.kept[name], self.counts[name] = [weighted.sum(0)], [real.sum(0)]

    def means(self) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[Part, Tensor]]:
        """Means over the reference examples, by token; a token that no example has gets the mean over all tokens."""
        found: dict[tuple[str, int] | Part, Tensor] = {}
        for name, [total] in self.kept.items():
            [count] = self.counts[name]
            shaped = count.reshape([*count.shape, *[1] * (total.ndim - count.ndim)])
            overall = total.sum(0, keepdim=True) / count.sum().clamp(min=1) if count.ndim else total
            found[name] = torch.where(shaped > 0, total / shaped.clamp(min=1), overall)[None]
        return self._sorted(found)

    def values(self) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[Part, Tensor]]:
        """The activations of every reference example."""
        return self._sorted({name: torch.cat(kept) for name, kept in self.kept.items()})

    def _sorted(
        self, found: Mapping[tuple[str, int] | Part, Tensor]
    ) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[Part, Tensor]]:
        return (
            {layer: found["z", layer] for layer in self.layers},
            {layer: found["mlp", layer] for layer in self.mlps},
            {edge: found[edge] for edge in self.edges if edge in found},
        )
