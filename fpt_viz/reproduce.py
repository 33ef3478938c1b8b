"""Experiments from Python: what ``fpt-viz reproduce`` calls, and how a saved result is read back.

::

    from fpt_viz.engines.local import Local
    from fpt_viz.reproduce import Choice, reproduce, result_in

    result = reproduce("table_9", out="data/runs/experiments", engine=Local(), choice=Choice(tasks=("digits",)))
    result_in("data/results/table_6-laptop-bit_xor").figure
"""

from fpt_viz.experiments._forecast import Forecast, forecast
from fpt_viz.experiments._plan import Choice, Plan, load_plan, plan_of
from fpt_viz.experiments._running import Result, reproduce, result_in

__all__ = ["Choice", "Forecast", "Plan", "Result", "forecast", "load_plan", "plan_of", "reproduce", "result_in"]
