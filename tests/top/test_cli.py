"""The command line, called as a user calls it: what it answers, what it leaves behind, and how it fails."""

from __future__ import annotations

import csv
from dataclasses import dataclass
import json
import math
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
import torch

from fpt_viz import cli, registry
from fpt_viz.backbones import preset_names
from fpt_viz.cli import looking, main
from fpt_viz.cli.answer import Answer, Table, plain
from fpt_viz.cli.given import parsed
from fpt_viz.config import RunConfig
from fpt_viz.errors import ConfigError
from fpt_viz.loading import load_model
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.evaluate import evaluate
from fpt_viz.records import AttentionMaps, PatchingEffects, load_run

TINY = ("--task", "bit_xor", "--backbone", "bert-tiny-random", "--init", "random")
SMALL = ("--set", "n_bits=3", "n_steps=6", "validate_every=3", "batch_size=8")
COMMANDS = (
    "demo", "train", "evaluate", "statistics", "routing", "ablate", "capture", "measure", "reproduce",
    "compare", "figure", "log", "paper-kit", "list", "doctor", "lab",
)  # fmt: skip
DRAWN_ELSEWHERE = {
    "attribution_bits", "attribution_patches", "rollout", "training_strip",  # of arrays, which no run holds
    "patch_overlay", "patch_pair_sheet",  # of images
    "attention_difference", "group_ablation", "learning_rate_sweep",  # of several runs
    "language_roles", "pattern_shift", "telemetry",  # of what this run has not beside it
}  # fmt: skip
"""Figures that one run on bits does not allow; ``tests/viewers`` draws them."""
PROGRAM = (sys.executable, "-c", "import sys; from fpt_viz.cli import main; sys.exit(main())")


def started(*argv: object, **settings: object) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*PROGRAM, *map(str, argv)], **(pipes | settings))


def failed(said, code: int) -> str:
    """The one line that a failing command says on stderr, and nothing on stdout."""
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("fpt-viz: ")
    assert said.err.count("\n") == 1
    return str(said.err)


