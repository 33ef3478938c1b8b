"""Methods of attribution to inputs, by captum: one number is explained, against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, NoReturn

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor, nn

from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.measures._answers import answer_names, checked_of, coefficients
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.reference import N_REFERENCE
from fpt_viz.tasks import Batch

TOLERANCE = 0.01
"""Of the difference, within which attributions add up to it."""
FLOOR = 1e-4
"""Logits within which they do, however small the difference: what single precision leaves."""
BASELINES = ("middle", "mean", "zero")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a method is told."""

    n_steps: int = 50
    max_steps: int = 1600
    n_samples: int = 25
    layer: int | None = None
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_steps < self.n_steps:
            raise ConfigError(f"max_steps must be at least n_steps, got {self.max_steps} and {self.n_steps}")


class Answer(NamedTuple):
    """One answer of some examples, as a function of their inputs."""

    model: FrozenPretrainedTransformer
    inputs: Float[Tensor, "batch seq values"]
    baseline: Float[Tensor, "batch seq values"]
    share: Float[Tensor, "batch answer classes"]
    """What the logits are multiplied by and summed."""
    mask: Bool[Tensor, "batch seq"] | None

    def at(self, inputs: Tensor, share: Tensor, mask: Tensor | None = None) -> Float[Tensor, " row"]:
        """The number explained, of any rows."""
        model = self.model
        if model.task.n_symbols is None:
            logits = model(inputs, mask)
        else:
            symbols = torch.zeros(inputs.shape[:2], dtype=torch.long, device=inputs.device)
            with model.hooks([("hook_embed", lambda _embedded, hook: inputs)]):
                logits = model(symbols, mask)
        return torch.einsum("nac,nac->n", logits.reshape(share.shape), share)

    @property
    def further(self) -> tuple[Tensor, Tensor | None]:
        """What captum hands on, repeated for its rows."""
        return self.share, self.mask

    def chosen(self, rows: Tensor) -> Answer:
        """The same of some of the examples."""
        mask = None if self.mask is None else self.mask[rows]
        return Answer(self.model, self.inputs[rows], self.baseline[rows], self.share[rows], mask)


Attribute = Callable[[Answer, Settings, int], Tensor]
"""Of one answer, by so many steps: ``[batch seq values]``, or ``[batch seq hidden]`` of a layer."""


def _integrated_gradients(answer: Answer, settings: Settings, n_steps: int) -> Tensor:
    n_rows = max(settings.batch_size, len(answer.inputs))
    return torch.as_tensor(
        captum().IntegratedGradients(answer.at).attribute(
            answer.inputs, answer.baseline, additional_forward_args=answer.further, n_steps=n_steps,
            internal_batch_size=n_rows,
        )
    )  # fmt: skip


def _layer_conductance(answer: Answer, settings: Settings, n_steps: int) -> Tensor:
    module, of_input = block_output(answer.model, settings.layer)
    n_rows = max(settings.batch_size, 2 * len(answer.inputs))
    found = captum().LayerConductance(answer.at, module).attribute(
        answer.inputs, answer.baseline, additional_forward_args=answer.further, n_steps=n_steps,
        internal_batch_size=n_rows, attribute_to_layer_input=of_input,
    )  # fmt: skip
    return torch.as_tensor(found[0] if isinstance(found, tuple) else found).detach()


def _gradient_x_input(answer: Answer, _settings: Settings, _n_steps: int) -> Tensor:
    def moved(steps: Tensor, baseline: Tensor, share: Tensor, mask: Tensor | None = None) -> Tensor:
        return answer.at(baseline + steps, share, mask)

    steps, further = (answer.inputs - answer.baseline).requires_grad_(), (answer.baseline, *answer.further)
    return torch.as_tensor(captum().InputXGradient(moved).attribute(steps, additional_forward_args=further)).detach()


