"""What every backbone is: a pretrained network without its vocabulary, with named places, groups and provenance.

Added by a family's file: which network class, its presets, which parameters form which group, and where the
activations lie that a tap can read or change.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import dataclass, field, replace
import json
import logging
from pathlib import Path
import re
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fpt_viz import hub, registry
from fpt_viz.errors import ConfigError, SourceError, UnknownNameError
from fpt_viz.records.store import sha256
from fpt_viz.sources import PackageFile, config_in, weights_in

INITS = ("pretrained", "random")
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""What can name a repository on the Hub, rather than a folder."""

logger = logging.getLogger("fpt_viz")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One size of an architecture, and where its pretrained weights are."""

    config: Mapping[str, Any]
    """Arguments of the architecture's config class: enough for a random network, with no file read."""
    weights: PackageFile | None = None
    """None where no package carries them; then the Hub or a folder does (``family:folder``)."""
    repo_id: str = ""
    """Of the weights on the Hub, where no package carries them."""
    identity: str = ""
    """What the weights are called where they were published."""
    licence: str = ""
    note: str = ""
    """What a reader of results must know of these weights."""


@dataclass(frozen=True)
class Place:
    """Where in a block an activation lies: at the input or output of one of its modules."""

    module: str
    """Path of the module below the block; empty for the block itself."""
    side: Literal["input", "output"]
    n_heads: Literal["", "n_heads", "n_kv_heads"] = ""
    """Set where the activation is cut into heads: ``[batch pos head d_head]``."""


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


