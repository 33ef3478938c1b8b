"""Seconds and bytes of the widgets in a real JupyterLab, beside a plotly grid and BertViz's payload; medians of 20.

Wanted, for 12 x 12 heads of 64 tokens: 0.7 MB, 0.25 s from running the cell to painted, 0.12 s until all heads have
changed, 10 ms a redraw, 40 ms to a hover label; 10 MB at 256 tokens, 2 MB a view at 1,024; from a click to the redraw
with a forward pass of MiniLM on 64 tokens 300 ms (95th percentile), 100 ms where it is cached.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import math
import os
from pathlib import Path
from statistics import median
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import nbformat
from playwright.sync_api import sync_playwright
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/made"))
from lab_server import KERNEL_IDLE, Lab, running

from benchmarks._measured import Measured
from fpt_viz.widgets import _page
from fpt_viz.widgets.attention_explorer import AttentionExplorer

if TYPE_CHECKING:
    from playwright.sync_api import Page

N_ROUNDS = 20
N_PLOTLY = 3
SETUP = """import torch, fpt_viz as fpt
weights = torch.randn(12, 2, 12, 64, 64, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
import fpt_viz.widgets.attention_explorer, fpt_viz.widgets.patch_explorer, plotly.graph_objects as go
from plotly.subplots import make_subplots
task = fpt.load_task("digits", patch_size=1)
model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task).eval()
torch.set_num_threads(2)"""
EXPLORER = "widget = fpt.widgets.AttentionExplorer(weights)\nwidget"
PATCHES = "patches = fpt.widgets.PatchExplorer(model, n_examples=24)\npatches"
PLOTLY = """mean = weights.mean(1)
grid = make_subplots(12, 12)
for i in range(144):
    grid.add_heatmap(z=mean[i // 12, i % 12].numpy(), showscale=False, row=i // 12 + 1, col=i % 12 + 1)
go.FigureWidget(grid)"""
RUN = """async ([index, selector]) => {
  const { content } = window.jupyterapp.shell.currentWidget;
  content.activeCellIndex = index;
  await window.jupyterapp.commands.execute('notebook:clear-cell-output');
  const started = performance.now();
  const painted = new Promise((done) => {
    const look = () => document.querySelector(selector)
      ? requestAnimationFrame(() => done(performance.now() - started)) : requestAnimationFrame(look);
    look();
  });
  window.jupyterapp.commands.execute('notebook:run-cell');
  return await painted;
}"""
CHANGE = """async ([selector, attribute, act]) => {
  const node = document.querySelector(selector), started = performance.now(), before = node.getAttribute(attribute);
  const changed = new Promise((done) => {
    new MutationObserver((_all, self) => {
      if (node.getAttribute(attribute) === before) return;
      self.disconnect();
      requestAnimationFrame(() => done(performance.now() - started));
    }).observe(node, { attributes: true });
  });
  new Function(act)();
  return await changed;
}"""
HOVER = """async ([x, y]) => {
  const canvas = document.querySelector('canvas.fpt-grid'), box = canvas.getBoundingClientRect();
  const at = { clientX: box.left + x, clientY: box.top + y };
  const status = document.querySelector('.fpt-status'), started = performance.now();
  const said = new Promise((done) => {
    new MutationObserver((_all, self) => {
      self.disconnect();
      requestAnimationFrame(() => done(performance.now() - started));
    }).observe(status, { childList: true, characterData: true, subtree: true });
  });
  canvas.dispatchEvent(new PointerEvent('pointermove', at));
  return await said;
}"""


def measure() -> Iterator[Measured]:
    """Medians of 20, with the 95th percentile where that is asked."""
    yield from _payloads()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "lab") as lab, sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = _opened(lab, browser.new_page(viewport={"width": 1400, "height": 1000}))
        page.evaluate(RUN, [0, "body"])
        page.wait_for_function(KERNEL_IDLE)
        yield from _explorer(page)
        yield from _patches(page)
        yield from _plotly(page)
        browser.close()


def _opened(lab: Lab, page: Page) -> Page:
    cells = [nbformat.v4.new_code_cell(cell) for cell in (SETUP, EXPLORER, PATCHES, PLOTLY)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.root / "widgets.ipynb")
    page.set_default_timeout(300_000)
    page.goto(f"{lab.url}lab/tree/widgets.ipynb?reset&token={lab.token}")
    page.wait_for_function(KERNEL_IDLE)
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    return page


def _explorer(page: Page) -> Iterator[Measured]:
    found = [page.evaluate(RUN, [1, "canvas.fpt-grid[data-ms]"]) for _ in range(N_ROUNDS + 1)][1:]
    yield _line("12 x 12 heads: cell run to painted", found, 250)
    change = "const one = document.querySelectorAll('.fpt input[type=checkbox]')[0]; one.click();"
    asked = ["canvas.fpt-grid", "data-painted", change]
    yield _line(
        "12 x 12 heads: all changed, from the click", [page.evaluate(CHANGE, asked) for _ in range(N_ROUNDS)], 120
    )
    drawn = []
    for _ in range(N_ROUNDS):
        page.evaluate(CHANGE, asked)
        drawn.append(float(page.locator("canvas.fpt-grid").get_attribute("data-ms") or "nan"))
    yield _line("12 x 12 heads: redraw in the browser", drawn, 10)
    tile = page.locator("canvas.fpt-grid").evaluate("(canvas) => (canvas.logicalWidth - 26) / 12")
    hovered = [
        page.evaluate(HOVER, [26 + (i % 12 + 0.2 + 0.02 * i) * tile, 16 + 15 + 0.3 * tile]) for i in range(N_ROUNDS)
    ]
    yield _line("12 x 12 heads: hover label", hovered, 40)


def _patches(page: Page) -> Iterator[Measured]:
    page.evaluate(RUN, [2, "canvas.fpt-image[data-drawn]"])
    page.wait_for_function(KERNEL_IDLE)
    slide = (
        "const widget = document.querySelector('.fpt canvas.fpt-image').closest('.fpt');"
        "const one = widget.querySelector('input[type=range]');"
        "one.value = %d; one.dispatchEvent(new Event('input'));"
    )
    fresh = [page.evaluate(CHANGE, ["table.fpt-bars", "data-of", slide % i]) for i in range(1, N_ROUNDS + 1)]
    yield _line("64 patches, MiniLM: click to redraw, forward pass fresh", fresh, 300, tail=True)
    known = [page.evaluate(CHANGE, ["table.fpt-bars", "data-of", slide % (N_ROUNDS - i)]) for i in range(1, 14)]
    yield _line("64 patches, MiniLM: click to redraw, forward pass cached", known, 100, tail=True)


def _plotly(page: Page) -> Iterator[Measured]:
    found = [page.evaluate(RUN, [3, ".js-plotly-plot .subplot.x144y144 .heatmaplayer image"]) for _ in range(N_PLOTLY)]
    yield _line(f"12 x 12 heads as one plotly FigureWidget, median of {N_PLOTLY}", found, None)


def _payloads() -> Iterator[Measured]:
    rng = torch.Generator().manual_seed(0)
    for n_tokens, wanted in ((64, 0.7), (256, 10.0), (1024, 2.0)):
        n_layers = 12 if n_tokens < 1024 else 6
        weights = torch.randn(n_layers, 1, 12, n_tokens, n_tokens, generator=rng).mul_(2).softmax(-1)
        widget = AttentionExplorer(weights)
        size = len(json.dumps(_page._plain(_without_bytes(widget)))) + sum(_bytes(widget))
        name = f"payload of {n_layers} x 12 heads, {n_tokens} tokens"
        yield Measured(name=name, value=size / 1e6, unit="MB", note=f"wanted {wanted:g}")
        if n_tokens == 64:
            lists = len(json.dumps(weights[:, 0].tolist()))
            yield Measured(
                name="as BertViz's model_view sends them, full floats in JSON",
                value=lists / 1e6,
                unit="MB",
                better="neither",
            )
        del widget, weights


def _bytes(widget: AttentionExplorer) -> list[int]:
    return [len(getattr(widget, trait)["values"]["data"]) for trait in ("tiles", "detail")]


def _without_bytes(widget: AttentionExplorer) -> dict[str, Any]:
    found = {name: getattr(widget, name) for name in ("fixed", "choice", "alt")}
    return found | {name: {**getattr(widget, name), "values": None} for name in ("tiles", "detail")}


def _line(what: str, milliseconds: list[float], wanted: float | None, *, tail: bool = False) -> Measured:
    last = sorted(milliseconds)[math.ceil(0.95 * len(milliseconds)) - 1]
    notes = [f"95th percentile {last:.0f} ms"] * tail + [f"wanted {wanted:g}"] * bool(wanted)
    return Measured(name=what, value=median(milliseconds), unit="ms", note=", ".join(notes))
