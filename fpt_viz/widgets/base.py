"""What every widget is: a choice that the reader makes, and what Python answers to it.

A widget holds one plain dict, ``choice``: which head, which example, how it is sorted. Its other synced traits are
answers to that choice, each of which depends on some fields of it and on nothing else. So the same widget runs with a
kernel, where Python answers, and as one offline page, where the answers lie in the page; and ``state`` is the choice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import anywidget
from jaxtyping import Shaped
import numpy as np
import traitlets

from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.export import Figure
from fpt_viz.records import LiveModel, store
from fpt_viz.widgets import _assets, _page, _still

Choice = dict[str, Any]
Array = Shaped[np.ndarray, "..."]
CHANGED = (
    "The model has changed since this widget was made: what is shown is of the model as it was. Run the cell again."
)
KEPT_ANSWERS, KEPT_BYTES = 32, 64_000_000
"""Answers of one widget that are kept, so that going back costs nothing: at most so many, and of so many bytes."""


def packed(values: Array) -> dict[str, Any]:
    """``values`` for the page: its shape, its type by JavaScript's name, and its bytes."""
    names = {"uint8": "Uint8Array", "float32": "Float32Array", "int32": "Int32Array"}
    return {
        "shape": list(values.shape),
        "type": names[values.dtype.name],
        "data": np.ascontiguousarray(values).tobytes(),
    }


