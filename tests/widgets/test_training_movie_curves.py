"""The charts that the widgets share: their ticks, paths, cursors and keys, on a page of their own."""

from __future__ import annotations

import json

import pytest

from fpt_viz.widgets import _assets, _curves

pytestmark = [pytest.mark.browser]
SPEC = {
    "width": 400,
    "height": 200,
    "xTitle": "gradient steps",
    "yTitle": "accuracy",
    "xRange": [0, 40],
    "yRange": [0, 1],
    "styles": _curves.styles(2),
    "levels": [{"at": 0.5, "label": "chance 50.0 %"}],
    "cursor": None,
    "lines": [
        {"label": "first", "series": 0, "x": [10, 20, 30, 40], "y": [0.0, 0.5, 1.0, 0.5], "markers": True},
        {"label": "second", "series": 1, "x": [10, 30], "y": [0.25, None], "low": [0.2, None], "high": [0.3, None]},
    ],
}


@pytest.fixture(scope="module")
def page(chromium):
    """A page that holds the scripts and no widget."""
    opened, wrong = chromium.new_page(viewport={"width": 800, "height": 600}), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    script = _assets.script("base.js", "curves.js")
    style = _assets.text("base.css")
    opened.set_content(
        f"<style>{style}</style><main class=fpt></main><script>{script}; window.curves = curves;</script>"
    )
    yield opened
    opened.close()
    assert wrong == []


@pytest.fixture
def chart(page):
    """A function that draws a chart; what it says and where it was moved is in ``window.said`` and ``window.moved``."""

    def draw(**changes):
        page.evaluate(
            """([spec, tells]) => {
              window.said = []; window.moved = [];
              const call = { say: (words) => window.said.push(words) };
              if (tells) call.moved = (x) => window.moved.push(x);
              window.chart = window.curves.chart("made", call);
              document.querySelector('main').replaceChildren(window.chart.node);
              window.spec = spec;
              window.chart.draw(spec);
            }""",
            [{**SPEC, **{k: v for k, v in changes.items() if k != "tells"}}, changes.get("tells", False)],
        )
        return page.locator("svg.fpt-plot")

    return draw


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.4, 1.03, [0.4, 0.6, 0.8, 1]),
        (0, 5000, [0, 1000, 2000, 3000, 4000, 5000]),
        (0, 0.031, [0, 0.01, 0.02, 0.03]),
        (3, 3, [3]),
    ],
    ids=str,
)
def test_ticks_are_round_numbers_within_the_range(page, low, high, wanted):
    assert page.evaluate("([low, high]) => curves.ticks(low, high)", [low, high]) == pytest.approx(wanted)


def test_thinning_keeps_the_lowest_and_highest_of_each_pixel_and_the_last(page):
    y = [float((i * 7919) % 1000) for i in range(10_000)]
    kept = page.evaluate("(y) => curves.thinned(y.map((_, i) => i), y, 100)", y)
    assert len(kept) <= 201
    assert kept == sorted(kept)
    assert kept[-1] == 9_999
    for first in range(0, 10_000, 100):
        part = [y[i] for i in kept if first <= i < first + 100]
        assert (min(part), max(part)) == (min(y[first : first + 100]), max(y[first : first + 100]))


def test_a_line_goes_through_its_points_and_breaks_where_there_is_none(page, chart):
    chart()
    paths = page.locator(".fpt-line").evaluate_all("(all) => all.map((one) => one.getAttribute('d'))")
    xs, ys = zip(*(map(float, one.split(",")) for one in paths[0][1:].split("L")), strict=True)
    top, bottom = 22, 200 - 36
    assert ys == pytest.approx([bottom, (top + bottom) / 2, top, (top + bottom) / 2], abs=0.06)
    assert [x - xs[0] for x in xs] == pytest.approx([i * (xs[3] - xs[0]) / 3 for i in range(4)], abs=0.11)
    assert xs[3] == pytest.approx(400 - 12)
    assert paths[1].count("M") == 1
    assert "L" not in paths[1]
    assert page.evaluate("() => curves.path([0, 1, 2], [1, null, 3], (x) => x, (y) => y, 9)") == "M0.0,1.0M2.0,3.0"


def test_series_differ_in_dash_and_marker_as_well_as_in_colour(page):
    found = page.evaluate(
        """(styles) => styles.map((one) => {
          const drawn = curves.swatch(one, { markers: true });
          const [line, marker] = [drawn.querySelector('line'), drawn.querySelector('path')];
          return [line.getAttribute('stroke-dasharray'), marker.getAttribute('d')];
        })""",
        _curves.styles(7),
    )
    assert len({dash for dash, _ in found}) == 7
    assert len({marker for _, marker in found}) == 7


