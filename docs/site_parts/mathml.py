"""Formulas as MathML, which browsers draw themselves: no script, no fonts and no network.

docutils converts the TeX; a formula that it cannot read is a warning, which ends the build.
"""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def converted(tex: str, *, as_block: bool, where: Any = None) -> str:
    """``tex`` as MathML; as itself, with a warning, where it cannot be read."""
    try:
        return str(tex2mathml(tex, as_block=as_block))
    except (MathError, ValueError, KeyError) as error:
        logger.warning("no MathML for %r: %s", tex, error, location=where)
        return f"<code>{html.escape(tex)}</code>"


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(converted(node.astext(), as_block=False, where=node))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    mathml = converted(node.astext(), as_block=True, where=node)
    writer.body.append(f'<div class="math-block" tabindex="0">{mathml}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx draw formulas with it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
