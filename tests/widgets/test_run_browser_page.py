"""What the table of runs does when it is sorted, filtered and ticked; Python answers, no notebook runs."""

from __future__ import annotations

from pathlib import Path
import runpy

import pytest

from fpt_viz.records import run as run_files
from fpt_viz.widgets.run_browser import RunBrowser

pytestmark = [pytest.mark.browser, pytest.mark.slow]
made = runpy.run_path(str(Path(__file__).parents[1] / "viewers" / "conftest.py"))
BY_PATH = ["bit_memory", "cut", "p0", "p1", "r0"]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three finished runs on XOR, one on another task, and one that was cut off."""
    folder = tmp_path / "runs"
    made["make_run"](folder / "p0", seed=0, solved=50, accuracy=0.99)
    made["make_run"](folder / "p1", seed=1, solved=40, accuracy=0.97)
    made["make_run"](folder / "r0", "random", solved=None, learning_rate=0.01)
    made["make_run"](folder / "cut", seed=10)
    (folder / "cut" / run_files.RESULT).unlink()
    record = made["make_run"](folder / "bit_memory", seed=2, accuracy=0.8)
    text = (record.path / run_files.CONFIG).read_text().replace("bit_xor", "bit_memory")
    (record.path / run_files.CONFIG).write_text(text)
    run_files.seal(record.path, {k: v for k, v in record.result.items() if k not in ("files", "sha256")})
    return folder


def paths(page) -> list[str]:
    return page.locator(".fpt-runs tbody th").all_inner_texts()


def sorts(page) -> dict[str, str]:
    """Headings by which the table says that it is sorted."""
    heads = page.locator(".fpt-runs thead th[aria-sort]")
    found = heads.evaluate_all("(all) => all.map((one) => [one.innerText, one.getAttribute('aria-sort')])")
    return {words.rstrip(" ▲▼"): way for words, way in found if way != "none"}


def heading(page, words: str):
    return page.locator(".fpt-runs thead button").filter(has_text=words)


def test_a_heading_sorts_by_click_and_turns_the_order_by_the_keyboard(bare, runs):
    shown = bare(RunBrowser(runs))
    assert paths(shown.page) == BY_PATH
    assert sorts(shown.page) == {"run": "ascending"}
    heading(shown.page, "test accuracy").click()
    shown.settled()
    assert paths(shown.page) == ["r0", "bit_memory", "p1", "p0", "cut"]
    assert sorts(shown.page) == {"test accuracy (95 %)": "ascending"}
    heading(shown.page, "test accuracy").press("Enter")
    shown.settled()
    assert paths(shown.page) == ["p0", "p1", "bit_memory", "r0", "cut"]  # what is not known stays last
    assert sorts(shown.page) == {"test accuracy (95 %)": "descending"}
    assert shown.status == "sorted by test accuracy (95 %), descending"
    assert (shown.widget.choice["sort"], shown.widget.choice["descending"]) == ("accuracy", True)


def test_runs_that_are_ticked_are_drawn_and_given_to_python(bare, runs):
    shown = bare(RunBrowser(runs))
    page = shown.page
    for path in ("r0", "p1"):
        page.get_by_label(f"select {path}").check()
        shown.settled()
    assert [record.path.name for record in shown.widget.selected] == ["r0", "p1"]
    assert page.locator("[data-chart=accuracy] .fpt-key > span").all_inner_texts() == [
        "minilm random seed 0", "minilm pretrained seed 1", "chance, copy a 50.0 %", "majority 55.0 %",
    ]  # fmt: skip
    texts = page.locator(".fpt-pane svg[role=img] text").all_text_contents()
    assert "97.0 % (95.8 to 98.2)" in texts
    assert "51.3 % (50.1 to 52.5)" in texts
    assert "majority 55.0 %" in texts
    rows = page.locator(".fpt-differences tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["backbone.init", "random", "pretrained"], ["train.learning_rate", "0.01", "0.001"], ["train.seed", "0", "1"],
    ]  # fmt: skip
    page.get_by_label("select p1").uncheck()
    shown.settled()
    assert shown.widget.choice["selected"] == ["r0"]
    assert not page.locator(".fpt-differences").is_visible()


def test_a_broken_run_is_shown_with_its_reason_and_cannot_be_ticked(bare, runs):
    page = bare(RunBrowser(runs)).page
    assert page.get_by_label("select cut").is_disabled()
    reason = page.locator(".fpt-reason").inner_text()
    assert "60 of at most 60 steps are saved" in reason
    assert "result.json is missing" in reason


@pytest.mark.slow
def test_numbers_sort_as_numbers_and_words_as_words(bare, runs):
    shown = bare(RunBrowser(runs))
    wanted = {"seed": ["p0", "r0", "p1", "bit_memory", "cut"], "task": ["bit_memory", "cut", "p0", "p1", "r0"]}
    wanted["solved at step"] = ["p1", "bit_memory", "p0", "cut", "r0"]
    for words, order in wanted.items():
        heading(shown.page, words).click()
        shown.settled()
        assert paths(shown.page) == order


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("xor", ["cut", "p0", "p1", "r0"]),
        ("random XOR", ["r0"]),
        ("unfinished", ["cut"]),
        ("missing", ["cut"]),
        ("97.0", ["p1"]),
        ("nothing has this", []),
        ("", BY_PATH),
    ],
    ids=["task", "two words", "status", "reason", "accuracy", "none", "empty"],
)
def test_the_filter_keeps_rows_that_hold_all_words(bare, runs, words, left):
    shown = bare(RunBrowser(runs))
    shown.page.get_by_label("filter").press_sequentially(words)
    typed = "(words) => window.fptModel.values.choice.filter === words && window.fptModel.n_asked === words.length"
    shown.page.wait_for_function(typed if words else "() => true", arg=words)
    shown.settled()
    assert paths(shown.page) == left
    assert shown.page.get_by_label("filter").input_value() == words
    assert shown.page.locator(".fpt-count").inner_text() == f"{len(left)} of 5 runs, 0 selected"
    assert shown.widget.choice["filter"] == words


@pytest.mark.slow
def test_all_shown_and_none_are_selected_with_one_press(bare, runs):
    shown = bare(RunBrowser(runs, "xor"))
    shown.page.get_by_role("button", name="Select all shown").press("Space")
    shown.settled()
    assert shown.widget.choice["selected"] == ["p0", "p1", "r0"]  # not the one that was cut off
    shown.page.get_by_role("button", name="Select none").click()
    shown.settled()
    assert shown.widget.choice["selected"] == []
    assert "Select finished runs" in shown.page.locator(".fpt-apart").inner_text()


@pytest.mark.slow
def test_runs_of_different_tasks_share_no_axis_and_their_configs_are_compared(bare, runs):
    shown = bare(RunBrowser(runs))
    for path in ("p0", "bit_memory"):
        shown.page.get_by_label(f"select {path}").check()
    shown.settled()
    assert "different tasks (bit_xor, bit_memory)" in shown.page.locator(".fpt-apart").inner_text()
    assert not shown.page.locator("[data-chart=accuracy]").is_visible()
    assert "task.name" in shown.page.locator(".fpt-differences").inner_text()


@pytest.mark.slow
def test_ticking_keeps_the_keyboard_where_it_was(bare, runs):
    shown = bare(RunBrowser(runs))
    shown.page.get_by_label("select p1").focus()
    shown.page.keyboard.press("Space")
    shown.settled()
    assert shown.page.evaluate("() => document.activeElement.dataset.path") == "p1"
    shown.page.keyboard.press("Space")
    shown.settled()
    assert shown.widget.choice["selected"] == []


@pytest.mark.slow
def test_looking_again_shows_what_came_meanwhile(bare, runs):
    shown = bare(RunBrowser(runs))
    made["make_run"](runs / "later", seed=7)
    shown.page.get_by_role("button", name="Look again").click()
    shown.settled()
    assert "later" in paths(shown.page)


@pytest.mark.slow
def test_more_than_four_runs_are_drawn_by_their_checks_alone(bare, runs):
    for seed in (5, 6):
        made["make_run"](runs / f"p{seed}", seed=seed)
    browser = RunBrowser(runs)
    browser.choose(selected=["p0", "p1", "r0", "p5"])
    page = bare(browser).page
    drawn = page.locator("[data-chart=loss] svg.fpt-plot")
    assert drawn.get_attribute("data-lines") == "8"
    page.get_by_label("select p6").check()
    page.wait_for_function("() => document.querySelector('[data-chart=loss] svg.fpt-plot').dataset.lines === '5'")


@pytest.mark.slow
def test_a_saved_page_sorts_filters_and_draws_with_no_python(chromium, runs, tmp_path):
    wrong = []
    RunBrowser(runs).to_html(tmp_path / "page.html")
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".fpt[data-ready=true]").wait_for()
    heading(page, "seed").click()
    page.get_by_label("filter").fill("pretrained xor")
    page.get_by_role("button", name="Select all shown").click()
    page.wait_for_function("() => document.querySelector('.fpt-panes').dataset.selected === '2'")
    assert paths(page) == ["p0", "p1", "cut"]
    assert page.locator("[data-chart=accuracy] .fpt-line").count() == 4
    page.get_by_role("button", name="Look again").click()  # it cannot, and keeps what it has
    page.wait_for_timeout(100)
    assert paths(page) == ["p0", "p1", "cut"]
    context.close()
    assert wrong == []


@pytest.mark.slow
def test_names_of_runs_are_words_and_no_markup(bare, runs):
    (runs / "p0").rename(runs / "<img src=x onerror=alert(1)>")
    shown = bare(RunBrowser(runs))
    assert "<img src=x onerror=alert(1)>" in paths(shown.page)
    assert shown.page.locator(".fpt img").count() == 0


@pytest.mark.slow
def test_two_hundred_choices_leave_no_nodes_behind(bare, runs):
    shown = bare(RunBrowser(runs))
    press = """async (n) => {
      const box = (path) => document.querySelector(`input[data-path="${path}"]`);
      for (let i = 0; i < n; i++) {
        box(i % 2 ? 'p0' : 'p1').click();
        do await new Promise((done) => requestAnimationFrame(done)); while (fptModel.n_answered !== fptModel.n_asked);
      }
      return document.querySelectorAll('*').length;
    }"""
    before = shown.page.evaluate(press, 4)
    shown.settled()
    after = shown.page.evaluate(press, 200)
    shown.settled()
    assert after == before
