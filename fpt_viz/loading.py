"""A model again: from its config, as it was before the first step, or from a run, as it was after the last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.backbones._inits import check_start
from fpt_viz.config import RunConfig
from fpt_viz.errors import ConfigError, RecordError, SourceError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import RunRecord, store
from fpt_viz.records.run import ADAPTER, LEDGER, RESULT, commit_in
from fpt_viz.tasks import load_task


def build_model(config: RunConfig, *, device: str | torch.device = "cpu") -> FrozenPretrainedTransformer:
    """The model that ``config`` describes, as it is before the first step; no backbone's file runs."""
    seed, of = config.train.seed, config.backbone
    task = load_task(config.task.name, **config.task.options)
    backbone = load_backbone(of.name, of.init, of.n_layers, seed=seed, own_file=False)  # a record may have named it
    model = FrozenPretrainedTransformer(backbone, task, config.trained, input_init=config.input_init, seed=seed)
    return model.to(device)


def load_model(
    record: RunRecord, *, device: str | torch.device = "cpu", task_file: str | Path | None = None
) -> FrozenPretrainedTransformer:
    """The trained model of a run: its backbone again, with the run's trained tensors; its logits are bit-equal.

    Args:
        record: From :func:`fpt_viz.load_run`.
        device: Where the model goes.
        task_file: The path of the run's task where that is a file of the user's own. Its code runs, so loading never
            takes the path from the record; its SHA-256 must be the one that the record keeps.

    Raises:
        SourceError: The backbone's weights are missing, or are others than the run was trained on.
        RecordError: The trained tensors do not fit the model, or the run that it started from is another by now.
        ConfigError: ``task_file`` is missing or is another file.
    """
    config = RunConfig.from_dict(record.config)
    if config.task.name.endswith(".py"):
        config = replace(config, task=replace(config.task, name=_trusted(task_file, record)))
    commits = {
        "backbone": commit_in(record.ledger.backbone, record.path / LEDGER),
        "data": commit_in(record.data, record.path / RESULT),
    }
    config = config.at_commits(**commits)  # of the Hub's main branches there may be others by now
    model = build_model(config.found_from(record.path))
    check_start(model.backbone.provenance, record.ledger, record.path)
    path = record.path / ADAPTER
    tensors, _ = store.read_tensors(path, "adapter")
    trained = model.trained_tensors()
    if set(tensors) != set(trained):
        raise RecordError(f"{path} holds other tensors than the run trained: {sorted(set(tensors) ^ set(trained))[:3]}")
    with torch.no_grad():
        for name, parameter in trained.items():
            if tensors[name].shape != parameter.shape:
                raise RecordError(
                    f"{path}: {name} has shape {tuple(tensors[name].shape)}, wanted {tuple(parameter.shape)}"
                )
            parameter.copy_(tensors[name])
    moved = model.verify(record.ledger)
    if moved:
        raise SourceError(
            f"the backbone's weights are not those that {record.path} was trained on: {len(moved)} frozen tensors "
            f"differ from its ledger, such as {moved[0]}; wanted "
            f"{record.ledger.backbone.get('identity') or config.backbone.name}"
        )
    model.run_id, model.run_path, model.step = record.result["run_id"], record.path, record.result["n_steps"]
    return model.to(device).eval()


def _trusted(task_file: str | Path | None, record: RunRecord) -> str:
    """``task_file``, if it is the file that the run was trained on."""
    name, wanted = record.config["task"]["name"], record.result.get("task_sha256")
    if task_file is None:
        raise ConfigError(f"the task of {record.path} is the file {name}, whose code would run: give task_file=PATH")
    found = registry.file_sha256(str(task_file))
    if found != wanted:
        raise ConfigError(f"{task_file} is another file than the run was trained on: SHA-256 {found}, wanted {wanted}")
    return str(task_file)
