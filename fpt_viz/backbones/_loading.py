"""How a backbone is found by its name and built: from a package, a folder or the Hub, or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, replace
from functools import partial
import json
from pathlib import Path
import re
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fpt_viz import hub, registry
from fpt_viz.backbones._inits import STATISTICS_NOTE, redraw, taken_from_run
from fpt_viz.backbones._own_files import family_in, family_name, preset_in, split_path
from fpt_viz.backbones.base import Backbone, Preset, Provenance
from fpt_viz.errors import ConfigError, SourceError, UnknownNameError
from fpt_viz.records.run import INITS
from fpt_viz.records.store import sha256
from fpt_viz.sources import config_in, weights_in

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
    name: str,
    init: str = "pretrained",
    n_layers: int | None = None,
    *,
    seed: int = 0,
    vocabulary: bool = False,
    own_file: bool = True,
) -> Backbone:
    """A backbone by preset (``"minilm"``, ``"gpt2"`` ...), as ``family:folder``, as ``family:id``, or from a file.

    Args:
        name: See ``fpt-viz list backbones``. ``gpt2:./my-gpt2`` reads a folder in the Hub's layout;
            ``bert:google-bert/bert-base-uncased`` is fetched from the Hub where there is no such folder. A preset or id
            of the Hub may end in ``@revision``, a branch, tag or commit; the commit it is goes into the provenance.
            A path that ends in ``.py`` stands for the family which that file declares, as those of
            ``fpt_viz/backbones`` do (its code runs: give only files that you trust): ``mine.py`` is its only preset,
            ``mine.py:small`` one of several, ``mine.py:./folder`` a folder.
        init: ``"pretrained"`` reads weights and checks their SHA-256; ``"random"`` draws them as the architecture
            does before pretraining, and reads no weights file; ``"statistics"`` reads them and draws each tensor anew
            with its mean and standard deviation, but for the layer norms; any other text is the folder of a finished
            run of the same backbone, whose weights are taken, those that it trained and those that it did not.
        n_layers: Keep the first so many blocks; None keeps all, or as many as the run had. More than the published
            network has can be had at random alone.
        seed: Of random weights.
        vocabulary: Keep the token embeddings, which no task reads, as ``backbone.vocabulary``; for asking what the
            network does with words.
        own_file: Whether ``name`` may be the path of a file. False for a name that a record told, which may be of
            others' making: no file then runs.

    Raises:
        UnknownNameError: No such preset or family.
        SourceError: Weights that are missing or are not what they should be; never a silent random network.
        ConfigError: ``n_layers`` is out of range, or the folder holds another architecture; or its
            vocabulary is asked for and it has none; or the run is of another backbone; or a file declares no whole
            family, or may not be named.
        RecordError: The run is not finished, or was altered.
    """
    kept = {"vocabulary": True} if vocabulary else {}
    found = _resolve(name, own_file=own_file)
    if init not in INITS:
        return taken_from_run(name, Path(init), n_layers, load=partial(load_backbone, vocabulary=vocabulary))
    family, preset = found.family, found.preset
    folder, commit = found.folder, ""
    if found.repo_id and (init != "random" or preset is None):
        folder, commit = _from_hub(name, found, weights=init != "random")
    config = family.config_class(**preset.config) if preset else _folder_config(family, folder)
    depth = config.num_hidden_layers
    if n_layers is not None:
        _check_depth(n_layers, depth, name, init)
        family.set_depth(config, n_layers)
    config._attn_implementation = family.attention_kernel
    provenance = Provenance(
        name=name,
        init=init,
        family=family_name(family),
        revision=commit,
        config={"n_layers": config.num_hidden_layers, "n_layers_published": depth},
    )
    if init == "random":
        return family(_random_network(family, config, seed), provenance, **kept)
    weights = _weights_of(name, found, folder)
    network = _pretrained_network(family, config, weights)
    backbone = family(network, _of_weights(provenance, found, weights), **kept)
    if init == "statistics":
        redraw(backbone, seed)
    return backbone


def _check_depth(n_layers: int, depth: int, name: str, init: str) -> None:
    """Raise where ``n_layers`` cannot be had of a network that is published with ``depth``."""
    if n_layers < 1:
        raise ConfigError(f"n_layers must be at least 1 for {name}, got {n_layers}")
    if n_layers > depth and init != "random":
        raise ConfigError(
            f"n_layers must be 1 to {depth} for {name} with init={init}, got {n_layers}: only init=random is deeper"
        )


def _weights_of(name: str, found: _Named, folder: Path | None) -> Path:
    """The file of weights that ``name`` means."""
    if found.preset and found.preset.weights:
        return found.preset.weights.locate()
    if folder is not None:
        return weights_in(folder)
    family = family_name(found.family)
    cure = f"give a folder that holds them ({family}:FOLDER, with config.json and model.safetensors), or init=random"
    if not found.family.published:
        cure = "nobody publishes any of this architecture, so take init=random, or the folder of a run"
    raise SourceError(f"no package carries weights of {name}: {cure}")


def _of_weights(provenance: Provenance, found: _Named, weights: Path) -> Provenance:
    """``provenance`` of a network that comes from the file ``weights``."""
    preset = found.preset
    notes = [preset.note if preset else "", STATISTICS_NOTE if provenance.init == "statistics" else ""]
    return replace(
        provenance,
        licence=preset.licence if preset else "",
        identity=found.repo_id or (preset.identity if preset else ""),
        note="; ".join(filter(None, notes)),
        weights_sha256=preset.weights.sha256 if preset and preset.weights else sha256(weights),
    )


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What the name of a backbone means: one of a preset, a folder and a repository, or a preset in a repository."""

    family: type[Backbone]
    preset: Preset | None = None
    folder: Path | None = None
    repo_id: str = ""
    revision: str = ""
    """Empty for the Hub's main branch."""


