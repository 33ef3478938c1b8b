"""What HeadLab answers to a choice: heads cut by hand, the measures of the library, and the Python that it shows."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import torch

from fpt_viz.backbones import load_backbone
from fpt_viz.errors import ConfigError
from fpt_viz.intervene import ablated, head_stand_ins
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import AttentionMaps
from fpt_viz.records.parts import words_of
from fpt_viz.tasks import load_task
from fpt_viz.widgets.head_lab import HeadLab


def tiny(task=None, family: str = "bert") -> FrozenPretrainedTransformer:
    """A model whose logits differ much between classes, so that cutting a head turns some answers."""
    model = FrozenPretrainedTransformer(
        load_backbone(f"{family}-tiny-random", "random", 2), task or load_task("bit_xor", n_bits=3)
    )
    with torch.no_grad():
        model.output.weight.mul_(50)
    return model.eval()


def numbers(packed) -> np.ndarray:
    kinds = {"Float32Array": np.float32, "Int32Array": np.int32, "Uint8Array": np.uint8}
    return np.frombuffer(packed["data"], dtype=kinds[packed["type"]]).reshape(packed["shape"])


@contextlib.contextmanager
def without_slices(model, heads):
    """The heads' slices of the output projections set to zero, by hand."""
    d_head, kept = model.backbone.d_head, {}
    for layer, head in heads:
        weight = model.backbone.get_submodule("network").encoder.layer[layer].attention.output.dense.weight
        kept.setdefault(layer, (weight, weight.detach().clone()))
        with torch.no_grad():
            weight[:, head * d_head : (head + 1) * d_head] = 0
    yield
    with torch.no_grad():
        for weight, before in kept.values():
            weight.copy_(before)


