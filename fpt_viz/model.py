"""The frozen pretrained transformer: a new input layer, a backbone, a new output layer (Lu et al., 2021, section 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
import warnings

from jaxtyping import Bool, Float, Int, Shaped
import torch
from torch import Tensor, nn

from fpt_viz import activations, cache, capture, freeze, intervene, kernel, tap
from fpt_viz.backbones import Backbone
from fpt_viz.backbones._narrow import take_rows
from fpt_viz.config import InputInit
from fpt_viz.dropout import Dropout
from fpt_viz.errors import CaptureError, ConfigError, TrapWarning
from fpt_viz.records import AttentionMaps, Ledger
from fpt_viz.records.parts import Part
from fpt_viz.tasks import Batch, Task

INPUT_DROPOUT = 0.1
"""After the input layer while training, as in the paper's code."""
N_CALIBRATION = 256
"""Training examples on which the scale of the input layer is matched."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a model."""

    n_layers: int
    n_heads: int
    """0 where the backbone has no attention."""
    n_key_value_heads: int
    d_model: int
    """Width of the residual stream."""
    d_head: int
    n_ctx: int
    """Tokens in the task's longest sequence."""


class FrozenPretrainedTransformer(nn.Module):
    """Input layer -> backbone -> output layer on the read-out tokens.

    Trains ``backbone`` in place, so a backbone serves one model.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        trained: Collection[str] = freeze.PAPER_GROUPS,
        *,
        input_init: InputInit = "matched",
        seed: int = 0,
    ) -> None:
        """Build the new layers for ``task`` and freeze what is not in ``trained``.

        Args:
            backbone: From :func:`fpt_viz.load_backbone`; not yet in another model.
            task: Decides the sizes of both new layers and the number of positions.
            trained: Groups that learn: output, input, layer_norm, position, feed_forward, attention, an LSTM's
                recurrent, ``attention:5`` or ``attention:last`` for one layer, or all. Positions beyond the backbone's
                own are new, and always train.
            input_init: ``"matched"`` gives the input layer's output the root mean square of the backbone's own token
                embeddings, and never a zero vector; ``"paper"`` is orthogonal with gain 1.41, and the bias
                starts at zero.
            seed: Of the new layers.

        Raises:
            ConfigError: The backbone is in another model, or is too short for the task; or nothing is trained.
            UnknownNameError: No such group.
        """
        super().__init__()
        if backbone.owner is not None:
            raise ConfigError(f"this backbone is already trained by a model of {backbone.owner}: load another")
        self.trained = freeze.parse_trained(trained, backbone.n_layers)
        if input_init not in ("matched", "paper"):
            raise ConfigError(f"input_init must be 'matched' or 'paper', got {input_init!r}")
        backbone.fit_positions(task.n_tokens, seed=seed)
        backbone.owner = task.name
        self.backbone, self.task, self.input_init = backbone, task, input_init
        self.run_id: str | None = None
        self.run_path: Path | None = None
        """The folder of the run that it was loaded from, which holds its start."""
        self.step = 0
        """Gradient steps taken; kept by training, told in captures."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: no caller's CUDA draws change
            self.input = self._input_layer()
            self.input_dropout = Dropout(INPUT_DROPOUT)
            n_outputs = torch.Size(task.output_shape).numel()
            self.output = nn.Linear(backbone.d_model, n_outputs)
        freeze.freeze(self, self.trained)

    def _input_layer(self) -> nn.Linear | nn.Embedding:
        """A linear layer over the values of a token, or an embedding of its symbol, at the scale asked for."""
        scale = self.backbone.token_rms
        if self.task.n_symbols is not None:
            embedding = nn.Embedding(self.task.n_symbols, self.backbone.d_model)
            nn.init.normal_(embedding.weight, std=scale if self.input_init == "matched" else 1.0)
            return embedding
        assert self.task.n_values is not None  # a task has values or symbols
        linear = nn.Linear(self.task.n_values, self.backbone.d_model)
        nn.init.orthogonal_(linear.weight, gain=1.41)
        nn.init.zeros_(linear.bias)
        if self.input_init == "matched":
            _match_scale(linear, self.task, scale)
        return linear

    def forward(
        self, inputs: Shaped[Tensor, "batch seq *values"], mask: Bool[Tensor, "batch seq"] | None = None, **options: Any
    ) -> Float[Tensor, "batch readout *outputs"]:
        """The logits of the read-out tokens; padded tokens (``mask`` False) are neither attended to nor read out.

        Takes no ``options``: those that transformers accepts and then ignores are refused with what to do instead.
        """
        _refuse(options)
        return self.read(self.features(inputs, mask))

    def features(
        self, inputs: Shaped[Tensor, "batch seq *values"], mask: Bool[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "batch readout hidden"]:
        """What the output layer reads: the backbone's last states of the read-out tokens."""
        hidden = self.backbone(self.embedded(inputs), mask)
        return self.at_rows(hidden, self.readout_tokens(inputs.shape[1], mask), mask)

    def embedded(self, inputs: Shaped[Tensor, "batch seq *values"]) -> Float[Tensor, "batch seq hidden"]:
        """What the backbone is given."""
        vectors: Tensor = self.input_dropout(self.input(inputs))
        return vectors

    def at_rows(
        self, hidden: Float[Tensor, "batch seq hidden"], rows: Int[Tensor, "_ readout"], mask: Tensor | None
    ) -> Float[Tensor, "batch readout hidden"]:
        """The states of the read-out tokens ``rows``, from :meth:`readout_tokens`."""
        if mask is None:
            return torch.as_tensor(hidden[:, -self.task.n_readout :])
        return take_rows(hidden, rows)

    def read(self, features: Float[Tensor, "batch readout hidden"]) -> Float[Tensor, "batch readout *outputs"]:
        """The logits that the output layer makes of ``features``."""
        logits: Tensor = self.output(features).unflatten(-1, self.task.output_shape)
        return logits

    def readout_tokens(self, n_tokens: int, mask: Tensor | None = None) -> Int[Tensor, "batch readout"]:
        """Of each example, the last ``task.n_readout`` real tokens; one row for all where there is no mask.

        They lie where the mask does, and on the model's device where there is none.
        """
        shortest = n_tokens if mask is None else int(mask.sum(1).min())
        if shortest < self.task.n_readout:
            raise ConfigError(f"{self.task.name} reads {self.task.n_readout} tokens, an example has {shortest}")
        device = self.output.weight.device if mask is None else mask.device
        offsets = torch.arange(-self.task.n_readout, 0, device=device)
        return offsets[None] + n_tokens if mask is None else mask.sum(1)[:, None] + offsets

    def set_dropout(self, rate: float | None) -> None:
        """Set every dropout rate; None keeps those of the backbone and of the input layer."""
        if rate is not None:
            self.input_dropout.p = rate
            self.backbone.set_dropout(rate)

    def parameter_groups(self) -> dict[str, str]:
        """Glob over parameter names -> group; each parameter is in one."""
        groups = {f"backbone.{glob}": group for glob, group in self.backbone.parameter_groups().items()}
        return {"input.*": "input", "output.*": "output", **groups}

    def layer_of(self, name: str) -> int | None:
        """The layer that the parameter ``name`` belongs to; None for the new layers, positions and final norm."""
        return self.backbone.layer_of(name.removeprefix("backbone.")) if name.startswith("backbone.") else None

    def ledger(self) -> Ledger:
        """Every tensor, with the SHA-256 of the frozen ones."""
        return freeze.ledger_of(self, asdict(self.backbone.provenance))

    def verify(self, ledger: Ledger) -> list[str]:
        """The frozen tensors of ``ledger`` that moved since, by name; empty if none did."""
        return freeze.verify(self, ledger)

    def trained_tensors(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def version(self) -> tuple[int, ...]:
        """How often each parameter was written to in place: another tuple after any step or edit of a weight."""
        return tuple(parameter._version for parameter in self.parameters())

    @property
    def cfg(self) -> Sizes:
        """The sizes of the network, by the names that TransformerLens gives them."""
        backbone = self.backbone
        heads = (backbone.n_heads, backbone.n_kv_heads, backbone.d_head) if backbone.has_attention else (0, 0, 0)
        return Sizes(
            n_layers=backbone.n_layers,
            n_heads=heads[0],
            n_key_value_heads=heads[1],
            d_model=backbone.d_model,
            d_head=heads[2],
            n_ctx=self.task.n_tokens,
        )

    @property
    def source(self) -> dict[str, Any]:
        """What a record taken from this model says of where it comes from."""
        provenance = self.backbone.provenance
        source = {"task": self.task.name, "backbone": provenance.name, "init": provenance.init, "step": self.step}
        source |= {"note": self.task.note} if self.task.note else {}
        return source | ({"run": self.run_id} if self.run_id else {})

    def run_with_cache(
        self, inputs: Tensor, mask: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, cache.ActivationCache]:
        """The logits and the activations; see :func:`fpt_viz.cache.run_with_cache`."""
        return cache.run_with_cache(self, inputs, mask, **options)

    def estimate(self, inputs: Tensor, mask: Tensor | None = None, **options: Any) -> int:
        """The bytes that ``run_with_cache`` would keep; see :func:`fpt_viz.cache.estimate`."""
        return cache.estimate(self, inputs, mask, **options)

    def hooks(self, fwd_hooks: Iterable[tuple[activations.NameFilter, kernel.Hook]]) -> AbstractContextManager[None]:
        """Functions on named activations within a block; see :func:`fpt_viz.tap.hooked`."""
        return tap.hooked(self, fwd_hooks)

    def run_with_hooks(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        *,
        fwd_hooks: Iterable[tuple[activations.NameFilter, kernel.Hook]],
    ) -> Tensor:
        """The logits of one forward pass under ``fwd_hooks``, in the mode that the model is in.

        Warns in training mode, where dropout makes every pass another one.
        """
        if self.training:
            warnings.warn(
                "the model is in training mode: dropout changes what hooks see from pass to pass; call model.eval()",
                TrapWarning,
                stacklevel=2,
            )
        with self.hooks(fwd_hooks):
            return torch.as_tensor(self(inputs, mask))

    def leaked_hooks(self) -> list[str]:
        """The activations that hooks of ours are still on, outside any block; empty unless something went wrong."""
        return tap.leaked(self)

    def reset_hooks(self) -> None:
        """Take away every hook of ours, whoever left it."""
        tap.reset_hooks(self)

    def activation_names(self) -> list[str]:
        """The names that ``run_with_cache`` and ``hooks`` know."""
        return activations.activation_names(self.backbone)

    def capture(self, batch: Batch, **options: Any) -> AttentionMaps:
        """The attention on ``batch``; see :func:`fpt_viz.capture_attention`."""
        return capture.capture_attention(self, batch, **options)

    def ablated(
        self,
        heads: Collection[Part],
        kind: intervene.Ablation = "zero",
        *,
        reference: Batch | None = None,
        seed: int = 0,
        stand_ins: intervene.StandIns | None = None,
        donors: Int[Tensor, " batch"] | None = None,
    ) -> AbstractContextManager[None]:
        """The model without ``heads`` within a block; see :func:`fpt_viz.ablated`."""
        return intervene.ablated(self, heads, kind, reference=reference, seed=seed, stand_ins=stand_ins, donors=donors)

    def stand_ins(
        self, kind: intervene.Ablation, *, reference: Batch | None = None, seed: int = 0
    ) -> intervene.StandIns:
        """What stands in for any head; see :func:`fpt_viz.intervene.head_stand_ins`."""
        return intervene.head_stand_ins(self, kind, reference=reference, seed=seed)

    def __repr__(self) -> str:
        provenance = self.backbone.provenance
        n_trained = sum(parameter.numel() for parameter in self.trained_tensors().values())
        return (
            f"FrozenPretrainedTransformer({provenance.name} {provenance.init}, {self.backbone.n_layers} layers, "
            f"{self.task.name}; trains {n_trained:,} values in {', '.join(self.trained)})"
        )


TRAPS = {
    "output_attentions": "it returns nothing under a fused kernel: call fpt_viz.capture_attention(model, batch), or "
    "model.run_with_cache for any activation",
    "head_mask": "transformers 5 ignores it, so that no head would seem to matter: cut heads with "
    "model.ablated([(layer, head)]) or fpt_viz.ablate_heads",
    "output_hidden_states": "call model.run_with_cache(inputs, names_filter=lambda name: name.endswith('resid_post'))",
}
"""Arguments that other tools take, and what to do here instead."""


def _refuse(options: dict[str, Any]) -> None:
    """Raise for any option of a forward pass; it takes none."""
    for name in options:
        if name in TRAPS:
            raise CaptureError(f"{name} was passed to a forward pass; {TRAPS[name]}")
        raise ConfigError(f"a forward pass takes inputs and mask, got {name}")


@torch.no_grad()
def _match_scale(linear: nn.Linear, task: Task, rms: float) -> None:
    """Scale ``linear`` so that its output on training inputs has root mean square ``rms``, half of it from the bias.

    The bias keeps the zero input (a bit 0, a black patch) away from the zero vector, on which RMSNorm's gradient grows
    without bound.
    """
    inputs = task.sample(N_CALIBRATION, torch.Generator().manual_seed(0)).inputs
    weighted = linear(inputs)  # the bias is zero
    spread = weighted.pow(2).mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    linear.weight.mul_(1 / spread)
    nn.init.normal_(linear.bias)
    linear.bias.div_(linear.bias.pow(2).mean().sqrt())
    factor = rms / linear(inputs).pow(2).mean().sqrt()
    linear.weight.mul_(factor)
    linear.bias.mul_(factor)
