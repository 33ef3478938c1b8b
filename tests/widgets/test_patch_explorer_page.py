"""What the patch explorer's page does when it is clicked, painted on and typed at."""

from __future__ import annotations

import numpy as np
import pytest

import fpt_viz as fpt
from fpt_viz.widgets.patch_explorer import PatchExplorer

pytestmark = [pytest.mark.browser]


@pytest.fixture(scope="module")
def model():
    task = fpt.load_task("digits")
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("gpt2-tiny-random", "random"), task).eval()


def centre(shown, patch: int) -> tuple[float, float]:
    """Where a patch of the 4 x 4 grid is on the screen."""
    box = shown.page.locator("canvas.fpt-image").bounding_box()
    return box["x"] + (patch % 4 + 0.5) / 4 * box["width"], box["y"] + (patch // 4 + 0.5) / 4 * box["height"]


def field(shown, words: str):
    return shown.page.locator("label", has_text=words).locator("select, input")


def colour_of(shown, patch: int) -> list[int]:
    """Red, green and blue in the middle of a patch."""
    return shown.page.locator("canvas.fpt-image").evaluate(
        """(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(
            Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data].slice(0, 3)""",
        [(patch % 4 + 0.45) / 4, (patch // 4 + 0.55) / 4],
    )


def test_a_click_on_a_patch_makes_it_the_one_that_reads(bare, model):
    shown = bare(PatchExplorer(model, n_examples=3))
    shown.page.mouse.click(*centre(shown, 6))
    shown.settled()
    assert shown.widget.choice["query"] == 6
    assert shown.page.locator("canvas.fpt-image").get_attribute("data-drawn") == "0,0,0,6,attention"


@pytest.mark.slow
def test_every_patch_answers_for_itself(bare, model):
    """The round trip from pixel to token and back, over all patches."""
    shown = bare(PatchExplorer(model, n_examples=1))
    for patch in range(16):
        shown.page.mouse.click(*centre(shown, patch))
        shown.settled()
        assert shown.widget.choice["query"] == patch


@pytest.mark.slow
def test_shades_are_those_of_the_one_scale_and_later_patches_get_none(bare, model):
    shown = bare(PatchExplorer(model, n_examples=1))
    field(shown, "image beneath").uncheck()
    field(shown, "scale to").select_option("1")
    shown.page.mouse.click(*centre(shown, 5))
    shown.settled()
    rows = np.frombuffer(shown.widget.rows["values"]["data"], dtype=np.float32).reshape(-1, 16)
    table = shown.page.evaluate(
        "(stops) => [...window.fptPaint.table(stops, '#000000')]", shown.widget.fixed["scales"]["sequential"]
    )
    for patch in (0, 2, 3):
        entry = table[round(float(rows[0, patch]) * 254)]
        assert colour_of(shown, patch) == [entry & 255, (entry >> 8) & 255, (entry >> 16) & 255]
    palest = table[0]
    for later in (7, 12, 15):
        assert colour_of(shown, later) != [palest & 255, (palest >> 8) & 255, (palest >> 16) & 255]
    shown.page.mouse.move(*centre(shown, 12))
    assert shown.status.endswith("r3c0, not seen")


@pytest.mark.slow
def test_painting_covers_patches_and_the_probabilities_say_what_they_were(bare, model):
    shown = bare(PatchExplorer(model, n_examples=2))
    shown.page.get_by_role("button", name="cover patches").click()
    shown.page.mouse.move(*centre(shown, 1))
    shown.page.mouse.down()
    shown.page.mouse.move(*centre(shown, 2), steps=4)
    shown.page.mouse.up()
    shown.settled()
    assert shown.widget.choice["occluded"] == [1, 2]
    assert "was" in shown.page.locator("table.fpt-bars").inner_text()
    best = int(np.argmax(shown.widget.predicted["shown"]))
    assert shown.page.locator("table.fpt-bars").get_attribute("data-best") == str(best)
    shown.page.mouse.click(*centre(shown, 1))
    shown.settled()
    assert shown.widget.choice["occluded"] == [2]
    shown.page.get_by_role("button", name="uncover all").click()
    shown.settled()
    assert shown.widget.choice["occluded"] == []


@pytest.mark.slow
def test_the_keyboard_alone_chooses_and_covers(bare, model):
    shown = bare(PatchExplorer(model, n_examples=1, state={"widget": "PatchExplorer", "choice": {"query": 0}}))
    shown.page.locator("canvas.fpt-image").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        shown.page.keyboard.press(key)
    shown.settled()
    assert shown.widget.choice["query"] == 5
    shown.page.keyboard.press("o")
    shown.settled()
    assert shown.widget.choice["occluded"] == [5]


@pytest.mark.slow
def test_next_misclassified_walks_over_the_wrong_ones(bare, model):
    shown = bare(PatchExplorer(model, n_examples=6))
    wrong = [i for i, right in enumerate(shown.widget.fixed["right"]) if not right]
    button = shown.page.get_by_role("button", name="next misclassified")
    assert button.inner_text() == f"next misclassified ({len(wrong)})"
    seen = []
    for _ in wrong:
        button.click()
        shown.settled()
        seen.append(shown.widget.choice["example"])
    assert sorted(seen) == wrong


@pytest.mark.slow
def test_layer_head_overlay_and_small_multiples_follow_their_controls(bare, model):
    shown = bare(PatchExplorer(model, n_examples=2))
    field(shown, "layer").first.select_option("1")
    field(shown, "head").first.select_option("2")
    shown.settled()
    assert (shown.widget.choice["layer"], shown.widget.choice["head"]) == (1, 2)
    others = shown.page.locator("canvas.fpt-multiples")
    assert others.get_attribute("data-drawn") == str(len(shown.widget.fixed["heads"]))
    field(shown, "beside it").select_option("head")
    shown.settled()
    assert others.get_attribute("data-drawn") == str(len(shown.widget.fixed["layers"]))
    shown.page.get_by_role("button", name="pin this head").click()
    shown.settled()
    assert (shown.widget.choice["pinned"], others.get_attribute("data-drawn")) == ([[1, 2]], "1")
    field(shown, "beside it").select_option("layer")
    shown.settled()
    others.click(position={"x": 10, "y": 40})
    shown.settled()
    assert shown.widget.choice["head"] == 0
    others.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.settled()
    assert shown.widget.choice["head"] == 1
    for overlay, words in (("rollout", "rollout, from the first layer"), ("attribution", "gradient x input")):
        field(shown, "show").select_option(overlay)
        shown.settled()
        assert shown.page.locator("h4").first.inner_text().startswith(words)
    field(shown, "image").first.fill("1")
    shown.settled()
    assert shown.widget.choice["example"] == 1


@pytest.mark.slow
def test_a_saved_page_answers_without_python(chromium, tmp_path, model):
    widget = PatchExplorer(model, n_examples=2)
    path = widget.save(tmp_path / "patches.html")
    context = chromium.new_context(offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.locator("input[type=range]").fill("1")
    page.locator("canvas.fpt-image").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.locator("canvas.fpt-image[data-drawn='1,0,0,11,attention']").wait_for()
    assert page.locator(".fpt-notice").inner_text() == ""
    page.keyboard.press("o")
    assert "saved without Python" in page.locator(".fpt-notice").inner_text()
    context.close()
    assert wrong == []