class Widget(anywidget.AnyWidget):
    """A widget; a subclass names its script, its first choice, and its answers."""

    script: ClassVar[str]
    """The file of its JavaScript in ``static/``."""
    parts: ClassVar[tuple[str, ...]] = ("base.js", "paint.js")
    """Files of ``static/`` that its script calls."""
    depends: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Trait -> the fields of the choice that its value follows from, in the order in which they are answered."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Traits that the page can do without where no Python answers."""

    fixed = traitlets.Dict().tag(sync=True)
    """What does not change: names, sizes, colours."""
    choice = traitlets.Dict().tag(sync=True)
    """What the reader chose; plain data."""
    notice = traitlets.Unicode().tag(sync=True)
    """What went wrong, or what must be known of the numbers shown; empty for nothing."""
    alt = traitlets.Unicode().tag(sync=True)
    """What is on screen, in words."""
    answered = traitlets.Int().tag(sync=True)
    """Choices answered so far; the page waits for it to rise."""
    _css = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, first: Choice, fixed: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> None:
        """Show ``first``, or the choice of another widget of this kind.

        Args:
            first: The choice that a reader starts from; its fields are all that there are.
            fixed: See :attr:`fixed`.
            state: The ``state`` of another one.
        """
        self._first = dict(first)
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._watched: list[tuple[LiveModel, object]] = []
        self._settling = False
        self._esm = _assets.script(*self.parts, self.script)
        super().__init__(_css=_assets.text("base.css"), fixed={"id": self._unique(), **fixed})
        choice = self._first | self._choice_of(state)
        self._settle(self.restored(choice) if state else choice, {})
        self.observe(self._chosen, names="choice")
        self.on_msg(self._asked)

    # What a subclass says.

    def answer(self, trait: str, choice: Choice) -> Any:
        """The value of ``trait`` for ``choice``; depends on nothing else of the choice than it declares."""
        raise NotImplementedError

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it can be shown, changed where something follows from it.

        Raises:
            FptVizError: It cannot; the widget then keeps what it shows, and says why.
        """
        return choice

    def restored(self, choice: Choice) -> Choice:
        """``choice`` of a saved state if it can be shown; as :meth:`checked` unless a subclass knows better."""
        return self.checked(choice)

    def figure(self) -> Figure:
        """What is on screen, as a figure for paper."""
        raise NotImplementedError

    def still(self) -> str:
        """A picture of what is on screen, as HTML, for pages in which no widget runs."""
        return _still.picture(self.figure(), self.fixed["id"])

    def offline(self, trait: str) -> Iterable[Choice]:
        """The choices that a page with no Python is to answer ``trait`` for; only declared fields matter."""
        return [self.choice]

    def reply(self, question: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The answer to a message of the page, such as for one exact number; None for none."""
        return None

    # What a reader of the notebook uses.

    def choose(self, **fields: Any) -> None:
        """Choose as a click would: ``choose(layer=3, head=5)``.

        Raises:
            UnknownNameError: There is no such field.
            ConfigError: What is chosen is not there.
        """
        for name in fields:
            if name not in self._first:
                raise UnknownNameError(f"choice of {type(self).__name__}", name, self._first)
        self._settle(self.checked({**self.choice, **fields}), self.choice)

    @property
    def state(self) -> dict[str, Any]:
        """Plain data that recreates it: ``AttentionExplorer(source, state=other.state)``."""
        return {"widget": type(self).__name__, "choice": dict(self.choice)}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.choose(**self._choice_of(state))

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write what is on screen as a figure for paper; options as of :meth:`fpt_viz.export.Figure.save`.

        A suffix ``.html`` writes :meth:`to_html`, which keeps the interactions.
        """
        path = Path(path)
        if path.suffix.lower() == ".html":
            self.to_html(path)
            return path
        return self.figure().save(path, **options)

    def to_html(self, path: str | Path | None = None) -> str:
        """One page that opens with no network and keeps all interactions that need no Python.

        Args:
            path: Also write it there.
        """
        answers = {}
        changed = self._changed_model()  # then nothing more can be asked of the model that is shown
        for trait, fields in self.depends.items():
            table = {_page.key(self.choice, fields): getattr(self, trait)}
            for choice in () if changed else self.offline(trait):
                full = {**self.choice, **choice}
                table[_page.key(full, fields)] = self._answered(trait, full)
            answers[trait] = {"fields": list(fields), "table": table, "optional": trait in self.optional}
        values = {name: getattr(self, name) for name in ("fixed", "choice", "notice", "alt", *self.depends)}
        values["notice"] = CHANGED if changed else self.notice
        page = _page.write(type(self).__name__, self._esm, self._css, values, answers, self.alt)
        if path is not None:
            store.write_bytes(Path(path), page.encode())
        return page

    # How it works.

    def watch(self, model: LiveModel) -> None:
        """Say so when ``model`` is not any more what the numbers were taken from."""
        self._watched.append((model, model.version()))

    def _changed_model(self) -> bool:
        return any(model.version() != version for model, version in self._watched)

    def _choice_of(self, state: Mapping[str, Any] | None) -> Choice:
        if state is None:
            return {}
        kind, choice = state.get("widget"), state.get("choice")
        if kind != type(self).__name__ or not isinstance(choice, dict):
            raise ConfigError(f"this is no state of {type(self).__name__}: it is of {kind or 'no widget'}")
        for name in choice:
            if name not in self._first:
                raise UnknownNameError(f"choice of {type(self).__name__}", name, self._first)
        return choice

    def _unique(self) -> str:
        """Tells this widget's parts from those of every other on a page."""
        return f"fpt-{id(self):x}"

    def _answered(self, trait: str, choice: Choice) -> Any:
        place = trait, _page.key(choice, self.depends[trait])
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        found = self._kept[place] = self.answer(trait, choice)
        while len(self._kept) > 1 and (
            len(self._kept) > KEPT_ANSWERS or sum(map(_size, self._kept.values())) > KEPT_BYTES
        ):
            self._kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Let every answer be worked out again."""
        self._kept.clear()

    def _settle(self, choice: Choice, before: Choice, *, again: bool = False) -> None:
        """Answer ``choice`` wherever it differs from ``before``, then take it."""
        if self._changed_model():
            self._take(before or choice, CHANGED)  # old numbers under a new name would be wrong
            return
        answers = {
            trait: self._answered(trait, choice)
            for trait, fields in self.depends.items()
            if again or not before or any(choice.get(f) != before.get(f) for f in fields)
        }
        self._take(choice, "", answers)

    def _take(self, choice: Choice, told: str, answers: Mapping[str, Any] | None = None) -> None:
        """Show it, in one message to the page."""
        self._settling = True
        try:
            with self.hold_sync():
                for trait, answer in (answers or {}).items():
                    setattr(self, trait, answer)
                self.choice, self.notice = choice, told
                self.alt = self._alt()
                self.answered += 1
        finally:
            self._settling = False

    def _alt(self) -> str:
        return self.figure().alt

    def _chosen(self, change: Mapping[str, Any]) -> None:
        """What the page chose."""
        if self._settling:
            return
        try:
            wanted = {name: value for name, value in change["new"].items() if name in self._first}
            checked = self.checked({**change["old"], **wanted})
            self._settle(checked, change["old"])
        except FptVizError as error:
            self._take(change["old"], str(error))
        except (Exception, KeyboardInterrupt) as error:  # out of memory, or interrupted: what is shown stays as it was
            self._take(change["old"], f"This could not be worked out: {type(error).__name__}: {error}")

    def _asked(self, _widget: object, question: Any, _buffers: object) -> None:
        if isinstance(question, dict):
            try:
                answer = self.reply(question)
            except FptVizError as error:
                self.notice = str(error)
                return
            if answer is not None:
                self.send({**answer, "id": question.get("id")})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle, metadata = self._view(**options)
        return {**bundle, "text/html": self.still()}, metadata

    def _view(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a front end shows the live widget by, and its words."""
        if self._changed_model():
            self.notice = CHANGED
        found: Any = super()._repr_mimebundle_(**options)  # with metadata, or without
        bundle, metadata = found if isinstance(found, tuple) else (found, {})
        return {**bundle, "text/plain": self.alt}, metadata

    def _ipython_display_(self, **options: Any) -> None:
        """Show the widget, and after it a still picture of it, which the live widget hides.

        A page made of the notebook loads widgets from a network, or not at all; the still is what it then shows.
        """
        from IPython import display

        publish: Any = display.publish_display_data
        bundle, metadata = self._view()
        publish({**bundle, "text/html": "<!-- see below -->"}, metadata)  # painted while the still is being drawn
        publish({"text/html": self.still(), "text/plain": self.alt})


def _size(answer: Any) -> int:
    """The bytes of the arrays in an answer."""
    if isinstance(answer, bytes):
        return len(answer)
    parts = answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, list | tuple) else ()
    return sum(map(_size, parts)) if not isinstance(answer, list) or not answer or isinstance(answer[0], Mapping) else 0
