"""Make the example pages of this folder and the records that the notebooks open, from short runs on MiniLM.

``make examples`` calls it. The runs go to ``data/results/notebooks`` and are made only where they are not there yet:
some ten minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path
import sys

import fpt_viz as fpt
from fpt_viz.cli import main as command
from fpt_viz.errors import FptVizError
from fpt_viz.records import RunRecord, store

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "data/results/notebooks"
N_STEPS = {"bit_xor": 200, "digits": 300}
CUT = [[0, 6], [0, 9], [0, 10]]
"""Heads that the page of the head lab starts without."""
MEASURED = {
    "bit_xor": (
        ["statistics"],
        ["capture", "--queries", "0-9", "--examples", "8"],
        ["ablate"],
        ["measure", "ablate_top_heads"],
        ["measure", "what_moved"],
        ["measure", "probe_states"],
        ["measure", "patch_activations"],
    ),
    "digits": (["statistics"], ["capture", "--queries", "0-15", "--examples", "8"], ["ablate"]),
}
"""What is saved beside a run: the words of ``fpt-viz``, to which the run's folder is added."""


def trained(task: str, init: str) -> RunRecord:
    """A short run of MiniLM with telemetry and with what is measured beside it."""
    folder = RUNS / f"{task.removeprefix('bit_')}-{init}"
    config = fpt.RunConfig.from_dict({
        "task": {"name": task},
        "backbone": {"name": "minilm", "init": init},
        "train": {"n_steps": N_STEPS[task], "validate_every": 20, "n_validation": 128, "telemetry_every": 20,
                  "n_telemetry": 8},
    })  # fmt: skip
    if not (folder / "result.json").exists():
        fpt.run(config, folder, overwrite=True, progress=sys.stderr.isatty())
        for name, *options in MEASURED[task]:
            positional = options[:1] if name == "measure" else []
            if command([name, *positional, str(folder), *options[len(positional) :]]):
                raise FptVizError(f"fpt-viz {name} {folder} failed; its message stands above")
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # a finished run is loaded without it
    return fpt.load_run(folder)


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    xor, random = trained("bit_xor", "pretrained"), trained("bit_xor", "random")
    model, of_digits = fpt.load_model(xor), fpt.load_model(trained("digits", "pretrained"))
    found = {
        "attention_explorer": fpt.widgets.AttentionExplorer(model, effects=xor.ablation(), n_examples=8),
        "patch_explorer": fpt.widgets.PatchExplorer(of_digits, n_examples=16),
        "bit_lab": fpt.widgets.BitLab(model, n_examples=8),
        "head_lab": fpt.widgets.HeadLab(model),
        "training_movie": fpt.widgets.TrainingMovie(xor, compare=random),
        "run_browser": fpt.widgets.RunBrowser(RUNS),
    }
    found["head_lab"].choose(cut=CUT)
    return {name: widget.to_html() for name, widget in found.items()} | {"live_training": live_page()}


def live_page() -> str:
    """A training as it looks at its end."""
    task = fpt.load_task("bit_xor")
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task)
    steps = fpt.train(model, task, fpt.TrainConfig(n_steps=100, validate_every=20, n_validation=128))
    widget = fpt.widgets.LiveTraining(steps, running=False, n_steps=100)
    widget.run()
    return widget.to_html()


def main() -> None:
    """Write the pages; each is whole or not there."""
    for name, page in pages().items():
        store.write_bytes(HERE / f"{name}.html", page.encode())
        sys.stdout.write(f"{name}.html {len(page.encode()) / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
