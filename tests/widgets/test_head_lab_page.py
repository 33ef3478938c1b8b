"""What HeadLab's page does when it is clicked and typed at; Python answers, no notebook runs."""

from __future__ import annotations

import pytest
import torch

from fpt_viz.backbones import load_backbone
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task
from fpt_viz.widgets.head_lab import HeadLab

pytestmark = [pytest.mark.browser]


def made(n_examples: int = 12) -> HeadLab:
    model = FrozenPretrainedTransformer(load_backbone("bert-tiny-random", "random", 2), load_task("bit_xor", n_bits=3))
    with torch.no_grad():
        model.output.weight.mul_(50)
    return HeadLab(model.eval(), n_examples=n_examples)


def counted(shown, n: int = 12) -> None:
    """Wait until accuracy is told over ``n`` examples, of what was chosen last."""
    shown.settled()
    shown.page.wait_for_function("(n) => document.querySelector('.fpt-totals').dataset.n === n", arg=str(n))
    shown.settled()


def tile(layer: int, head: int) -> dict[str, float]:
    """The middle of a tile: 84 wide, 84 high below its score, 6 apart."""
    return {"x": 30 + 42 + 90 * head, "y": 16 + 15 + 42 + (84 + 15 + 6) * layer}


def row(layer: int) -> tuple[tuple[int, int], ...]:
    return tuple((layer, head) for head in range(4))


def test_a_click_switches_a_head_off_and_example_accuracy_and_python_follow(bare):
    shown = bare(made())
    counted(shown)
    grid = shown.page.locator("canvas.fpt-grid")
    grid.click(position=tile(1, 0))
    counted(shown)
    lab = shown.widget
    assert lab.cut == ((1, 0),)
    assert grid.get_attribute("data-drawn") == "1,0"
    assert shown.status == "L1H0 is off"
    assert "fpt.ablated(model.eval(), [(1, 0)]" in shown.page.locator(".fpt-code").inner_text()
    accuracy = shown.page.locator(".fpt-totals tr").nth(1).inner_text()
    assert f"{100 * lab.totals['accuracy'][0]:.1f} %" in accuracy
    assert f"{100 * lab.totals['accuracy'][1]:.1f} %" in accuracy
    assert f"{lab.prediction['targets']['shape'][0]} answers right" in shown.page.locator("h4").nth(1).inner_text()

    grid.click(position=tile(1, 0))
    shown.settled()
    assert lab.cut == ()
    assert shown.status == "L1H0 is on"


def test_the_keyboard_alone_switches_heads_and_rows(bare):
    shown = bare(made())
    shown.page.locator("canvas.fpt-grid").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", " "):  # at the edge it stays
        shown.page.keyboard.press(key)
    shown.settled()
    assert shown.widget.cut == ((1, 1),)
    shown.page.keyboard.press("r")
    shown.settled()
    assert shown.widget.cut == row(1)
    assert shown.status == "all heads of layer 1 are off"
    shown.page.keyboard.press("r")
    shown.settled()
    assert shown.widget.cut == ()


@pytest.mark.slow
def test_undo_redo_all_on_and_the_row_button_do_what_they_say(bare):
    shown = bare(made())
    button = lambda name: shown.page.get_by_role("button", name=name, exact=True)  # noqa: E731
    assert button("undo").is_disabled()
    assert button("redo").is_disabled()
    button("layer 0 off").click()
    shown.settled()
    assert shown.widget.cut == row(0)
    button("undo").click()
    shown.settled()
    assert shown.widget.cut == ()
    button("redo").click()
    shown.settled()
    assert shown.widget.cut == row(0)
    button("all on").click()
    shown.settled()
    assert shown.widget.cut == ()
    assert button("redo").is_disabled()
    assert button("layer 0 off").is_visible()


@pytest.mark.slow
def test_a_click_on_the_name_of_a_layer_switches_its_row(bare):
    shown = bare(made())
    shown.page.locator("canvas.fpt-grid").click(position={"x": 10, "y": tile(1, 0)["y"]})
    shown.settled()
    assert shown.widget.cut == row(1)


@pytest.mark.slow
def test_comparing_shows_the_intact_model_and_lets_nothing_go(bare):
    lab = made()
    lab.choose(cut=[(0, 0), (0, 1)])
    shown = bare(lab)
    grid, button = shown.page.locator("canvas.fpt-grid"), shown.page.get_by_role("button", name="compare with intact")
    now = shown.page.locator(".fpt-answers").inner_text()
    assert "→" in now
    button.click()
    shown.settled()
    assert button.get_attribute("aria-pressed") == "true"
    assert grid.get_attribute("data-drawn") == ""
    assert "→" not in shown.page.locator(".fpt-answers").inner_text()
    assert lab.cut == ((0, 0), (0, 1))
    button.click()
    shown.settled()
    assert grid.get_attribute("data-drawn") == "0,0 0,1"
    assert shown.page.locator(".fpt-answers").inner_text() == now


@pytest.mark.slow
def test_kind_and_example_are_chosen(bare):
    lab = made()
    lab.choose(cut=[(0, 1)])
    shown = bare(lab)
    zero = lab.totals
    shown.page.locator("select").select_option("mean")
    counted(shown)
    assert lab.choice["kind"] == "mean"
    assert lab.totals != zero
    shown.page.locator('input[type="range"]').fill("7")
    shown.settled()
    assert lab.choice["example"] == 7
    assert shown.page.locator("h4").nth(1).inner_text().startswith("Example 7: ")
    assert "logits[7]" in shown.page.locator(".fpt-code").inner_text()


@pytest.mark.slow
def test_python_is_copied_or_lies_selected(bare):
    shown = bare(made())
    shown.page.get_by_role("button", name="copy Python").click()
    shown.page.wait_for_function("() => document.querySelector('.fpt-status').textContent !== ''")
    if "selected" in shown.status:
        assert shown.page.evaluate("() => getSelection().toString()").strip() == shown.widget.python
    else:
        assert shown.status == "copied"


@pytest.mark.slow
def test_accuracy_comes_in_pieces_and_a_click_between_them_is_answered_at_once(bare):
    lab = made(16)
    lab._cuts.piece = 2
    shown = bare(lab)
    shown.page.locator("canvas.fpt-grid").click(position=tile(0, 0))
    shown.settled()
    assert lab.cut == ((0, 0),)
    assert 0 <= lab.totals["n"] < 16
    assert " of 16 validation examples so far" in shown.page.locator(".fpt-results .fpt-help").inner_text()
    counted(shown, 16)
    assert shown.page.locator(".fpt-results .fpt-help").inner_text() == "all 16 validation examples"


def test_a_saved_page_switches_single_heads_without_python_and_says_what_it_lacks(chromium, tmp_path):
    lab = made()
    path = tmp_path / "heads.html"
    lab.to_html(path)
    page = chromium.new_page()
    page.goto(path.as_uri())
    grid = page.locator("canvas.fpt-grid")
    grid.click(position=tile(0, 1))
    page.wait_for_function("() => document.querySelector('canvas.fpt-grid').dataset.drawn === '0,1'")
    assert "[(0, 1)]" in page.locator(".fpt-code").inner_text()
    page.wait_for_function(
        "() => document.querySelector('.fpt-results .fpt-help').textContent.startsWith('This page does not')"
    )
    assert page.locator(".fpt-notice").inner_text() == ""
    grid.click(position=tile(1, 1))
    page.wait_for_function("() => document.querySelector('.fpt-notice').textContent.includes('saved without Python')")
    page.close()