def _resolve(name: str, *, own_file: bool = True) -> _Named:
    """What ``name`` means; touches no network. Without ``own_file`` it is no file that would run."""
    own = split_path(name)
    if own is not None and not own_file:
        raise ConfigError(
            f"the backbone {name} is the file {own[0]}, whose code would run: no model is built so from a config or a "
            "record; load it with fpt_viz.load_backbone, if you trust the file"
        )
    if own is not None:
        return _in_file(*own)
    before, colon, place = name.partition(":")
    if colon:
        if before not in registry.names("backbones"):
            raise UnknownNameError("backbone family", before, registry.names("backbones"))
        return _placed(before, registry.load("backbones", before), place)
    presets = preset_names()
    preset_name, at, revision = name.partition("@")
    if preset_name not in presets:
        known = [*presets, *(f"{family}:FOLDER" for family in registry.names("backbones") if _is_published(family))]
        raise UnknownNameError("backbone", preset_name, known)
    family = registry.load("backbones", presets[preset_name])
    preset = family.presets[preset_name]
    if at and not preset.repo_id:
        raise ConfigError(
            f"{preset_name} does not come from the Hub, so it has no revision to choose: leave out {at}{revision}"
        )
    return _Named(family=family, preset=preset, repo_id=preset.repo_id, revision=revision)


def _in_file(file: str, place: str) -> _Named:
    """What ``place`` means in the user's own ``file``: one of its presets, a folder or a repository."""
    family = family_in(file)
    preset = family.presets.get(preset_in(file, family, place))
    return (
        _placed(file, family, place) if preset is None else _Named(family=family, preset=preset, repo_id=preset.repo_id)
    )


def _placed(told: str, family: type[Backbone], place: str) -> _Named:
    """The folder or repository ``place`` with weights of ``family``, which an error calls ``told``."""
    folder = Path(place).expanduser()
    if not family.published:
        raise ConfigError(f"nobody publishes weights of {told}: name one of {', '.join(family.presets)}")
    repo_id, _, revision = place.partition("@")
    if not folder.is_dir() and HUB_NAME.fullmatch(repo_id):
        return _Named(family=family, repo_id=repo_id, revision=revision)
    return _Named(family=family, folder=folder)


def _is_published(family: str) -> bool:
    return bool(registry.load("backbones", family).published)


def _from_hub(name: str, found: _Named, *, weights: bool) -> tuple[Path, str]:
    """The folder of a model on the Hub, its config alone or with its weights, and the commit that it is of."""
    revision = found.revision or None
    if weights:
        try:
            return hub.model_folder(found.repo_id, revision=revision)
        except SourceError as error:
            if found.preset is None:
                raise
            family = family_name(found.family)
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