def _by_token(make: str, answer: Answer, settings: Settings, _n_steps: int) -> Tensor:
    """A method that puts baselines in the place of whole tokens; each value gets its share of the token's effect."""
    n_examples, n_tokens, n_values = answer.inputs.shape
    tokens = torch.arange(n_tokens, device=answer.inputs.device)[None, :, None]
    tokens = tokens.repeat(1, 1, n_values)
    method = getattr(captum(), make)(answer.at)
    options: dict[str, Any] = {"perturbations_per_eval": max(1, settings.batch_size // n_examples)}
    if make == "ShapleyValueSampling":
        options["n_samples"] = settings.n_samples
        torch.default_generator.manual_seed(settings.seed)  # captum draws orders from it; inspecting() gives it back
    with torch.no_grad():
        found = method.attribute(
            answer.inputs, answer.baseline, additional_forward_args=answer.further, feature_mask=tokens, **options
        )
    return torch.as_tensor(found).to(answer.inputs) / n_values


def _deeplift(answer: Answer, _settings: Settings, _n_steps: int) -> NoReturn:
    network = answer.model.backbone.network
    kinds = {type(module).__name__ for module in network.modules()}
    norms = sorted(kind for kind in kinds if "Norm" in kind)
    raise ConfigError(
        f"deeplift has no valid rule for {answer.model.backbone.provenance.name}: attention multiplies weights by "
        f"values, which both depend on the input, and {', '.join(norms)} divides by a scale that does. Without a rule, "
        "captum takes the plain gradient. Use integrated_gradients, which needs none, or gradient_x_input"
    )


METHODS: dict[str, Attribute] = {
    "integrated_gradients": _integrated_gradients,
    "gradient_x_input": _gradient_x_input,
    "occlusion": partial(_by_token, "FeatureAblation"),
    "shapley": partial(_by_token, "ShapleyValueSampling"),
    "layer_conductance": _layer_conductance,
    "deeplift": _deeplift,
}
STEPPED = ("integrated_gradients", "layer_conductance")
"""Those that take more steps until they are complete."""


class Attributed(NamedTuple):
    """What a method says, on the CPU."""

    values: Float[Tensor, "answer example seq values"]
    difference: Float[Tensor, "answer example"]
    complete: Bool[Tensor, "answer example"]
    n_steps: Int[Tensor, "answer example"]


def checked_method(method: str, settings: Settings, model: FrozenPretrainedTransformer) -> str:
    """``method``, if there is one and it is told what it needs."""
    if method not in METHODS:
        raise UnknownNameError("attribution method", method, METHODS)
    if method == "layer_conductance":
        block_output(model, settings.layer)
    elif settings.layer is not None:
        raise ConfigError(f"{method} attributes to the input: leave out layer, or use layer_conductance")
    return method


def attributed(
    model: FrozenPretrainedTransformer,
    batch: Batch,
    method: str,
    *,
    share: Float[Tensor, "example answer classes"],
    which: Sequence[int],
    baseline: Float[Tensor, "example seq values"],
    settings: Settings,
) -> Attributed:
    """The attributions of each answer in ``which``; to be called within ``inspecting(model, gradients=True)``."""
    device = next(model.parameters()).device
    found: list[list[Attributed]] = [[] for _ in which]
    inputs = vectors(model, batch)
    for rows in torch.arange(len(batch)).split(settings.batch_size):
        mask = None if batch.mask is None else batch.mask[rows].to(device)
        for a, index in enumerate(which):
            only = torch.zeros_like(share[rows])
            only[:, index] = share[rows, index]
            answer = Answer(model, inputs[rows].to(device), baseline[rows].to(device), only.to(device), mask)
            found[a].append(_one(answer, method, settings))
    return Attributed(
        *(torch.stack([torch.cat(parts) for parts in each]) for each in zip(*map(_by_field, found), strict=True))
    )


def _by_field(parts: Sequence[Attributed]) -> list[list[Tensor]]:
    return [list(values) for values in zip(*parts, strict=True)]


def _one(answer: Answer, method: str, settings: Settings) -> Attributed:
    """Of one answer, with more steps for the examples that are not complete."""
    with torch.no_grad():
        difference = answer.at(answer.inputs, *answer.further) - answer.at(answer.baseline, *answer.further)
    n_steps = settings.n_steps if method in STEPPED else 0
    values = _masked(METHODS[method](answer, settings, n_steps), answer.mask)
    taken = torch.full((len(values),), n_steps)
    complete = adds_up(values, difference)
    while n_steps and not complete.all() and 2 * n_steps <= settings.max_steps:
        n_steps *= 2
        rows = (~complete).nonzero()[:, 0]
        again = answer.chosen(rows)
        values[rows] = _masked(METHODS[method](again, settings, n_steps), again.mask)
        taken[rows.cpu()] = n_steps
        complete = adds_up(values, difference)
    return Attributed(values.float().cpu(), difference.float().cpu(), complete.cpu(), taken)


def adds_up(values: Float[Tensor, "batch seq values"], difference: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Whether the values of each example sum to the difference within 1 %."""
    error = (values.flatten(1).sum(1) - difference).abs()
    return error <= (TOLERANCE * difference.abs()).clamp(min=FLOOR)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask[..., None], 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# What is explained, where from


def captum() -> Any:
    """The library of attribution methods; it draws, too, so it is imported only here."""
    try:
        from captum import attr
    except ImportError as error:
        raise FptVizError(
            f"attribution is computed with captum, which is missing: pip install captum ({error})"
        ) from error
    return attr


def block_output(model: FrozenPretrainedTransformer, layer: int | None) -> tuple[nn.Module, bool]:
    """A module whose output (True: input) is what block ``layer`` hands on to the next."""
    backbone = model.backbone
    if layer is None or not 0 <= layer < backbone.n_layers:
        raise ConfigError(f"layer_conductance wants a layer from 0 to {backbone.n_layers - 1}, got {layer}")
    if "hook_normalized_resid_post" in backbone.places:
        return backbone.blocks[layer].get_submodule(backbone.places["hook_normalized_resid_post"].module), False
    norm = backbone.final_norm()
    if layer + 1 < backbone.n_layers:
        return backbone.blocks[layer + 1].get_submodule(backbone.places["ln1.hook_scale"].module), True
    assert norm is not None  # of pre-LN families
    return norm, True


def question(
    model: FrozenPretrainedTransformer, batch: Batch, of: str, answers: Sequence[int] | None, batch_size: int
) -> tuple[Float[Tensor, "example answer classes"], list[int]]:
    """What the logits of each answer are multiplied by, and which answers are asked about."""
    names = answer_names(model.task)
    checked_of(of, ("target", "difference"))
    which = list(range(len(names))) if answers is None else list(answers)
    for index in which:
        if not 0 <= index < len(names):
            raise ConfigError(f"no answer {index} of {model.task.name}: there are {len(names)}, numbered from 0")
    if not which:
        raise ConfigError(f"no answer is asked about: there are {len(names)}; None takes all")
    device, found = next(model.parameters()).device, []
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(batch_size):
            part = batch[rows].to(device)
            found.append(coefficients(model.task, model(part.inputs, part.mask), part.targets, of)[:, :, 0].cpu())
    return torch.cat(found), which


@torch.no_grad()
def vectors(model: FrozenPretrainedTransformer, batch: Batch) -> Float[Tensor, "example seq values"]:
    """The inputs as numbers to attribute to: as they are, or of symbols the output of the embedding."""
    if model.task.n_symbols is None:
        return batch.inputs.cpu().float()
    return torch.as_tensor(model.input(batch.inputs.to(next(model.parameters()).device))).cpu()


def baseline_of(
    model: FrozenPretrainedTransformer, batch: Batch, given: Tensor | str | None
) -> tuple[Float[Tensor, "example seq values"], str]:
    """What inputs are compared with, for each example, and in words."""
    inputs = vectors(model, batch)
    if isinstance(given, Tensor):
        if tuple(given.shape) not in (tuple(inputs.shape), tuple(inputs.shape[1:])):
            raise ConfigError(
                f"a baseline of shape {tuple(given.shape)} was given for inputs of shape {tuple(inputs.shape)}: wanted "
                f"that, or one for all examples of shape {tuple(inputs.shape[1:])}"
            )
        return given.detach().cpu().float().expand_as(inputs), "given"
    reference = model.task.distinct(N_REFERENCE, "train")
    shown = vectors(model, reference)
    if given is None:
        given = "middle" if model.task.n_symbols is None and len(shown.unique()) == 2 else "mean"
    if given not in BASELINES:
        raise UnknownNameError("baseline", given, BASELINES)
    if given == "zero":
        return torch.zeros_like(inputs), "zero"
    if given == "middle":
        low, high = float(shown.min()), float(shown.max())
        return torch.full_like(inputs, (low + high) / 2), f"half way between {low:g} and {high:g}"
    mean = _mean(shown, reference.mask, inputs.shape[1])
    return mean.expand_as(inputs), f"mean of {len(reference)} train examples, token by token"


def _mean(shown: Tensor, mask: Tensor | None, n_tokens: int) -> Float[Tensor, "seq values"]:
    """Over the examples that have the token; where none has it, over all tokens."""
    real = torch.ones(shown.shape[:2]) if mask is None else mask.float()
    sums, counts = (shown * real[..., None]).sum(0), real.sum(0)[:, None]
    overall = sums.sum(0) / counts.sum()
    mean = torch.where(counts > 0, sums / counts.clamp(min=1), overall)[:n_tokens]
    return torch.cat([mean, overall.expand(n_tokens - len(mean), -1)])
