"""What the movie's page does when it is played, dragged and typed at; Python answers, no notebook runs."""

from __future__ import annotations

from pathlib import Path
import runpy
import time

import numpy as np
import pytest

from fpt_viz.widgets.training_movie import TrainingMovie

pytestmark = [pytest.mark.browser, pytest.mark.slow]
filmed = runpy.run_path(str(Path(__file__).with_name("test_training_movie.py")))["filmed"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filmed")
    return filmed(folder / "pretrained"), filmed(folder / "random", "random")


@pytest.fixture
def saved(chromium, tmp_path):
    """A function that opens a widget's saved page with the network off; anything it asks for or logs is an error."""
    contexts, wrong = [], []

    def open_(widget, *, dark: bool = False):
        path = tmp_path / "page.html"
        widget.to_html(path)
        context = chromium.new_context(offline=True, color_scheme="dark" if dark else "light")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text))
        page.on("request", lambda asked: asked.url.startswith("file:") or wrong.append(asked.url))
        page.goto(path.as_uri())
        page.locator(".fpt[data-ready=true]").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def shown(page) -> dict[str, str]:
    """Which step each part of the page says that it shows."""
    return {
        "slider": page.locator("input[type=range]").first.evaluate("(one) => one.nextSibling.textContent"),
        "accuracy": page.locator("[data-chart=accuracy] svg").first.get_attribute("data-cursor"),
        "loss": page.locator("[data-chart=loss] svg").first.get_attribute("data-cursor"),
        "scores": page.locator("canvas.fpt-scores").first.get_attribute("data-step"),
        "pattern": page.locator("canvas.fpt-pattern").first.get_attribute("data-drawn").split()[-1],
    }


def all_at(step: int) -> dict[str, str]:
    return {
        "slider": f"{step} of 60",
        "accuracy": f"{step}",
        "loss": f"{step}",
        "scores": f"{step}",
        "pattern": f"{step}",
    }


def pixels(page, selector: str) -> str:
    """What a canvas shows."""
    return page.locator(selector).first.evaluate("(canvas) => canvas.toDataURL()")


def norm_paths(page) -> list[str]:
    return page.locator("[data-chart=gains] .fpt-line").evaluate_all("(all) => all.map((one) => one.getAttribute('d'))")


def test_the_slider_moves_curves_scores_patterns_and_gains_together(bare, pair):
    page = bare(TrainingMovie(pair[0], compare=pair[1]))
    slider, seen = page.page.locator("input[type=range]").first, []
    slider.focus()
    for key, step in (("Home", 0), ("ArrowRight", 20), ("ArrowRight", 40), ("End", 60)):
        page.page.keyboard.press(key)
        page.settled()
        assert shown(page.page) == all_at(step)
        assert page.widget.choice["step"] == step
        canvases = [pixels(page.page, f"[data-run='0'] canvas.{name}") for name in ("fpt-scores", "fpt-pattern")]
        seen.append((*canvases, norm_paths(page.page)))
    for place in range(3):
        assert len({str(one[place]) for one in seen}) == 4


def test_the_saved_page_plays_to_the_end_with_no_python_and_no_network(saved, pair):
    movie = TrainingMovie(pair[0], compare=pair[1])
    movie.choose(step=0, speed=16)
    page = saved(movie)
    assert shown(page) == all_at(0)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('.fpt').dataset.step === '60'", timeout=10_000)
    page.get_by_role("button", name="Play").wait_for()
    assert shown(page) == all_at(60)
    assert page.locator(".fpt-notice").inner_text() == ""


@pytest.mark.slow
def test_the_saved_page_shows_every_example_and_head(saved, pair):
    page = saved(TrainingMovie(pair[0]), dark=True)
    mean = pixels(page, "canvas.fpt-pattern")
    page.get_by_label("mean over examples").uncheck()
    page.wait_for_timeout(100)
    first = pixels(page, "canvas.fpt-pattern")
    page.locator("input[type=range]").nth(1).press("End")
    page.wait_for_timeout(100)
    assert len({str(one) for one in (mean, first, pixels(page, "canvas.fpt-pattern"))}) == 3
    page.locator("canvas.fpt-scores").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.locator("canvas.fpt-pattern").count() == 3
    assert page.locator(".fpt-notice").inner_text() == ""


