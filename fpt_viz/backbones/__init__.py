"""Language transformers behind one face: one file an architecture family, each with its presets."""

from fpt_viz.backbones._loading import load_backbone, preset_names
from fpt_viz.backbones._tokenizer import load_tokenizer
from fpt_viz.backbones.base import Backbone, Preset

__all__ = ["Backbone", "Preset", "load_backbone", "load_tokenizer", "preset_names"]
