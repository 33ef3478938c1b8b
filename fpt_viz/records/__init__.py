"""What producers write and viewers read: plain, frozen data that needs neither a model nor ``transformers``.

The waist of the package. ``run`` holds what a training run leaves behind, ``attention`` captured patterns,
``statistics`` what is known of each head over a data set, ``effects`` what interventions changed, ``geometry`` where a
token lies in its strings or image, ``patching`` how far patches lead from one run to another, ``live`` what a viewer
may ask of a model that is handed to it.
"""

from fpt_viz.records.attention import AttentionMaps
from fpt_viz.records.effects import AblationEffects, TopHeadsEffects
from fpt_viz.records.geometry import Geometry
from fpt_viz.records.live import LiveModel
from fpt_viz.records.patching import PatchingEffects
from fpt_viz.records.routing import RoutingBreakdown
from fpt_viz.records.run import Evaluation, Ledger, LedgerRow, RunRecord, Step, load_run
from fpt_viz.records.statistics import HeadStatistics

__all__ = [
    "AblationEffects",
    "AttentionMaps",
    "Evaluation",
    "Geometry",
    "HeadStatistics",
    "Ledger",
    "LedgerRow",
    "LiveModel",
    "PatchingEffects",
    "RoutingBreakdown",
    "RunRecord",
    "Step",
    "TopHeadsEffects",
    "load_run",
]
