"""Each widget's main path in a real JupyterLab, and two of them in Notebook 7, as a reader takes it."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import TYPE_CHECKING, NamedTuple

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]

FAILED = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
MODEL = """import fpt_viz as fpt
task = fpt.load_task({task!r})
model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("bert-tiny-random", "random"), task)
"""


class Tour(NamedTuple):
    """What is run, what a reader then does, and what Python must then say."""

    code: str
    act: Callable[[Page, Locator], None]
    ask: str
    wanted: str


def click_at(locator: Locator, x: float, y: float) -> None:
    """A click at a share of the element's width and height."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    assert box is not None
    locator.click(position={"x": x * box["width"], "y": y * box["height"]})


def explore_heads(page: Page, widget: Locator) -> None:
    click_at(widget.locator("canvas.fpt-grid"), 0.95, 0.9)
    widget.locator("h4", has_text="L2H3").wait_for()
    widget.locator("select").last.wait_for()
    widget.locator("label", has_text="one head as").locator("select").select_option("lines")
    widget.locator("canvas.fpt-one[data-drawn='2,3,lines']").wait_for()


def explore_patches(page: Page, widget: Locator) -> None:
    click_at(widget.locator("canvas.fpt-image"), 0.1, 0.1)
    widget.locator("canvas.fpt-image[data-drawn$=',0,attention']").wait_for()
    widget.get_by_role("button", name="cover patches").click()
    click_at(widget.locator("canvas.fpt-image"), 0.9, 0.1)
    widget.locator("td", has_text="was").first.wait_for()


def flip_a_bit(page: Page, widget: Locator) -> None:
    widget.locator("canvas.fpt-bits").focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(1_000)


def cut_heads(page: Page, widget: Locator) -> None:
    widget.locator("canvas.fpt-grid").focus()
    for key in ("ArrowRight", "Space"):
        page.keyboard.press(key)
    widget.get_by_text("[(0, 1)]").first.wait_for()


def play_the_movie(page: Page, widget: Locator) -> None:
    slider = widget.locator("input[type=range]").first
    slider.focus()
    page.keyboard.press("Home")
    widget.get_by_text("0 of 4", exact=True).wait_for()


def browse_runs(page: Page, widget: Locator) -> None:
    widget.locator("table input[type=checkbox]").first.check()
    widget.locator("svg, canvas").first.wait_for()
    page.wait_for_timeout(1_000)


def watch_training(page: Page, widget: Locator) -> None:
    widget.get_by_text("finished").first.wait_for()


RUN = (
    MODEL.format(task="bit_xor")
    + """config = fpt.RunConfig.from_dict({
    "task": {"name": "bit_xor"}, "backbone": {"name": "bert-tiny-random", "init": "random"},
    "train": {"n_steps": 4, "batch_size": 4, "validate_every": 2, "n_validation": 8, "telemetry_every": 2,
              "n_telemetry": 2}})
record = fpt.run(config, "runs/one", overwrite=True, progress=False)
"""
)
PATHS = {
    "BitLab": Tour(
        MODEL.format(task="bit_xor") + "widget = fpt.widgets.BitLab(model)\nfirst = widget.choice['bits']\nwidget",
        flip_a_bit,
        'print(sum(a != b for a, b in zip(first, widget.choice["bits"])))',
        "1",
    ),
    "HeadLab": Tour(
        MODEL.format(task="bit_xor") + "widget = fpt.widgets.HeadLab(model, n_examples=32)\nwidget",
        cut_heads,
        'print(widget.choice["cut"])',
        "[[0, 1]]",
    ),
    "LiveTraining": Tour(
        MODEL.format(task="bit_xor")
        + "widget = fpt.widgets.LiveTraining(fpt.train(model, task, fpt.TrainConfig(n_steps=5, batch_size=4)))\nwidget",
        watch_training,
        "print(len(widget.steps), model.step)",
        "5 5",
    ),
    "RunBrowser": Tour(
        RUN + 'widget = fpt.widgets.RunBrowser("runs")\nwidget',
        browse_runs,
        "print([run.path.name for run in widget.selected])",
        "['one']",
    ),
    "TrainingMovie": Tour(
        RUN + "widget = fpt.widgets.TrainingMovie(record)\nwidget",
        play_the_movie,
        'print(widget.choice["step"])',
        "0",
    ),
    "AttentionExplorer": Tour(
        MODEL.format(task="bit_xor") + "widget = fpt.widgets.AttentionExplorer(model)\nwidget",
        explore_heads,
        'print(widget.choice["layer"], widget.choice["head"], widget.choice["view"])',
        "2 3 lines",
    ),
    "PatchExplorer": Tour(
        MODEL.format(task="digits") + "widget = fpt.widgets.PatchExplorer(model, n_examples=4)\nwidget",
        explore_patches,
        'print(widget.choice["query"], widget.choice["occluded"])',
        "0 [3]",
    ),
}


