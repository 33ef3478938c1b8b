"""Direct paths between heads against arithmetic with the weights themselves, on two layers, and their bounds."""

from __future__ import annotations

import inspect

import pytest
import torch

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures.patch_activations import patch_activations
from fpt_viz.measures.patch_paths import patch_paths
from fpt_viz.records import PatchingEffects

pytestmark = pytest.mark.slow  # a minute or so in all

LETTERS = "qkv"


def rounding(found):
    """How far an effect may move by the rounding of logits in float32, which differs between batch sizes."""
    tolerance = 1e-6 * max(1.0, abs(found.clean)) / abs(found.clean - found.corrupted)
    assert tolerance < 2e-3
    return tolerance


def slanted(logits, batch):
    """A sum of logits, each with a weight of its own: not symmetric, as what a random model knows of XOR is."""
    return (logits.double() * torch.arange(1, logits[0].numel() + 1).reshape(logits[0].shape) ** 2).sum()


def one_way(task):
    """Clean examples whose bit a0 is 1, corrupted to 0: flips the one way and the other would cancel."""
    clean = task.distinct(128, "test", 0)
    clean = clean[clean.inputs[:, 0, 0] == 1]
    return {
        "batch": clean,
        "corrupted": task.corrupted(clean, "flip_partner", torch.Generator(), position=0).batch,
        "metric": slanted,
    }