class Backbone(nn.Module):
    """A transformer that takes vectors in and gives vectors out. A model that is built on it trains it in place."""

    presets: ClassVar[Mapping[str, Preset]]
    network_class: ClassVar[type[PreTrainedModel]]
    config_class: ClassVar[type[PreTrainedConfig]]
    groups: ClassVar[Mapping[str, str]]
    """Glob over the network's parameter names -> group; each parameter matches globs of one group."""
    causal: ClassVar[bool]
    rotary: ClassVar[bool] = False
    """Positions are added by rotating queries and keys, so learned rows are new and start at zero."""
    network_options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of ``network_class``."""
    blocks_path: ClassVar[str]
    """Path of the list of blocks below the network."""
    attention_path: ClassVar[str]
    """Path, below a block, of the module that calls the attention kernel."""
    vocabulary_path: ClassVar[str]
    """Path of the token embedding, which the input layer replaces."""
    position_path: ClassVar[str | None] = None
    """Path of the learned positions, where the architecture has them."""
    places: ClassVar[Mapping[str, Place]]
    """Activation name (as in TransformerLens, without ``blocks.{i}.``) -> where it lies in a block."""

    def __init__(self, network: PreTrainedModel, provenance: Provenance) -> None:
        super().__init__()
        config = network.config
        self.provenance = provenance
        vocabulary = network.get_submodule(self.vocabulary_path)
        assert isinstance(vocabulary, nn.Embedding)  # by the family's vocabulary_path
        self.token_rms = float(vocabulary.weight.detach().float().pow(2).mean().sqrt())
        """Root mean square of the token embeddings: the scale of input that the network knows."""
        self.n_layers: int = config.num_hidden_layers
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = getattr(config, "num_key_value_heads", None) or self.n_heads
        self.d_model: int = config.hidden_size
        self.d_head: int = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        self.n_ctx: int = config.max_position_embeddings
        """The longest sequence that the network's positions reach."""
        _assign(network, self.vocabulary_path, None)  # never read: inputs are vectors
        self.network = network
        self.owner: str | None = None
        """The task of the model that trains this backbone, once there is one."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.network.get_submodule(self.blocks_path).children())

    @property
    def attentions(self) -> list[nn.Module]:
        """Of each block, the module that calls the attention kernel."""
        return [block.get_submodule(self.attention_path) for block in self.blocks]

    @abstractmethod
    def final_norm(self) -> nn.Module | None:
        """The norm after the last block; None where each block ends in its own (post-LN)."""

    @property
    def limit(self) -> str:
        """Why no sequence may be longer than :attr:`n_ctx`; empty where rows can be added for the rest."""
        return "" if self.position_path else "its positions are no rows of a table, so there are none to add"

    def fit_positions(self, n_tokens: int, *, seed: int = 0) -> None:
        """Keep the learned positions of the first ``n_tokens`` tokens only; where there are none, add zero rows.

        Where the sequence is longer than the network's positions, the missing rows are new: each value is drawn from a
        normal distribution with the mean and standard deviation of its dimension over the pretrained rows. So a new
        position differs from every other, and the frozen layers see the offset and scale that they know; rows of zero
        would be alike, and far from both. They are counted in the provenance, said in the log, and train with the
        group ``position``.

        Args:
            n_tokens: Of the longest sequence.
            seed: Of new rows.

        Raises:
            ConfigError: The sequence is longer than the network's positions, which cannot grow.
        """
        n_new = max(n_tokens - self.n_ctx, 0)
        if n_new and self.limit:
            raise ConfigError(
                f"{self.provenance.name} has positions for {self.n_ctx} tokens, the task has {n_tokens}, and "
                f"{self.limit}: choose shorter inputs, larger patches, or a backbone with learned positions"
            )
        if self.position_path is None:
            self.added_positions = nn.Parameter(torch.zeros(n_tokens, self.d_model))
            return
        table = self.network.get_submodule(self.position_path)
        assert isinstance(table, nn.Embedding)  # by the family's position_path
        rows = table.weight.detach()[:n_tokens].clone()
        if n_new:
            rows = torch.cat([rows, _rows_like(rows, n_new, seed)])
            self.provenance = replace(self.provenance, positions_new=n_new)
            self._grow_buffers(n_tokens)
            logger.warning(
                "%s has positions for %d tokens, the task has %d: the other %d are new, and are trained with the group "
                "'position'", self.provenance.name, self.n_ctx, n_tokens, n_new,
            )  # fmt: skip
        _assign(self.network, self.position_path, nn.Embedding.from_pretrained(rows, freeze=False))

    def _grow_buffers(self, n_tokens: int) -> None:
        """Make what else in the network is as long as its positions reach ``n_tokens``; most have nothing."""

    def parameter_groups(self) -> dict[str, str]:
        """Glob over this module's parameter names -> group."""
        groups = {f"network.{glob}": group for glob, group in self.groups.items()}
        return groups | ({"added_positions": "position"} if self.position_path is None else {})

    def layer_of(self, name: str) -> int | None:
        """The layer that the parameter ``name`` of this module belongs to; None where it belongs to none."""
        prefix = f"network.{self.blocks_path}."
        return int(name.removeprefix(prefix).split(".")[0]) if name.startswith(prefix) else None

    def set_dropout(self, rate: float) -> None:
        """Set every dropout rate of the network, in hidden states and attention."""
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

    def forward(
        self, vectors: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        """The last hidden state; tokens where ``mask`` is False are never attended to."""
        if self.position_path is None:
            vectors = vectors + self.added_positions[: vectors.shape[1]]
        states = self.network(inputs_embeds=vectors, attention_mask=mask, **self._call_options()).last_hidden_state
        return torch.as_tensor(states)

    def _call_options(self) -> dict[str, Any]:
        return {"use_cache": False} if self.causal else {}


def _rows_like(rows: Float[Tensor, "row hidden"], n_new: int, seed: int) -> Float[Tensor, "new hidden"]:
    """New rows, each dimension normal with the mean and standard deviation that it has over ``rows``."""
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    drawn = torch.randn(n_new, rows.shape[1], generator=torch.Generator().manual_seed(seed))
    return mean + std * drawn.to(rows)


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
        config.num_hidden_layers = n_layers
    config._attn_implementation = "sdpa"
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


def _assign(module: nn.Module, path: str, value: nn.Module | None) -> None:
    """Put ``value`` in the place of the submodule at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, value)
