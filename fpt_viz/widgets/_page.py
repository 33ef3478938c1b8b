"""One page that is a widget without Python: its script, its values, and the answers to what can be chosen."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import html
import json
import math
from typing import Any

from fpt_viz.widgets import _assets

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{css}
body {{ margin: 16px; background: var(--fpt-paper); }}
</style>
</head>
<body>
<main id="widget" class="fpt-page"></main>
<noscript><p>{alt}</p></noscript>
<script type="application/json" id="values">{values}</script>
<script type="module">
{script}
{stand_in}
</script>
</body>
</html>
"""


def key(choice: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The place of an answer: the values of ``fields`` in ``choice``, as JavaScript's JSON.stringify writes them."""
    return json.dumps([_number(choice.get(name)) for name in fields], separators=(",", ":"), ensure_ascii=False)


def _number(value: Any) -> Any:
    """Whole floats as whole numbers, which JavaScript does not tell apart."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_number(one) for one in value] if isinstance(value, list | tuple) else value


def write(title: str, script: str, css: str, values: Mapping[str, Any], answers: Mapping[str, Any], alt: str) -> str:
    """The page; the same bytes for the same widget."""
    fixed = {**values["fixed"], "id": "fpt-page"}
    data = json.dumps(_plain({"values": {**values, "fixed": fixed}, "answers": answers}), separators=(",", ":"))
    return TEMPLATE.format(
        title=html.escape(title),
        css=css,
        alt=html.escape(alt),
        values=data.replace("<", "\\u003c"),
        script=script.replace("</script", "<\\/script"),
        stand_in=_assets.text("stand_in.js"),
    )


def _plain(value: Any) -> Any:
    """``value`` with bytes as base64 in an object of their own."""
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
