"""Every system of the paper is one ``fpt-viz train``: its words reach the weights that the paper's tables name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import ViTModel

import fpt_viz as fpt
from fpt_viz import registry
from fpt_viz.backbones import load_backbone, preset_names
from fpt_viz.cli import main
from fpt_viz.records import RunRecord, load_run

FPT = {"output", "input", "layer_norm", "position"}
UNFREEZING = {
    "output,input,layer_norm,position": (FPT, {}),
    "output,input,position": (FPT - {"layer_norm"}, {}),
    "output": ({"output"}, {}),
    "output,layer_norm": ({"output", "layer_norm"}, {}),
    "output,input": ({"output", "input"}, {}),
    "output,position": ({"output", "position"}, {}),
    "output,input,layer_norm,position,feed_forward": (FPT | {"feed_forward"}, {}),
    "output,input,layer_norm,position,attention": (FPT | {"attention"}, {}),
    "output,input,layer_norm,position,feed_forward,attention": (FPT | {"feed_forward", "attention"}, {}),
    "output,input,layer_norm,position,feed_forward,attention:last": (FPT | {"feed_forward"}, {"attention": 2}),
    "output,input,layer_norm,position,feed_forward:last,attention:2": (FPT, {"feed_forward": 2, "attention": 2}),
    "output,input,layer_norm,position,attention:0": (FPT, {"attention": 0}),
    "all": (FPT | {"feed_forward", "attention", "token"}, {}),
}
"""What is given to ``--train`` -> the groups that learn whole, and those of which one layer does: tables 10 to 16."""
SMALL = ("--set", "n_steps=2", "batch_size=4", "learning_rate=0.01")


def trained(out: Path, *words: str) -> RunRecord:
    assert main(["train", *words, "--out", str(out), "--json"]) == 0
    return load_run(out)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("words", UNFREEZING)
def test_exactly_what_the_words_name_is_trained(words, family, tmp_path, capsys):
    backbone = ("--backbone", f"{family}-tiny-random", "--init", "random")
    record = trained(tmp_path / "run", "--task", "bit_xor", *backbone, "--train", words, *SMALL, "task.n_bits=2")
    whole, in_layer = UNFREEZING[words]
    model = fpt.load_model(record)

    for row in record.ledger.rows:
        expected = row.group in whole or (row.group in in_layer and model.layer_of(row.name) == in_layer[row.group])
        assert row.trained == expected, row.name
    assert record.result["frozen_intact"]


def test_training_from_scratch_takes_any_depth(tmp_path, capsys):
    for n_layers in (1, 5):
        words = ("--task", "bit_xor", "--backbone", "gpt2-tiny-random", "--init", "random", "--train", "all")
        record = trained(tmp_path / f"{n_layers}", *words, "--layers", str(n_layers), *SMALL, "task.n_bits=2")

        assert json.loads(capsys.readouterr().out)["status"] == "finished"
        assert fpt.load_model(record).backbone.n_layers == n_layers
        assert record.ledger.n_trained == record.ledger.n_total - record.ledger.counts().get("buffer", 0)


@torch.no_grad()
def test_deep_random_networks_start_as_their_architecture_does_at_that_depth():
    """GPT-2's output projections start smaller the deeper the network is: 0.02 / sqrt(2 x depth)."""
    for n_layers in (2, 18):
        backbone = load_backbone("gpt2-tiny-random", "random", n_layers)
        weights = [block.get_submodule("mlp.c_proj").weight for block in backbone.blocks]
        spread = float(torch.cat([weight.flatten() for weight in weights]).std())
        assert spread == pytest.approx(0.02 / (2 * n_layers) ** 0.5, rel=0.05)


def test_pretrained_weights_are_no_deeper_than_they_are(tmp_path, capsys):
    save_a_vit(tmp_path / "vit")
    words = ["train", "--task", "digits", "--backbone", f"vit:{tmp_path / 'vit'}", "--layers", "4"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "with init=pretrained, got 4: only init=random is deeper" in capsys.readouterr().err


def test_the_papers_sizes_are_presets():
    assert {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "vit-base", "t5-base", "longformer-base"} <= set(
        preset_names()
    )


def save_a_vit(folder: Path) -> ViTModel:
    kind = registry.load("backbones", "vit")
    torch.manual_seed(11)
    network = ViTModel(kind.config_class(**kind.presets["vit-tiny-random"].config), add_pooling_layer=False)
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize("init", ["pretrained", "statistics"])
def test_a_vit_in_a_folder_trains_on_images(tmp_path, capsys, init):
    network = save_a_vit(tmp_path / "vit")
    words = ("--task", "digits", "--backbone", f"vit:{tmp_path / 'vit'}", "--init", init)
    record = trained(tmp_path / "run", *words, *SMALL, "patch_size=2", "validate_every=1", "n_validation=8")

    model = fpt.load_model(record)
    weights = model.backbone.blocks[1].get_submodule("attention.q_proj").weight
    same = torch.equal(weights, network.layers[1].get_submodule("attention.q_proj").weight)
    assert same == (init == "pretrained")
    assert record.result["frozen_intact"]
    assert record.ledger.backbone["family"] == "vit"
    maps = model.capture(model.task.distinct(2, "test"))
    assert maps.weights.shape == (3, 2, 4, 1, 16)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["lstm-384", "lstm-norm-384", "lstm-12-384"])
def test_an_lstm_trains_on_images_frozen_and_whole(preset, tmp_path, capsys):
    for trained_groups in ("output,input,layer_norm,position", "all"):
        words = ("--task", "digits", "--backbone", preset, "--init", "random", "--train", trained_groups)
        record = trained(tmp_path / trained_groups, *words, *SMALL, "patch_size=4")
        recurrent = [row for row in record.ledger.rows if row.group == "recurrent"]
        assert all(row.trained == (trained_groups == "all") for row in recurrent)
        assert len(recurrent) == 4 * (12 if "12" in preset else 3)