def opened(lab, lab_page, name: str, cells: list[str], app: str = "lab") -> Page:
    """A page on which all but the last of ``cells`` were run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = lab.root / f"{app}_{name}.ipynb"
    nbformat.write(notebook, path)
    page = lab_page(path, app=app)
    if app == "notebook":
        page.wrong.clear()  # Notebook 7 complains of its own settings while it opens, before any widget is there
    assert page.evaluate(RUN_ALL)
    assert page.locator(FAILED).all_inner_texts() == []
    return page


def asked(page: Page, wanted: str, *, within_s: float = 60) -> str:
    """What the last cell prints when it is run again, until that is ``wanted`` or the time is over.

    ipywidgets holds a change back while an earlier one is answered, so a cell can run before the last one arrives.
    """
    end = time.monotonic() + within_s
    while True:
        page.evaluate(
            """() => { const { content } = window.jupyterapp.shell.currentWidget;
            content.activeCellIndex = content.widgets.length - 1; }"""
        )
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        told = page.locator(".jp-Cell").last.locator(".jp-OutputArea-output").last.inner_text().strip()
        if told == wanted or time.monotonic() > end:
            return told
        page.wait_for_timeout(200)


APPS = [("lab", name) for name in sorted(PATHS)] + [("notebook", "AttentionExplorer"), ("notebook", "PatchExplorer")]


@pytest.mark.parametrize(("app", "name"), APPS, ids=[f"{app}-{name}" for app, name in APPS])
def test_the_main_path_works_and_python_sees_what_was_clicked(lab, lab_page, tmp_path, app, name):
    path = PATHS[name]
    page = opened(lab, lab_page, name, [path.code, path.ask], app)
    widget = page.locator(".fpt[data-ready=true]")
    widget.wait_for()
    path.act(page, widget)
    assert asked(page, path.wanted) == path.wanted
    assert not page.locator(".fpt-still").first.is_visible()
    widget.screenshot(path=tmp_path / f"{app}_{name}.png")
    assert page.wrong == []


def test_two_of_the_same_widget_do_not_disturb_each_other(lab, lab_page):
    code = MODEL.format(task="bit_xor") + "first = fpt.widgets.AttentionExplorer(model)\nfirst"
    page = opened(lab, lab_page, "two", [
        code, "second = fpt.widgets.AttentionExplorer(model)\nsecond",
        'print([(w.choice["layer"], w.choice["head"]) for w in (first, second)])',
    ])  # fmt: skip
    widgets = page.locator(".fpt[data-ready=true]")
    widgets.nth(1).wait_for()
    click_at(widgets.nth(0).locator("canvas.fpt-grid"), 0.95, 0.9)
    widgets.nth(0).locator("h4", has_text="L2H3").wait_for()
    click_at(widgets.nth(1).locator("canvas.fpt-grid"), 0.1, 0.9)
    widgets.nth(1).locator("h4", has_text="L2H0").wait_for()
    assert asked(page, "[(2, 3), (2, 0)]") == "[(2, 3), (2, 0)]"
    assert page.wrong == []


def test_a_model_that_was_trained_since_is_said_to_be_another(lab, lab_page):
    page = opened(lab, lab_page, "stale", [
        MODEL.format(task="bit_xor") + "widget = fpt.widgets.AttentionExplorer(model)\nwidget",
        "for step in fpt.train(model, task, fpt.TrainConfig(n_steps=1, batch_size=4)): pass",
        "print(bool(widget.notice))",
    ])  # fmt: skip
    widget = page.locator(".fpt[data-ready=true]")
    widget.wait_for()
    click_at(widget.locator("canvas.fpt-grid"), 0.95, 0.9)
    widget.get_by_text("has changed since this widget was made").first.wait_for()
    assert asked(page, "True") == "True"


def test_a_dead_kernel_is_said_in_the_widget(lab, lab_page):
    page = opened(lab, lab_page, "dead", [
        MODEL.format(task="bit_xor") + "widget = fpt.widgets.AttentionExplorer(model)\nwidget", "1",
    ])  # fmt: skip
    widget = page.locator(".fpt[data-ready=true]")
    widget.wait_for()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()")
    click_at(widget.locator("canvas.fpt-grid"), 0.95, 0.9)
    widget.locator(".fpt-notice", has_text="kernel").wait_for(timeout=30_000)