@pytest.mark.slow
def test_play_goes_through_every_step_and_tells_python_where_it_ends(bare, pair):
    movie = TrainingMovie(pair[0])
    movie.choose(step=0, speed=8)
    page = bare(movie)
    page.page.evaluate("""() => {
      window.seen = [];
      const root = document.querySelector('.fpt');
      new MutationObserver(() => window.seen.push(root.dataset.step)).observe(root, { attributeFilter: ['data-step'] });
    }""")
    page.page.get_by_role("button", name="Play").click()
    pause = page.page.get_by_role("button", name="Pause")
    assert pause.get_attribute("aria-pressed") == "true"
    page.page.wait_for_function("() => window.fptModel.values.choice.step === 60")
    page.settled()
    assert list(dict.fromkeys(page.page.evaluate("() => window.seen"))) == ["0", "20", "40", "60"]
    assert page.page.evaluate("() => window.fptModel.n_asked") == 1
    assert movie.choice["step"] == 60
    page.page.get_by_role("button", name="Play").click()  # from the end, it begins anew
    page.page.wait_for_function("() => document.querySelector('.fpt').dataset.step === '20'")
    page.page.get_by_role("button", name="Pause").click()
    page.settled()
    assert movie.choice["step"] < 60
    time.sleep(0.4)
    assert shown(page.page) == all_at(movie.choice["step"])


@pytest.mark.slow
def test_a_faster_speed_takes_less_time(bare, pair):
    movie, taken = TrainingMovie(pair[0]), []
    page = bare(movie)
    for speed in ("1", "16"):
        page.page.locator("input[type=range]").first.press("Home")
        page.page.get_by_label("steps a second").select_option(speed)
        page.settled()
        began = time.perf_counter()
        page.page.get_by_role("button", name="Play").click()
        page.page.wait_for_function("() => document.querySelector('.fpt').dataset.step === '40'")
        taken.append(time.perf_counter() - began)
        page.page.get_by_role("button", name="Pause").click()
    assert movie.choice["speed"] == 16
    assert taken[0] > 1.9
    assert taken[1] < taken[0] / 2


@pytest.mark.slow
def test_a_click_and_the_arrow_keys_in_a_chart_move_through_training(bare, pair):
    page = bare(TrainingMovie(pair[0]))
    chart = page.page.locator("[data-chart=accuracy] svg.fpt-plot")
    box = chart.bounding_box()
    page.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 90)  # at about step 20 of 60
    page.settled()
    assert shown(page.page) == all_at(20)
    assert page.status.startswith("step ")
    chart.focus()
    page.page.keyboard.press("End")
    page.settled()
    assert shown(page.page) == all_at(60)


@pytest.mark.slow
def test_dragging_in_a_chart_scrubs(bare, pair):
    page = bare(TrainingMovie(pair[0]))
    box = page.page.locator("[data-chart=loss] svg.fpt-plot").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 90)
    page.page.mouse.down()
    for share in (0.8, 0.5, 0.12):
        page.page.mouse.move(box["x"] + share * box["width"], box["y"] + 90)
    page.page.mouse.up()
    page.settled()
    assert page.widget.choice["step"] == 0


@pytest.mark.slow
def test_clicking_a_head_shows_its_pattern_and_again_hides_it(bare, pair):
    page = bare(TrainingMovie(pair[0], compare=pair[1], heads=[(1, 2)]))
    grid = page.page.locator("[data-run='1'] canvas.fpt-scores")
    box = grid.bounding_box()
    assert page.page.locator("canvas.fpt-pattern").count() == 2  # one head of each run
    grid.click(position={"x": 26 + 40 * 0.5, "y": 16 + 10})
    page.settled()
    assert page.widget.choice["heads"] == [[1, 2], [0, 0]]
    assert page.page.locator("canvas.fpt-pattern").count() == 4
    assert "L0H0: routing score" in page.status
    assert "its pattern is shown" in page.status
    grid.click(position={"x": 26 + 40 * 0.5, "y": 16 + 10})
    page.settled()
    assert page.widget.choice["heads"] == [[1, 2]]
    assert page.page.locator("canvas.fpt-pattern").count() == 2
    assert box["width"] > 100


