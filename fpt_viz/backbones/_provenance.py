"""What a family offers by name, and where a backbone came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fpt_viz.sources import PackageFile


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One size of an architecture, and where its pretrained weights are."""

    config: Mapping[str, Any]
    """Arguments of the architecture's config class: enough for a random network, with no file read."""
    weights: PackageFile | None = None
    """None where no package carries them; then the Hub or a folder does (``family:folder``)."""
    tokenizer: PackageFile | None = None
    """Its ``tokenizer.json``, where a package carries the weights and this beside them."""
    repo_id: str = ""
    """Of the weights on the Hub, where no package carries them."""
    identity: str = ""
    """What the weights are called where they were published."""
    licence: str = ""
    note: str = ""
    """What a reader of results must know of these weights."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a backbone comes from; saved in the ledger of a run."""

    name: str
    init: str
    family: str
    identity: str = ""
    revision: str = ""
    weights_sha256: str = ""
    licence: str = ""
    note: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    positions_new: int = 0
    """Learned positions beyond the pretrained ones, drawn afresh for a task that is longer."""
    run_id: str = ""
    """Of the run whose trained weights it starts from, where it does."""
    run_sha256: str = ""
    """Of that run's adapter."""
