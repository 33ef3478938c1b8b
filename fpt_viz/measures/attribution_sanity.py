"""Whether a method of attribution depends on what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor

from fpt_viz.analysis.bootstrap_interval import bootstrap_interval
from fpt_viz.errors import ConfigError
from fpt_viz.measures._answers import given_or_drawn
from fpt_viz.measures._attribution import Settings, attributed, baseline_of, checked_method, question
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttributionSanity
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch

__all__ = ["attribution_sanity"]

ON_INPUTS = ("integrated_gradients", "gradient_x_input", "occlusion", "shapley")


def attribution_sanity(
    model: FrozenPretrainedTransformer,
    batch: Batch | None = None,
    methods: Sequence[str] = ON_INPUTS,
    *,
    baseline: Float[Tensor, "*any"] | str | None = None,
    of: str = "difference",
    answers: Sequence[int] | None = None,
    layer: int | None = None,
    threshold: float = 0.3,
    n_steps: int = 32,
    n_samples: int = 10,
    n_examples: int = 32,
    split: str = "test",
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 256,
) -> AttributionSanity:
    """Rank correlation between a model's attributions and those with its weights randomised layer by layer.

    From the output down, frozen weights included: first the output layer and the final norm, then one block after the
    other, last the input layer and the positions. Each tensor is drawn anew from a normal distribution with its own
    mean and standard deviation. What is explained, the baseline and the examples stay. Sizes without sign are ranked
    over the real tokens of each example, so a sign that flips by chance counts for nothing. A method fails if the
    correlation is at least ``threshold`` once all blocks are random, before or after the input is: then what it shows
    comes from the input's own shape.

    Args:
        model: Is as before afterwards; a copy of it is randomised.
        batch: Examples; None for ``n_examples`` distinct ones of ``split``.
        methods: Of ``attribute_inputs``.
        baseline: As there; that of the model as it is serves all stages.
        of: As there.
        answers: In the order of the targets; None for all.
        layer: Of ``"layer_conductance"``, where that is asked about, and of no other.
        threshold: 0 to 1.
        n_steps: Of integrated gradients and conductance; never raised here.
        n_samples: Of Shapley values.
        n_examples: Asked for, where no batch is given.
        split: ``"train"``, ``"validation"`` or ``"test"``; without effect where a batch is given.
        seeds: One draw of random weights each, and means over them. The first is also that of the examples, Shapley's
            orders and the bootstrap.
        batch_size: Rows in one forward pass.

    Cost: each method once on the model and, for each seed, once for every block and twice more. Memory: a second
    model.

    Raises:
        ConfigError: No method, or one that cannot be used; a threshold outside 0 to 1.
        UnknownNameError: No such method, baseline, ``of`` or split.

    Reference:
        Adebayo et al., 2018, https://arxiv.org/abs/1810.03292
    """
    if not methods or isinstance(methods, str):
        raise ConfigError(f"methods must be a list of at least one attribution method, got {methods!r}")
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold must lie between 0 and 1, got {threshold}")
    if not seeds:
        raise ConfigError("seeds must be at least one, got none")
    settings = {
        method: Settings(
            n_steps=n_steps,
            max_steps=n_steps,
            n_samples=n_samples,
            layer=layer if method == "layer_conductance" else None,
            batch_size=batch_size,
            seed=seeds[0],
        )
        for method in methods
    }
    for method in methods:
        checked_method(method, settings[method], model)
    batch, _ = given_or_drawn(model, batch, n_examples, split, seeds[0])
    batch = batch.to("cpu")
    real = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
    with inspecting(model, gradients=True):
        compared, told = baseline_of(model, batch, baseline)
        share, which = question(model, batch, of, answers, batch_size)

    def shown(of_model: FrozenPretrainedTransformer, method: str) -> Float[Tensor, "answer example seq"]:
        with inspecting(of_model, gradients=True):
            found = attributed(
                of_model, batch, method, share=share, which=which, baseline=compared, settings=settings[method]
            )
        return found.values.sum(-1)

    before = {method: shown(model, method) for method in methods}
    alike: dict[str, list[Tensor]] = {}
    for seed in seeds:
        copy = deepcopy(model)
        for stage in _randomised(copy, seed):
            found = torch.stack([_alike(before[method], shown(copy, method), real) for method in methods])
            alike.setdefault(stage, []).append(found)
    by_stage = [torch.stack(found).nanmean(0) for found in alike.values()]
    sizes, signed = torch.stack(by_stage, 1).unbind(2)  # [method stage example] each
    return AttributionSanity(
        correlation=sizes.nanmean(-1).float(),
        interval=_intervals(sizes, seeds[0]),
        signed=signed.nanmean(-1).float(),
        methods=tuple(methods),
        stages=tuple(alike),
        threshold=threshold,
        n_examples=len(batch),
        baseline=told,
        seeds=tuple(seeds),
        source=model.source,
    )


def _randomised(model: FrozenPretrainedTransformer, seed: int) -> Iterator[str]:
    """Randomise one stage of ``model`` after the other, and tell its name."""
    rng = torch.Generator().manual_seed(seed)
    final = f"backbone.network.{model.backbone.final_norm_path}."
    by_stage: dict[str, list[Tensor]] = {"output": []}
    by_stage |= {f"layer {layer}": [] for layer in reversed(range(model.backbone.n_layers))} | {"input": []}
    for name, parameter in model.named_parameters():
        layer = model.layer_of(name)
        of_output = name.startswith(("output.", final))
        by_stage["output" if of_output else "input" if layer is None else f"layer {layer}"].append(parameter)
    for stage, parameters in by_stage.items():
        with torch.no_grad():
            for tensor in parameters:
                std, mean = torch.std_mean(tensor.double().cpu(), correction=0)
                tensor.copy_(torch.randn(tensor.shape, generator=rng, dtype=torch.float64) * std + mean)
        yield stage


def _alike(before: Tensor, after: Tensor, real: Tensor) -> Float[Tensor, "sizes_or_signed example"]:
    """Spearman's correlation over the real tokens of each example, mean over answers; NaN where all tokens tie."""
    found = torch.full((2, *before.shape[:2]), torch.nan, dtype=torch.float64)
    for a in range(before.shape[0]):
        for e in range(before.shape[1]):
            pair = before[a, e][real[e]], after[a, e][real[e]]
            found[0, a, e] = _rank_correlation(pair[0].abs(), pair[1].abs())
            found[1, a, e] = _rank_correlation(*pair)
    return found.nanmean(1)


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(values.double().numpy()) for values in (one, other)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _intervals(alike: Float[Tensor, "method stage example"], seed: int) -> Float[Tensor, "method stage 2"]:
    found = torch.full((*alike.shape[:2], 2), torch.nan)
    for m, s in np.ndindex(*alike.shape[:2]):
        ranked = alike[m, s][~alike[m, s].isnan()]
        if len(ranked):
            found[m, s] = bootstrap_interval(ranked, seed=seed).float()
    return found