def assert_same_weights(*runs: Path) -> None:
    """Both runs ended with the same trained tensors, bit for bit."""
    one, other = (load_file(run / "adapter.safetensors") for run in runs)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# What it costs to ask


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_neither_torch_nor_anything_as_heavy(argv):
    heavy = "{'torch', 'numpy', 'transformers', 'matplotlib', 'plotly', 'pandas', 'rich'}"
    code = (
        f"import sys; from fpt_viz.cli import main; c = main({argv!r}); print({heavy} & set(sys.modules)); sys.exit(c)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "set()"


def test_help_lists_what_is_built_and_nothing_else(call):
    listed = [line.split()[0] for line in call("--help").out.splitlines() if line.startswith("    ") and line[4] != " "]
    assert [word for word in listed if not word.startswith("-")] == list(COMMANDS)


def test_list_imports_no_torch():
    code = "import sys; from fpt_viz.cli import main; main(['list', 'figures']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


# What there is


@pytest.mark.parametrize(
    ("what", "folder"),
    [("analyses", "analysis"), *((name, name) for name in ("tasks", "measures", "figures", "experiments"))],
)
def test_list_names_what_the_folder_holds(call, what, folder):
    names = registry.names(folder)
    assert call("list", what, "--json").json() == {"names": names}
    assert [line.split()[0] for line in call("list", what).out.splitlines()[1:]] == names


def test_list_backbones_names_every_preset(call):
    assert call("list", "backbones", "--json").json() == {"names": list(preset_names())}


# From training to a figure


def test_the_chain_from_training_to_a_figure(call, tmp_path):
    run = tmp_path / "run"
    told = call(
        "train", *TINY, *SMALL, "--seed", 3, "--train", "output,input", "--layers", 2, "--out", run, "--json"
    ).json()
    config = RunConfig.load(run / "config.toml")
    assert (config.train.seed, config.train.n_steps, config.backbone.n_layers) == (3, 6, 2)
    assert (config.trained, config.task.options) == (("output", "input"), {"n_bits": 3})
    record = load_run(run)
    assert told["frozen_intact"] is True
    assert (told["path"], told["n_steps"], told["run_id"]) == (str(run), 6, record.result["run_id"])
    assert told["evaluation"]["accuracy"] == record.evaluation.accuracy

    told = call("evaluate", run, "--json").json()
    found = evaluate(load_model(record))
    assert (told["split"], told["n_examples"], told["accuracy"]) == ("test", 16, found.accuracy)
    assert (told["interval"], told["chance"], told["trivial"]) == (list(found.interval), 0.5, {})

    told = call("statistics", run, "--json").json()
    assert told["validation"] == {"path": f"{run}/head_statistics.safetensors", "n_examples": 16}
    assert told["test"] == {"path": f"{run}/head_statistics_test.safetensors", "n_examples": 16}

    heads = call("routing", run, "--json").json()["heads"]
    assert [(row["layer"], row["head"]) for row in heads] == load_run(run).statistics().ranking()
    assert all(row["interval"][0] <= row["score"] <= row["interval"][1] for row in heads)
    assert heads[0].keys() == {"layer", "head", "score", "interval", "uniform", "permuted"}

    heads = call("ablate", run, "--json").json()["heads"]
    effects = ablate_heads(load_model(record))
    assert [row["accuracy_drop"] for row in heads] == list(effects.accuracy_drop)
    assert [row["loss_rise"] for row in heads] == list(effects.loss_rise)
    assert heads[0].keys() == {"layer", "head", "accuracy_drop", "loss_rise", "logit_drop", "interval"}
    assert load_run(run).ablation() == effects

    told = call("capture", run, "--layers", 1, "--heads", "0,2-3", "--json").json()
    assert told["shape"] == {"layer": 1, "batch": 8, "head": 3, "query": 3, "key": 6}
    maps = AttentionMaps.load(told["path"])
    assert (maps.layers, maps.heads) == ((1,), (0, 2, 3))

    [row] = call("compare", run, "--json").json()["rows"]
    assert (row["seeds"], row["mean"], row["paper"], row["source"]) == ([3], record.evaluation.accuracy, None, None)

    told = call("figure", "head_grid", run, "-o", tmp_path / "heads.pdf", "--preset", "icml", "--json").json()
    assert Path(told["path"]).read_bytes().startswith(b"%PDF")
    assert told["alt"]


def test_ablate_cuts_what_is_named_by_the_kind_that_is_named(call, run_folder):
    named = ("--parts", "L0H1+MLP1", "L1", "L2H3:4<1")
    sets = call("ablate", run_folder, "--kind", "mean", *named, "--json").json()["sets"]
    assert [cut["parts"] for cut in sets][::2] == [["L0H1", "MLP1"], ["L2H3:4<1"]]
    assert len(sets[1]["parts"]) > 1
    assert (run_folder / "ablate_heads_mean_parts.json").is_file()
    shown = call("ablate", run_folder, "--kind", "resample", "--parts", "L0H1", "L1H0")
    assert "each of 2 heads cut alone (resample over 32 train examples of bit_xor" in shown.out
    refused = call("ablate", run_folder, "--parts", "L3H")
    assert refused.code == 2
    assert "'L3H' names no part of a model" in refused.err


@pytest.mark.parametrize("name", sorted(set(registry.names("figures")) - DRAWN_ELSEWHERE))
def test_each_figure_is_drawn_from_what_is_saved(call, measured, tmp_path, name):
    said = call("figure", name, measured, "-o", tmp_path / "figure.svg")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"saved as {tmp_path / 'figure.svg'}\n")
    assert "<svg" in (tmp_path / "figure.svg").read_text()