@pytest.mark.slow
def test_the_keyboard_walks_over_the_heads_and_reads_their_scores(bare, pair):
    page = bare(TrainingMovie(pair[0], heads=[]))
    page.page.locator("canvas.fpt-scores").focus()
    scores = pair[0].telemetry().routing_score[-1]
    for key, (layer, head) in (
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 1)),
        ("ArrowRight", (1, 2)),
        ("ArrowDown", (1, 2)),
    ):
        page.page.keyboard.press(key)
        value = f"{float(scores[layer, head]):.3f}".removeprefix("0")
        assert f"L{layer}H{head}: routing score {value}" in page.status
    page.page.keyboard.press("Enter")
    page.settled()
    assert page.widget.choice["heads"] == [[1, 2]]


@pytest.mark.slow
def test_hovering_over_a_pattern_reads_the_captured_weight(bare, pair):
    page = bare(TrainingMovie(pair[0], heads=[(1, 2)]))
    canvas = page.page.locator("canvas.fpt-pattern")
    canvas.focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowDown")
    value = float(pair[0].telemetry().patterns[-1, 6, :, 1, 1].float().mean())
    wanted = f"L1H2: b1 reads a1, weight {value:.4f}".replace("weight 0.", "weight .")
    page.page.wait_for_function(
        "(text) => document.querySelector('.fpt-status').textContent.includes(text)", arg=wanted
    )
    page.page.mouse.move(0, 0)
    box = canvas.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] - 8)
    page.page.wait_for_function(
        "() => document.querySelector('.fpt-status').textContent.includes('b2 reads b2, weight')"
    )


@pytest.mark.slow
def test_the_other_measure_of_gains_is_drawn_from_its_own_numbers(bare, pair):
    page = bare(TrainingMovie(pair[0]))
    chart = page.page.locator("[data-chart=gains] svg.fpt-plot")
    chart.focus()
    page.page.keyboard.press("Home")
    assert page.status == "backbone.layer.0.attention.norm.weight: change from the start .010"
    page.page.locator("select").nth(1).select_option("rms")
    page.settled()
    page.page.keyboard.press("End")
    assert page.status == "backbone.layer.1.mlp.norm.weight: root mean square 1.400"
    assert page.widget.choice["gains"] == "rms"


@pytest.mark.slow
def test_an_example_is_asked_of_python_and_drawn(bare, pair):
    page = bare(TrainingMovie(pair[0]))
    before = pixels(page.page, "canvas.fpt-pattern")
    page.page.get_by_label("mean over examples").uncheck()
    page.settled()
    assert page.widget.choice["example"] == 0
    assert pixels(page.page, "canvas.fpt-pattern") != before
    page.page.locator("input[type=range]").nth(1).press("ArrowRight")
    page.settled()
    assert page.widget.choice["example"] == 1


@pytest.mark.slow
def test_a_head_without_a_captured_pattern_says_so(bare, pair, tmp_path):
    def few(taken):
        from dataclasses import replace

        return replace(taken, heads=taken.heads[:2], patterns=taken.patterns[:2])

    page = bare(TrainingMovie(pair[0], compare=filmed(tmp_path / "few", change=few), heads=[(1, 2)]))
    assert page.page.locator("[data-run='1'] .fpt-patterns").inner_text() == "L1H2: no pattern captured"
    assert page.page.locator("[data-run='0'] canvas.fpt-pattern").is_visible()


@pytest.mark.slow
def test_two_hundred_steps_leave_no_nodes_behind_and_stay_fast(bare, pair):
    page = bare(TrainingMovie(pair[0], compare=pair[1]))
    count = "() => document.querySelectorAll('*').length"
    slider = page.page.locator("input[type=range]").first
    slider.focus()

    def walk(n: int) -> list[float]:
        return page.page.evaluate(
            """async (n) => {
              const slider = document.querySelector('input[type=range]'), taken = [];
              for (let i = 0; i < n; i++) {
                slider.value = i % 4;
                const began = performance.now();
                slider.dispatchEvent(new Event('input'));
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                taken.push(performance.now() - began);
              }
              return taken;
            }""",
            n,
        )

    walk(4)
    page.settled()
    before = page.page.evaluate(count)
    taken = walk(200)
    page.settled()
    assert page.page.evaluate(count) == before
    assert np.median(taken) < 100  # two frames of the screen are 33 ms


@pytest.mark.slow
def test_undoing_a_playing_movie_stops_it(bare, pair):
    movie = TrainingMovie(pair[0])
    movie.choose(step=0, speed=16)
    page = bare(movie)
    page.page.get_by_role("button", name="Play").click()
    page.page.evaluate("() => window.fptUndo()")
    time.sleep(0.5)
    assert movie.choice["step"] == 0
    assert page.page.locator(".fpt").count() == 0
