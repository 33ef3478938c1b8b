"""Language transformers behind one face: one file an architecture family, each with its presets."""

from fpt_viz.backbones.base import Backbone, Preset, load_backbone, preset_names

__all__ = ["Backbone", "Preset", "load_backbone", "preset_names"]
