"""What each head and MLP adds to the logits by the direct path."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float, Float64, Int
import torch
from torch import Tensor, nn

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import CaptureError
from fpt_viz.kernel import HookPoint
from fpt_viz.measures._answers import (
    answer_names,
    checked_of,
    coefficients,
    given_or_drawn,
    pieces,
    rows_at,
)
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import LogitAttribution
from fpt_viz.records.parts import words_of
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch

__all__ = ["logit_attribution"]

TOLERANCE = 1e-3
"""Of the sum of the terms, relative to the largest logit or term, beyond which the model is not what is assumed."""


def logit_attribution(
    model: FrozenPretrainedTransformer,
    batch: Batch | None = None,
    *,
    of: str = "target",
    n_examples: int = 256,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 64,
) -> LogitAttribution:
    """Take logits apart into what each head, each MLP, the embedding, the positions and biases add to them.

    The residual stream at a read-out token is a sum of what was written there, and the output layer is linear, so a
    logit is a sum over what was written, once each layer norm in between is a linear map: it divides by the scale that
    was measured on the very input. Pre-LN families have one norm in between; of post-LN families a term goes through
    every norm from its block on. Only the direct path counts: what a head does through later heads and MLPs is in
    their terms.

    The term ``bias`` holds all that is the same for every input: biases of the output layer, of the norms and of the
    projections of heads and MLPs, and what the network adds to every token. A head's value bias is in its own term.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        batch: Examples; None for ``n_examples`` distinct ones of ``split``.
        of: ``"target"`` is the right class's logit, ``"difference"`` it minus the best other one's, ``"all"`` every
            logit.
        n_examples: Asked for, where no batch is given.
        split: ``"train"``, ``"validation"`` or ``"test"``; without effect where a batch is given.
        seed: Of the choice of examples and the bootstrap.
        batch_size: Examples in one forward pass.

    Cost: one forward pass over the examples, and one of one example. Memory: z, MLP outputs and scales of all layers
    at the read-out tokens of ``batch_size`` examples.

    Raises:
        CaptureError: The terms do not add up to the logits: a part of the network writes what no activation name
            shows.
        ConfigError: An empty batch.
        UnknownNameError: No such ``of`` or split.

    Reference:
        Elhage et al., 2021, https://transformer-circuits.pub/2021/framework, on direct paths to the logits; McDougall
        et al., 2023, https://arxiv.org/abs/2310.04625, on the measured scale.
    """
    checked_of(of)
    batch, told_split = given_or_drawn(model, batch, n_examples, split, seed)
    values, logits = [], []
    with inspecting(model):
        constants = _constants(model, batch)
        for part in pieces(model, batch, batch_size):
            found, wanted = _taken_apart(model, part, of, constants)
            values.append(found.cpu())
            logits.append(wanted.cpu())
    whole, explained = torch.cat(values), torch.cat(logits)
    error = float((whole.sum(-1) - explained).abs().max())
    largest = max(1.0, float(explained.abs().max()), float(whole.abs().max()))
    if not error <= TOLERANCE * largest:
        raise CaptureError(
            f"the terms of a logit of {model.backbone.provenance.name} add up to it only within {error:.2g}, wanted "
            f"{TOLERANCE * largest:.2g}: this network writes something that no activation name shows"
        )
    names, n_each = answer_names(model.task), whole.shape[1] // len(answer_names(model.task))
    per_example = whole.mean(1)
    return LogitAttribution(
        values=whole.float(),
        logits=explained.float(),
        mean=per_example.mean(0).float(),
        interval=bootstrap_interval(per_example, seed=seed).float(),
        terms=_terms(model),
        answers=names if of != "all" else tuple(f"{name}: class {i}" for name in names for i in range(n_each)),
        of=of,
        error=error,
        n_examples=len(whole),
        split=told_split,
        source=model.source,
    )


def _terms(model: FrozenPretrainedTransformer) -> tuple[str, ...]:
    names = ["embedding", "position"]
    for layer in range(model.backbone.n_layers):
        names += [words_of((layer, head)) for head in range(model.backbone.n_heads)]
        names.append(words_of(("mlp", layer)))
    return (*names, "bias")


@dataclass(frozen=True)
class _Constants:
    """What is written whatever the input, ``[hidden]`` each."""

    start: Tensor
    """Into the residual stream before the first block, or before the norm on the embeddings."""
    attention: list[Tensor]
    """By layer."""
    mlp: list[Tensor]


def _constants(model: FrozenPretrainedTransformer, batch: Batch) -> _Constants:
    """What the network writes where it is shown nothing and no head and no MLP unit says anything: its biases."""
    backbone = model.backbone
    silenced = ["hook_embed", "hook_pos_embed"]
    silenced += [f"blocks.{i}.{name}" for i in range(backbone.n_layers) for name in ("attn.hook_z", "mlp.hook_post")]
    normed = "embed.ln.hook_scale" in backbone.outer_places
    start = ["embed.ln.hook_scale", "embed.ln.hook_normalized"] if normed else ["blocks.0.hook_resid_pre"]
    read = [f"blocks.{i}.{name}" for i in range(backbone.n_layers) for name in ("hook_attn_out", "hook_mlp_out")]
    kept: dict[str, Tensor] = {}

    def silence(activation: Tensor, _hook: HookPoint) -> Tensor:
        return torch.zeros_like(activation)

    def keep(activation: Tensor, hook: HookPoint) -> None:
        kept[hook.name] = activation[0, 0].double()

    one = batch[:1].to(next(model.parameters()).device)
    with model.hooks([(silenced, silence), ([*start, *read], keep)]):
        model(one.inputs, one.mask)
    layers = range(backbone.n_layers)
    return _Constants(
        kept[start[0]] * kept[start[1]] if normed else kept[start[0]],
        [kept[f"blocks.{i}.hook_attn_out"] for i in layers],
        [kept[f"blocks.{i}.hook_mlp_out"] for i in layers],
    )


@dataclass
class _Path:
    """The way back from the numbers explained: what a vector in the stream is multiplied by, and what biases added."""

    vector: Float64[Tensor, "batch readout number hidden"]
    bias: Float64[Tensor, "batch readout number"]
    terms: dict[str, Float64[Tensor, "batch readout number"]] = field(default_factory=dict)

    def before(self, norm: nn.Module, scale: Float[Tensor, "batch readout 1"]) -> None:
        """Go on before ``norm``, which divides by ``scale``."""
        shift = getattr(norm, "bias", None)
        if shift is not None:
            self.constant(shift.double())
        self.vector = self.vector * norm.get_parameter("weight").double() / scale.double()[:, :, None]
        if isinstance(norm, nn.LayerNorm):
            self.vector = self.vector - self.vector.mean(-1, keepdim=True)

    def constant(self, written: Float64[Tensor, " hidden"]) -> None:
        """Count what is written whatever the input."""
        self.bias = self.bias + self.vector @ written

    def read(self, written: Float[Tensor, "batch readout hidden"]) -> Float64[Tensor, "batch readout number"]:
        """What a vector written here adds."""
        return torch.einsum("brkd,brd->brk", self.vector, written.double())


def _taken_apart(
    model: FrozenPretrainedTransformer, part: Batch, of: str, constants: _Constants
) -> tuple[Float64[Tensor, "batch answer term"], Float64[Tensor, "batch answer"]]:
    """The terms, and the numbers that they are the terms of."""
    backbone, task = model.backbone, model.task
    kept: dict[str, Tensor] = {}
    rows = model.readout_tokens(part.inputs.shape[1], part.mask)
    with model.hooks([(_names(model), partial(_keep, kept, rows))]):
        logits = model(part.inputs, part.mask)
    share = coefficients(task, logits, part.targets, of).double()
    numbers = torch.einsum("bakc,bac->bak", share, logits.double().reshape(len(part), -1, task.n_classes))
    by_token = share.unflatten(1, (task.n_readout, -1))
    weight = model.output.weight.double().unflatten(0, (-1, task.n_classes))
    bias = model.output.bias.double().unflatten(0, (-1, task.n_classes))
    path = _Path(
        torch.einsum("brokc,ocd->brokd", by_token, weight).flatten(2, 3),
        torch.einsum("brokc,oc->brok", by_token, bias).flatten(2, 3),
    )
    post_ln = "hook_normalized_resid_post" in backbone.places
    if "ln_final.hook_scale" in backbone.outer_places:
        path.before(_outer_norm(model, "ln_final"), kept["ln_final.hook_scale"])
    for layer in reversed(range(backbone.n_layers)):
        if post_ln:
            path.before(_norm(model, layer, "ln2"), kept[f"blocks.{layer}.ln2.hook_scale"])
        path.constant(constants.mlp[layer])
        path.terms[words_of(("mlp", layer))] = path.read(kept[f"blocks.{layer}.hook_mlp_out"] - constants.mlp[layer])
        if post_ln:
            path.before(_norm(model, layer, "ln1"), kept[f"blocks.{layer}.ln1.hook_scale"])
        path.constant(constants.attention[layer])
        into_heads = torch.einsum("brkd,hed->brkhe", path.vector, backbone.projection(layer).double())
        heads = torch.einsum("brkhe,brhe->hbrk", into_heads, kept[f"blocks.{layer}.attn.hook_z"].double())
        path.terms |= {words_of((layer, head)): found for head, found in enumerate(heads)}
    if "embed.ln.hook_scale" in backbone.outer_places:
        path.before(_outer_norm(model, "embed.ln"), kept["embed.ln.hook_scale"])
    path.constant(constants.start)
    path.terms |= {"embedding": path.read(kept["hook_embed"]), "position": path.read(kept["hook_pos_embed"])}
    path.terms["bias"] = path.bias
    return torch.stack([path.terms[name] for name in _terms(model)], -1).flatten(1, 2), numbers.flatten(1)


def _names(model: FrozenPretrainedTransformer) -> list[str]:
    """The activations that terms are made of."""
    backbone = model.backbone
    per_layer = ["attn.hook_z", "hook_mlp_out"]
    if "hook_normalized_resid_post" in backbone.places:
        per_layer += ["ln1.hook_scale", "ln2.hook_scale"]
    names = ["hook_embed", "hook_pos_embed"]
    names += [name for name in ("embed.ln.hook_scale", "ln_final.hook_scale") if name in backbone.outer_places]
    return names + [f"blocks.{layer}.{name}" for layer in range(backbone.n_layers) for name in per_layer]


def _keep(kept: dict[str, Tensor], rows: Int[Tensor, "batch readout"], activation: Tensor, hook: HookPoint) -> None:
    kept[hook.name] = rows_at(activation, rows)


def _norm(model: FrozenPretrainedTransformer, layer: int, name: str) -> nn.Module:
    place = model.backbone.places[f"{name}.hook_scale"]
    return model.backbone.blocks[layer].get_submodule(place.module)


def _outer_norm(model: FrozenPretrainedTransformer, name: str) -> nn.Module:
    return model.backbone.get_submodule(model.backbone.outer_places[f"{name}.hook_scale"].module)