class TwoLayers:
    """A model of two layers, a clean and a corrupted run of it, and its blocks taken apart."""

    def __init__(self, family, tiny, *, base: str = "corrupted", n_layers: int = 2) -> None:
        self.family, self.model = family, tiny(family, n_layers=n_layers)
        self.given = one_way(self.model.task)
        batches = self.given["batch"], self.given["corrupted"]
        logits, caches = zip(*(self.model.run_with_cache(batch.inputs) for batch in batches), strict=True)
        self.ends = [self.metric(found) for found in logits]
        turn = 1 if base == "corrupted" else 0
        self.batch = batches[turn]
        self.base, self.donor = caches[turn], caches[1 - turn]

    def metric(self, logits):
        return sum(float(slanted(row[None], None)) for row in logits)

    def scaled(self, logits):
        return (self.metric(logits) - self.ends[1]) / (self.ends[0] - self.ends[1])

    def sent(self, head):
        """What patching the z of a head of layer 0 adds to the residual stream."""
        block, d_head = self.model.backbone.blocks[0], self.model.backbone.d_head
        projection = {
            "gpt2": lambda: block.attn.c_proj.weight,
            "bert": lambda: block.attention.output.dense.weight.T,
            "llama": lambda: block.self_attn.o_proj.weight.T,
        }[self.family]()
        change = self.donor["z", 0][:, :, head] - self.base["z", 0][:, :, head]
        return change @ projection[head * d_head : (head + 1) * d_head]

    def into_layer_1(self, change, *, frozen):
        """The residual stream into layer 1 where ``change`` is added after the attention of layer 0."""
        block, middle = self.model.backbone.blocks[0], self.base["resid_mid", 0] + change
        if self.family == "bert":
            middle = block.attention.output.LayerNorm(middle)
            fed = block.output.dense(block.intermediate(middle))
            return block.output.LayerNorm(middle + (self.base["mlp_out", 0] if frozen else fed))
        norm = block.ln_2 if self.family == "gpt2" else block.post_attention_layernorm
        return middle + (self.base["mlp_out", 0] if frozen else block.mlp(norm(middle)))

    def inputs_of_layer_1(self, residual):
        """The queries, keys and values, each ``[batch pos head d_head]``."""
        block, d_head = self.model.backbone.blocks[1], self.model.backbone.d_head
        if self.family == "gpt2":
            parts = block.attn.c_attn(block.ln_1(residual)).split(32, dim=-1)
        elif self.family == "bert":
            attention = block.attention.self
            parts = [layer(residual) for layer in (attention.query, attention.key, attention.value)]
        else:
            attention, normed = block.self_attn, block.input_layernorm(residual)
            parts = [layer(normed) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        return dict(zip(LETTERS, (part.unflatten(-1, (-1, d_head)) for part in parts), strict=True))

    def received(self, head, arrived, *, layer=1):
        """The effect of a base run in which a head takes what ``arrived``, by letter."""

        def take(letter):
            def write(activation, hook):
                column = head * activation.shape[2] // self.model.backbone.n_heads  # of its group
                activation = activation.clone()
                activation[:, :, column] = arrived[letter][:, :, column]
                return activation

            return write

        hooks = [(f"blocks.{layer}.attn.hook_{letter}", take(letter)) for letter in arrived]
        with torch.no_grad(), self.model.hooks(hooks):
            return self.scaled(self.model(self.batch.inputs))


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
@pytest.mark.parametrize("mlps", ["frozen", "recomputed"])
@pytest.mark.parametrize("into", ["q", "k", "v", "qkv"])
@torch.no_grad()
def test_a_direct_path_is_that_of_the_weights(tiny, family, mlps, into):
    by_hand = TwoLayers(family, tiny)
    found = patch_paths(
        by_hand.model,
        senders=[(0, 1), (0, 2)],
        receivers=[(1, head) for head in range(4)],
        into=list(into),
        mlps=mlps,
        **by_hand.given,
    )

    assert (found.axes, found.labels) == (("sender", "receiver"), (("L0H1", "L0H2"), ("L1H0", "L1H1", "L1H2", "L1H3")))
    assert (found.site, found.mlps) == (" ".join(into), mlps)
    for i, sender in enumerate((1, 2)):
        arrived = by_hand.inputs_of_layer_1(by_hand.into_layer_1(by_hand.sent(sender), frozen=mlps == "frozen"))
        for receiver in range(4):
            expected = by_hand.received(receiver, {letter: arrived[letter] for letter in into})
            assert float(found.values[i, receiver]) == pytest.approx(expected, abs=rounding(found))
    assert found.values.abs().max() > 8 * rounding(found)


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
@torch.no_grad()
def test_a_direct_path_to_the_logits_passes_the_norms_alone(tiny, family):
    by_hand = TwoLayers(family, tiny)
    model, block = by_hand.model, by_hand.model.backbone.blocks[1]
    found = patch_paths(model, senders=[(0, 1), (0, 3)], into="output", **by_hand.given)
    assert found.labels == (("L0H1", "L0H3"), ("output",))
    for i, sender in enumerate((1, 3)):
        residual = by_hand.into_layer_1(by_hand.sent(sender), frozen=True) + by_hand.base["attn_out", 1]
        if family == "bert":
            middle = block.attention.output.LayerNorm(residual)
            last = block.output.LayerNorm(middle + by_hand.base["mlp_out", 1])
        else:
            last = model.backbone.final_norm()(residual + by_hand.base["mlp_out", 1])
        expected = by_hand.scaled(model.output(last[:, -model.task.n_readout :]))
        assert float(found.values[i, 0]) == pytest.approx(expected, abs=rounding(found))
        assert abs(expected) > 20 * rounding(found)


@torch.no_grad()
def test_noising_sends_the_corrupted_signal_through_the_clean_run(tiny):
    by_hand = TwoLayers("gpt2", tiny, base="clean")
    found = patch_paths(
        by_hand.model, senders=[(0, 1)], receivers=[(1, 2)], into="v", direction="noise", **by_hand.given
    )
    arrived = by_hand.inputs_of_layer_1(by_hand.into_layer_1(by_hand.sent(1), frozen=True))
    expected = by_hand.received(2, {"v": arrived["v"]})
    assert float(found.values[0, 0]) == pytest.approx(expected, abs=rounding(found))
    assert abs(float(found.change[0, 0])) > 20 * rounding(found)


def test_from_the_last_layer_every_path_to_the_logits_is_direct(family, tiny):
    """With MLPs recomputed it is then the same as patching the head's z; with an MLP after it, only so."""
    model = tiny(family)
    heads = [(2, head) for head in range(4)]
    direct = patch_paths(model, senders=heads, into="output", mlps="recomputed", **one_way(model.task))
    whole = patch_activations(model, site="z", layers=[2], **one_way(model.task))
    torch.testing.assert_close(direct.values[:, 0], whole.values[0], atol=rounding(whole), rtol=0)
    torch.testing.assert_close(direct.intervals[:, 0], whole.intervals[0], atol=2 * rounding(whole), rtol=1e-3)
    frozen = patch_paths(model, senders=heads, into="output", **one_way(model.task)).values
    assert (frozen - direct.values).abs().max() > 20 * rounding(whole)


def test_receivers_are_all_heads_above_unless_named_and_no_path_leads_down(family, tiny):
    model = tiny(family)
    found = patch_paths(model, senders=[(1, 2), (0, 3), (2, 0)], into="v", n_examples=6)
    assert found.labels[1] == tuple(f"L{layer}H{head}" for layer in (1, 2) for head in range(4))
    blank = found.values.isnan()
    assert blank.tolist() == [[True] * 4 + [False] * 4, [False] * 8, [True] * 8]
    assert torch.equal(found.intervals.isnan().all(-1), blank)
    assert (found.values[~blank] != 0).sum() > 6


def test_a_sender_that_the_output_projection_does_not_read_sends_exactly_nothing(tiny):
    model = tiny("bert")
    with torch.no_grad():
        model.backbone.blocks[0].attention.output.dense.weight[:, 8:16] = 0  # head 1 of 8 dimensions
    for mlps in ("frozen", "recomputed"):
        found = patch_paths(model, senders=[(0, 0), (0, 1)], into=("q", "v"), mlps=mlps, batch_size=48)
        assert found.values[1].tolist() == [0] * 8
        assert found.values[0].count_nonzero() == 8
        output = patch_paths(model, senders=[(0, 0), (0, 1)], into="output", mlps=mlps)
        assert output.values[0, 0] != 0
        assert output.values[1].tolist() == [0]


def test_a_receiver_that_the_output_projection_does_not_read_passes_exactly_nothing_on(tiny):
    model = tiny("gpt2")
    with torch.no_grad():
        model.backbone.blocks[2].attn.c_proj.weight[16:24] = 0  # head 2 of 8 dimensions
    found = patch_paths(model, senders=[(0, 0), (1, 1)], receivers=[(2, 2), (2, 1)], into="q")
    assert found.values[:, 0].tolist() == [0, 0]
    assert found.values[:, 1].count_nonzero() == 2


@torch.no_grad()
def test_a_path_through_a_head_in_between_is_not_direct(tiny):
    """What reaches layer 2 is the residual stream as it was plus what the head of layer 0 adds, and nothing else."""
    by_hand = TwoLayers("gpt2", tiny, n_layers=3)
    attention = by_hand.model.backbone.blocks[2].attn
    arriving = by_hand.model.backbone.blocks[2].ln_1(by_hand.base["resid_pre", 2] + by_hand.sent(1))
    value = attention.c_attn(arriving)[..., 64:].unflatten(-1, (4, 8))
    expected = by_hand.received(3, {"v": value}, layer=2)
    found = patch_paths(by_hand.model, senders=[(0, 1)], receivers=["L2H3"], into="v", **by_hand.given)
    assert float(found.values[0, 0]) == pytest.approx(expected, abs=rounding(found))
    assert abs(expected) > 20 * rounding(found)


def test_batch_size_changes_nothing(family, tiny):
    model = tiny(family)
    few, many = (
        patch_paths(model, senders=[(0, 1), (1, 1)], into="k", batch_size=size, **one_way(model.task))
        for size in (5, 100)
    )
    torch.testing.assert_close(few.values, many.values, atol=rounding(few), rtol=0, equal_nan=True)


def test_padded_examples_are_patched_too(tiny, symbols, padded):
    model = tiny("llama", symbols)
    how = {"batch": padded, "metric": "logit_difference"}
    other = symbols.batch(torch.cat([padded.inputs[:, :1] % 5 + 1, padded.inputs[:, 1:]], 1), padded.mask.sum(1))
    direct = patch_paths(model, senders=[(2, 0)], into="output", mlps="recomputed", corrupted=other, **how)
    whole = patch_activations(model, site="z", layers=[2], heads=[0], corrupted=other, **how)
    torch.testing.assert_close(direct.values[0], whole.values[0], atol=rounding(whole), rtol=0)


def test_the_model_is_as_before_and_effects_are_saved(tiny, tmp_path):
    model = tiny("bert").train()
    rng = torch.get_rng_state()
    found = patch_paths(model, senders=[(0, 1)], n_examples=4)
    assert model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.backbone.blocks)
    found.save(tmp_path / "paths.safetensors")
    again = PatchingEffects.load(tmp_path / "paths.safetensors")
    assert torch.equal(again.values, found.values)
    assert again.mlps == "frozen"
    table = again.to_pandas()
    assert list(table.columns) == ["sender", "receiver", "value", "low", "high"]
    assert table["receiver"].tolist() == list(found.labels[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"senders": [(3, 0)]}, r"no sender L3H0 in bert-tiny-random: it has layers 0 to 2 and heads 0 to 3"),
        ({"senders": [(0, 4)]}, r"no sender L0H4"),
        ({"senders": [(0, 0)], "receivers": [(1, 7)]}, r"no receiver L1H7"),
        ({"senders": []}, r"no sender is named"),
        ({"senders": [(0, 0, 1)]}, r"a sender is a head as \(layer, head\), got \(0, 0, 1\)"),
        ({"senders": ["MLP1"]}, r"a sender is a head as \(layer, head\), got \('mlp', 1\)"),
        ({"senders": [(1, 0)], "receivers": [(1, 1), (0, 2)]}, r"no receiver lies above a sender"),
        ({"senders": [(2, 0)]}, r"no receiver lies above a sender: the lowest sender is in layer 2 of 3"),
        ({"receivers": [(1, 0)], "into": "output"}, r"leave out the receivers"),
        ({"into": ["q", "output"]}, r"into must be output, or one or more of q, k, v"),
        ({"into": []}, r"into must be output, or one or more of q, k, v"),
    ],
)
def test_paths_that_are_not_there_are_errors(tiny, options, message):
    with pytest.raises(ConfigError, match=message):
        patch_paths(tiny("bert"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"into": "z"}, "no end of a path 'z'"),
        ({"mlps": "froze"}, "no way with MLPs 'froze'. Did you mean 'frozen'"),
        ({"corruption": "flip"}, "no corruption of bit_xor 'flip'"),
    ],
)
def test_a_name_that_there_is_not_is_an_error(tiny, options, message):
    unchecked = inspect.unwrap(patch_paths)  # the shape checks of these tests refuse some too
    with pytest.raises(UnknownNameError, match=message):
        unchecked(tiny("bert"), **options)
