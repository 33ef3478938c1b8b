"""The demo's figures carry the command that makes them, so they can be checked against the demo's own runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import fpt_viz as fpt
from fpt_viz import demo
from fpt_viz.cli import main
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.export import provenance
from fpt_viz.records import HeadStatistics, RunRecord, load_run

SIZE = demo.Scale(n_steps=2, n_examples=8, ks=(1, 2), n_random=2)


def trained(folder: Path, seed: int) -> RunRecord:
    """A run on a tiny random network in the place of MiniLM."""
    train = TrainConfig(n_steps=2, batch_size=4, validate_every=1, n_validation=8, seed=seed)
    task = TaskConfig(name="bit_xor", options={"n_bits": 3})
    backbone = BackboneConfig(name="bert-tiny-random", init="random")
    return fpt.run(RunConfig(task=task, backbone=backbone, train=train), folder, progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoResult:
    """All that the demo measures, of two tiny runs."""
    out = tmp_path_factory.mktemp("demo")
    runs = {init: trained(out / "runs" / init, seed) for seed, init in enumerate(demo.INITS)}
    model = fpt.load_model(runs["pretrained"])
    device = next(model.parameters()).device
    validation, test = demo._measure_heads(runs["pretrained"], SIZE, 0, device)
    single, top = demo._cut_heads(model, runs["pretrained"], validation, SIZE, 0)
    return demo.DemoResult(
        runs=runs, validation=validation, test=test, single=single, top=top, seconds=0.0, out=out
    )  # fmt: skip


@pytest.mark.slow
def test_every_figure_of_the_demo_matches_its_runs_until_they_change(done, capsys):
    paths = {}
    for name, (figure, recipe) in demo._figures(done).items():
        paths[name] = figure.save(done.out / "figures" / f"{name}.svg", recipe=recipe)
        assert main(["figure", "--check", str(paths[name])]) == 0, capsys.readouterr().out
    layer, head = done.top_head
    assert provenance.read(paths["head_grid"])["command"] == (
        f"fpt-viz figure head_grid ../runs/pretrained -o head_grid.svg --set split=test 'highlight=[[{layer}, {head}]]'"
    )
    on_test = done.runs["pretrained"].path / "head_statistics_test.safetensors"
    changed = HeadStatistics.load(on_test)
    changed.mean_pattern[0, 0, 0, 0] += 0.01
    changed.save(on_test)
    assert main(["figure", "--check", str(paths["head_grid"])]) == 2
    assert main(["figure", "--check", str(paths["top_heads"])]) == 0
    done.test.save(on_test)


def test_statistics_of_a_split_that_was_not_measured_are_asked_for_by_name(done, capsys, tmp_path):
    words = ["figure", "head_grid", str(load_run(done.runs["pretrained"].path).path), "-o", str(tmp_path / "x.svg")]
    assert main([*words, "--set", "split=train"]) == 2
    assert "head_grid needs head statistics on train" in capsys.readouterr().err
