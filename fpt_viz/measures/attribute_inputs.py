"""What each input token adds to an answer."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
import torch
from torch import Tensor

from fpt_viz.measures._answers import answer_names, given_or_drawn
from fpt_viz.measures._attribution import Settings, attributed, baseline_of, checked_method, question
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttributionSanity, InputAttribution
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch

__all__ = ["attribute_inputs"]


def attribute_inputs(
    model: FrozenPretrainedTransformer,
    batch: Batch | None = None,
    *,
    method: str = "integrated_gradients",
    baseline: Float[Tensor, "*any"] | str | None = None,
    of: str = "difference",
    answers: Sequence[int] | None = None,
    layer: int | None = None,
    n_steps: int = 50,
    max_steps: int = 1600,
    n_samples: int = 25,
    sanity: AttributionSanity | None = None,
    n_examples: int = 16,
    split: str = "test",
    seed: int = 0,
    batch_size: int = 256,
) -> InputAttribution:
    """Attribution of answers to input values, signed, in logits, on one scale for all answers and examples.

    Bits and patches are attributed to as they are, symbols by what the input layer makes of them; what is told of a
    symbol is the sum over the vector. Every method compares the input with the baseline.

    Args:
        model: Its mode, kernel and random state are as before afterwards.
        batch: Examples; None for ``n_examples`` distinct ones of ``split``.
        method: ``"integrated_gradients"``; ``"gradient_x_input"``, the gradient times input minus baseline;
            ``"occlusion"``, what is lost with a token or patch set to the baseline; ``"shapley"``, sampled Shapley
            values of tokens; ``"layer_conductance"``, integrated gradients through the output of block ``layer``, by
            token; ``"deeplift"``, which is refused where attention or a norm has no rule, so by every family here.
        baseline: ``"middle"``, half way between the lowest and highest input value of training examples; ``"mean"``,
            their mean, token by token (the mean image); ``"zero"``; or values, of one example or of each. None:
            ``"middle"`` for bits, since bit 0 is a value itself, and a baseline of 0 would give it no part in
            anything; else ``"mean"``.
        of: ``"difference"``: the right class's logit minus that of the class that is the best other one on the input;
            ``"target"``: the right class's logit alone.
        answers: In the order of the targets; None for all.
        layer: Of ``"layer_conductance"``.
        n_steps: Between baseline and input. Doubled for examples whose values do not add up within 1 %.
        max_steps: Where that ends; what does not add up by then is flagged in ``complete``.
        n_samples: Orders of tokens that Shapley values are sampled from.
        sanity: From ``attribution_sanity``: the result carries its verdict on the method.
        n_examples: Asked for, where no batch is given.
        split: ``"train"``, ``"validation"`` or ``"test"``; without effect where a batch is given.
        seed: Of the choice of examples and of Shapley's orders.
        batch_size: Rows in one forward pass.

    Cost: for each answer and example, ``n_steps`` forward and backward passes (integrated gradients, conductance), 1
    (gradient), or ``n_tokens`` (occlusion) or ``n_tokens * n_samples`` (Shapley) forward passes.

    Raises:
        ConfigError: A baseline of another shape, DeepLIFT where it has no rules, no such answer or layer.
        UnknownNameError: No such method, baseline, ``of`` or split.
        FptVizError: captum is not installed.

    Reference:
        Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365; Dhamdhere et al., 2019,
        https://arxiv.org/abs/1805.12233, on conductance; Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901, on
        occlusion; Castro et al., 2009, on sampled Shapley values; Shrikumar et al., 2017,
        https://arxiv.org/abs/1704.02685, on DeepLIFT. Computed by captum.
    """
    settings = Settings(
        n_steps=n_steps, max_steps=max_steps, n_samples=n_samples, layer=layer, batch_size=batch_size, seed=seed
    )
    checked_method(method, settings, model)
    batch, _ = given_or_drawn(model, batch, n_examples, split, seed)
    batch = batch.to("cpu")
    with inspecting(model, gradients=True):
        compared, told = baseline_of(model, batch, baseline)
        share, which = question(model, batch, of, answers, batch_size)
        found = attributed(
            model, batch, method, share=share, which=which, baseline=compared, settings=settings
        )  # fmt: skip
    by_token = model.task.n_symbols is not None or layer is not None
    names = answer_names(model.task)
    real = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
    result = InputAttribution(
        values=found.values.sum(-1) if by_token else found.values,
        difference=found.difference,
        complete=found.complete,
        n_steps=found.n_steps,
        mask=real,
        answers=tuple(names[index] for index in which),
        labels=tuple(tuple(model.task.labels(example)) for example in batch.inputs),
        method=method,
        of=of,
        baseline=told,
        layer=layer,
        source=model.source,
    )
    return result if sanity is None else result.labelled(sanity)
