"""The commands that load a run's model, ask it something and save the answer beside the run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
import inspect
from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

from fpt_viz import registry
from fpt_viz.cli.answer import Answer, Table
from fpt_viz.cli.training import set_machine
from fpt_viz.cli.words import between, framed, noted, percent, signed, span, word

if TYPE_CHECKING:
    from fpt_viz.model import FrozenPretrainedTransformer
    from fpt_viz.records import HeadStatistics, RunRecord

SHOWN_HEADS = 10


def evaluate(arguments: Namespace) -> Answer:
    """Accuracy on test."""
    from fpt_viz.measures.evaluate import evaluate as measured

    record, model = _loaded(arguments)
    found = measured(model)
    rows = [
        ("targets right", f"{percent(found.accuracy)} ({between(found.interval)})"),
        ("examples all right", percent(found.exact)),
        ("loss", f"{found.loss:.4f} nats a target"),
        ("chance", percent(found.chance)),
        *((name.replace("_", " "), percent(value)) for name, value in found.trivial.items()),
    ]
    line = f"{record.name} on {found.n_examples} {found.split} examples of {model.task.name}"
    return _answer(record, asdict(found), [line, Table(("", ""), rows)])


def statistics(arguments: Namespace) -> Answer:
    """Statistics of every head on validation and on test, saved."""
    record, model = _loaded(arguments)
    found = {split: _statistics(record, model, split) for split in ("validation", "test")}
    data = {split: {"path": path, "n_examples": each.n_examples} for split, (each, path) in found.items()}
    shown: list[str | Table] = [f"{each!r}, saved as {path}" for each, path in found.values()]
    return _answer(record, data, [*shown, framed(found["test"][0].to_pandas(), SHOWN_HEADS)])


def _statistics(record: RunRecord, model: FrozenPretrainedTransformer, split: str) -> tuple[HeadStatistics, Path]:
    """The statistics of ``split``, and where they were saved."""
    from fpt_viz.measures.head_statistics import head_statistics

    found = head_statistics(model, split=split)
    path = record.path / f"{saved_stem('head_statistics', head_statistics, {'split': split})}.safetensors"
    found.save(path)
    return found, path


def routing(arguments: Namespace) -> Answer:
    """Heads by routing score, from the statistics saved beside the run; they are made first where there are none."""
    from fpt_viz.records import load_run

    record = load_run(arguments.run)
    validation, test = record.statistics(), record.statistics("test")
    if validation is None or test is None:
        record, model = _loaded(arguments)
        validation, test = (_statistics(record, model, split)[0] for split in ("validation", "test"))
    heads = _routing_rows(validation, test)
    names = ("layer", "head", "score", "uniform", "permuted")
    rows = [[*(word(row[name]) for name in names), span(row["interval"])] for row in heads[: arguments.top]]
    line = (
        f"{len(heads)} heads of {record.name}, ranked on {validation.n_examples} validation examples; "
        f"scores on {test.n_examples} {test.split} examples"
    )
    return _answer(record, {"heads": heads}, [line, Table((*names, "95 % interval"), rows)])


def _routing_rows(validation: HeadStatistics, test: HeadStatistics) -> list[dict[str, Any]]:
    """The heads in the order of ``validation``, with their scores on ``test``."""
    ranking = validation.ranking()
    assert test.routing_score is not None and test.routing_interval is not None  # the task decides, as on validation
    return [
        {
            "layer": layer,
            "head": head,
            "score": float(test.routing_score[layer, head]),
            "interval": test.routing_interval[layer, head].tolist(),
            "uniform": test.uniform,
            "permuted": None if test.permuted is None else float(test.permuted[layer, head]),
        }
        for layer, head in ranking
    ]


def ablate(arguments: Namespace) -> Answer:
    """What is lost without each head alone, or each part that is named, saved."""
    from fpt_viz.measures.ablate_heads import ablate_heads
    from fpt_viz.records.parts import words_of

    record, model = _loaded(arguments)
    named = None if arguments.parts is None else [words.split("+") for words in arguments.parts]
    effects = ablate_heads(model, kind=arguments.kind, heads=named)
    path = record.path / f"{_ablation_stem(arguments)}.json"
    effects.save(path)
    names = ("accuracy_drop", "loss_rise", "logit_drop")
    cuts = [
        ({"layer": cut[0][0], "head": cut[0][1]} if effects.single_heads else {"parts": list(map(words_of, cut))})
        | {name: getattr(effects, name)[i] for name in names}
        | {"interval": effects.accuracy_interval[i]}
        for i, cut in enumerate(effects.sets)
    ]
    order = sorted(cuts, key=lambda row: -row["accuracy_drop"])[:SHOWN_HEADS]
    first = ("layer", "head") if effects.single_heads else ("parts",)
    rows = [
        (
            *(" ".join(row[name]) if name == "parts" else str(row[name]) for name in first),
            *(signed(row[name]) for name in names),
            span(row["interval"], 4),
        )
        for row in order
    ]
    columns = (*first, *(name.replace("_", " ") for name in names), "95 % interval of the accuracy drop")
    what = "heads cut alone" if effects.single_heads else "sets of parts cut"
    by = "" if effects.ablation == "zero" else f" ({effects.ablation} over {effects.reference})"
    line = (
        f"each of {len(cuts)} {what}{by} on {effects.n_examples} {effects.split} examples; accuracy without any "
        f"cut {percent(effects.baseline_accuracy)}; the largest drops first"
    )
    key = "heads" if effects.single_heads else "sets"
    return _answer(record, {key: cuts}, [line, Table(columns, rows), f"saved as {path}"])


def _ablation_stem(arguments: Namespace) -> str:
    """The file of an ablation: ``ablate_heads`` for zero ablation of every head, which the report and figures read."""
    kind = "" if arguments.kind == "zero" else f"_{arguments.kind}"
    return f"ablate_heads{kind}{'' if arguments.parts is None else '_parts'}"


def capture(arguments: Namespace) -> Answer:
    """Attention patterns of a few test examples, saved."""
    from fpt_viz.capture import capture_attention

    record, model = _loaded(arguments)
    batch = model.task.distinct(arguments.examples, "test")
    maps = capture_attention(
        model,
        batch,
        arguments.layers,
        arguments.heads,
        arguments.queries,
        arguments.stored_as,
        precision=arguments.precision,
    )
    path = record.path / "attention_maps.safetensors"
    maps.save(path)
    axes = ("layer", "batch", "head", "query", "key")
    shape = dict(zip(axes, maps.weights.shape, strict=True))
    how = {"precision": maps.precision, "stored_as": arguments.stored_as, "weight_error": maps.weight_error}
    data = {"path": path, "layers": maps.layers, "heads": maps.heads, "shape": shape, **how}
    return _answer(record, data, [repr(maps), f"saved as {path}"])


def measure(arguments: Namespace) -> Answer:
    """Any measure, saved beside the run."""
    from fpt_viz.cli.given import for_measure, parsed
    from fpt_viz.records import load_run, store

    function = registry.load("measures", arguments.name)
    options = for_measure(arguments.name, function, load_run(arguments.run), parsed(arguments.settings))
    record, model = _loaded(arguments)
    result = function(model, **options)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    plain = {name: value for name, value in values.items() if not _is_tensor(value)}
    suffix = "json" if len(plain) == len(values) else "safetensors"
    path = record.path / f"{saved_stem(arguments.name, function, options)}.{suffix}"
    if hasattr(result, "save"):
        result.save(path)
    else:
        store.write_json(path, store.sealed(asdict(result)))
    told = {name: value for name, value in asdict(result).items() if name in plain}
    table = framed(result.to_pandas()) if hasattr(result, "to_pandas") else None
    rows = [(name.replace("_", " "), word(value)) for name, value in told.items()]
    line = f"{arguments.name} of {record.name}, saved as {path}"
    data = {"measure": arguments.name, "path": path, "result": told}
    return _answer(record, data, [line, table or Table(("", ""), rows)])


def _answer(record: RunRecord, data: Mapping[str, Any], shown: Sequence[str | Table]) -> Answer:
    """What a command answers of a run, with what a reader must know of its task."""
    lines = noted(record.note, record.config["task"]["name"])
    return Answer({**data, "note": record.note} if lines else data, [*shown, *lines])


def saved_stem(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """The file that a measure is saved as: its name, and each word among its options that is not its own.

    So ``split=validation`` or ``site=z`` stand in files of their own, beside the usual ones.
    """
    usual = {key: parameter.default for key, parameter in inspect.signature(function).parameters.items()}
    words = [value for key, value in options.items() if isinstance(value, str) and value != usual.get(key)]
    return "_".join([name, *(word for word in words if re.fullmatch(r"[\w.-]+", word))])


def _is_tensor(value: object) -> bool:
    return hasattr(value, "numpy")


def _loaded(arguments: Namespace) -> tuple[RunRecord, FrozenPretrainedTransformer]:
    """The run and its trained model, where ``--device`` wants it."""
    from fpt_viz.records import load_run

    record = load_run(arguments.run)
    set_machine(arguments)
    from fpt_viz.loading import load_model
    from fpt_viz.train import pick_device

    return record, load_model(record, device=pick_device(arguments.device), task_file=arguments.task_file)
