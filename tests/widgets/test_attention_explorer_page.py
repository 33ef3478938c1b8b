"""What the explorer's page does when it is clicked, typed at and hovered over; Python answers, no notebook runs."""

from __future__ import annotations

from dataclasses import replace
import re

from made_attention import make_maps
import numpy as np
import pytest
import torch

from fpt_viz.records import AblationEffects
from fpt_viz.widgets._patterns import quantised
from fpt_viz.widgets.attention_explorer import AttentionExplorer

pytestmark = [pytest.mark.browser]
FIRST = {"widget": "AttentionExplorer", "choice": {"layer": 0, "head": 0}}


def field(shown, words: str):
    return shown.page.locator("label", has_text=words).locator("select, input")


def of_grid(shown, x: float, y: float) -> tuple[float, float]:
    box = shown.page.locator("canvas.fpt-grid").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(shown, name: str) -> str:
    return shown.page.locator(f"canvas.fpt-{name}").evaluate("(canvas) => canvas.toDataURL()")


def made_effects(n_layers: int = 2, n_heads: int = 3) -> AblationEffects:
    heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    drops = tuple(0.01 * i for i in range(len(heads)))
    spans = tuple((drop - 0.01, drop + 0.01) for drop in drops)
    return AblationEffects(
        sets=tuple((head,) for head in heads), accuracy_drop=drops, accuracy_interval=spans, loss_rise=drops,
        loss_interval=spans, logit_drop=drops, logit_interval=spans, baseline_accuracy=1.0, baseline_loss=0.0,
        baseline_logit=5.0, ablation="zero", split="validation", n_examples=8,
    )  # fmt: skip


def test_a_click_on_a_tile_shows_that_head_with_its_exact_weights(bare):
    maps = make_maps()
    shown = bare(AttentionExplorer(maps))
    shown.page.mouse.click(*of_grid(shown, 0.95, 0.9))
    shown.settled()
    assert (shown.widget.choice["layer"], shown.widget.choice["head"]) == (1, 2)
    assert shown.page.locator("h4").first.inner_text() == "L1H2"
    exact = np.frombuffer(shown.widget.detail["values"]["data"], dtype=np.float32).reshape(6, 6)
    np.testing.assert_allclose(exact, maps.weights[1, :, 2].mean(0), atol=1e-7)


def test_the_arrow_keys_walk_over_the_heads_and_the_status_says_which(bare):
    shown = bare(AttentionExplorer(make_maps(), state=FIRST))
    shown.page.locator("canvas.fpt-grid").focus()
    for pressed, wanted in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("ArrowLeft", (1, 0)), ("ArrowUp", (0, 0))):
        shown.page.keyboard.press(pressed)
        shown.settled()
        assert (shown.widget.choice["layer"], shown.widget.choice["head"]) == wanted
        assert shown.status.startswith(f"L{wanted[0]}H{wanted[1]}: routing score ")


@pytest.mark.slow
def test_hovering_a_tile_says_the_exact_weight_of_the_cell_below_the_pointer(bare):
    """Every cell of one pattern is read off the status line, and is the weight in the maps."""
    maps = make_maps()
    shown = bare(AttentionExplorer(maps, state={**FIRST, "choice": {"example": 2}}))
    found = set()
    for step in range(40):
        shown.page.mouse.move(*of_grid(shown, 0.11 + 0.2 * step / 40, 0.2 + 0.2 * (step % 7) / 7))
        shown.page.wait_for_timeout(30)
        told = re.fullmatch(r"L0H0: (t\d)=\d reads (t\d)=\d, weight (\.\d+|1\.0+|0); .*", shown.status)
        if told:
            query, key = int(told[1][1:]), int(told[2][1:])
            assert float(told[3]) == pytest.approx(float(maps.weights[0, 2, 0, query, key]), abs=6e-5)
            found.add((query, key))
    assert len(found) > 8


@pytest.mark.slow
def test_one_example_and_the_mean_are_each_the_maps_own(bare):
    maps = make_maps()
    shown = bare(AttentionExplorer(maps, state=FIRST))
    field(shown, "mean over examples").uncheck()
    shown.settled()
    field(shown, "example").last.fill("3")
    shown.settled()
    assert shown.widget.choice["example"] == 3
    exact = np.frombuffer(shown.widget.detail["values"]["data"], dtype=np.float32).reshape(6, 6)
    np.testing.assert_array_equal(exact, maps.weights[0, 3, 0])
    assert shown.widget.detail["column_labels"][0] == "t0=1"
    field(shown, "mean over examples").check()
    shown.settled()
    assert shown.widget.choice["example"] == -1
    assert shown.widget.detail["column_labels"][0] == "t0"


