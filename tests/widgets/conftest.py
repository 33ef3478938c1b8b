"""A widget on a bare page: its own script, and Python behind it as a kernel would be, without any notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import re
from typing import TYPE_CHECKING

import pytest

from fpt_viz.widgets import _page
from fpt_viz.widgets.base import Widget

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STAND_IN = """
const fptPage = JSON.parse(document.getElementById("values").textContent, (_name, value) =>
  value && typeof value === "object" && typeof value.base64 === "string"
    ? new DataView(Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)).buffer)
    : value);
const revive = (text) => JSON.parse(text, (_name, value) =>
  value && typeof value === "object" && typeof value.base64 === "string"
    ? new DataView(Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)).buffer)
    : value);
window.fptModel = {
  values: fptPage.values, listeners: {}, changed: new Set(), n_asked: 0,
  get(name) { return this.values[name]; },
  set(name, value) { this.values[name] = value; this.changed.add(name); },
  on(event, call) { (this.listeners[event] ||= []).push(call); },
  off(event, call) { this.listeners[event] = (this.listeners[event] || []).filter((one) => one !== call); },
  tell(event, ...words) { for (const call of this.listeners[event] || []) call(...words); },
  take(text, asked = this.n_asked) {
    const found = revive(text);
    if (asked < this.n_asked) delete found.choice;  // a newer one is on its way: a notebook's front end keeps that, too
    const names = Object.keys(found).filter((name) => JSON.stringify(found[name]) !== JSON.stringify(this.values[name])
      || typeof found[name] === "object");
    for (const name of names) this.values[name] = found[name];
    for (const name of names) this.tell(`change:${name}`);
  },
  async save_changes() {
    for (const name of this.changed) this.tell(`change:${name}`);
    if (!this.changed.has("choice")) { this.changed.clear(); return; }
    this.changed.clear();
    const asked = ++this.n_asked;
    this.take(await window.fptChoose(JSON.stringify(this.values.choice)), asked);
    this.n_answered = asked;
  },
  async send(question) {
    const reply = await window.fptReply(JSON.stringify(question));
    if (reply) this.tell("msg:custom", JSON.parse(reply));
  },
};
window.fpt = fpt; window.fptPaint = typeof paint === "undefined" ? null : paint;
window.fptUndo = fptWidget.render({ model: window.fptModel, el: document.getElementById("widget") });
"""


class Bare:
    """A widget on its page."""

    def __init__(self, page: Page, widget: Widget) -> None:
        self.page, self.widget = page, widget
        self.wrong: list[str] = []

    def values(self) -> str:
        """Every synced value, as the page reads it."""
        names = ("choice", "notice", "alt", "answered", *self.widget.depends)
        return json.dumps(_page._plain({name: getattr(self.widget, name) for name in names}))

    def choose(self, text: str) -> str:
        self.widget.choice = json.loads(text)
        return self.values()

    def reply(self, text: str) -> str | None:
        question = json.loads(text)
        answer = self.widget.reply(question)
        return None if answer is None else json.dumps({**answer, "id": question.get("id")})

    def push(self) -> None:
        """What Python changed by itself reaches the page."""
        self.page.evaluate("(text) => window.fptModel.take(text)", self.values())

    def settled(self) -> None:
        """Wait until what was last chosen is answered and drawn."""
        self.page.wait_for_function("() => (window.fptModel.n_answered || 0) === window.fptModel.n_asked")
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    @property
    def status(self) -> str:
        return self.page.locator(".fpt-status").inner_text()

    @property
    def notice(self) -> str:
        return self.page.locator(".fpt-notice").inner_text()


@pytest.fixture
def bare(chromium: Browser) -> Iterator[Callable[..., Bare]]:
    """A function that puts a widget on a page: ``bare(widget, width=1280, dark=False)``.

    Errors of the page and any request that it makes are errors of the test.
    """
    opened: list[Bare] = []

    def open_(widget: Widget, *, width: int = 1280, height: int = 900, dark: bool = False) -> Bare:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        found = Bare(context.new_page(), widget)
        page = found.page
        page.on("pageerror", lambda error: found.wrong.append(f"error: {error}"))
        page.on("console", lambda said: said.type == "error" and found.wrong.append(f"console: {said.text}"))
        page.on("request", lambda asked: asked.url.startswith("http") and found.wrong.append(f"asked for {asked.url}"))
        page.expose_function("fptChoose", found.choose)
        page.expose_function("fptReply", found.reply)
        names = ("fixed", "choice", "notice", "alt", "answered", *widget.depends)
        values = {name: getattr(widget, name) for name in names}
        content = _page.write(type(widget).__name__, widget._esm, widget._css, values, {}, widget.alt)
        stand_in = re.search(r"// A page without Python.*?\n</script>", content, re.DOTALL)
        assert stand_in is not None
        page.set_content(content.replace(stand_in[0], f"{STAND_IN}\n</script>"))
        page.locator(".fpt[data-ready=true]").wait_for()
        opened.append(found)
        return found

    yield open_
    for one in opened:
        one.page.context.close()
        assert one.wrong == []
