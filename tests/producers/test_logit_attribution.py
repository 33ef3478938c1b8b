"""Logits are sums of what heads, MLPs, embedding, positions and biases write, in every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpt_viz import testing
from fpt_viz.errors import CaptureError, ConfigError, UnknownNameError
from fpt_viz.measures.logit_attribution import logit_attribution
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import LogitAttribution
from fpt_viz.records.parts import words_of
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Batch, load_task


@pytest.fixture
def batch() -> Batch:
    return load_task("bit_xor", n_bits=3).distinct(8, "test")


def rows(model: FrozenPretrainedTransformer, batch: Batch) -> Tensor:
    return model.readout_tokens(batch.inputs.shape[1], batch.mask).expand(len(batch), -1)


@pytest.mark.parametrize("of", ["target", "difference", "all"])
def test_the_terms_sum_to_the_logits_within_1e_4(tiny, family, batch, of):
    model = tiny(family)
    logits = model(batch.inputs).detach()

    found = logit_attribution(model, batch, of=of, batch_size=3)

    right = logits.gather(-1, batch.targets[..., None])[..., 0]
    wanted = {"target": right, "difference": 2 * right - logits.sum(-1), "all": logits.flatten(1)}[of]
    torch.testing.assert_close(found.logits, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.values.sum(-1), wanted, atol=1e-4, rtol=0)
    assert found.error < 1e-4
    assert len(found.terms) == 2 + 3 * (4 + 1) + 1


def test_the_terms_sum_to_the_logits_in_a_padded_batch(tiny, family, symbols, padded):
    model = tiny(family, symbols)
    logits = model(padded.inputs, padded.mask).detach()

    found = logit_attribution(model, padded, batch_size=3)

    wanted = logits.gather(-1, padded.targets[..., None])[..., 0]
    torch.testing.assert_close(found.values.sum(-1), wanted, atol=1e-4, rtol=0)


def test_answers_of_several_bits_a_token_are_apart(tiny):
    task = load_task("bit_memory", n_strings=2, n_bits=8, patch_size=4)
    model, batch = tiny("gpt2", task), task.distinct(5, "test")
    logits = model(batch.inputs).detach()

    found = logit_attribution(model, batch)

    wanted = logits.flatten(1, 2).gather(-1, batch.targets.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(found.values.sum(-1), wanted, atol=1e-4, rtol=0)
    assert len(found.answers) == 8


@pytest.mark.parametrize("part", [(0, 1), (1, 3), (2, 0), ("mlp", 0), ("mlp", 2)], ids=words_of)
def test_a_term_is_what_the_logit_loses_without_the_part_when_all_later_is_held(tiny, family, batch, part):
    """All norms divide by what they did, and later heads and MLPs write what they did: only the direct path is left."""
    model = tiny(family)
    layer, of_mlp = int(part[1] if part[0] == "mlp" else part[0]), part[0] == "mlp"
    written = [f"blocks.{i}.{name}" for i in range(layer, 3) for name in ("hook_attn_out", "hook_mlp_out")]
    scales = [name for name in model.activation_names() if name.endswith("hook_scale") and is_on_the_way(name, layer)]
    result = f"blocks.{layer}.attn.hook_result"
    _, cache = model.run_with_cache(batch.inputs, names_filter=[*written, *scales, result])
    lost = cache["mlp_out", layer] - bias_of_mlp(model, layer) if of_mlp else cache[result][:, :, part[1]]
    at = f"blocks.{layer}.{'hook_mlp_out' if of_mlp else 'hook_attn_out'}"

    def held(activation: Tensor, hook) -> Tensor:
        return cache[hook.name] - lost if hook.name == at else cache[hook.name]

    with inspecting(model), model.hooks([([*written, *scales], held)]):
        without = model(batch.inputs)

    loss = model(batch.inputs).detach() - without
    wanted = loss.gather(-1, batch.targets[..., None])[..., 0]
    found = logit_attribution(model, batch).of_term(words_of(part))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-3)
    assert wanted.abs().max() > 1e-3


def is_on_the_way(scale: str, layer: int) -> bool:
    """Whether the residual stream from ``layer`` on passes the norm; in pre-LN families, norms of blocks are beside it.

    What they divide by does not matter there, since what heads and MLPs write is held.
    """
    return scale.startswith("ln_final") or (scale.startswith("blocks") and int(scale.split(".")[1]) >= layer)


def bias_of_mlp(model: FrozenPretrainedTransformer, layer: int) -> Tensor:
    names = {
        "bert": "output.dense.bias", "longformer": "output.dense.bias", "gpt2": "mlp.c_proj.bias", "vit": "mlp.fc2.bias"
    }  # fmt: skip
    name = names.get(model.backbone.provenance.family)
    return torch.zeros(32) if name is None else model.backbone.blocks[layer].get_parameter(name)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "longformer", "t5", "vit"])
def test_a_decoy_adds_nothing_and_the_planted_mlp_gives_the_answer(family):
    decoy = testing.circuit(f"decoy_{family}")

    found = logit_attribution(decoy.model, n_examples=32, of="difference")

    assert found.of_head(decoy.heads["decoy"]).abs().max() == 0
    assert found.of_term("MLP2").mean() > 0.9 * found.logits.mean()
    assert found.of_head(decoy.heads["copies"]).abs().max() < 0.05 * found.logits.mean()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "longformer", "t5", "vit"])
def test_the_head_that_copies_the_answer_to_the_output_layer_has_the_logit(family):
    planted = testing.circuit(f"left_patch_{family}")

    found = logit_attribution(planted.model, n_examples=32, of="difference")

    heads = {term: float(mean) for term, mean in zip(found.terms, found.mean, strict=True)}
    assert max(heads, key=lambda term: heads[term]) == words_of(planted.heads["looks left"])
    assert found.of_head(planted.heads["looks left"]).mean() > 0.9 * found.logits.mean()


def test_the_mean_and_its_interval_are_over_examples(tiny, batch):
    found = logit_attribution(tiny("gpt2"), batch)

    torch.testing.assert_close(found.mean, found.values.mean((0, 1)))
    assert (found.interval[:, 0] <= found.mean).all()
    assert (found.mean <= found.interval[:, 1]).all()
    assert list(found.to_pandas().columns) == ["term", "mean", "low", "high"]


def test_a_network_that_writes_more_than_its_names_show_is_refused(tiny, batch):
    model = tiny("gpt2")
    model.backbone.blocks[1].register_forward_hook(lambda _module, args, out: out + args[0])

    with pytest.raises(CaptureError, match="no activation name shows"):
        logit_attribution(model, batch)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda model, batch: logit_attribution(model, batch, of="traget"), UnknownNameError, "mean 'target'"),
        (lambda model, batch: logit_attribution(model, batch[:0]), ConfigError, "at least 1 example"),
        (lambda model, batch: logit_attribution(model, batch).of_head((7, 0)), ConfigError, "no term 'L7H0'"),
    ],
    ids=["of", "empty", "head"],
)
def test_a_mistake_in_asking_is_told(tiny, batch, ask, error, message):
    with pytest.raises(error, match=message):
        ask(tiny("gpt2"), batch)


def test_it_is_saved_and_loaded(tiny, batch, tmp_path):
    found = logit_attribution(tiny("bert"), batch)
    found.save(tmp_path / "found.safetensors")

    again = LogitAttribution.load(tmp_path / "found.safetensors")

    assert torch.equal(again.values, found.values)
    assert again.terms == found.terms
    assert repr(again) == repr(found)
