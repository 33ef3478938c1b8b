"""Patched runs against hooks written by hand, one patch at a time; and what patching cannot be asked."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.measures._replicas import ratio_interval
from fpt_viz.measures.patch_activations import SITES, patch_activations
from fpt_viz.records import PatchingEffects
from fpt_viz.tasks import Batch, load_task

pytestmark = pytest.mark.slow  # a minute or so in all

HEAD_SITES = ("z", "q", "k", "v", "pattern")


@pytest.fixture
def model(family, tiny):
    """A tiny model on XOR of 3 + 3 bits, whose test split holds 16 inputs."""
    return tiny(family)


def pair_of(task, how="flip_partner"):
    """The examples that the measures use by themselves."""
    clean = task.distinct(128, "test", 0)
    return clean, task.corrupted(clean, how, torch.Generator().manual_seed(0)).batch


def contrast(logits, clean, corrupted):
    """Of each example, the clean target's logit minus the corrupted one's, by plain loops over targets that differ."""
    found = []
    for rows, was, now in zip(logits.double(), clean.targets.tolist(), corrupted.targets.tolist(), strict=True):
        gaps = [float(row[a] - row[b]) for row, a, b in zip(rows, was, now, strict=True) if a != b]
        found.append(sum(gaps) / len(gaps))
    return torch.tensor(found).double()


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


def by_hand(model, name, choose, *, direction="denoise"):
    """The scaled effect of writing the entries ``choose`` of one activation, in one run of its own."""
    clean, corrupted, _ = one_way(model.task).values()
    to, frm = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    _, cache = model.run_with_cache(frm.inputs, names_filter=name)

    def write(activation, hook):
        changed = activation.clone()
        changed[choose] = cache[hook.name][choose]
        return changed

    with torch.no_grad():
        runs = [model(batch.inputs) for batch in (clean, corrupted)]
        with model.hooks([(name, write)]):
            runs.append(model(to.inputs))
    clean_sum, corrupted_sum, patched = (sum(float(slanted(row[None], None)) for row in run) for run in runs)
    return (patched - corrupted_sum) / (clean_sum - corrupted_sum)


every = slice(None)


def rounding(found):
    """How far an effect may move by the rounding of logits in float32, which differs between batch sizes."""
    tolerance = 1e-6 * max(1.0, abs(found.clean)) / abs(found.clean - found.corrupted)
    assert tolerance < 2e-3
    return tolerance


def test_restoring_the_whole_input_of_the_first_layer_restores_everything_exactly(model):
    found = patch_activations(model, site="resid_pre", by=["layer"], **one_way(model.task))
    assert found.axes == ("layer",)
    assert found.values[0] == 1
    assert found.intervals[0].tolist() == [1, 1]
    assert found.values.tolist() == pytest.approx([1, 1, 1], abs=rounding(found))  # nothing is lost further up either


def test_patching_a_token_that_the_corruption_left_alone_does_exactly_nothing_at_the_input(model):
    found = patch_activations(model, site="resid_pre", corruption="flip_partner", corrupt_position=1)
    assert found.axes == ("layer", "position")
    assert found.labels == (("0", "1", "2"), ("a0", "a1", "a2", "b0", "b1", "b2"))
    assert found.values[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert found.intervals[0, 0].tolist() == [0, 0]
    assert found.values[1:].count_nonzero() > 6
    assert found.corruption == "flip_partner at 1"


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_a_patch_of_the_residual_stream_is_that_of_a_hook_written_by_hand(model, site):
    found = patch_activations(model, site=site, layers=[1, 2], positions=[0, 4], **one_way(model.task))
    assert found.labels == (("1", "2"), ("a0", "b1"))
    for i, layer in enumerate((1, 2)):
        for j, position in enumerate((0, 4)):
            expected = by_hand(model, f"blocks.{layer}.hook_{site}", (every, position))
            assert float(found.values[i, j]) == pytest.approx(expected, abs=rounding(found))


@pytest.mark.parametrize("site", HEAD_SITES)
def test_a_patch_of_a_head_is_that_of_a_hook_written_by_hand(model, site):
    found = patch_activations(model, site=site, layers=[0, 2], **one_way(model.task))
    grouped = site in "kv" and model.backbone.n_kv_heads < model.backbone.n_heads
    assert found.axes == ("layer", "kv_head" if grouped else "head")
    n_heads = model.backbone.n_kv_heads if site in "kv" else model.backbone.n_heads
    assert found.values.shape == (2, n_heads)
    for i, layer in enumerate((0, 2)):
        for head in range(n_heads):
            choose = (every, head) if site == "pattern" else (every, every, head)
            expected = by_hand(model, f"blocks.{layer}.attn.hook_{site}", choose)
            assert float(found.values[i, head]) == pytest.approx(expected, abs=rounding(found))


@pytest.mark.parametrize("site", ["z", "pattern"])
def test_heads_and_positions_are_told_apart_where_asked(tiny, site):
    model = tiny("gpt2")
    found = patch_activations(
        model,
        site=site,
        by=("position", "head", "layer"),
        heads=[3, 1],
        positions=[5],
        layers=[1],
        **one_way(model.task),
    )
    assert found.axes == ("layer", "head", "position")
    assert found.labels == (("1",), ("3", "1"), ("b2",))
    for j, head in enumerate((3, 1)):
        choose = (every, head, 5) if site == "pattern" else (every, 5, head)
        expected = by_hand(model, f"blocks.1.attn.hook_{site}", choose)
        assert float(found.values[0, j, 0]) == pytest.approx(expected, abs=rounding(found))


def test_heads_that_are_not_told_apart_are_patched_together(tiny):
    model = tiny("bert")
    found = patch_activations(model, site="z", by="layer", heads=[0, 2], layers=[0], **one_way(model.task))
    expected = by_hand(model, "blocks.0.attn.hook_z", (every, every, [0, 2]))
    assert float(found.values[0]) == pytest.approx(expected, abs=rounding(found))


def test_noising_writes_corrupted_activations_into_the_clean_run_on_the_same_scale(tiny):
    model = tiny("llama")
    found = patch_activations(model, site="z", direction="noise", layers=[1], **one_way(model.task))
    for head in range(4):
        expected = by_hand(model, "blocks.1.attn.hook_z", (every, every, head), direction="noise")
        assert float(found.values[0, head]) == pytest.approx(expected, abs=rounding(found))
    assert found.unpatched == 1
    torch.testing.assert_close(found.change, found.values - 1)
    whole = patch_activations(model, site="resid_pre", direction="noise", by=["layer"], layers=[0])
    assert whole.values.tolist() == [0]


def test_a_head_that_the_output_projection_does_not_read_has_no_effect_at_all(tiny):
    model = tiny("gpt2")
    with torch.no_grad():
        model.backbone.blocks[1].attn.c_proj.weight[16:24] = 0  # head 2 of 8 dimensions
    for batch_size in (7, 16, 64):
        for site in ("z", "q", "v"):
            found = patch_activations(model, site=site, layers=[1], batch_size=batch_size)
            assert found.values[0, 2] == 0
            assert found.intervals[0, 2].tolist() == [0, 0]
            assert found.values[0, 1] != 0


def test_batch_size_changes_nothing_but_the_number_of_passes(model):
    few, many = (patch_activations(model, site="z", batch_size=size, **one_way(model.task)) for size in (3, 200))
    torch.testing.assert_close(few.values, many.values, atol=rounding(few), rtol=0)
    torch.testing.assert_close(few.intervals, many.intervals, atol=2 * rounding(few), rtol=1e-3)


def test_nothing_below_the_patched_layer_is_computed_twice_and_replicas_share_a_pass(tiny):
    model = tiny("gpt2")
    n_calls = [0, 0, 0]

    def counting(layer):
        def count(_module, args, _output):
            n_calls[layer] += 1
            assert len(args[0]) <= 48

        return count

    handles = [block.mlp.register_forward_hook(counting(layer)) for layer, block in enumerate(model.backbone.blocks)]
    patch_activations(model, site="resid_pre", batch_size=48)  # 16 examples, 6 tokens, 3 replicas
    for handle in handles:
        handle.remove()
    without = 4  # clean and corrupted, once to choose the examples and once to start from
    assert n_calls == [without + 2, without + 4, without + 6]


def test_the_model_is_as_before(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng, config = torch.get_rng_state(), model.backbone.network.config
    kernel = config._attn_implementation
    patch_activations(model, site="pattern", n_examples=4)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert config._attn_implementation == kernel
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.backbone.blocks)


# Examples and metrics


def test_examples_are_those_of_the_split_and_the_same_seed_gives_the_same_effects(tiny):
    model = tiny("bert")
    one, same, other = (patch_activations(model, site="z", n_examples=8, seed=seed) for seed in (0, 0, 1))
    assert (one.n_examples, one.n_dropped, one.split, one.metric) == (8, 0, "test", "target_contrast")
    assert torch.equal(one.values, same.values)
    assert torch.equal(one.intervals, same.intervals)
    assert not torch.equal(one.values, other.values)


def test_a_pair_of_ones_own_is_used_as_it_is(tiny):
    model = tiny("bert")
    clean, corrupted = pair_of(model.task)
    given = patch_activations(model, site="z", batch=clean, corrupted=corrupted)
    torch.testing.assert_close(given.values, patch_activations(model, site="z").values)
    assert (given.split, given.corruption) == ("given", "given")
    by_task = patch_activations(model, site="z", batch=clean, corruption="flip_string")
    assert (by_task.split, by_task.corruption) == ("given", "flip_string")


def test_both_ends_of_the_scale_are_the_metrics_means(tiny):
    model = tiny("bert")
    clean, corrupted = pair_of(model.task)
    found = patch_activations(model, site="z", n_examples=16)
    with torch.no_grad():
        expected = [float(contrast(model(batch.inputs), clean, corrupted).mean()) for batch in (clean, corrupted)]
    assert [found.clean, found.corrupted] == pytest.approx(expected, abs=1e-5)


def test_intervals_are_those_of_a_ratio_of_means(rng):
    above, below = torch.randn(40, 3, generator=rng).double(), 2 + torch.rand(40, 3, generator=rng).double()
    found = ratio_interval(above, below, seed=3)
    drawn = torch.randint(40, (2000, 40), generator=torch.Generator().manual_seed(3))
    for cell in range(3):
        ratios = [float(above[rows, cell].mean() / below[rows, cell].mean()) for rows in drawn]
        expected = torch.tensor(ratios).double().quantile(torch.tensor([0.025, 0.975]).double())
        torch.testing.assert_close(found[cell], expected)


def test_an_interval_holds_its_value(model):
    found = patch_activations(model, site="resid_post")
    assert bool((found.intervals[..., 0] <= found.values + 1e-12).all())
    assert bool((found.values <= found.intervals[..., 1] + 1e-12).all())
    assert bool((found.intervals[..., 0] < found.intervals[..., 1]).any())


def test_examples_on_which_the_runs_agree_are_dropped_and_counted(tiny):
    model = tiny("bert")
    clean, corrupted = pair_of(model.task)
    partly = Batch(
        torch.cat([clean.inputs[:5], corrupted.inputs[5:]]), torch.cat([clean.targets[:5], corrupted.targets[5:]])
    )
    found = patch_activations(model, site="z", batch=clean, corrupted=partly)
    rest = patch_activations(model, site="z", batch=clean[5:], corrupted=corrupted[5:])
    assert (found.n_examples, found.n_dropped) == (len(clean) - 5, 5)
    torch.testing.assert_close(found.values, rest.values)


def test_where_no_example_differs_there_is_nothing_to_restore(tiny):
    model = tiny("bert")
    clean, _ = pair_of(model.task)
    with pytest.raises(ConfigError, match="on none of 16 examples does logit_difference differ"):
        patch_activations(model, batch=clean, corrupted=clean)
    with pytest.raises(ConfigError, match="on none of 16 examples does <lambda> differ"):
        patch_activations(model, metric=lambda logits, batch: 1.0)


def test_runs_that_agree_on_average_have_no_scale(tiny):
    model = tiny("bert")
    clean, corrupted = pair_of(model.task)
    there_and_back = Batch(torch.cat([clean.inputs, corrupted.inputs]), torch.cat([clean.targets] * 2))
    back = Batch(torch.cat([corrupted.inputs, clean.inputs]), torch.cat([clean.targets] * 2))
    with pytest.raises(ConfigError, match="on average on both runs of 32 examples .* no scale"):
        patch_activations(model, batch=there_and_back, corrupted=back, metric="logit_difference")


def test_a_metric_of_ones_own_sees_one_example_at_a_time(tiny):
    model = tiny("bert")
    seen = []

    def loss(logits, batch):
        seen.append((tuple(logits.shape), len(batch)))
        return model.task.loss(logits, batch.targets)

    found = patch_activations(model, site="resid_pre", by=["layer"], layers=[0], metric=loss, n_examples=6)
    assert set(seen) == {((1, 3, 2), 1)}
    assert found.metric == "loss"
    assert found.values.tolist() == [1]


@pytest.mark.parametrize("shape", [(2,), (1, 3), (0,)])
def test_a_metric_that_returns_a_vector_is_an_error_with_its_shape_and_the_cure(tiny, shape):
    with pytest.raises(ConfigError, match=r"returned shape \(.*wanted one number: end it with .mean\(\)"):
        patch_activations(tiny("bert"), metric=lambda logits, batch: torch.zeros(shape))


def test_a_metric_that_is_not_finite_is_an_error(tiny):
    with pytest.raises(ConfigError, match="returned nan for an example"):
        patch_activations(tiny("bert"), metric=lambda logits, batch: math.nan)


def test_targets_that_stay_are_measured_by_the_logit_difference(tiny):
    task = load_task("digits", patch_size=4)
    found = patch_activations(tiny("bert", task), site="z", n_examples=8)
    assert (found.metric, found.corruption) == ("logit_difference", "occlude")
    with pytest.raises(ConfigError, match="changes no target: use metric='logit_difference'"):
        patch_activations(tiny("bert", task), n_examples=8, metric="target_contrast")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_padding_changes_no_effect_and_short_examples_do_not_count_where_they_have_no_token(tiny, symbols, family):
    model = tiny(family, symbols)
    lengths = torch.tensor([8, 5, 5, 3])
    generator = torch.Generator().manual_seed(2)
    clean = symbols.batch(torch.randint(1, 6, (4, 8), generator=generator), lengths)
    other = symbols.batch(torch.cat([clean.inputs[:, :1] % 5 + 1, clean.inputs[:, 1:]], 1), lengths)
    found = patch_activations(model, batch=clean, corrupted=other, metric="logit_difference")
    for position, count in ((6, 1), (4, 3), (1, 4)):
        alone = [
            patch_activations(
                model,
                batch=Batch(clean.inputs[i : i + 1, :n], clean.targets[i : i + 1]),
                corrupted=Batch(other.inputs[i : i + 1, :n], other.targets[i : i + 1]),
                metric="logit_difference",
                positions=[position],
            )
            for i, n in enumerate(lengths.tolist()[:count])
        ]
        gaps = torch.tensor([one.clean - one.corrupted for one in alone])
        values = torch.stack([one.values[:, 0] for one in alone], dim=1)
        torch.testing.assert_close(
            found.values[:, position].float(), (values * gaps).sum(1).float() / gaps.sum(), atol=1e-3, rtol=1e-3
        )


def test_a_token_that_no_example_has_is_blank(tiny, symbols):
    model = tiny("bert", symbols)
    lengths = torch.tensor([8, 5])
    clean = symbols.batch(torch.randint(1, 6, (2, 8)), lengths)
    other = Batch(clean.inputs.clone(), clean.targets, clean.mask)
    other.inputs[1, 0] = clean.inputs[1, 0] % 5 + 1  # the long example is the same in both, and dropped
    found = patch_activations(model, batch=clean, corrupted=other, metric="logit_difference")
    assert found.n_dropped == 1
    assert found.values[:, 5:].isnan().all()
    assert found.intervals[:, 5:].isnan().all()
    assert not found.values[:, :5].isnan().any()


# Bad requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, "no layer 3: there are 0 to 2"),
        ({"layers": []}, "no layer is chosen"),
        ({"site": "z", "heads": [4]}, "no head 4: there are 0 to 3"),
        ({"positions": [6]}, "no position 6: there are 0 to 5"),
        ({"heads": [0]}, "resid_pre is not cut into heads"),
        ({"corrupt_position": 3}, "no position 3 in bit_xor: they are 0 to 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"n_examples": 0}, "at least 1 example must be asked for, got 0"),
    ],
)
def test_what_is_not_there_is_an_error_with_the_valid_range(tiny, options, message):
    with pytest.raises(ConfigError, match=message):
        patch_activations(tiny("bert"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "resid"}, "no site 'resid'. Did you mean 'resid_"),
        ({"by": ["layer", "head"]}, "no axis of resid_pre 'head'"),
        ({"corruption": "flip"}, "no corruption of bit_xor 'flip'"),
        ({"split": "tests"}, "no split 'tests'. Did you mean 'test'"),
        ({"metric": "logits_difference"}, "no metric 'logits_difference'. Did you mean 'logit_difference'"),
        ({"direction": "denoising"}, "no direction 'denoising'. Did you mean 'denoise'"),
    ],
)
def test_a_name_that_there_is_not_is_an_error(tiny, options, message):
    unchecked = inspect.unwrap(patch_activations)  # the shape checks of these tests refuse some too
    with pytest.raises(UnknownNameError, match=message):
        unchecked(tiny("bert"), **options)


def test_batches_that_are_no_pair_are_an_error(tiny, padded, symbols):
    model = tiny("bert")
    clean, corrupted = pair_of(model.task)
    with pytest.raises(ConfigError, match=r"inputs of batch and corrupted have shapes \(16, 6, 1\) and \(15, 6, 1\)"):
        patch_activations(model, batch=clean, corrupted=corrupted[1:])
    with pytest.raises(ConfigError, match="an empty batch of bit_xor was given"):
        patch_activations(model, batch=clean[:0], corrupted=corrupted[:0])
    with pytest.raises(ConfigError, match="without the clean one"):
        patch_activations(model, corrupted=corrupted)
    with pytest.raises(ConfigError, match="not both"):
        patch_activations(model, batch=clean, corrupted=corrupted, corruption="resample")
    longer = Batch(padded.inputs, padded.targets, padded.mask.roll(1, 0))
    with pytest.raises(ConfigError, match="different masks"):
        patch_activations(tiny("bert", symbols), batch=padded, corrupted=longer)


# The record


def test_effects_come_back_as_they_were_and_become_a_table(tiny, tmp_path):
    found = patch_activations(tiny("llama"), site="k", layers=[2, 0])
    found.save(tmp_path / "patching.safetensors")
    again = PatchingEffects.load(tmp_path / "patching.safetensors")
    assert repr(again) == repr(found) == "PatchingEffects(k, 2 layers x 2 kv_heads, denoise, 16 test examples)"
    for name, value in vars(found).items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(getattr(again, name), value), name
    table = found.to_pandas()
    assert list(table.columns) == ["layer", "kv_head", "value", "low", "high"]
    assert table[["layer", "kv_head"]].to_numpy().tolist() == [[2, 0], [2, 1], [0, 0], [0, 1]]
    assert table["value"].tolist() == found.values.flatten().tolist()
    assert table["high"].tolist() == found.intervals[..., 1].flatten().tolist()


def test_every_site_is_an_activation_of_every_family(model):
    assert {f"blocks.0.{site.hook}" for site in SITES.values()} <= set(model.activation_names())
