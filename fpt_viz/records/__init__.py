"""What producers write and viewers read: plain, frozen data that needs neither a model nor ``transformers``.

The waist of the package. ``run`` holds what a training run leaves behind (``steps``, ``ledger``), ``attention``
captured patterns, ``statistics`` what is known of each head over a data set, ``effects`` what interventions changed,
``geometry`` where a token lies in its strings or image, ``patching`` how far patches lead from one run to another,
``shift`` what moved each head in training, ``telemetry`` what a run showed on the way, ``reading`` what can be read
from its states, ``attribution`` what input tokens add to answers, ``language`` what heads did with words before,
``live`` what a viewer may ask of a model that is handed to it.
"""

from fpt_viz.records.attention import AttentionMaps
from fpt_viz.records.attribution import AttributionSanity, InputAttribution
from fpt_viz.records.effects import AblationEffects, TopHeadsEffects
from fpt_viz.records.geometry import Geometry
from fpt_viz.records.language import LanguageRoles
from fpt_viz.records.ledger import Ledger, LedgerRow
from fpt_viz.records.live import LiveModel
from fpt_viz.records.patching import PatchingEffects
from fpt_viz.records.reading import LensReadings, LogitAttribution, ProbeAccuracy
from fpt_viz.records.routing import RoutingBreakdown
from fpt_viz.records.run import RunRecord, load_run
from fpt_viz.records.shift import PatternShift
from fpt_viz.records.statistics import HeadStatistics
from fpt_viz.records.steps import Evaluation, Step
from fpt_viz.records.telemetry import Telemetry, TelemetryFrame

__all__ = [
    "AblationEffects",
    "AttentionMaps",
    "AttributionSanity",
    "Evaluation",
    "Geometry",
    "HeadStatistics",
    "InputAttribution",
    "LanguageRoles",
    "Ledger",
    "LedgerRow",
    "LensReadings",
    "LiveModel",
    "LogitAttribution",
    "PatchingEffects",
    "PatternShift",
    "ProbeAccuracy",
    "RoutingBreakdown",
    "RunRecord",
    "Step",
    "Telemetry",
    "TelemetryFrame",
    "TopHeadsEffects",
    "load_run",
]