def test_levels_and_lines_are_named_in_the_key(page, chart):
    chart()
    assert page.locator(".fpt-key > span").all_inner_texts() == ["first", "second", "chance 50.0 %"]
    assert page.locator(".fpt-level").count() == 2  # the line itself and its sample


def test_the_keyboard_moves_the_cursor_over_all_steps_and_reads_them(page, chart):
    drawn = chart()
    drawn.focus()
    for key, x in (("ArrowRight", "20"), ("ArrowRight", "30"), ("End", "40"), ("ArrowRight", "40"), ("Home", "10")):
        page.keyboard.press(key)
        assert drawn.get_attribute("data-cursor") == x
    assert page.evaluate("() => window.said.at(-1)") == "gradient steps 10: first 0; second .250"
    assert page.evaluate("() => window.said[0]") == "gradient steps 20: first .500; second .250"
    page.keyboard.press("Escape")
    assert drawn.get_attribute("data-cursor") == ""


def test_hovering_reads_the_nearest_step_and_leaving_ends_it(page, chart):
    drawn = chart()
    box = drawn.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 80)
    assert drawn.get_attribute("data-cursor") == "30"
    assert page.locator(".fpt-key b").first.inner_text() == "1.000"
    page.mouse.move(box["x"] + 700, box["y"] + 500)
    assert drawn.get_attribute("data-cursor") == ""


def test_a_chart_that_is_led_from_outside_tells_where_it_was_clicked_and_does_not_move_itself(page, chart):
    drawn = chart(tells=True, cursor=20)
    box = drawn.bounding_box()
    page.mouse.click(box["x"] + 380, box["y"] + 80)
    assert page.evaluate("() => window.moved") == [40]
    assert drawn.get_attribute("data-cursor") == "20"
    page.evaluate("() => window.chart.draw({ ...window.spec, cursor: 40 })")
    assert drawn.get_attribute("data-cursor") == "40"


def test_a_moved_cursor_redraws_no_curve(page, chart):
    chart(tells=True, cursor=10)
    page.evaluate(
        """() => {
          window.before = document.querySelector('.fpt-line');
          window.chart.draw({ ...window.spec, cursor: 30 });
        }"""
    )
    assert page.evaluate("() => window.before === document.querySelector('.fpt-line')")
    page.evaluate("() => window.chart.draw({ ...window.spec, yRange: [0, 2] })")
    assert not page.evaluate("() => window.before === document.querySelector('.fpt-line')")


@pytest.mark.parametrize("lines", [[], [{"label": "", "series": 0, "x": [], "y": []}]], ids=["no line", "empty line"])
def test_an_empty_chart_has_axes_and_takes_keys(page, chart, lines):
    drawn = chart(lines=lines)
    drawn.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".fpt-axis").count() > 2
    assert page.evaluate("() => window.said") == []


def test_intervals_span_their_bounds(page):
    rows = [{"label": "a run", "value": 0.5, "low": 0.4, "high": 0.8, "series": 0, "words": "50.0 %"}]
    page.evaluate(
        """([rows, styles]) => {
          const made = curves.dots("made");
          document.querySelector('main').replaceChildren(made.node);
          const levels = [{ at: 0, label: "zero" }, { at: 1, label: "one" }];
          made.draw({ width: 500, rows, range: [0, 1], levels, styles, xTitle: "accuracy" });
        }""",
        [rows, _curves.styles(1)],
    )
    zero, one = (
        float(x) for x in page.locator(".fpt-level").evaluate_all("(all) => all.map((l) => l.getAttribute('x1'))")
    )
    d = page.locator("svg.fpt-plot path[fill=none]").nth(1).get_attribute("d")
    low, high = (
        float(part.split(",")[0].strip("MH")) for part in (d.split("H")[0], "H" + d.split("H")[1].split("M")[0])
    )
    assert (low - zero) / (one - zero) == pytest.approx(0.4, abs=1e-3)
    assert (high - zero) / (one - zero) == pytest.approx(0.8, abs=1e-3)


def test_many_points_reach_the_page_as_means_of_as_many_steps_as_it_takes():
    curves = _curves.Curves()
    curves.at, curves.loss, curves.accuracy = list(range(1, 5002)), [float(i) for i in range(5001)], [0.5] * 5001
    found = curves.to_page(1000)
    assert found["window"] == 10
    assert len(found["batch"]["step"]) <= 1000
    assert found["batch"]["step"][-1] == 5001
    curves.loss[3] = float("nan")
    json.dumps(found, allow_nan=False)
