"""What every widget must be: readable by everyone, one offline page, and free of what it no longer needs."""

from __future__ import annotations

from importlib.resources import files
import json

from made_widgets import MADE
import pytest

import fpt_viz as fpt
from fpt_viz.widgets.base import Widget

pytestmark = [pytest.mark.slow]

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SERIOUS = "(found) => found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))"
EACH = pytest.mark.parametrize("name", sorted(MADE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs that several widgets are made of."""
    return tmp_path_factory.mktemp("runs")


def test_every_widget_is_checked_here():
    assert sorted(MADE) == dir(fpt.widgets)


@EACH
def test_its_state_is_plain_data_and_its_alt_text_says_something(name, folder):
    widget = MADE[name](folder)
    assert isinstance(widget, Widget)
    assert json.loads(json.dumps(widget.state)) == widget.state
    assert widget.state["widget"] == name
    assert len(widget.alt) > 20


@EACH
def test_it_has_a_still_picture_and_a_paper_figure(name, folder, tmp_path):
    widget = MADE[name](folder)
    bundle, _ = widget._repr_mimebundle_()
    assert "<img" in bundle["text/html"]
    assert widget.save(tmp_path / "screen.pdf").stat().st_size > 1_000
    widget.close()
    widget.close()


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@EACH
def test_axe_finds_no_serious_violation_and_nothing_runs_out_of_the_page(bare, folder, tmp_path, name, dark):
    shown = bare(MADE[name](folder), dark=dark)
    shown.page.evaluate(AXE)
    found = shown.page.evaluate(f"async () => ({SERIOUS})(await axe.run())")
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found] == []
    assert shown.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    shown.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)


@pytest.mark.browser
@EACH
def test_its_page_opens_with_the_network_off_and_asks_for_nothing(chromium, folder, tmp_path, name):
    path = tmp_path / "page.html"
    MADE[name](folder).to_html(path)
    context = chromium.new_context(offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.locator(".fpt[data-ready=true]").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement !== document.body")  # the keyboard gets in
    context.close()
    assert wrong == []


@pytest.mark.browser
def test_200_choices_leave_memory_of_page_and_python_flat(bare, folder):
    """The page's own heap after a collection, and what tracemalloc finds in Python."""
    import gc
    import tracemalloc

    shown = bare(MADE["AttentionExplorer"](folder))
    session = shown.page.context.new_cdp_session(shown.page)

    def choose(n: int) -> tuple[int, int]:
        canvas = shown.page.locator("canvas.fpt-grid")
        canvas.focus()
        for i in range(n):
            shown.page.keyboard.press(("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")[i % 4])
        shown.settled()
        session.send("HeapProfiler.collectGarbage")
        gc.collect()
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        return heap, tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        choose(100)
        before, after = choose(8), choose(192)
    finally:
        tracemalloc.stop()
    assert after[0] - before[0] < 500_000
    assert after[1] - before[1] < 500_000
