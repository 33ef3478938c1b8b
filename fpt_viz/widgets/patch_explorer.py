"""What each patch of an image reads, head by head; cover patches and see the prediction change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
import traitlets

from fpt_viz import figures
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.errors import ConfigError, FptVizError, RecordError
from fpt_viz.export import SCALES, Figure
from fpt_viz.figures.base import Array, array, origin, place_of, scale_top
from fpt_viz.records import AttentionMaps, HeadStatistics, InputAttribution, LiveModel, RunRecord
from fpt_viz.widgets import _patterns
from fpt_viz.widgets._live import device_of, logits_of
from fpt_viz.widgets.base import Choice, Widget, packed

__all__ = ["PatchExplorer"]

OVERLAYS = ("attention", "rollout", "attribution")
MULTIPLES = ("layer", "head", "pinned", "none")
KEPT_CAPTURES = 16
"""Captured examples that are kept, each the patterns of all heads."""
OFFLINE_BYTES = 3_000_000
FORWARD_AT_ONCE = 64


class PatchExplorer(Widget):
    """An image with its patches: click the one that reads, and those it reads are shaded by their weight.

    Later patches, which a causal model cannot see, are hatched; the patch that is read out has a dashed outline. All
    heads share one absolute scale. With a model, patches can be covered with the task's own grey, and the
    probabilities follow.
    """

    script = "patch_explorer.js"
    depends = {  # noqa: RUF012
        "rows": ("example", "occluded", "query"),
        "overlaid": ("example", "occluded", "query", "overlay"),
        "predicted": ("example", "occluded"),
    }
    optional = ("overlaid", "predicted")

    rows = traitlets.Dict().tag(sync=True)
    """What the query reads, of every head."""
    overlaid = traitlets.Dict(allow_none=True).tag(sync=True)
    """Rollout or attribution by patch, where that is asked for."""
    predicted = traitlets.Dict(allow_none=True).tag(sync=True)
    """The probability of each class, as shown and with nothing covered."""

    def __init__(
        self,
        source: Any,
        task: Any = None,
        *,
        images: Any = None,
        attribution: InputAttribution | Array | Tensor | None = None,
        n_examples: int = 32,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Show the patches of ``source``.

        Args:
            source: A model of an image task; or a run's record, maps or arrays of one, which can be looked at but not
                asked for predictions.
            task: For a model: what images are drawn from; its own unless given. For arrays: whose patches they are.
            images: For maps: the examples' pixels, ``[batch row column]`` or ``[batch row column colour]``, 0 to 1 or
                0 to 255.
            attribution: By patch, ``[batch patch]``, or a record of it, of the same examples. For a model without any,
                gradient x input of the predicted class is worked out when asked for.
            n_examples: For a model: distinct validation images.
            seed: Of their choice.
            state: The :attr:`state` of another one of the same source.

        Raises:
            ConfigError: The tokens are no image patches, or images or attribution of another size or number.
            RecordError: A record beside which no attention was captured.
        """
        self._live = source if isinstance(source, LiveModel) else None
        self._captures: OrderedDict[tuple[int, tuple[int, ...]], AttentionMaps] = OrderedDict()
        self._task = _patterns.task_of(self._live, task) if self._live is not None else task
        self._images: Array | None = None
        self._batch: Any = None
        if self._live is not None:
            self._batch = self._task.distinct(n_examples, "validation", seed)
            self._geometry = self._task.geometry()
            _check_patches(self._geometry)
            self._images = self._own_pixels()
            self._n_examples, (right, answers) = len(self._batch), self._answers()
        else:
            self._maps = _maps_of(source, task)
            self._geometry, self._n_examples = self._maps.geometry, self._maps.weights.shape[1]
            _check_patches(self._geometry)
            self._images, right, answers = _pixels(images, self._n_examples, self._geometry), [], []
        n_patches = len(self._geometry.boxes)
        self._attribution, self._attributed_by = _attributed(attribution, self._n_examples, n_patches)
        first_maps = self._captured(0, ())
        fixed = {
            "title": f"Patches of {origin(first_maps.source)}",
            "layers": list(first_maps.layers),
            "heads": list(first_maps.heads),
            "n_examples": self._n_examples,
            "boxes": [list(box) for box in self._geometry.boxes],
            "size": list(self._geometry.image_size or ()),
            "labels": list(first_maps.labels[0]),
            "images": None if self._images is None else packed(_bytes(self._images)),
            "causal": first_maps.causal,
            "queries": [int(query) for query in first_maps.queries[0]],
            "readout": self._readout(first_maps),
            "live": self._live is not None,
            "overlays": [name for name in OVERLAYS if self._can(name, first_maps)],
            "right": right,
            "answers": answers,
            "scales": {name: list(stops) for name, stops in SCALES.items()},
        }
        first = {
            "example": 0,
            "layer": first_maps.layers[0],
            "head": first_maps.heads[0],
            "query": int(first_maps.queries[0][-1]),
            "overlay": "attention",
            "occluded": [],
            "multiples": "layer",
            "pinned": [],
            "painting": False,
            "beneath": True,
            "top": 0,
        }
        super().__init__(first=first, fixed=fixed, state=state)
        if self._live is not None:
            self.watch(self._live)

    def checked(self, choice: Choice) -> Choice:
        """``choice`` if it is of this source."""
        maps = self._captured(0, ())
        for name, there in (
            ("layer", maps.layers),
            ("head", maps.heads),
            ("example", range(self._n_examples)),
            ("query", self.fixed["queries"]),
        ):
            place_of(choice[name], list(there), name)
        for name, words in (("overlay", self.fixed["overlays"]), ("multiples", MULTIPLES)):
            if choice[name] not in words:
                raise ConfigError(f"{name} must be one of {', '.join(words)}, got {choice[name]!r}")
        occluded = sorted({int(token) for token in choice["occluded"]})
        for token in occluded:
            place_of(token, range(len(self._geometry.boxes)), "patch")
        if occluded and self._live is None:
            raise ConfigError("covering patches needs the model: PatchExplorer(fpt_viz.load_model(record))")
        return {**choice, "occluded": occluded}

    def answer(self, trait: str, choice: Choice) -> Any:
        """What the query reads, an overlay, or the prediction."""
        if trait == "predicted":
            return self._prediction(choice)
        maps = self._captured(choice["example"], tuple(choice["occluded"]))
        place = 0 if self._live is not None else choice["example"]
        row = [int(query) for query in maps.queries[place]].index(choice["query"])
        if trait == "rows":
            values = array(maps.weights[:, place, :, row]).astype(np.float32)
            values[..., ~array(maps.mask[place])] = np.nan
            if maps.causal:
                values[..., choice["query"] + 1 :] = np.nan
            return {"values": packed(values), "top": scale_top(values)}
        return self._overlay(choice, maps, place)

    def _overlay(self, choice: Choice, maps: AttentionMaps, place: int) -> dict[str, Any] | None:
        if choice["overlay"] == "attention":
            return None
        try:
            if choice["overlay"] == "rollout":
                values, words = (
                    self._rollout(maps, place, choice["query"]),
                    "rollout, from the first layer to this patch",
                )
            else:
                values, words = self._attribution_of(choice)
        except FptVizError as error:
            return {"error": str(error)}
        high = scale_top(np.abs(values)) if np.abs(values).max() >= 0.05 else float(np.abs(values).max()) or 1.0
        return {
            "values": packed(values.astype(np.float32)),
            "low": -high if choice["overlay"] == "attribution" else 0.0,
            "high": high,
            "words": words,
        }

    def _rollout(self, maps: AttentionMaps, place: int, query: int) -> Array:
        weights = maps.weights[:, place : place + 1].float()
        return array(attention_rollout(weights, torch.tensor([[query]]), mask=maps.mask[place : place + 1])[0, 0])

    def _attribution_of(self, choice: Choice) -> tuple[Array, str]:
        if self._attribution is not None:
            if choice["occluded"]:
                raise ConfigError("the attribution given is of the whole image: uncover its patches")
            return self._attribution[choice["example"]], self._attributed_by
        assert self._live is not None  # otherwise it is no overlay to choose
        batch = self._shown(choice["example"], tuple(choice["occluded"]))
        inputs = batch.inputs.clone().requires_grad_()
        with _evaluating(self._live), torch.enable_grad():
            logits = self._live.forward(inputs, batch.mask).flatten(0, -2)[-1]
            (gradient,) = torch.autograd.grad(logits.max(), inputs)
        values = array((gradient * inputs).detach().sum(-1)[0])
        return values, "gradient x input of the predicted class; not checked for sanity here"

    def _prediction(self, choice: Choice) -> dict[str, Any] | None:
        if self._live is None:
            return None
        shown = self._probabilities(self._shown(choice["example"], tuple(choice["occluded"])))
        intact = self._probabilities(self._shown(choice["example"], ()))
        example = choice["example"]
        return {"shown": shown, "intact": intact, "answer": self.fixed["answers"][example], "example": example}

    def _probabilities(self, batch: Any) -> list[float]:
        assert self._live is not None
        logits = logits_of(self._live, batch)
        return [float(one) for one in logits.flatten(0, -2)[-1].float().softmax(-1)]

    def _shown(self, example: int, occluded: tuple[int, ...]) -> Any:
        """One example on the model's device, with some patches covered."""
        batch = self._batch[example : example + 1]
        if occluded:
            inputs = batch.inputs.clone()
            for token in occluded:  # the task's own grey, whatever its normalisation
                covered = self._task.corrupted(batch, "occlude", torch.Generator().manual_seed(0), position=token)
                inputs[:, token] = covered.batch.inputs[:, token]
            batch = type(batch)(inputs, batch.targets, batch.mask)
        return batch.to(device_of(self._live))

    def _captured(self, example: int, occluded: tuple[int, ...]) -> AttentionMaps:
        if self._live is None:
            return self._maps
        place = example, occluded
        if place not in self._captures:
            self._captures[place] = self._live.capture(self._shown(example, occluded), queries=None)
            while len(self._captures) > KEPT_CAPTURES:
                self._captures.popitem(last=False)
        self._captures.move_to_end(place)
        return self._captures[place]

    def _own_pixels(self) -> Array | None:
        """The examples' pixels, 0 to 1, as far as the task can say them."""
        if not hasattr(self._task, "to_pixels"):
            return None
        pixels: Array = array(self._task.to_pixels(self._batch.inputs)) / np.float32(self._task.white)
        return pixels

    def _answers(self) -> tuple[list[bool], list[int]]:
        """Of each example, whether the model is right, and the right class."""
        right: list[bool] = []
        assert self._live is not None
        for start in range(0, len(self._batch), FORWARD_AT_ONCE):
            part = self._batch[start : start + FORWARD_AT_ONCE].to(device_of(self._live))
            logits = logits_of(self._live, part)
            right += [bool(one) for one in self._task.correct(logits, part.targets).flatten(1).all(1)]
        return right, [int(one) for one in self._batch.targets.flatten()]

    def _can(self, overlay: str, maps: AttentionMaps) -> bool:
        if overlay == "rollout":  # wants whole patterns of all layers
            whole = maps.queries.shape[1] == maps.weights.shape[-1]
            return whole and maps.layers == tuple(range(len(maps.layers)))
        return overlay == "attention" or self._live is not None or self._attribution is not None

    def _readout(self, maps: AttentionMaps) -> int:
        """The token that is read out: the last real one."""
        return int(maps.mask[0].nonzero().max())

    def offline(self, trait: str) -> Iterable[Choice]:
        """Every query of as many examples as a page bears, nothing covered; predictions of all of them."""
        uncovered: Choice = {"occluded": []}
        if trait == "predicted":
            return [self.choice, *({**uncovered, "example": e} for e in range(self._n_examples))]
        maps = self._captured(0, ())
        n_bytes = int(np.prod(maps.weights.shape)) // maps.weights.shape[1] * 4
        n = max(1, min(self._n_examples, OFFLINE_BYTES // n_bytes))
        examples = list(dict.fromkeys([self.choice["example"], *range(n)]))
        pairs = [{**uncovered, "example": e, "query": q} for e in examples for q in self.fixed["queries"]]
        if trait == "rows":
            return [self.choice, *pairs]
        return [self.choice, *({**pair, "overlay": one} for pair in pairs for one in self.fixed["overlays"])]

    def figure(self) -> Figure:
        """The overlay on screen; where several heads are shown, the chosen one."""
        choice = self.choice
        maps = self._captured(choice["example"], tuple(choice["occluded"]))
        place = 0 if self._live is not None else choice["example"]
        image = None if self._images is None else self._images[choice["example"]]
        overlaid = self._overlay(choice, maps, place) or {}
        if "error" in overlaid:
            raise ConfigError(overlaid["error"])
        values = np.frombuffer(overlaid["values"]["data"], dtype=np.float32) if overlaid else None
        if choice["overlay"] == "attribution" and values is not None:
            values = values[: len(self._geometry.boxes)]
            found: Figure = figures.attribution_patches(
                values, image=image, geometry=self._geometry, unit=overlaid["words"], about=origin(maps.source)
            )
            return found
        shown = {name: choice[name] for name in ("layer", "head", "query")}
        found = figures.patch_overlay(
            maps, image=image, example=place, vmax=float(choice["top"]) or None, rollout=values, **shown
        )
        if place == choice["example"]:
            return found
        return _renamed(found, f"example {place} of", f"example {choice['example']} of")

    def _alt(self) -> str:
        if self._changed_model():  # to draw it would ask the model as it is now
            return self.alt
        try:
            return super()._alt()
        except FptVizError as error:
            return str(error)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """``model`` in eval mode within a block that wants gradients, and in the mode it was in afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _renamed(figure: Figure, was: str, now: str) -> Figure:
    """``figure`` with another name for the example that it shows."""
    note = figure.note.replace(was.capitalize(), now.capitalize())
    return replace(figure, alt=figure.alt.replace(was, now), note=note)


def _maps_of(source: Any, task: Any) -> AttentionMaps:
    """The maps of a record, or those given; arrays get the geometry of ``task``."""
    if isinstance(source, RunRecord):
        maps = source.maps()
        if maps is None:
            raise RecordError(
                f"no attention was captured of the run in {source.path}: fpt-viz capture {source.path}, "
                "or give the widget fpt_viz.load_model(record)"
            )
        return maps
    if isinstance(source, AttentionMaps):
        return source
    if isinstance(source, HeadStatistics):
        raise ConfigError("head statistics hold no single image: give the model, a record, or captured attention")
    if task is None:
        raise ConfigError("arrays do not say where their patches lie: give the task, as in PatchExplorer(arrays, task)")
    maps = AttentionMaps.from_arrays(source, labels=list(task.token_names()))
    return type(maps)(**{**vars(maps), "geometry": task.geometry()})


def _check_patches(geometry: Any) -> None:
    if not geometry.boxes or geometry.image_size is None:
        raise ConfigError("these tokens are no image patches: use AttentionExplorer, or BitLab for bits")


def _pixels(images: Any, n_examples: int, geometry: Any) -> Array | None:
    """``images`` from 0 to 1."""
    if images is None:
        return None
    found = np.asarray(images, dtype=np.float32)
    if found.shape[:3] != (n_examples, *geometry.image_size):
        raise ConfigError(
            f"images of shape {found.shape} were given for {n_examples} examples of "
            f"{geometry.image_size[0]} x {geometry.image_size[1]} pixels: wanted [batch row column] or with colours"
        )
    return np.asarray(found / 255.0 if found.max() > 1 else found)


def _bytes(images: Array) -> Array:
    """``[batch row column colour]`` in 8 bits; one colour is grey."""
    found = images if images.ndim == 4 else images[..., None]
    eight_bits: Array = np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)
    return eight_bits


def _attributed(attribution: Any, n_examples: int, n_patches: int) -> tuple[Array | None, str]:
    """``[batch patch]``, and what it is called."""
    if attribution is None:
        return None, ""
    values, words = attribution, "attribution, as given"
    if isinstance(attribution, InputAttribution):
        values, words = attribution.tokens[0], f"{attribution.title}, {attribution.answers[0]}"
    found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float32)
    if found.shape != (n_examples, n_patches):
        raise ConfigError(
            f"attribution of shape {found.shape} was given for {n_examples} examples of {n_patches} patches, "
            "wanted [batch patch]"
        )
    if not np.isfinite(found).all():
        raise ConfigError(f"{int((~np.isfinite(found)).sum())} of {found.size} attributions are NaN or infinite")
    return found, words