def test_a_difference_takes_two_runs_and_says_so_of_one(call, measured, tmp_path):
    said = call("figure", "attention_difference", measured, measured, "-o", tmp_path / "figure.csv")
    assert (said.code, said.err) == (0, "")
    with (tmp_path / "figure.csv").open(newline="") as table:
        assert {float(row["value"]) for row in csv.DictReader(table)} == {0.0}  # of a run to itself
    alone = call("figure", "attention_difference", measured, "-o", tmp_path / "figure.csv")
    assert (alone.code, alone.err) == (2, "fpt-viz: attention_difference shows two runs, got 1\n")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("head_grid", "statistics"),
        ("routing_table", "statistics"),
        ("attention_heatmap", "capture"),
        ("ablation_effects", "ablate"),
        ("top_heads", "measure ablate_top_heads"),
        ("patching_heatmap", "measure patch_activations"),
    ],
)
def test_a_figure_of_what_is_not_there_names_the_command_that_makes_it(call, trained, tmp_path, name, command):
    said = failed(call("figure", name, trained, "-o", tmp_path / "figure.pdf"), 2)
    assert f"fpt-viz {command} {trained} makes them" in said
    assert not (tmp_path / "figure.pdf").exists()


def test_a_figures_options_are_set_and_its_numbers_are_the_runs(call, measured, tmp_path):
    told = call(
        "figure", "attention_heatmap", measured, "-o", tmp_path / "a.png", "--set", "layer=2", "head=3", "--json"
    )
    assert told.json()["title"] == "Attention of head L2H3"


def test_a_routing_table_reports_on_test(call, measured, tmp_path):
    alt = call("figure", "routing_table", measured, "-o", tmp_path / "a.png", "--json").json()["alt"]
    assert "Score on test" in alt


def test_routing_reads_what_is_saved_and_makes_what_is_not(call, run_folder):
    first = call("routing", run_folder, "--json").json()
    assert (run_folder / "head_statistics_test.safetensors").exists()
    (run_folder / "adapter.safetensors").rename(run_folder / "gone")  # no model can be loaded any more
    (run_folder / "gone").rename(run_folder / "adapter.safetensors")
    torch.manual_seed(1)
    assert call("routing", run_folder, "--json").json() == first
    said = call("routing", run_folder, "--top", 2).out.splitlines()
    assert said[1].split()[:3] == ["layer", "head", "score"]
    assert len(said) == 4


