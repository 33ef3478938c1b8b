"""What the page of a training that goes on shows, and what its buttons do; Python answers, no notebook runs.

The browser's driver runs an event loop in this thread, which serves as a kernel's: training goes on while a test waits
for the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import runpy
import time

import pytest

from fpt_viz.records import Step
from fpt_viz.widgets.live_training import LiveTraining

pytestmark = [pytest.mark.browser]
made = runpy.run_path(str(Path(__file__).parents[1] / "viewers" / "conftest.py"))


def apart(call):
    """What ``call`` returns in a thread that has no event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


def steps(n: int, seconds: float = 0.0) -> Iterator[Step]:
    for step in made["make_steps"](n, 0.8 * n):
        time.sleep(seconds)
        yield step


def waiting(source: Iterator[Step], **options) -> LiveTraining:
    return apart(lambda: LiveTraining(source, running=False, **options))


def reached(page) -> str:
    return page.locator(".fpt-progress").inner_text()


def right_end(page, quantity: str = "loss") -> float:
    """How far to the right the curve has come."""
    d = page.locator(f"[data-chart={quantity}] .fpt-line").first.get_attribute("d")
    return float(d.split("L")[-1].strip("M").split(",")[0])


@pytest.mark.slow
def test_the_buttons_start_and_stop_training(bare):
    live = waiting(steps(4_000, 0.002))
    shown = bare(live)
    stop, go_on = (shown.page.get_by_role("button", name=name) for name in ("Stop", "Continue"))
    assert (stop.is_disabled(), go_on.is_disabled()) == (True, False)
    go_on.click()
    shown.settled()
    assert live.status == "running"
    shown.page.wait_for_timeout(200)
    shown.push()
    shown.settled()
    assert (stop.is_disabled(), go_on.is_disabled()) == (False, True)
    stop.click()
    shown.settled()
    n = len(live.steps)
    shown.page.wait_for_timeout(200)
    assert (live.status, len(live.steps)) == ("stopped", n)
    assert reached(shown.page).startswith(f"stopped, {n} steps, ")
    assert 0 < n < 4_000
    live.close()


def test_curves_grow_with_the_steps(bare):
    live = waiting(steps(60), n_steps=60)
    shown, ends = bare(live), []
    for n in (12, 24, 24):
        apart(lambda n=n: live.run(n))
        shown.push()
        shown.settled()
        ends.append(right_end(shown.page))
    assert ends[0] < ends[1] < ends[2]
    assert reached(shown.page).startswith("stopped, 60 steps of 60, ")
    assert "validation accuracy" in reached(shown.page)
    assert shown.page.locator("[data-chart=accuracy] .fpt-key > span").all_inner_texts() == [
        "batch", "validation", "chance, copy a 50.0 %", "majority 55.0 %",
    ]  # fmt: skip


@pytest.mark.slow
def test_an_error_is_shown_and_both_buttons_are_off(bare):
    def failing() -> Iterator[Step]:
        yield from steps(4)
        raise RuntimeError("<b>the loss is nan</b>")

    live = waiting(failing())
    apart(live.run)
    shown = bare(live)
    assert shown.notice == "Training failed after 4 steps: RuntimeError: <b>the loss is nan</b>"
    assert shown.page.get_by_role("button", name="Continue").is_disabled()
    assert shown.page.get_by_role("button", name="Stop").is_disabled()
    assert shown.page.locator(".fpt[data-status=failed]").count() == 1


@pytest.mark.slow
def test_the_keyboard_stays_on_the_buttons_when_one_switches_off(bare):
    live = waiting(steps(4_000, 0.002))
    shown = bare(live)
    shown.page.get_by_role("button", name="Continue").focus()
    for there in ("Stop", "Continue"):
        shown.page.keyboard.press("Enter")
        shown.settled()
        assert shown.page.evaluate("() => document.activeElement.textContent") == there
    assert live.status == "stopped"
    live.close()


@pytest.mark.slow
def test_a_step_is_read_with_the_keyboard_while_curves_grow(bare):
    live = waiting(steps(40))
    apart(lambda: live.run(20))
    shown = bare(live)
    chart = shown.page.locator("[data-chart=loss] svg.fpt-plot")
    chart.focus()
    shown.page.keyboard.press("End")
    assert shown.status.startswith("step 20: batch ")
    apart(lambda: live.run(20))
    shown.push()
    shown.settled()
    assert chart.get_attribute("data-cursor") == "20"  # it stays where the reader is
    shown.page.keyboard.press("End")
    assert shown.status.startswith("step 40: batch ")


@pytest.mark.slow
def test_a_saved_page_shows_how_far_it_was_and_asks_for_the_notebook(chromium, tmp_path):
    live = waiting(steps(30))
    apart(lambda: live.run(25))
    live.to_html(tmp_path / "page.html")
    context = chromium.new_context(offline=True, color_scheme="dark")
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".fpt[data-ready=true]").wait_for()
    assert reached(page).startswith("stopped, 25 steps, ")
    page.get_by_role("button", name="Continue").click()
    assert "saved without Python" in page.locator(".fpt-notice").inner_text()
    assert reached(page).startswith("stopped, 25 steps, ")
    context.close()
    assert wrong == []


@pytest.mark.slow
def test_two_hundred_updates_leave_no_nodes_behind(bare):
    live = waiting(steps(420), n_steps=420)
    apart(lambda: live.run(210))
    shown = bare(live)
    counts = []
    for _ in range(200):
        live._curves.loss[-1] *= 0.999
        live._push()
        shown.push()
        counts.append(shown.page.evaluate("() => document.querySelectorAll('*').length"))
    shown.settled()
    assert shown.page.evaluate("() => document.querySelectorAll('*').length") == counts[0]