def test_what_is_answered_without_heads_is_what_a_model_with_their_slices_set_to_zero_answers():
    model = tiny()
    lab = HeadLab(model, n_examples=16)
    batch = model.task.distinct(16, "validation", 0)
    lab.choose(cut=[(0, 1), (1, 0)], example=2)
    other = tiny()
    with without_slices(other, [(0, 1), (1, 0)]), torch.no_grad():
        logits = other(batch.inputs)
    shares = logits[2].softmax(-1)
    found = lab.prediction["without"]
    assert numbers(found["predicted"]).tolist() == logits[2].argmax(-1).tolist()
    np.testing.assert_allclose(numbers(found["share"]), shares.amax(-1), atol=1e-5)
    np.testing.assert_allclose(numbers(found["right"]), shares[torch.arange(3), batch.targets[2]], atol=1e-5)
    assert numbers(lab.prediction["targets"]).tolist() == batch.targets[2].tolist()
    assert lab.totals["accuracy"][1] == pytest.approx((logits.argmax(-1) == batch.targets).float().mean().item())
    assert lab.totals["loss"][1] == pytest.approx(other.task.loss(logits, batch.targets).item(), rel=1e-5)
    assert abs(lab.totals["loss"][1] - lab.totals["loss"][0]) > 1e-4


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_totals_and_their_intervals_are_those_of_ablate_heads(kind):
    model = tiny()
    lab = HeadLab(model, n_examples=16)
    lab.choose(cut=[(0, 0), (1, 1)], kind=kind)
    effects = ablate_heads(model, heads=[[(0, 0), (1, 1)]], kind=kind, n_examples=16, split="validation")
    intact = evaluate(model, n_examples=16, split="validation")
    assert lab.totals["n"] == intact.n_examples == 16
    assert lab.totals["accuracy"][0] == pytest.approx(intact.accuracy)
    assert lab.totals["loss"][0] == pytest.approx(intact.loss, rel=1e-6)
    assert lab.totals["accuracy"][0] - lab.totals["accuracy"][1] == pytest.approx(effects.accuracy_drop[0], abs=1e-6)
    assert lab.totals["loss"][1] - lab.totals["loss"][0] == pytest.approx(effects.loss_rise[0], abs=1e-5)
    assert lab.totals["intervals"][1] == pytest.approx(effects.loss_interval[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_the_python_that_it_shows_gives_the_numbers_that_it_shows(kind):
    model = tiny()
    lab = HeadLab(model, n_examples=12)
    lab.choose(cut=[(0, 1)], kind=kind, example=5)
    names = {"model": model}
    exec(lab.python, names)
    assert f'kind="{kind}"' in lab.python
    assert "[(0, 1)]" in lab.python
    assert lab.totals["accuracy"][1] == pytest.approx(float(names["accuracy"]))
    assert lab.totals["loss"][1] == pytest.approx(float(names["loss"]), rel=1e-5)
    found = numbers(lab.prediction["without"]["share"])
    np.testing.assert_allclose(found, names["probabilities"].amax(-1), atol=1e-5)


def test_totals_that_come_in_pieces_end_where_one_pass_ends():
    model = tiny(family="gpt2")
    lab, whole = HeadLab(model, n_examples=14), HeadLab(model, n_examples=14)
    lab._cuts.piece = 4
    lab.choose(cut=[(1, 0)], kind="resample", n=0)
    assert lab.totals == {"n": 0, "next": 4}
    seen = []
    while lab.totals["n"] < 14:
        lab.choose(n=lab.totals["next"])
        seen.append(lab.totals["n"])
    assert seen == [4, 8, 12, 14]
    whole.choose(cut=[(1, 0)], kind="resample")
    assert lab.totals["loss"] == pytest.approx(whole.totals["loss"])
    assert lab.totals["loss"][1] != lab.totals["loss"][0]


def test_what_is_known_is_not_run_again():
    model = tiny()
    lab = HeadLab(model, n_examples=8)
    lab.toggle("L0H0")
    known = lab.totals
    n_passes = []
    model.register_forward_hook(lambda *_: n_passes.append(1))
    lab.toggle("L0H0")
    lab.choose(cut=[(0, 0)], n=0)
    assert lab.totals == known
    assert n_passes == []
    lab.toggle("L0H1")
    assert len(n_passes) == 2  # the example, and the data set once


def test_heads_are_switched_by_name_and_row_and_every_step_can_be_taken_back():
    lab = HeadLab(tiny(), n_examples=4)
    lab.toggle((1, 1), "L0H0")
    assert lab.cut == ((0, 0), (1, 1))
    lab.toggle_layer(0)
    row = ((0, 0), (0, 1), (0, 2), (0, 3))
    assert lab.cut == (*row, (1, 1))
    lab.toggle_layer(0)
    assert lab.cut == ((1, 1),)
    lab.all_on()
    lab.undo()
    lab.undo()
    assert lab.cut == (*row, (1, 1))
    lab.redo()
    assert lab.cut == ((1, 1),)
    lab.toggle("L0H1")
    lab.redo()  # nothing: another way was taken
    assert lab.cut == ((0, 1), (1, 1))
    for _ in range(9):
        lab.undo()
    assert lab.cut == ()
    assert lab.choice["past"] == []


def test_the_model_is_left_in_its_mode_and_at_its_place_of_randomness():
    model = tiny().train()
    before = torch.get_rng_state()
    lab = HeadLab(model, n_examples=8)
    lab.choose(cut=[(0, 1)], kind="resample")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert model.leaked_hooks() == []
    again = HeadLab(model.eval(), n_examples=8)
    again.choose(cut=[(0, 1)], kind="resample")
    assert again.totals == lab.totals


def test_tiles_are_the_patterns_of_the_example_in_8_bits():
    model = tiny(family="gpt2")
    lab = HeadLab(model, n_examples=4)
    lab.choose(example=3)
    batch = model.task.distinct(4, "validation", 0)
    _, cache = model.run_with_cache(batch.inputs[3:])
    tiles = numbers(lab.tiles["values"])
    assert tiles.shape == (2, 4, 6, 6)
    assert (tiles[:, :, *np.triu_indices(6, 1)] == 255).all()
    step = lab.tiles["high"] / 254
    for layer in range(2):
        weights = cache["pattern", layer][0].numpy()[:, *np.tril_indices(6)]
        np.testing.assert_allclose(tiles[layer][:, *np.tril_indices(6)] * step, weights, atol=step / 2 + 1e-6)


def test_effects_of_single_heads_stand_on_their_tiles():
    model = tiny()
    effects = ablate_heads(model, heads=[(1, 0), (0, 1)], n_examples=8)
    metrics = HeadLab(model, effects=effects, n_examples=4).fixed["metrics"]
    shown = np.array(metrics["ablation"]["values"], dtype=float)
    assert shown[1, 0] == pytest.approx(effects.accuracy_drop[0])
    assert shown[0, 1] == pytest.approx(effects.accuracy_drop[1])
    assert np.isnan(shown).sum() == 6
    assert np.shape(metrics["routing"]["values"]) == (2, 4)


def test_a_state_recreates_it():
    model = tiny()
    lab = HeadLab(model, n_examples=8)
    lab.choose(cut=[(0, 1)], kind="mean", example=2)
    again = HeadLab(model, n_examples=8, state=json.loads(json.dumps(lab.state)))
    assert again.choice == lab.choice
    assert again.totals == lab.totals
    assert again.prediction == lab.prediction
    assert again.python == lab.python


def test_a_model_that_was_trained_on_is_said_to_be_another_and_no_new_number_is_shown():
    model = tiny()
    lab = HeadLab(model, n_examples=4)
    shown, told = lab.prediction, lab.alt
    with torch.no_grad():
        model.output.weight.mul_(2)
    lab.toggle("L0H0")
    assert lab.notice.startswith("The model has changed")
    assert lab.prediction is shown
    assert lab.alt == told


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"cut": [(9, 0)]}, "no head L9H0 here: there are layers 0 to 1 and heads 0 to 3"),
        ({"cut": [3]}, r"cut must be pairs of layer and head, got \[3\]"),
        ({"kind": "noise"}, "kind must be one of zero, mean, resample, got 'noise'"),
        ({"n": 1000}, "n must lie between 0 and the 4 examples there are, got 1000"),
        ({"example": 4}, "there is no example 4"),
    ],
    ids=["head", "pairs", "kind", "n", "example"],
)
def test_what_cannot_be_shown_is_refused_and_nothing_changes(fields, error):
    lab = HeadLab(tiny(), n_examples=4)
    before = lab.choice
    with pytest.raises(ConfigError, match=error):
        lab.choose(**fields)
    assert lab.choice == before