@pytest.mark.slow
def test_a_run_is_looked_at_without_transformers(measured, tmp_path):
    code = (
        "import sys; sys.modules['transformers'] = None; from fpt_viz.cli import main\n"
        "run, out = sys.argv[1:]\n"
        "for argv in (['routing', run], ['compare', run], ['figure', 'head_grid', run, '-o', out]):\n"
        "    assert main(argv) == 0"
    )
    command = [sys.executable, "-c", code, str(measured), str(tmp_path / "heads.pdf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_measure_is_saved_beside_the_run_under_its_name_and_split(call, run_folder):
    told = call("measure", "evaluate", run_folder, "--set", "n_examples=5", "split=validation", "--json").json()
    assert told["path"] == f"{run_folder}/evaluate_validation.json"
    assert (told["result"]["n_examples"], told["result"]["split"]) == (5, "validation")
    assert json.loads(Path(told["path"]).read_text())["accuracy"] == told["result"]["accuracy"]
    told = call("measure", "head_statistics", run_folder, "--json").json()
    assert told["path"] == f"{run_folder}/head_statistics.safetensors"
    told = call("measure", "head_statistics", run_folder, "--set", "split=test", "--json").json()
    assert told["path"] == f"{run_folder}/head_statistics_test.safetensors"


def test_patching_is_asked_for_by_name_and_its_figure_drawn(call, run_folder, tmp_path):
    options = ("site=z", "corruption=flip_partner", "n_examples=8", "metric=target_contrast", "layers=[0, 2]")
    told = call("measure", "patch_activations", run_folder, "--set", *options, "--json").json()
    saved = PatchingEffects.load(told["path"])
    assert (told["result"]["site"], told["result"]["labels"]) == ("z", [["0", "2"], ["0", "1", "2", "3"]])
    assert torch.equal(saved.values, load_run(run_folder).patching().values)
    said = call("measure", "patch_paths", run_folder, "--set", "senders=['L0H1']", "into=v", "n_examples=8")
    assert (said.code, said.err) == (0, "")
    assert saved.values.shape == (2, 4)
    assert f"{run_folder}/patch_paths_v.safetensors" in said.out
    drawn = call("figure", "patching_heatmap", run_folder, "-o", tmp_path / "a.svg", "--json").json()
    assert drawn["title"] == "Patching z"


def test_a_measure_that_needs_a_ranking_says_what_makes_one(call, trained):
    said = failed(call("measure", "ablate_top_heads", trained), 2)
    assert f"fpt-viz statistics {trained} makes them" in said


def test_a_config_file_trains_the_same_run_as_the_flags_and_flags_come_over_it(call, trained, tmp_path):
    call("train", trained / "config.toml", "--out", tmp_path / "same")
    assert load_run(tmp_path / "same").config == load_run(trained).config
    assert_same_weights(trained, tmp_path / "same")
    call("train", trained / "config.toml", "--seed", 5, "--set", "train.n_steps=2", "--out", tmp_path / "other")
    other = RunConfig.load(tmp_path / "other/config.toml")
    assert (other.train.seed, other.train.n_steps, other.task.options) == (5, 2, {"n_bits": 3})


def test_a_run_without_a_folder_goes_to_data_runs(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = call("train", *TINY, *SMALL, "--json").json()
    assert told["path"] == f"data/runs/{told['run_id']}"
    assert load_run(tmp_path / told["path"]).result["run_id"] == told["run_id"]


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_to_be_overwritten(call, run_folder):
    before = (run_folder / "result.json").read_bytes()
    said = failed(call("train", *TINY, *SMALL, "--out", run_folder), 2)
    assert f"{run_folder} holds a run already" in said
    assert (run_folder / "result.json").read_bytes() == before
    assert call("train", *TINY, *SMALL, "--seed", 1, "--out", run_folder, "--overwrite").code == 0
    assert load_run(run_folder).config["train"]["seed"] == 1


def test_a_wrong_backbone_overwrites_nothing(call, run_folder):
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.suffix in (".json", ".safetensors")}
    failed(call("train", "--task", "bit_xor", "--backbone", "minlm", "--out", run_folder, "--overwrite"), 2)
    assert {name: (run_folder / name).read_bytes() for name in before} == before


# Numbers and words


def test_settings_are_read_as_toml_and_bare_words_as_text():
    assert parsed(["a=1", "b=1e-3", "c=true", "d=[1, 2]", "e=signs", 'f="5"', "g=x=y", "h=1\ni=2"]) == {
        "a": 1, "b": 1e-3, "c": True, "d": [1, 2], "e": "signs", "f": "5", "g": "x=y", "h": "1\ni=2",
    }  # fmt: skip
    assert parsed(["a=1979-05-27", "b={x = 1}"]) == {"a": "1979-05-27", "b": "{x = 1}"}
    with pytest.raises(ConfigError, match="NAME=VALUE, got 'run'"):
        parsed(["a=1", "run"])


def test_json_says_plain_numbers_and_null_for_what_is_none():
    told = plain({"a": math.nan, "b": (math.inf, 1.5), "c": torch.tensor([1.0, math.nan]), "d": Path("x"), 5: True})
    assert told == {"a": None, "b": [None, 1.5], "c": [1.0, None], "d": "x", "5": True}


def test_tables_line_up_where_there_is_no_terminal(capsys):
    table = Table(("name", "score"), [("a", "0.5"), ("longer", "-")])
    Answer({}, ["said", table]).print(as_json=False)
    assert capsys.readouterr().out == "said\nname    score\na         0.5\nlonger      -\n"


def test_what_a_library_prints_does_not_reach_the_json(call, monkeypatch):
    def chatty(arguments):
        print("hello")
        return Answer({"a": 1})

    monkeypatch.setattr(looking, "list_names", chatty)
    said = call("list", "tasks", "--json")
    assert (said.json(), said.err) == ({"a": 1}, "hello\n")


# Bad input


BAD = {
    "no such command. Did you mean 'train'": ["trian"],
    "COMMAND": [],
    "Did you mean '--seed'": ["train", "--sed", "1"],
    "no task is given": ["train"],
    "Did you mean 'bit_xor'": ["train", "--task", "bit_xr"],
    "Did you mean 'minilm'": ["train", "--task", "bit_xor", "--backbone", "minlm", "--out", "new"],
    "Did you mean 'train.learning_rate'": ["train", "--task", "bit_xor", "--set", "learning_rat=1"],
    "Did you mean 'task.n_bits'": ["train", "--task", "bit_xor", "--set", "task.nbits=1"],
    "n_bits of bit_xor must be of type int": ["train", "--task", "bit_xor", "--set", "n_bits=many"],
    "n_bits of bit_xor must be at least 1": ["train", "--task", "bit_xor", "--set", "n_bits=0"],
    "train.n_steps must be at least 1": ["train", "--task", "bit_xor", "--set", "n_steps=0"],
    "Did you mean 'random'": ["train", "--task", "bit_xor", "--init", "rando"],
    "Did you mean 'output'": ["train", *TINY, "--train", "ouput", "--out", "new"],
    "--seed: wanted a whole number from 0, got 'x'": ["train", "--seed", "x"],
    "NAME=VALUE, got 'n_bits'": ["train", "--task", "bit_xor", "--set", "n_bits"],
    "no config file nofile.toml": ["train", "nofile.toml"],
    "not allowed with argument": ["train", "--resume", "--overwrite"],
    "no run: config.toml is missing": ["evaluate", "."],
    "the following arguments are required: RUN": ["evaluate"],
    "belongs to it": ["measure", "evaluate", "--set", "split=test", "RUN"],
    "Did you mean 'evaluate'": ["measure", "evalute", "RUN"],
    "Did you mean 'n_examples'": ["measure", "evaluate", "RUN", "--set", "n_example=3"],
    "seed of evaluate must be int, got 'x'": ["measure", "evaluate", "RUN", "--set", "seed=x"],
    "Did you mean 'test'": ["measure", "evaluate", "RUN", "--set", "split=tests"],
    "no corruption of bit_xor 'flip'": ["measure", "patch_activations", "RUN", "--set", "corruption=flip"],
    "no layer 9: there are 0 to 2": ["measure", "patch_activations", "RUN", "--set", "layers=[9]"],
    "Did you mean 'head_grid'": ["figure", "hed_grid", "RUN", "-o", "new.pdf"],
    "Did you mean 'pdf'": ["figure", "training_curves", "RUN", "-o", "new.pdff"],
    "Did you mean 'icml'": ["figure", "training_curves", "RUN", "-o", "new.pdf", "--preset", "icm"],
    "Did you mean 'vmax'": ["figure", "head_grid", "RUN", "-o", "new.pdf", "--set", "vmx=1"],
    "head_grid shows one run, got 2": ["figure", "head_grid", "RUN", "RUN", "-o", "new.pdf"],
    "required: -o": ["figure", "training_curves", "RUN"],
    "are the same run": ["compare", "RUN", "RUN"],
    "Did you mean 'figures'": ["list", "figure"],
    "at least 1 example must be asked for, got 0": ["capture", "RUN", "--examples", "0"],
    "at least 1 example must be asked for, got -1": ["measure", "head_statistics", "RUN", "--set", "n_examples=-1"],
    "no layer 9: there are 3": ["capture", "RUN", "--layers", "9"],
    "--layers: wanted whole numbers": ["capture", "RUN", "--layers", "first"],
    "no device 'tpu' on this machine": ["evaluate", "RUN", "--device", "tpu"],
    "--threads must be at least 1": ["evaluate", "RUN", "--threads", "0"],
    "required: --out": ["demo"],
    "Did you mean 'smoke'": ["demo", "--out", "new", "--scale", "smok"],
    "give --copy-only with it": ["lab", "new", "--json"],
    "Did you mean '--json'": ["doctor", "--jsn"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line_that_says_the_cure_and_changes_nothing(call, trained, monkeypatch, tmp_path, message):
    monkeypatch.chdir(tmp_path)
    line = failed(call(*[trained if word == "RUN" else word for word in BAD[message]]), 2)
    for part in message.split(". "):
        assert part.removeprefix("no such ") in line
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["config.toml", "steps.jsonl", "adapter.safetensors", "ledger.json", "result.json"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_a_damaged_run_is_named_with_its_file(call, run_folder, name, harm):
    path = run_folder / name
    content = path.read_bytes()
    path.unlink() if harm == "missing" else path.write_bytes(
        content[:-9] if harm == "truncated" else content[:-1] + b"#"
    )
    line = failed(call("evaluate", run_folder), 2)
    assert name in line
    assert str(run_folder) in line


def test_threads_are_what_was_asked_for(call, trained):
    before = torch.get_num_threads()
    try:
        call("evaluate", trained, "--threads", before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(call, monkeypatch):
    def broken(arguments):
        raise ZeroDivisionError("split\nin two")

    monkeypatch.setattr(looking, "list_names", broken)
    line = failed(call("list", "tasks"), 1)
    assert line == "fpt-viz: unexpected ZeroDivisionError: split in two (set FPT_VIZ_TRACEBACK=1 to see where)\n"
    monkeypatch.setenv("FPT_VIZ_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["list", "tasks"])


# Readers that leave, disks that are full, and Ctrl-C


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_silent(unbuffered):
    command = f"{shlex.join(PROGRAM)} list tasks | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (cli.NOBODY_READS, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_an_answer_that_cannot_be_written_is_an_error():
    with Path("/dev/full").open("w") as full:
        process = started("list", "tasks", "--json", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "fpt-viz: the answer could not be written: No space left on device\n"


@pytest.mark.slow
def test_after_ctrl_c_all_is_saved_and_the_line_that_is_given_goes_on(tmp_path):
    run = tmp_path / "a run"
    argv = ["train", *TINY, "--out", run, "--threads", 1, "--set", "n_bits=3", "n_steps=150", "checkpoint_every=5"]
    process = started(*argv)
    deadline = time.monotonic() + 120
    while not (run / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.count("\n") == 1
    assert "all saved: go on with fpt-viz train " in err
    again = shlex.split(err.partition("go on with fpt-viz ")[2])
    assert again == [*map(str, argv), "--resume"]
    assert main(again) == 0
    assert main(["train", *map(str, argv[1:]), "--overwrite", "--out", str(tmp_path / "unbroken")]) == 0
    assert_same_weights(run, tmp_path / "unbroken")


def test_a_run_is_resumed_from_its_own_config(call, trained):
    assert call("train", "--resume", "--out", trained, "--json").json()["n_steps"] == 6


def test_ctrl_c_elsewhere_is_one_line(call, monkeypatch):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(looking, "list_names", stopped)
    assert "stopped" in failed(call("list", "tasks"), 130)


# Commands that hand over


@dataclass
class DoneDemo:
    """A demo that went well, as far as the command line looks at it."""

    def to_json(self):
        return {"seconds": 1.5}

    def summary(self):
        return ["First.", "Second."]


def test_the_demo_is_given_what_was_asked_for(call, monkeypatch, tmp_path):
    import fpt_viz.demo  # noqa: F401 (so that it can be replaced below)

    asked = []
    monkeypatch.setattr(
        sys.modules["fpt_viz.demo"], "run_demo", lambda out, **options: asked.append((out, options)) or DoneDemo()
    )
    said = call("demo", "--out", tmp_path, "--scale", "smoke", "--seed", 4, "--overwrite", "--device", "cpu")
    assert said.out.splitlines() == ["First.", "Second.", f"Open {tmp_path / 'report.html'} in a browser."]
    options = {"scale": "smoke", "seed": 4, "device": "cpu", "resume": False, "overwrite": True}
    assert asked == [(tmp_path, options)]
    assert call("demo", "--out", tmp_path, "--json").json() == {"seconds": 1.5}


def test_a_demo_that_is_stopped_says_how_to_go_on(call, monkeypatch, tmp_path):
    import fpt_viz.demo  # noqa: F401 (so that it can be replaced below)

    def stopped(out, **options):
        raise KeyboardInterrupt("stopped after 7 steps, all saved: go on somehow")

    monkeypatch.setattr(sys.modules["fpt_viz.demo"], "run_demo", stopped)
    line = failed(call("demo", "--out", tmp_path, "--overwrite"), 130)
    assert line == f"fpt-viz: stopped after 7 steps, all saved: go on with fpt-viz demo --out {tmp_path} --resume\n"
