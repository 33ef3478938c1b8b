"""What BitLab's page does when it is clicked and typed at; Python answers, no notebook runs."""

from __future__ import annotations

import pytest

from fpt_viz.backbones import load_backbone
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task
from fpt_viz.widgets.bit_lab import BitLab

pytestmark = [pytest.mark.browser]

FIRST_CELL = (86 + 17, 17)
"""The middle of bit a0 where cells are largest; the next bit is 40 to the right, the next string 42 below."""


def made(task=None) -> BitLab:
    task = task or load_task("bit_xor", n_bits=3)
    return BitLab(FrozenPretrainedTransformer(load_backbone("bert-tiny-random", "random"), task).eval())


def cell(column: int, row: int) -> dict[str, float]:
    return {"x": FIRST_CELL[0] + 40 * column, "y": FIRST_CELL[1] + 42 * row}


def test_a_click_flips_the_bit_under_it_and_undo_takes_it_back(bare):
    shown = bare(made())
    before = shown.widget.choice["bits"]
    shown.page.locator("canvas.fpt-bits").click(position=cell(1, 1))
    shown.settled()
    turned = "1" if before[4] == "0" else "0"
    assert shown.widget.choice["bits"] == before[:4] + turned + before[5:]
    assert shown.page.locator("canvas.fpt-bits").get_attribute("data-drawn") == shown.widget.choice["bits"]
    assert shown.status.startswith(f"b1 is {turned}, changed; ")
    assert shown.status.endswith("answers right")

    shown.page.get_by_role("button", name="undo").click()
    shown.settled()
    assert shown.widget.choice["bits"] == before
    assert shown.page.get_by_role("button", name="undo").is_disabled()


def test_the_keyboard_alone_moves_and_flips(bare):
    shown = bare(made())
    before = shown.widget.choice["bits"]
    shown.page.locator("canvas.fpt-bits").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight", " "):  # past the end the cursor stays
        shown.page.keyboard.press(key)
    shown.settled()
    assert shown.widget.choice["bits"] == before[:5] + ("1" if before[5] == "0" else "0")
    shown.page.keyboard.press("1")
    shown.settled()
    shown.page.keyboard.press("m")  # this task masks none
    shown.settled()
    assert shown.widget.choice["bits"] == before[:5] + "1"
    assert shown.notice == ""


@pytest.mark.slow
def test_bits_of_memory_are_masked_by_click_and_by_key(bare):
    lab = made(load_task("bit_memory", n_strings=2, n_bits=4, patch_size=1))
    lab.choose(bits="000011110???")  # the first string is meant
    shown = bare(lab)
    shown.page.get_by_label("a click").select_option("mask")
    shown.page.locator("canvas.fpt-bits").click(position=cell(2, 0))
    shown.settled()
    assert shown.widget.choice["bits"][2] == "?"
    shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("m")
    shown.settled()
    assert shown.widget.choice["bits"][1:3] == "??"
    assert (
        shown.page.locator(".fpt-summary")
        .inner_text()
        .endswith(" of 2 answers right; 2 that the bits shown do not decide")
    )


@pytest.mark.slow
def test_blocks_of_many_bits_are_flipped_one_by_one(bare):
    shown = bare(made(load_task("bit_memory", n_strings=2, n_bits=100, patch_size=50)))
    before = shown.widget.choice["bits"]
    shown.page.locator("canvas.fpt-bits").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        shown.page.keyboard.press(key)
    shown.settled()
    [changed] = [i for i, (a, b) in enumerate(zip(before, shown.widget.choice["bits"], strict=True)) if a != b]
    columns = changed - 1  # the bit below bit 1
    assert 50 % columns == 0
    assert shown.status.startswith(f"a0, bit {changed} is ")


@pytest.mark.slow
def test_examples_and_random_bits_come_by_their_buttons(bare):
    shown = bare(made())
    shown.page.get_by_role("button", name="next example").click()
    shown.settled()
    assert shown.widget.choice["example"] == 1
    assert shown.widget.choice["bits"] == shown.widget.fixed["examples"][1]
    shown.page.locator('input[type="range"]').fill("4")
    shown.settled()
    assert shown.widget.choice["bits"] == shown.widget.fixed["examples"][4]
    shown.page.get_by_role("button", name="random bits").click()
    shown.settled()
    assert shown.widget.choice["example"] == -1
    assert shown.widget.choice["bits"] in shown.widget.fixed["pool"]


