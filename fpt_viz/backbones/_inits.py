"""Weights that are neither a file's nor the architecture's own draw: pretrained statistics, and what a run left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from fpt_viz.backbones.base import Backbone, Provenance
from fpt_viz.errors import ConfigError, RecordError, UnknownNameError
from fpt_viz.freeze import NEW_POSITIONS, group_of, verify
from fpt_viz.records import Ledger, RunRecord, load_run, store
from fpt_viz.records.run import ADAPTER, INITS, LEDGER, commit_in, found_init, init_name

STATISTICS_NOTE = (
    "weights drawn anew with the mean and standard deviation of each pretrained tensor; the layer norms are the "
    "pretrained ones"
)
IN_BACKBONE = "backbone."
"""What the names of a model's tensors begin with that are its backbone's."""
Load = Callable[..., Backbone]


@torch.no_grad()
def redraw(backbone: Backbone, seed: int) -> None:
    """Draw every tensor of a pretrained ``backbone`` anew, but for its layer norms.

    Each value is normal with the mean and the standard deviation that its tensor had, positions too (all rows together,
    whichever the task keeps). The paper's section 3.8 (Lu et al., 2021) does so layer by layer, and trains the layer
    norms in any case.
    """
    generator, groups = torch.Generator().manual_seed(seed), backbone.parameter_groups()
    for name, parameter in backbone.named_parameters():
        if group_of(name, groups) == "layer_norm":
            continue
        std, mean = torch.std_mean(parameter, correction=0)
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))


def taken_from_run(name: str, run: Path, n_layers: int | None, *, load: Load) -> Backbone:
    """The backbone as the finished run in the folder ``run`` left it, less the input and output layers.

    Positions that the run trained stand at their tokens; tokens beyond those of its task have the positions that the
    run would have started from (of a network without any: zero).

    Args:
        name: The backbone that is asked for, which the run must be of; at which revision, the run has said.
        run: Its every file is checked against its seal, and frozen weights against its ledger.
        n_layers: None for as many as the run had.
        load: ``load_backbone``.

    Raises:
        UnknownNameError: A word that is neither an initialisation nor a folder.
        ConfigError: No such folder, or the run is of another backbone or depth.
        RecordError: The folder holds no run, an unfinished one, or one whose files or start were altered.
    """
    record = _finished(run)
    if ADAPTER not in record.result["files"]:
        raise RecordError(f"the run in {run} was kept without its weights ({ADAPTER}): nothing starts from it")
    there = record.config["backbone"]
    if there["name"].partition("@")[0] != name.partition("@")[0]:
        raise ConfigError(f"init={run} is a run of {there['name']}, wanted {name}: name that backbone, or another run")
    depth = (record.ledger.backbone.get("config") or {}).get("n_layers")
    if depth is None:
        raise RecordError(f"{record.path / LEDGER} does not tell how many layers the run had: nothing starts from it")
    if n_layers not in (None, depth):
        raise ConfigError(f"init={run} is a run of {depth} layers of {name}, wanted {n_layers}: leave out n_layers")
    revision, seed = commit_in(record.ledger.backbone, record.path / LEDGER), record.config["train"]["seed"]
    base = f"{name.partition('@')[0]}@{revision}" if revision else there["name"]
    backbone = load(base, found_init(there["init"], run), there.get("n_layers"), seed=seed, own_file=False)
    check_start(backbone.provenance, record.ledger, run)
    _take_weights(backbone, record, seed)
    backbone.provenance = replace(
        backbone.provenance,
        name=name,
        init=init_name(str(run)),
        revision="",  # that of the base is in the run's ledger: what is loaded here is the run
        run_id=record.result["run_id"],
        run_sha256=record.result["files"][ADAPTER],
    )
    return backbone


def _finished(run: Path) -> RunRecord:
    if not run.is_dir():
        if len(run.parts) == 1:
            raise UnknownNameError("init", str(run), [*INITS, "RUN, the folder of a finished run"])
        raise ConfigError(f"no folder {run}: init takes {', '.join(INITS)}, or the folder of a finished run")
    return load_run(run)


@torch.no_grad()
def _take_weights(backbone: Backbone, record: RunRecord, seed: int) -> None:
    """Let ``backbone``, as it was at the start of the run, become what the run made of it."""
    path = record.path / ADAPTER
    n_tokens = sum(row.shape[0] for row in record.ledger.rows if row.group in ("position", NEW_POSITIONS))
    own_rows = backbone.position_rows() if backbone.position_path else None
    backbone.fit_positions(n_tokens, seed=seed)
    tensors, _ = store.read_tensors(path, "adapter")
    parameters = dict(backbone.named_parameters())
    for name, tensor in tensors.items():
        below = name.removeprefix(IN_BACKBONE)
        if not name.startswith(IN_BACKBONE):
            continue
        if below not in parameters or parameters[below].shape != tensor.shape:
            raise RecordError(f"{path}: {name} {tuple(tensor.shape)} is no tensor of {backbone.provenance.name}")
        parameters[below].copy_(tensor)
    frozen = tuple(
        replace(row, name=row.name.removeprefix(IN_BACKBONE))
        for row in record.ledger.rows
        if row.name.startswith(IN_BACKBONE) and row.group != "buffer"
    )
    if moved := verify(backbone, Ledger(rows=frozen, backbone={})):
        raise RecordError(
            f"the backbone's weights are not those that {record.path} was trained on: {len(moved)} frozen tensors "
            f"differ from its ledger, such as {moved[0]}"
        )
    rows = backbone.position_rows()
    backbone.take_positions(rows if own_rows is None else torch.cat([rows, own_rows[len(rows) :]]))


def check_start(provenance: Provenance, ledger: Ledger, run: Path) -> None:
    """Raise where a backbone starts from another run than the one that the run in the folder ``run`` started from.

    Raises:
        RecordError: Its id or the SHA-256 of its trained weights differ.
    """
    then, wanted = ledger.backbone.get("run_id", ""), ledger.backbone.get("run_sha256", "")
    if (then, wanted) != (provenance.run_id, provenance.run_sha256):
        raise RecordError(
            f"{run} started from the weights that the run {then} left (SHA-256 {wanted[:12]}...), and in its place "
            f"there is {provenance.run_id or 'none'} ({provenance.run_sha256[:12]}...): put back what was"
        )
