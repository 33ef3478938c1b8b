"""How a backbone is found by its name and built: from a package, a folder or the Hub, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, replace
import json
from pathlib import Path
import re
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fpt_viz import hub, registry
from fpt_viz.backbones.base import Backbone, Preset, Provenance
from fpt_viz.errors import ConfigError, SourceError, UnknownNameError
from fpt_viz.records.store import sha256
from fpt_viz.sources import config_in, weights_in

INITS = ("pretrained", "random")
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""What can name a repository on the Hub, rather than a folder."""


def preset_names() -> dict[str, str]:
    """The preset names of every family -> the family's name."""
    return {
        preset: family
        for family in registry.names("backbones")
        for preset in registry.load("backbones", family).presets
    }


def load_backbone(
    name: str, init: Literal["pretrained", "random"] = "pretrained", n_layers: int | None = None, *, seed: int = 0
) -> Backbone:
    """A backbone by preset (``"minilm"``, ``"smollm2"``, ``"gpt2"`` ...), as ``family:folder`` or as ``family:id``.

    Args:
        name: See ``fpt-viz list backbones``. ``gpt2:./my-gpt2`` reads a folder in the Hub's layout;
            ``bert:google-bert/bert-base-uncased`` is fetched from the Hub where there is no such folder. A preset or id
            of the Hub may end in ``@revision``, a branch, tag or commit; the commit it is goes into the provenance.
        init: ``"pretrained"`` reads weights and checks their SHA-256; ``"random"`` draws them as the architecture
            does before pretraining, and reads no weights file.
        n_layers: Keep the first so many blocks; None keeps all.
        seed: Of a random initialisation.

    Raises:
        UnknownNameError: No such preset or family.
        SourceError: Weights that are missing or are not what they should be; never a silent random network.
        ConfigError: ``n_layers`` is out of range, or the folder holds another architecture.
    """
    if init not in INITS:
        raise UnknownNameError("init", init, INITS)
    found = _resolve(name)
    family, preset = found.family, found.preset
    folder, commit = found.folder, ""
    if found.repo_id and (init == "pretrained" or preset is None):
        folder, commit = _from_hub(name, found, weights=init == "pretrained")
    config = family.config_class(**preset.config) if preset else _folder_config(family, folder)
    depth = config.num_hidden_layers
    if n_layers is not None:
        if not 1 <= n_layers <= depth:
            raise ConfigError(f"n_layers must be 1 to {depth} for {name}, got {n_layers}")
        family.shorten(config, n_layers)
    config._attn_implementation = family.attention_kernel
    identity = found.repo_id or (preset.identity if preset else "")
    provenance = Provenance(
        name=name,
        init=init,
        family=family.__module__.rsplit(".", 1)[-1],
        licence=preset.licence if preset and init == "pretrained" else "",
        identity=identity if init == "pretrained" else "",
        revision=commit,
        note=preset.note if preset and init == "pretrained" else "",
        config={"n_layers": config.num_hidden_layers, "n_layers_published": depth},
    )
    if init == "random":
        return family(_random_network(family, config, seed), provenance)
    if preset and preset.weights:
        weights = preset.weights.locate()
    elif folder is None:
        raise SourceError(
            f"no package carries weights of {name}: give a folder that holds them ({provenance.family}:FOLDER, "
            "with config.json and model.safetensors), or init=random"
        )
    else:
        weights = weights_in(folder)
    network = _pretrained_network(family, config, weights)
    checksum = preset.weights.sha256 if preset and preset.weights else sha256(weights)
    return family(network, replace(provenance, weights_sha256=checksum))


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What the name of a backbone means: one of a preset, a folder and a repository, or a preset in a repository."""

    family: type[Backbone]
    preset: Preset | None = None
    folder: Path | None = None
    repo_id: str = ""
    revision: str = ""
    """Empty for the Hub's main branch."""


def _resolve(name: str) -> _Named:
    """What ``name`` means; touches no network."""
    family_name, colon, place = name.partition(":")
    if colon:
        if family_name not in registry.names("backbones"):
            raise UnknownNameError("backbone family", family_name, registry.names("backbones"))
        family, folder = registry.load("backbones", family_name), Path(place).expanduser()
        repo_id, _, revision = place.partition("@")
        if not folder.is_dir() and HUB_NAME.fullmatch(repo_id):
            return _Named(family=family, repo_id=repo_id, revision=revision)
        return _Named(family=family, folder=folder)
    presets = preset_names()
    preset_name, at, revision = name.partition("@")
    if preset_name not in presets:
        known = [*presets, *(f"{family}:FOLDER" for family in registry.names("backbones"))]
        raise UnknownNameError("backbone", preset_name, known)
    family = registry.load("backbones", presets[preset_name])
    preset = family.presets[preset_name]
    if at and not preset.repo_id:
        raise ConfigError(
            f"{preset_name} does not come from the Hub, so it has no revision to choose: leave out {at}{revision}"
        )
    return _Named(family=family, preset=preset, repo_id=preset.repo_id, revision=revision)


def _from_hub(name: str, found: _Named, *, weights: bool) -> tuple[Path, str]:
    """The folder of a model on the Hub, its config alone or with its weights, and the commit that it is of."""
    revision = found.revision or None
    if weights:
        try:
            return hub.model_folder(found.repo_id, revision=revision)
        except SourceError as error:
            if found.preset is None:
                raise
            family = found.family.__module__.rsplit(".", 1)[-1]
            raise SourceError(
                f"no package carries weights of {name}: {error}; or give a folder that holds them ({family}:FOLDER, "
                "with config.json and model.safetensors), or init=random"
            ) from error
    files, commit = hub.data_files(found.repo_id, ["config.json"], revision=revision, kind="model")
    return files["config.json"].parent, commit


def _folder_config(family: type[Backbone], folder: Path | None) -> PreTrainedConfig:
    """The config of the model in ``folder``, which must be of ``family``'s architecture."""
    assert folder is not None  # by _resolve
    path = config_in(folder)
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{path} is not whole: {error}") from error
    wanted = family.config_class.model_type
    if model_type != wanted:
        raise ConfigError(f"{folder} holds a {model_type!r} model, wanted {wanted!r}: name its family before the colon")
    try:
        return family.config_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers checks some options, in many ways
        raise SourceError(f"{path} describes no {family.network_class.__name__}: {error}") from error


def _random_network(family: type[Backbone], config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: no caller's CUDA draws change
        return family.network_class(config, **family.network_options)


def _pretrained_network(family: type[Backbone], config: PreTrainedConfig, weights: Path) -> PreTrainedModel:
    """The network with the tensors in ``weights``, every one of its parameters among them."""
    gguf = {"gguf_file": weights.name} if weights.suffix == ".gguf" else {"use_safetensors": True}
    try:
        with _quiet_transformers():
            loaded: Any = family.network_class.from_pretrained(
                weights.parent, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True,
                **gguf, **family.network_options,
            )  # fmt: skip
    except Exception as error:  # a damaged file fails in many ways inside transformers and safetensors
        raise SourceError(f"{weights} cannot be read as {family.network_class.__name__}: {error}") from error
    network: PreTrainedModel = loaded[0]
    told: dict[str, Any] = loaded[1]
    if told["missing_keys"] or told["mismatched_keys"]:
        wrong = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
        raise SourceError(
            f"{weights} does not fit {family.network_class.__name__}: {len(wrong)} tensors missing or of another "
            f"shape, such as {wrong[0]}; wanted a whole checkpoint of this architecture"
        )
    return network


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no reports of unused heads; both settings are put back."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