@pytest.mark.slow
def test_python_draws_random_bits_of_a_task_that_masks(bare):
    shown = bare(made(load_task("bit_memory", n_strings=2, n_bits=8, patch_size=1)))
    before = shown.widget.choice["bits"]
    shown.page.get_by_role("button", name="random bits").click()
    shown.settled()
    assert shown.widget.choice["bits"] != before
    assert shown.page.locator("canvas.fpt-bits").get_attribute("data-drawn") == shown.widget.choice["bits"]


def test_a_head_and_the_edges_are_chosen_and_the_panes_follow(bare):
    shown = bare(made())
    shown.page.locator('.fpt-field:has(> span:text-is("head")) select').select_option(index=2)
    shown.settled()
    layer, head, _ = shown.widget.fixed["heads"][2]
    assert (shown.widget.choice["layer"], shown.widget.choice["head"]) == (layer, head)
    assert shown.page.locator("canvas.fpt-one").get_attribute("data-drawn") == f"L{layer}H{head}"

    shown.page.locator(".fpt-field:has-text('graph of') select").select_option("one")
    shown.page.locator(".fpt-field:has-text('edges') select").select_option("8")
    shown.page.locator(".fpt-field:has-text('towards') select").select_option("5")
    shown.settled()
    assert {tuple(edge[:2]) for edge in shown.widget.graph["edges"]} == {(layer, head)}
    assert f"to b2 (of L{layer}H{head})" in shown.page.locator("h4").nth(2).inner_text()


@pytest.mark.slow
def test_an_edge_is_told_by_key_and_enter_shows_its_head(bare):
    shown = bare(made())
    shown.page.locator("canvas.fpt-graph").focus()
    shown.page.keyboard.press("ArrowDown")
    layer, head, *_rest, weight = shown.widget.graph["edges"][0]
    assert shown.status.startswith(f"L{layer}H{head}: ")
    assert shown.status.endswith(f"weight {weight:.3f}".replace("0.", "."))
    shown.page.keyboard.press("ArrowDown")
    shown.page.keyboard.press("Enter")
    shown.settled()
    assert [shown.widget.choice["layer"], shown.widget.choice["head"]] == shown.widget.graph["edges"][1][:2]


@pytest.mark.slow
def test_a_click_on_a_read_out_token_of_the_graph_asks_for_its_edges(bare):
    shown = bare(made())
    graph = shown.page.locator("canvas.fpt-graph")
    width = graph.bounding_box()["width"]
    graph.click(position={"x": width - 40, "y": 22 + 30 * 4 + 15})
    shown.settled()
    assert shown.widget.choice["towards"] == 4
    graph.click(position={"x": width - 40, "y": 22 + 30 * 4 + 15})
    shown.settled()
    assert shown.widget.choice["towards"] == -1


@pytest.mark.slow
def test_a_weight_and_an_answer_are_told_under_the_pointer(bare):
    shown = bare(made())
    shown.page.locator("canvas.fpt-bits").hover(position=cell(0, 3))
    assert shown.status.startswith("b0: the model answers ")
    shown.page.locator("canvas.fpt-one").focus()
    shown.page.keyboard.press("ArrowRight")
    assert ", weight " in shown.status


def test_a_saved_page_flips_bits_without_python(chromium, tmp_path):
    lab = made()
    path = tmp_path / "bits.html"
    lab.to_html(path)
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.locator("canvas.fpt-bits").click(position=cell(0, 0))
    turned = ("1" if lab.choice["bits"][0] == "0" else "0") + lab.choice["bits"][1:]
    page.wait_for_function("(bits) => document.querySelector('canvas.fpt-bits').dataset.drawn === bits", arg=turned)
    assert page.locator(".fpt-notice").inner_text() == ""
    lab.choose(bits=turned)
    said = page.locator(".fpt-summary").inner_text()
    assert said == f"{lab.alt.split(' of ')[1].split('. ')[1]} of 3 answers right"
    page.close()