def test_less_than_a_model_and_what_is_no_head_are_refused():
    with pytest.raises(ConfigError, match=r"HeadLab runs the model, and was given AttentionMaps.*load_model\(record\)"):
        HeadLab(AttentionMaps.from_arrays(torch.full((1, 1, 1, 2, 2), 0.5)))
    with pytest.raises(ConfigError, match="HeadLab switches heads"):
        HeadLab(tiny(), n_examples=2).toggle("MLP1")


def test_the_figure_outlines_the_heads_that_are_off_and_its_words_hold_the_numbers(tmp_path):
    lab = HeadLab(tiny(), n_examples=8)
    lab.choose(cut=[(1, 0)])
    figure = lab.figure()
    assert figure.panels[0].marks[0].highlighted == ((1, 0),)
    assert f"accuracy {100 * lab.totals['accuracy'][1]:.1f} %" in figure.alt
    assert f"accuracy {100 * lab.totals['accuracy'][1]:.1f} %" in figure.note
    assert lab.save(tmp_path / "heads.svg").stat().st_size > 1000


def test_a_saved_page_holds_every_single_head_and_the_accuracy_of_what_is_on_screen():
    lab = HeadLab(tiny(), n_examples=4)
    lab.choose(cut=[(0, 0), (1, 1)], n=0)
    page = lab.to_html()
    tables = json.loads(page.split('id="values">')[1].split("</script>")[0])["answers"]
    assert '[0,"zero",[[1,0]]]' in tables["prediction"]["table"]
    assert tables["totals"]["table"]['["zero",[[0,0],[1,1]],4]']["n"] == 4


def test_stand_ins_of_another_kind_or_part_are_refused():
    model = tiny()
    means = head_stand_ins(model, "mean")
    for part, kind in (((0, 0), "zero"), (("mlp", 0), "mean")):
        with pytest.raises(
            ConfigError, match=f"of the mean ablation, a {kind} ablation of {words_of(part)} was asked for"
        ):
            ablated(model, [part], kind, stand_ins=means).__enter__()
