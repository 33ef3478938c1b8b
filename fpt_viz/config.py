"""A run as data: task, backbone, what is trained and how; to and from TOML, with every option checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
import tomllib
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli_w

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.freeze import PAPER_GROUPS
from fpt_viz.records.run import found_init

InputInit = Literal["matched", "paper"]
Precision = Literal["float32", "bfloat16", "auto"]

LATER = ("precision", "n_parts", "checkpoint_blocks", "compile")
"""Options of training that came after the first shipped runs: said only where they are not at their default, so that
a run has the id that it always had."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How one run is optimised: Adam without weight decay, as in the paper (Lu et al., 2021, appendix C)."""

    n_steps: int = 5_000
    """Gradient steps, not epochs."""
    batch_size: int = 64
    """Examples in one gradient step."""
    learning_rate: float = 1e-3
    """Of Adam, after warm-up and before decay."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls from the end of warm-up to the last step: not at all, or to zero."""
    n_warmup_steps: int = 0
    """Steps over which the learning rate rises from zero."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this L2 norm."""
    dropout: float | None = None
    """Rate everywhere in the network; None keeps the backbone's own rates, and 0.1 after the input layer."""
    precision: Precision = "float32"
    """Of the matrix products in training; what is trained, its optimizer, layer norms and the loss stay in float32, and
    so does all that is measured afterwards. ``auto`` is bfloat16 where the device is faster in it."""
    n_parts: int | None = None
    """Parts that a batch is computed in, one after the other (gradient accumulation): less memory, the same step up to
    rounding and dropout. None chooses once, when training starts: parts of about a thousand tokens on the CPU, where
    that costs no time; whole batches where hooks look on by then. A run's ``result.json`` says how many were used."""
    checkpoint_blocks: bool = False
    """Keep of each block its input alone, and compute the rest again in the backward pass: much less memory for about a
    third more time."""
    compile: bool = False
    """Compile the blocks by ``torch.compile``: the same step up to rounding, for a minute or more before the first one.
    On CUDA, short sequences replay CUDA graphs. Where there is no compiler, or hooks are on the model, the steps are
    computed without it, and the log says so."""
    cache_features: bool = True
    """Where the output layer alone learns: what it reads is computed without dropout, once for each training example
    where the split can be kept. Off, or with a rate given in ``dropout``, every step runs the backbone."""
    seed: int = 0
    """Of the examples drawn, the new layers, dropout and a random backbone."""
    validate_every: int = 0
    """Steps from one check on the validation split to the next; 0 for none."""
    n_validation: int = 512
    """Distinct validation examples in a check; all there are where the split holds fewer."""
    stop_when_solved: bool = False
    """Stop at the second check in a row with every validation target right."""
    checkpoint_every: int = 100
    """Steps from one checkpoint to the next."""
    telemetry_every: int = 0
    """Steps from one capture of the probe batch to the next, which changes nothing of the training; 0 for none."""
    telemetry_heads: tuple[str, ...] = ()
    """Heads whose patterns a capture keeps, such as ``L3H5``; none named is all of them."""
    n_telemetry: int = 32
    """Distinct validation examples in the probe batch; all there are where the split holds fewer."""

    def __post_init__(self) -> None:
        _check_types(type(self), vars(self), "train")
        from_1 = ("n_steps", "batch_size", "n_validation", "checkpoint_every", "n_telemetry")
        at_least = dict.fromkeys(from_1, 1)
        from_0 = ("n_warmup_steps", "validate_every", "seed", "telemetry_every")
        for name, low in (at_least | dict.fromkeys(from_0, 0)).items():
            if getattr(self, name) < low:
                raise ConfigError(f"train.{name} must be at least {low}, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ConfigError(f"train.seed must be below 2^63, got {self.seed}")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"train.{name} must be above 0 and finite, got {getattr(self, name)}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"train.dropout must be from 0 to below 1, got {self.dropout}")
        if self.n_parts is not None and self.n_parts < 1:
            raise ConfigError(f"train.n_parts must be at least 1, got {self.n_parts}")
        if self.n_parts is not None and self.n_parts > self.batch_size:
            raise ConfigError(f"train.n_parts is {self.n_parts}, and a batch has {self.batch_size} examples to share")
        if self.stop_when_solved and not self.validate_every:
            raise ConfigError("train.stop_when_solved needs checks: set train.validate_every, 10 for example")
        if self.telemetry_heads and not self.telemetry_every:
            raise ConfigError(
                f"train.telemetry_heads names {', '.join(self.telemetry_heads)}, but train.telemetry_every is 0, which "
                "captures nothing: set it to 50, for example"
            )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Which task, with which options."""

    name: str
    """An entry of ``fpt-viz list tasks``, or the path of a ``.py`` file."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the task; those not given have their defaults."""

    def __post_init__(self) -> None:
        _check_types(type(self), vars(self), "task")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which backbone, and what its weights are at the start."""

    name: str = "minilm"
    """A preset of ``fpt-viz list backbones``, or ``family:folder``."""
    init: str = "pretrained"
    """``pretrained``; ``random``; ``statistics``, random with the mean and standard deviation of each pretrained
    tensor; or the folder of a finished run of this backbone, whose trained weights it takes."""
    n_layers: int | None = None
    """Keep the first so many blocks; None keeps all. Random weights may also be deeper than the published ones."""

    def __post_init__(self) -> None:
        _check_types(type(self), vars(self), "backbone")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run, but for the machine it runs on."""

    task: TaskConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    trained: tuple[str, ...] = PAPER_GROUPS
    """Parameter groups that learn; ``attention:5`` or ``attention:last`` for one layer, ``all`` for everything."""
    input_init: InputInit = "matched"
    """Scale of the new input layer: that of the backbone's token embeddings, or the paper's orthogonal, gain 1.41."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _check_types(type(self), vars(self), "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the options that are None, which TOML cannot say, and without :data:`LATER` defaults."""
        data: dict[str, Any] = _without_none(asdict(self))
        for name in LATER:
            if data["train"].get(name) == getattr(TrainConfig, name):
                data["train"].pop(name, None)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """The config whose :meth:`to_dict` is ``data``.

        Raises:
            UnknownNameError: An option that there is not; the message names the nearest.
            ConfigError: An option of a wrong type or value.
        """
        config: RunConfig = _build(cls, data, "")
        return config

    def at_commits(self, *, backbone: str = "", data: str = "") -> RunConfig:
        """The same run with weights and data at these commits of the Hub, whichever revision it names.

        Args:
            backbone: Of the backbone's repository; empty where it comes from no repository.
            data: Of the data set's, which the task's option ``revision`` then says; empty likewise.
        """
        config = self
        if backbone:
            name = f"{self.backbone.name.partition('@')[0]}@{backbone}"
            config = replace(config, backbone=replace(self.backbone, name=name))
        if data:
            config = replace(config, task=replace(self.task, options={**self.task.options, "revision": data}))
        return config

    def found_from(self, folder: Path) -> RunConfig:
        """The same run, as it can be built for a record in ``folder``: the run that it starts from may have moved."""
        init = found_init(self.backbone.init, folder)
        return replace(self, backbone=replace(self.backbone, init=init))

    def to_toml(self) -> str:
        """The text of ``config.toml``."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> RunConfig:
        """The config in a TOML file."""
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(f"no config file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no TOML: {error}") from error


def with_settings(data: Mapping[str, Any], settings: Mapping[str, Any], task_options: list[str]) -> dict[str, Any]:
    """``data`` of a :class:`RunConfig` with ``settings`` laid over it.

    Args:
        data: As :meth:`RunConfig.to_dict` gives it; may be partial.
        settings: Dotted name -> value (``task.n_bits``, ``train.seed``); a bare name where only one option has it.
        task_options: The names of the task's options, which stand under ``task.``.

    Raises:
        UnknownNameError: No such option.
    """
    sections = {"train": [f.name for f in fields(TrainConfig)], "backbone": [f.name for f in fields(BackboneConfig)]}
    known: dict[str, tuple[str, ...]] = {
        f"{section}.{name}": (section, name) for section, names in sections.items() for name in names
    }
    known |= {f"task.{name}": ("task", "options", name) for name in task_options} | {"task.name": ("task", "name")}
    known |= {"trained": ("trained",), "input_init": ("input_init",)}
    result: dict[str, Any] = _copied(data)
    for name, value in settings.items():
        dotted = [name] if name in known else [full for full in known if full.endswith(f".{name}")]
        if len(dotted) != 1:
            raise UnknownNameError(
                "option" if not dotted else "single option (give its section)", name, dotted or known
            )
        *sections_above, last = known[dotted[0]]
        target = result
        for section in sections_above:
            target = target.setdefault(section, {})
        target[last] = value
    return result


def _copied(data: Any) -> Any:
    """``data`` with its own dicts, so that it can be changed."""
    return {name: _copied(value) for name, value in data.items()} if isinstance(data, Mapping) else data


def _without_none(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {name: _without_none(value) for name, value in data.items() if value is not None}
    return list(data) if isinstance(data, tuple) else data


def _build(cls: Any, data: Any, where: str) -> Any:
    """An instance of the dataclass ``cls`` from plain ``data``; ``where`` is its dotted name."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the config'} must be a table of options, got {data!r}")
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls)}
    values = {}
    for name, value in data.items():
        if name not in known:
            raise UnknownNameError(f"option in [{where}]" if where else "option", name, known)
        nested = hasattr(hints[name], "__dataclass_fields__")
        dotted = f"{where}.{name}".strip(".")
        values[name] = _build(hints[name], value, dotted) if nested else _converted(value, hints[name])
    for name, option in known.items():
        if name not in values and option.default is MISSING and option.default_factory is MISSING:
            raise ConfigError(f"{f'{where}.{name}'.strip('.')} must be given")
    _check_types(cls, values, where)
    return cls(**values)


def _converted(value: Any, hint: Any) -> Any:
    """``value`` as TOML means it: a list for a tuple, an integer where a float is wanted."""
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    floats = hint is float or float in get_args(hint)
    return float(value) if floats and isinstance(value, int) and not isinstance(value, bool) else value


def _check_types(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Raise where one of the ``values`` has another type than its field of the dataclass ``cls`` declares."""
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ConfigError(f"{f'{where}.{name}'.strip('.')} must be {_spelled(hints[name])}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _spelled(hint: Any) -> str:
    """``hint`` as a reader says it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join("absent" if one is type(None) else _spelled(one) for one in arguments)
    if origin is tuple:
        return f"a list of {_spelled(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
