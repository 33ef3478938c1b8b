"""The report is one page that opens offline, shows every figure, and says what was not measured."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
import re
import shutil

import pytest

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.records import load_run
from fpt_viz.records.run import seal
from fpt_viz.report import NO_CAUSAL_CHECK, write_report

pytestmark = pytest.mark.slow  # half a minute or so in all

N_FIGURES = 9  # comparison, curves, and of the measured run: grid, heatmap, routing, four of ablation


@pytest.fixture(scope="module")
def report(runs, statistics, test_statistics, tmp_path_factory) -> Path:
    return write_report(
        tmp_path_factory.mktemp("report") / "deep" / "report.html",
        runs,
        title="XOR <b>& more</b>",
        summary=["One sentence.", "<script>alert(1)</script>"],
        statistics={"minilm pretrained seed 0": (statistics, test_statistics)},
    )


@pytest.fixture(scope="module")
def words(report) -> str:
    """The page without plotly's own script."""
    text = report.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>.*?</script>", text, flags=re.S)
    return text.replace(max(scripts, key=len), "")


def test_what_a_caller_writes_is_text_and_no_markup(words):
    assert "<h1>XOR &lt;b&gt;&amp; more&lt;/b&gt;</h1>" in words
    assert "<script>alert" not in words


def test_plotly_js_is_inlined_once_and_nothing_is_loaded(report, words):
    assert report.read_text(encoding="utf-8").count("plotly.js v") == 1
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", words)
    assert not re.findall(r"url\(|@import|<link(?! rel=\"icon\")|<iframe", words)


class Outline(HTMLParser):
    """Headings, ids and figures of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [given["id"] or ""] if "id" in given else []
        self.figures += tag == "figure"
        if given.get("role") == "img":
            self.labels.append(given.get("aria-label") or "")


def test_headings_are_in_order_ids_unique_and_every_figure_has_words(words):
    outline = Outline()
    outline.feed(words)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.figures == len(outline.labels) == N_FIGURES
    assert all(len(label) > 60 for label in outline.labels)


def test_the_page_says_what_was_trained_and_that_the_rest_did_not_move(words, runs):
    assert f"{runs[0].ledger.n_trained:,} of {runs[0].ledger.n_total:,} values were trained" in words
    assert "frozen tensors had the same SHA-256 after the last step as before the first" in words
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in words
    assert "Apache-2.0" in words
    rows = sum(row.name in words for row in runs[0].ledger.rows)
    assert rows == len(runs[0].ledger.rows)


def test_accuracy_stands_beside_chance_and_trivial_solvers(words):
    for value in ("99.9 %", "51.3 %", "50.0 %", "majority 55.0 %", "98.7 % to 100.0 %"):
        assert value in words


def test_the_page_says_how_to_run_it_again(words):
    assert "learning_rate = 0.001" in words
    assert "init = &#34;random&#34;" in words
    assert "2.13.0" in words


def test_what_was_not_measured_is_said_in_words(words):
    for missing in (
        "No head statistics were saved beside this run.",
        "No attention was captured from this run.",
        "The effect of cutting single heads was not measured on this run.",
        "Nothing was cut in minilm random seed 0.",
    ):
        assert missing in words


def test_a_report_without_any_ablation_says_that_nothing_was_checked_causally(runs, tmp_path):
    page = write_report(tmp_path / "report.html", runs[1:], title="Random").read_text(encoding="utf-8")
    assert NO_CAUSAL_CHECK in page
    assert "Attention weight is not explanation" in page


def test_a_run_whose_frozen_weights_moved_is_marked(runs, tmp_path):
    folder = shutil.copytree(runs[1].path, tmp_path / "moved")
    seal(folder, {**{k: v for k, v in runs[1].result.items() if k != "files"}, "frozen_intact": False})
    page = write_report(tmp_path / "report.html", [load_run(folder)], title="Moved").read_text(encoding="utf-8")
    assert "frozen tensors did not stay as they were" in page
    assert "had the same SHA-256" not in page


def test_two_reports_are_the_same_bytes(runs, tmp_path):
    first, second = (write_report(tmp_path / name, runs, title="Same").read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_bad_input_is_told(runs, statistics, test_statistics, tmp_path):
    with pytest.raises(ConfigError, match="no run was given"):
        write_report(tmp_path / "report.html", [], title="None")
    given = {"minilm random seed 1": (statistics, test_statistics)}
    with pytest.raises(UnknownNameError, match="Did you mean 'minilm random seed 0'"):
        write_report(tmp_path / "report.html", runs, title="Wrong", statistics=given)
    assert not list(tmp_path.iterdir())


def opened(browser, path: Path, width: int):
    """The page at ``path`` in an offline window, and what went wrong while it opened."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url))
    page.goto(path.as_uri())
    return page, wrong


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_report_shows_every_figure_offline_without_a_console_error(report, chromium, width):
    page, wrong = opened(chromium, report, width)
    page.wait_for_function(f"document.querySelectorAll('.main-svg').length >= {N_FIGURES}")
    figures = page.locator("[role=img]")
    assert figures.count() == N_FIGURES
    for figure in figures.all():
        box = figure.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
        assert figure.locator(".xaxislayer-above .xtick").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not wrong
    page.context.close()


@pytest.mark.browser
def test_report_text_has_enough_contrast(report, chromium):
    page, _ = opened(chromium, report, 1200)
    ratios = page.evaluate(
        """() => {
          const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
          const behind = (e) => {
            for (; e; e = e.parentElement) {
              const colour = parts(getComputedStyle(e).backgroundColor);
              if (colour.length === 3 || colour[3] > 0) return colour;
            }
            return [255, 255, 255];
          };
          return [...document.querySelectorAll('h1,h2,h3,p,li,a,td,th,dt,dd,figcaption,summary,caption,pre,footer')]
            .map((e) => [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a))
            .map(([a, b]) => (a + 0.05) / (b + 0.05));
        }"""
    )
    assert len(ratios) > 100
    assert min(ratios) >= 4.5
    page.context.close()


@pytest.mark.browser
def test_a_saved_figure_opens_offline(maps, chromium, tmp_path):
    from fpt_viz.figures.attention_heatmap import attention_heatmap

    figure = attention_heatmap(maps, layer=1, head=2)
    page, wrong = opened(chromium, figure.save(tmp_path / "figure.html"), 1200)
    page.locator(".heatmaplayer image").wait_for()
    assert page.locator("[role=img]").get_attribute("aria-label") == figure.alt
    assert "b0=" in page.locator(".yaxislayer-above").text_content()
    assert not wrong
    page.context.close()
