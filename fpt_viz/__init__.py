"""Train frozen pretrained transformers, and see how their attention heads route information between tokens.

Every name below is imported when it is first used, so ``import fpt_viz`` costs nothing and loads no torch::

    import fpt_viz as fpt

    record = fpt.run(fpt.RunConfig(...), out="data/runs/xor")
    model = fpt.load_model(record)
    stats = fpt.head_statistics(model, fpt.load_task("bit_xor"))
    fpt.figures.head_grid(stats).save("heads.pdf")

``fpt.measures``, ``fpt.analysis``, ``fpt.figures`` and ``fpt.widgets`` hold every entry of the folder of that name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fpt_viz import registry

if TYPE_CHECKING:
    from fpt_viz import analysis as analysis, figures as figures, measures as measures, widgets as widgets
    from fpt_viz.backbones import load_backbone as load_backbone
    from fpt_viz.capture import capture_attention as capture_attention
    from fpt_viz.config import RunConfig as RunConfig, TrainConfig as TrainConfig
    from fpt_viz.intervene import ablated as ablated
    from fpt_viz.loading import load_model as load_model
    from fpt_viz.measures.ablate_heads import ablate_heads as ablate_heads
    from fpt_viz.measures.evaluate import evaluate as evaluate
    from fpt_viz.measures.head_statistics import head_statistics as head_statistics
    from fpt_viz.model import FrozenPretrainedTransformer as FrozenPretrainedTransformer
    from fpt_viz.records import load_run as load_run
    from fpt_viz.tasks import load_task as load_task
    from fpt_viz.train import run as run, train as train

    __version__: str

_NAMESPACES = ("analysis", "figures", "measures", "widgets")
_ORIGINS = {
    "FrozenPretrainedTransformer": "fpt_viz.model",
    "RunConfig": "fpt_viz.config",
    "TrainConfig": "fpt_viz.config",
    "ablate_heads": "fpt_viz.measures",
    "ablated": "fpt_viz.intervene",
    "capture_attention": "fpt_viz.capture",
    "evaluate": "fpt_viz.measures",
    "head_statistics": "fpt_viz.measures",
    "load_backbone": "fpt_viz.backbones",
    "load_model": "fpt_viz.loading",
    "load_run": "fpt_viz.records",
    "load_task": "fpt_viz.tasks",
    "run": "fpt_viz.train",
    "train": "fpt_viz.train",
}
"""The module that each public name is found in."""

__all__ = [*_ORIGINS, *_NAMESPACES, "__version__"]


def _find(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fpt_viz")
    if name in _NAMESPACES:
        return import_module(f"fpt_viz.{name}")
    return getattr(import_module(_ORIGINS[name]), name)


registry.publish("fpt_viz", lambda: sorted(__all__), _find)
