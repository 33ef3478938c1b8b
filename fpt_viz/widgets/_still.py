"""A still picture of a widget, for pages in which no widget runs."""

from __future__ import annotations

import base64
import html

from fpt_viz.export import Figure, paper
from fpt_viz.export.presets import preset


def picture(figure: Figure, widget_id: str) -> str:
    """``figure`` as HTML; its class names the widget, which hides it once it runs."""
    svg = base64.b64encode(paper.render(figure, "svg", preset("paper-wide"))).decode()
    return (
        f'<div class="fpt-still {widget_id}-still"><img alt="{html.escape(figure.alt)}" style="max-width:100%" '
        f'src="data:image/svg+xml;base64,{svg}"></div>'
    )
