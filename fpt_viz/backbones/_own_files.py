"""A family in a file of the user's own, named by the path of the file."""

from __future__ import annotations

from pathlib import Path
import re
import sys

from fpt_viz import registry
from fpt_viz.backbones.base import Backbone
from fpt_viz.errors import ConfigError

PATH = re.compile(r"(?P<file>.+?\.py)(?::(?P<place>.+))?")
DECLARED = ("network_class", "config_class", "presets", "groups", "causal", "blocks_path", "vocabulary_path")
OF_HEADS = ("attention_path", "projection_path")
PLACES = "block_places"


def split_path(name: str) -> tuple[str, str] | None:
    """The file that ``name`` is the path of, and what stands behind the colon; None where it names no file."""
    found = PATH.fullmatch(name)
    return (
        None
        if found is None or found["file"].partition(":")[0] in registry.names("backbones")
        else (
            found["file"],
            found["place"] or "",
        )
    )


def family_in(file: str) -> type[Backbone]:
    """The family that the file declares; its code runs.

    Raises:
        ConfigError: There is no such file, or it declares no whole family; the message names what is missing.
    """
    family = registry.load("backbones", file)
    if not (isinstance(family, type) and issubclass(family, Backbone)):
        found = getattr(family, "__name__", family)
        raise ConfigError(f"{file}: its public name {found!r} is no subclass of fpt_viz.backbones.Backbone")
    wanted = (*DECLARED, PLACES, *(OF_HEADS if family.has_attention else ()))
    missing = [name for name in wanted if not hasattr(family, name)]
    if missing:
        raise ConfigError(
            f"{file}: {family.__name__} does not declare {', '.join(missing)}: see fpt_viz.backbones.Backbone for what "
            "each means, and a file of fpt_viz/backbones for an example"
        )
    return family


def preset_in(file: str, family: type[Backbone], place: str) -> str:
    """The preset of ``family`` that ``place`` names; its only one where nothing is named, and empty for none."""
    if place in family.presets:
        return place
    if not place and len(family.presets) == 1:
        return next(iter(family.presets))
    if not place:
        known = ", ".join(f"{file}:{preset}" for preset in family.presets)
        raise ConfigError(f"{file} has {len(family.presets)} presets, so one is to be named: {known or 'it has none'}")
    return ""


def family_name(family: type[Backbone]) -> str:
    """The name of the file that declares ``family``, without its ending."""
    if family.__module__.startswith("fpt_viz.backbones."):
        return family.__module__.rpartition(".")[2]
    return Path(getattr(sys.modules.get(family.__module__), "__file__", None) or family.__name__).stem
