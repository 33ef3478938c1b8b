"""The example pages of the documentation are of the widgets as they are."""

from __future__ import annotations

import pytest

import fpt_viz as fpt
from fpt_viz import registry
from fpt_viz.widgets import _assets

PAGES = "docs/examples"


@pytest.mark.parametrize("name", registry.names("widgets"))
def test_a_page_carries_the_widgets_own_script_and_styles(repository, name):
    """Where this fails, a script was changed since: ``make examples`` makes the pages anew."""
    widget = registry.load("widgets", name)
    page = (repository / PAGES / f"{name}.html").read_text(encoding="utf-8")
    script = _assets.script(*widget.parts, widget.script).replace("</script", "<\\/script")
    for part in (script, _assets.text("base.css"), _assets.text("stand_in.js")):
        assert part in page
    assert f"<title>{widget.__name__}</title>" in page


def test_the_pages_are_no_more_than_a_reader_downloads_with_the_clone(repository):
    pages = sorted((repository / PAGES).glob("*.html"))
    assert [page.stem for page in pages] == registry.names("widgets")
    assert len(pages) == len(dir(fpt.widgets))
    assert sum(page.stat().st_size for page in pages) <= 12_000_000
