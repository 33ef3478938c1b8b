"""The commands of ``fpt-viz`` and their arguments; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from fpt_viz.cli import figures, looking, measuring, reproducing, training
from fpt_viz.cli.answer import Answer
from fpt_viz.errors import ConfigError, UnknownNameError

Handler = Callable[[argparse.Namespace], Answer]

LISTABLE = ("tasks", "backbones", "analyses", "measures", "figures", "experiments")
INITS = ("pretrained", "random", "statistics")
SCALES = ("smoke", "full")
TRACKERS = ("tensorboard", "trackio", "wandb")
EXPERIMENT_SCALES = ("smoke", "laptop", "paper")


def parse(argv: Sequence[str]) -> tuple[Handler, argparse.Namespace]:
    """What the command in ``argv`` calls, and with what.

    Raises:
        ConfigError: An argument that is missing or cannot be read.
        UnknownNameError: No such command or option; the message names the nearest.
        SystemExit: ``--help`` or ``--version`` has printed what was asked.
    """
    parser, commands_by_name = _parsers()
    named = next((word for word in argv if not word.startswith("-")), None)
    if named is not None and named not in commands_by_name:
        raise UnknownNameError("command", named, commands_by_name)
    reader = commands_by_name[named] if named is not None else parser
    for word in argv:
        option = word.partition("=")[0]
        if option.startswith("--") and len(option) > 2 and option not in reader.options:
            raise UnknownNameError(f"option of {reader.prog}", option, reader.options)
    arguments = parser.parse_args(argv)
    arguments.argv = list(argv)
    arguments.parse = parse  # a saved figure's own command is read by it
    return arguments.handler, arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are the library's, and which knows the names of its long options."""

    def __init__(self, **settings: Any) -> None:
        self.options: list[str] = []
        super().__init__(allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        greedy = [name for name in ("--set", "--layers", "--heads", "--queries") if name in self.options]
        hint = f" (what stands after {', '.join(greedy)} belongs to it)" if greedy and "required" in message else ""
        raise ConfigError(f"{message}{hint}; see {self.prog} --help")


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and that of each command."""
    parser = _Parser(
        prog="fpt-viz",
        description="Train frozen pretrained transformers, and see how their attention heads route information.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    under = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    found: dict[str, _Parser] = {}

    def command(name: str, handler: Callable[..., Any], told: str, *, json: bool = True) -> _Parser:
        added = found[name] = under.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".")
        added.set_defaults(handler=handler)
        if json:
            added.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else")
        return added

    _add_training(command)
    _add_measuring(command)
    _add_looking(command)
    return parser, found


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"fpt-viz {version('fpt_viz')}")
        parser.exit()


def _add_training(command: Callable[..., _Parser]) -> None:
    demo = command("demo", training.demo, "the main job: MiniLM learns bit XOR, pretrained and random side by side")
    demo.add_argument("--out", type=Path, required=True, metavar="DIR", help="where report, figures and runs go")
    demo.add_argument("--scale", type=partial(_one_of, "scale", SCALES), default="full", metavar="smoke|full")
    demo.add_argument("--seed", type=_count, default=0, metavar="S", help="of everything; 0 unless given")
    _add_folder_rules(demo)
    _add_machine(demo)

    train = command("train", training.train, "train one model, and leave a whole record of it in a folder")
    train.add_argument("config", nargs="?", type=Path, metavar="CONFIG.toml", help="options; those below come over it")
    train.add_argument("--task", metavar="T", help="see fpt-viz list tasks, or the path of a .py file")
    train.add_argument("--backbone", metavar="B", help="see fpt-viz list backbones, or FAMILY:FOLDER; else minilm")
    told = "statistics: random, with the mean and spread of each pretrained tensor; RUN: as that finished run left them"
    train.add_argument("--init", type=_init, metavar="|".join((*INITS, "RUN")), help=told)
    train.add_argument("--layers", type=_count, metavar="N", help="keep the first N blocks; random ones can be more")
    train.add_argument(
        "--train",
        type=_words,
        dest="trained",
        metavar="GROUP,...",
        help="output, input, layer_norm, position, feed_forward, attention (attention:5 or attention:last in one "
        "layer), recurrent (of an LSTM), or all",
    )
    train.add_argument("--seed", type=_count, metavar="S", help="of everything")
    train.add_argument("--out", type=Path, metavar="DIR", help="the run's folder; one in data/runs/ unless given")
    _add_settings(train, "options of task, backbone and training, such as task.n_bits=5 learning_rate=1e-3")
    _add_folder_rules(train)
    _add_machine(train)


def _add_measuring(command: Callable[..., _Parser]) -> None:
    def on_a_run(name: str, handler: Handler, told: str) -> _Parser:
        added = command(name, handler, told)
        added.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
        _add_machine(added)
        added.add_argument("--task-file", type=Path, metavar="FILE.py", help="the task, where it is a file of your own")
        return added

    on_a_run("evaluate", measuring.evaluate, "accuracy on the test split, beside chance and trivial solvers")
    on_a_run(
        "statistics", measuring.statistics, "statistics of every head on validation and on test; saved beside the run"
    )
    routing = on_a_run("routing", measuring.routing, "heads by routing score: ranked on validation, reported on test")
    routing.add_argument("--top", type=_count, default=10, metavar="N", help="heads in the table; 10 unless given")
    ablate = on_a_run("ablate", measuring.ablate, "what is lost without each head, or each named part; saved there")
    ablate.add_argument("--kind", choices=("zero", "mean", "resample"), default="zero", help="zero unless given")
    parts = "each to be cut alone: heads (L3H5), layers (L3), edges (L3H5:9<4), MLPs (MLP3); together: L3H5+MLP3"
    ablate.add_argument("--parts", nargs="+", metavar="PART", help=f"{parts}; every head unless given")
    capture = on_a_run("capture", measuring.capture, "attention patterns of test examples, saved beside the run")
    capture.add_argument("--layers", **_NUMBERS, help="such as 0 2 or 0,2 or 0-2; all unless given")
    capture.add_argument("--heads", **_NUMBERS, help="in the same form; all unless given")
    capture.add_argument("--queries", **_NUMBERS, help="in the same form, or all; those that are read out unless given")
    capture.set_defaults(queries="readout")
    capture.add_argument("--examples", type=_count, default=8, metavar="N", help="test examples; 8 unless given")
    capture.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the forward pass; float32 unless given",
    )
    capture.add_argument(
        "--stored-as",
        choices=("float32", "float16", "bfloat16", "uint8"),
        default="float32",
        help="what weights are saved as; uint8 takes a quarter of float32, each within 1/255 of its row's largest",
    )

    measure = command("measure", measuring.measure, "any entry of fpt-viz list measures, saved beside the run")
    measure.add_argument("name", metavar="NAME", help="see fpt-viz list measures")
    measure.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    _add_settings(measure, "its options, such as n_examples=256 split=validation")
    _add_machine(measure)
    measure.add_argument("--task-file", type=Path, metavar="FILE.py", help="the task, where it is a file of your own")


def _add_looking(command: Callable[..., _Parser]) -> None:
    reproduce = command(
        "reproduce", reproducing.reproduce, "a table or figure of the paper: its runs, with ours beside"
    )
    reproduce.add_argument("experiment", metavar="EXPERIMENT", help="see fpt-viz list experiments")
    scale = partial(_one_of, "scale", EXPERIMENT_SCALES)
    reproduce.add_argument("--scale", type=scale, default="laptop", metavar="|".join(EXPERIMENT_SCALES))
    reproduce.add_argument("--tasks", type=_words, metavar="T,...", help="those of its tasks alone")
    reproduce.add_argument(
        "--seeds", type=_count, metavar="N", help="seeds 0 to N - 1; the experiment's own unless given"
    )
    reproduce.add_argument(
        "--limit", type=_count, metavar="STEPS", help="most steps of a run; the scale's own unless given"
    )
    reproduce.add_argument("--backbone", metavar="B", help="in the place of the scale's own")
    reproduce.add_argument("--engine", default="local", metavar="NAME", help="local, or in_process; local unless given")
    reproduce.add_argument("--workers", type=_count, metavar="N", help="runs at a time; one a core unless given")
    reproduce.add_argument(
        "--out", type=Path, metavar="DIR", help="runs and results; data/runs/experiments unless given"
    )
    reproduce.add_argument("--dry-run", action="store_true", help="say what will run, how long and how much disk")
    reproduce.add_argument("--retry", action="store_true", help="also try again what diverged")
    _add_machine(reproduce)

    compare = command("compare", looking.compare, "test accuracy of several runs; seeds of one system are one row")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs, or folders that hold some")

    figure = command("figure", figures.figure, "draw a figure from what is saved in runs; needs no model")
    figure.add_argument("name", nargs="?", metavar="NAME", help="see fpt-viz list figures")
    told = "folders of finished runs, or in their place files of single records or a .npy array"
    figure.add_argument("runs", nargs="*", type=Path, metavar="RUN", help=told)
    figure.add_argument("-o", dest="out", type=Path, metavar="FILE", help="a pdf, svg, png, eps, pgf, csv or html file")
    figure.add_argument("--preset", default="paper", metavar="NAME", help="page and letters; paper unless given")
    figure.add_argument("--format", metavar="TYPE", help="the kind of file; its suffix says it unless given")
    figure.add_argument("--dpi", type=_count, default=300, metavar="N", help="dots an inch of a png; 300 unless given")
    figure.add_argument("--width-mm", type=float, metavar="MM", help="another width than the preset's")
    figure.add_argument("--font-size", type=float, metavar="PT", help="another size of letters than the preset's")
    figure.add_argument("--font-family", metavar="FONT", help="another font than the preset's")
    figure.add_argument("--max-height-mm", type=float, metavar="MM", help="how high a picture of cells may become")
    figure.add_argument("--headed", action="store_true", default=None, help="title and note stand in the figure")
    figure.add_argument("--no-headed", dest="headed", action="store_false", help="they are left to the caption")
    figure.add_argument("--check", type=Path, metavar="FILE", help="say whether a saved figure still matches its runs")
    figure.add_argument("--again", type=Path, metavar="FILE", help="make a saved figure again from its runs")
    _add_settings(figure, "its options, such as layer=3 head=5; split=test for statistics on test")

    log = command("log", looking.log, "hand the steps of runs to TensorBoard, Weights & Biases or trackio")
    log.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs, or folders that hold some")
    log.add_argument("--to", type=partial(_one_of, "tracker", TRACKERS), required=True, metavar="|".join(TRACKERS))
    log.add_argument("--out", type=Path, default=Path("data/runs/logs"), metavar="DIR", help="of TensorBoard's files")
    log.add_argument("--project", default="fpt_viz", metavar="NAME", help="of the others; fpt_viz unless given")

    kit = command("paper-kit", figures.paper_kit, "all figures, tables and captions that runs allow, and a Makefile")
    kit.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    kit.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    kit.add_argument("--preset", default="paper", metavar="NAME", help="page and letters; paper unless given")
    kit.add_argument("--text-only", action="store_true", help="tables, captions, figures.tex and the Makefile alone")

    listing = command("list", looking.list_names, "the names that there are")
    listing.add_argument("what", type=partial(_one_of, "list", LISTABLE), metavar="|".join(LISTABLE))
    doctor = command("doctor", looking.doctor, "what works on this machine, what does not, and the cure")
    doctor.add_argument(
        "--data", metavar="NAME", help="look at this data set instead: is it here, whole, and if not, where"
    )
    _add_data_dir(doctor)
    told = "copy the guided notebooks and their records to DIR, and open JupyterLab there, behind a token"
    lab = command("lab", looking.lab, told)
    lab.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="what is there already stays as it is; in a checkout its own notebooks, else fpt_viz_lab, unless given",
    )
    lab.add_argument("--copy-only", action="store_true", help="open nothing")


def _add_folder_rules(parser: _Parser) -> None:
    rules = parser.add_mutually_exclusive_group()
    parser.options += ["--resume", "--overwrite"]
    rules.add_argument("--resume", action="store_true", help="go on with what was cut off in DIR")
    rules.add_argument("--overwrite", action="store_true", help="remove the run that DIR holds, and start anew")


def _add_machine(parser: _Parser) -> None:
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or mps (untested); cuda where there is one")
    _add_data_dir(parser)
    parser.add_argument("--threads", type=_count, metavar="N", help="of torch on the CPU; its own choice unless given")


def _add_data_dir(parser: _Parser) -> None:
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="holds one folder a data set; else FPT_VIZ_DATA")


def _add_settings(parser: _Parser, told: str) -> None:
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--set", **several, dest="settings", metavar="NAME=VALUE", help=told)


def _one_of(what: str, known: Sequence[str], text: str) -> str:
    if text not in known:
        raise UnknownNameError(what, text, known)
    return text


def _init(text: str) -> str:
    """The name of an initialisation, or a folder."""
    return text if Path(text).is_dir() or len(Path(text).parts) > 1 else _one_of("init", (*INITS, "RUN"), text)


def _count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted a whole number from 0, got {text!r}")
    return int(text)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


class _Numbers(argparse.Action):
    """Whole numbers as ``0 2``, ``0,2`` or ``0-2``; None for ``all``, and ``readout`` as it is."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values in (["all"], ["readout"]) and (values == ["all"] or self.dest == "queries"):
            setattr(namespace, self.dest, None if values == ["all"] else "readout")
            return
        found: list[int] = []
        for word in (word for text in values for word in _words(text)):
            first, dash, last = word.partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise argparse.ArgumentError(self, f"wanted whole numbers, such as 0 2 or 0,2 or 0-2, got {word!r}")
            if int(last or first) < int(first):
                raise argparse.ArgumentError(self, f"the range {word!r} is empty: its end comes first")
            found += range(int(first), int(last or first) + 1)
        setattr(namespace, self.dest, found)


_NUMBERS: dict[str, Any] = {"nargs": "+", "action": _Numbers, "metavar": "I"}