@pytest.mark.slow
def test_sorting_puts_the_highest_first_and_a_threshold_leaves_the_rest_out(bare):
    maps = make_maps()
    shown = bare(AttentionExplorer(maps, effects=made_effects()))
    scores = shown.widget.fixed["metrics"]["a"]["routing"]["values"]
    field(shown, "sort heads by").select_option("routing")
    shown.settled()
    shown.page.mouse.click(*of_grid(shown, 0.1, 0.2))
    shown.settled()
    best = max((score, (layer, head)) for layer, row in enumerate(scores) for head, score in enumerate(row))
    assert (shown.widget.choice["layer"], shown.widget.choice["head"]) == best[1]
    field(shown, "sort heads by").select_option("ablation")
    shown.settled()
    shown.page.locator("input[type=number]").fill("0.025")
    shown.page.locator("input[type=number]").press("Enter")
    shown.settled()
    assert shown.page.locator("[data-drawn]").first.get_attribute("data-drawn") == "3"  # .03, .04 and .05


@pytest.mark.slow
def test_the_scale_is_one_for_all_heads_and_is_said(bare):
    shown = bare(AttentionExplorer(make_maps()))
    field(shown, "scale to").select_option(".50")
    shown.settled()
    assert shown.page.locator(".fpt-scale").inner_text().split() == ["weight", "0", ".50"]
    tiles = np.frombuffer(shown.widget.tiles["values"]["data"], dtype=np.uint8).reshape(2, 3, 6, 6)
    mean = shown.widget._sides["a"].weights(-1)
    np.testing.assert_array_equal(tiles, np.rint(np.clip(mean / 0.5, 0, 1) * 254).astype(np.uint8))


@pytest.mark.slow
def test_lines_are_drawn_and_a_click_on_a_query_leaves_its_lines_alone(bare):
    shown = bare(AttentionExplorer(make_maps(), state=FIRST))
    pattern = pixels(shown, "one")
    field(shown, "one head as").select_option("lines")
    shown.settled()
    lines = pixels(shown, "one")
    assert lines != pattern
    canvas = shown.page.locator("canvas.fpt-one")
    canvas.click(position={"x": 40, "y": 22 + 2.5 * 20})
    shown.settled()
    assert shown.widget.choice["query"] == 2
    assert pixels(shown, "one") != lines
    canvas.focus()
    shown.page.keyboard.press("ArrowDown")
    shown.settled()
    assert shown.widget.choice["query"] == 3


@pytest.mark.slow
def test_the_keyboard_reads_a_pattern_weight_by_weight_and_enter_keeps_a_query(bare):
    maps = make_maps()
    shown = bare(AttentionExplorer(maps, state={**FIRST, "choice": {"example": 1, "layer": 1, "head": 1}}))
    shown.page.locator("canvas.fpt-one").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        shown.page.keyboard.press(key)
    weight = float(maps.weights[1, 1, 1, 2, 1])
    assert shown.status == f"L1H1: t2=1 reads t1=0, weight {f'{weight:.4f}'.lstrip('0')}"
    shown.page.keyboard.press("Enter")
    shown.settled()
    assert shown.widget.choice["query"] == 2


@pytest.mark.slow
def test_a_difference_is_the_second_less_the_first_on_a_scale_even_about_0(bare):
    first, second = make_maps(), make_maps(seed=8)
    shown = bare(AttentionExplorer(first, compare=second))
    field(shown, "show").first.select_option("difference (second less first)")
    shown.settled()
    scale = shown.widget.tiles["scale"]
    assert scale["low"] == -scale["high"] < 0
    exact = np.frombuffer(shown.widget.detail["values"]["data"], dtype=np.float32).reshape(6, 6)
    layer, head = shown.widget.choice["layer"], shown.widget.choice["head"]
    wanted = (second.weights - first.weights)[layer, :, head].mean(0)
    np.testing.assert_allclose(exact, wanted, atol=1e-6)


@pytest.mark.slow
def test_many_tokens_are_binned_and_dragging_shows_a_part_as_it_is(bare):
    maps = make_maps(1, 2, 600, n_examples=1)
    shown = bare(AttentionExplorer(maps))
    assert len(shown.widget.tiles["values"]["data"]) <= 2_000_000
    assert len(shown.widget.detail["values"]["data"]) <= 2_000_000
    assert "each cell the largest of 3 x 3 weights" in shown.page.locator("h4").first.inner_text()
    box = shown.page.locator("canvas.fpt-one").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 40, y + 40, steps=3)
    shown.page.mouse.up()
    shown.settled()
    top, bottom, left, right = shown.widget.choice["zoom"]
    exact = np.frombuffer(shown.widget.detail["values"]["data"], dtype=np.float32).reshape(bottom - top, right - left)
    layer, head = shown.widget.choice["layer"], shown.widget.choice["head"]
    np.testing.assert_allclose(exact, maps.weights[layer, 0, head, top:bottom, left:right], atol=1e-7)
    shown.page.get_by_role("button", name="whole pattern").click()
    shown.settled()
    assert shown.widget.choice["zoom"] is None


@pytest.mark.slow
def test_what_a_causal_model_cannot_see_is_never_coloured(bare):
    widget = AttentionExplorer(make_maps(causal=True))
    tiles = np.frombuffer(widget.tiles["values"]["data"], dtype=np.uint8).reshape(2, 3, 6, 6)
    assert (tiles[..., ~np.tri(6, dtype=bool)] == 255).all()
    assert (tiles[..., np.tri(6, dtype=bool)] != 255).all()
    shown = bare(widget, dark=True)
    shown.page.locator("canvas.fpt-one").focus()
    shown.page.keyboard.press("ArrowRight")
    assert shown.status.endswith("t0 reads t1, not seen")


@pytest.mark.slow
def test_an_answer_that_does_not_come_is_said_and_the_old_picture_pales(bare):
    shown = bare(AttentionExplorer(make_maps(), state=FIRST))
    shown.page.evaluate("() => { window.fpt.WAIT_MS = 50; window.fptChoose = () => new Promise(() => {}); }")
    shown.page.mouse.click(*of_grid(shown, 0.95, 0.9))
    shown.page.locator(".fpt-waiting").wait_for()
    assert "the kernel is busy, or it is gone" in shown.notice


@pytest.mark.slow
def test_taking_the_view_away_leaves_no_listener_behind(bare):
    shown = bare(AttentionExplorer(make_maps()))
    n_before = shown.page.evaluate("() => Object.values(window.fptModel.listeners).flat().length")
    assert n_before > 0
    shown.page.evaluate("() => window.fptUndo()")
    assert shown.page.evaluate("() => Object.values(window.fptModel.listeners).flat().length") == 0
    assert shown.page.locator(".fpt").count() == 0


@pytest.mark.slow
def test_a_saved_page_answers_clicks_without_python(chromium, tmp_path):
    maps = make_maps()
    path = AttentionExplorer(maps, state=FIRST).save(tmp_path / "heads.html")
    context = chromium.new_context(offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.locator("label", has_text="mean over examples").locator("input").uncheck()
    page.locator("canvas.fpt-grid").focus()
    page.keyboard.press("ArrowRight")
    page.locator("h4", has_text="L0H1").wait_for()
    page.locator("canvas.fpt-one").focus()
    page.keyboard.press("ArrowDown")
    weight = float(maps.weights[0, 0, 1, 1, 0])
    assert page.locator(".fpt-status").inner_text() == f"L0H1: t1=1 reads t0=0, weight {f'{weight:.4f}'.lstrip('0')}"
    assert page.locator(".fpt-notice").inner_text() == ""
    page.locator("label", has_text="scale to").locator("select").select_option(".10")
    assert "saved without Python" in page.locator(".fpt-notice").inner_text()
    context.close()
    assert wrong == []


@pytest.mark.slow
def test_the_8_bit_scale_of_the_page_is_that_of_python(bare):
    shown = bare(AttentionExplorer(make_maps()))
    values = torch.linspace(-0.2, 1.3, 500).tolist()
    found = shown.page.evaluate(
        "(values) => values.map((one) => window.fptPaint.step(one, { low: 0, high: 1 }))", values
    )
    wanted = quantised(np.array(values, dtype=np.float32), 0.0, 1.0).tolist()
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 1  # ties round otherwise


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 700])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_runs_out_of_the_page(bare, width, dark, tmp_path):
    shown = bare(AttentionExplorer(replace(make_maps(2, 12, 8)), effects=made_effects(2, 12)), width=width, dark=dark)
    assert shown.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    shown.page.screenshot(path=tmp_path / "page.png", full_page=True)
