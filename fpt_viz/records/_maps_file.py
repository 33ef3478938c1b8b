"""The file of captured attention: written at once or while a forward pass runs, read whole or in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpt_viz.errors import ConfigError, RecordError
from fpt_viz.records import store
from fpt_viz.records._pieces import write_in_pieces, writing
from fpt_viz.records.geometry import Geometry
from fpt_viz.records.packed import PackedWeights, pack

if TYPE_CHECKING:
    from fpt_viz.records.attention import AttentionMaps

KIND = "attention_maps"
Wanted = tuple[Sequence[int] | None, Sequence[int] | None, Sequence[int] | None]
"""Layers, examples and heads, as somebody names them."""
Places = tuple[list[int], list[int], list[int]]
"""The same as places on the axes of weights."""
Layout = tuple[torch.dtype, tuple[int, ...]]
"""Type and shape of a tensor."""
LARGE = ("weights", "largest")
PACKED = "largest"
"""The tensor that a file of packed weights has beside their codes."""


def save_maps(maps: AttentionMaps, path: Path) -> None:
    """Write ``maps``, atomically."""
    weights = maps.weights
    packed = isinstance(weights, PackedWeights)
    held = {"weights": weights.codes, PACKED: weights.largest} if isinstance(weights, PackedWeights) else {}
    about = {name: getattr(maps, name) for name in (*_TENSORS, *_FIELDS)}
    tensors, fields = _split(about)
    held = held or {"weights": weights}
    write_in_pieces(path, held | tensors, KIND, fields, schema=store.PIECES_SCHEMA if packed else None)


PutRows = Callable[[int, int, Tensor], None]
"""Takes rows of one layer: its place on the first axis, their first example, and ``[batch head query key]``."""


@contextlib.contextmanager
def writing_maps(path: Path, about: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[PutRows]:
    """The file of maps whose weights, of ``shape``, are put there in the block; ``about`` are their other fields."""
    tensors, fields = _split(about)
    large = {"weights": (dtype, shape)}
    if dtype == torch.uint8:
        large[PACKED] = (torch.float32, shape[:-1])
    n_examples, n_heads, n_queries, n_keys = shape[1:]
    with writing(path, tensors, KIND, fields, large=large) as put:

        def put_rows(layer: int, example: int, weights: Tensor) -> None:
            row = (layer * n_examples + example) * n_heads * n_queries
            if dtype == torch.uint8:
                weights, largest = pack(weights)
                put(PACKED, row, largest)
            put("weights", row * n_keys, weights.to(dtype))

        yield put_rows


def load_maps(path: Path, wanted: Wanted) -> dict[str, Any]:
    """The fields of the maps in ``path``: all, or those that are wanted."""
    if wanted == (None, None, None):
        tensors, fields = store.read_tensors(path, KIND)
        _check(path, _layout(tensors), fields)
        return _whole(path, tensors, fields)
    with store.reading(path, KIND) as stored:
        told = stored.fields
        places = {name: (large.place.dtype, large.place.shape) for name, large in stored.large.items()}
        _check(path, _layout(stored.tensors) | places, told)
        at = places_of(told["layers"], told["heads"], len(told["labels"]), wanted)
        for name in LARGE:
            if name in stored.large:
                stored.tensors[name] = _read(stored.large[name], at)
            elif name in stored.tensors:
                stored.tensors[name] = taken(stored.tensors[name], at)
        layers, examples, heads = at
        for name in _TENSORS:
            if name in stored.large:
                found = stored.large[name].rows([(i,) for i in examples])
                stored.tensors[name] = found.view(len(examples), *stored.large[name].place.shape[1:])
            elif name in stored.tensors:
                stored.tensors[name] = stored.tensors[name][examples]
        chosen = {
            "layers": [told["layers"][i] for i in layers],
            "heads": [told["heads"][i] for i in heads],
            "labels": [told["labels"][i] for i in examples],
        }
        return _whole(path, stored.tensors, told | chosen)


def places_of(layers: Sequence[int], heads: Sequence[int], n_examples: int, wanted: Wanted) -> Places:
    """Where what is wanted stands on the axes of weights."""
    there = {"layer": layers, "example": range(n_examples), "head": heads}
    found: list[list[int]] = []
    for (what, known), names in zip(there.items(), wanted, strict=True):
        missing = [name for name in names or () if name not in known]
        if missing:
            some = ", ".join(map(str, known)) if what != "example" else f"0 to {n_examples - 1}"
            raise ConfigError(f"{what} {missing[0]} was not captured: there are {some}")
        found.append(list(range(len(known))) if names is None else [known.index(name) for name in names])
    return found[0], found[1], found[2]


def taken(tensor: Tensor, at: Places) -> Tensor:
    """The layers, examples and heads ``at`` of a tensor of weights; a view where all of an axis is taken."""
    for axis, places in enumerate(at):
        if places != list(range(tensor.shape[axis])):
            tensor = tensor.index_select(axis, torch.tensor(places, dtype=torch.long))
    return tensor


def _read(large: Any, at: Places) -> Tensor:
    """The same of a tensor in a file; as few and as long parts as can be."""
    shape, depth = large.place.shape, 3
    while depth > 1 and at[depth - 1] == list(range(shape[depth - 1])):
        depth -= 1
    found: Tensor = large.rows(list(product(*at[:depth])))
    return found.view(*map(len, at), *shape[3:])


_TENSORS = ("queries", "mask", "needs")
_FIELDS = {"layers": list, "heads": list, "labels": list, "causal": bool, "geometry": dict, "source": dict}


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, Layout]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _check(path: Path, tensors: Mapping[str, Layout], fields: Any) -> None:
    """Raise unless the tensors and fields in a file fit each other.

    A checksum shows that they are what somebody wrote, not that they are maps.
    """
    fields = fields if isinstance(fields, dict) else {}
    lacking = sorted({"weights", "queries", "mask"} - tensors.keys()) + sorted(_FIELDS.keys() - fields.keys())
    if lacking:
        raise RecordError(f"{path} lacks {lacking[0]!r}: it is no whole {KIND} file")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise RecordError(f"{path} has the {name} {fields[name]!r:.60}, wanted a {kind.__name__}, as {KIND} have")
    dtype, shape = tensors["weights"]
    wanted = tuple(len(fields[name]) for name in ("layers", "labels", "heads"))
    if len(shape) != 5 or shape[:3] != wanted:
        raise RecordError(
            f"{path} has weights of shape {shape}, wanted [layer batch head query key] and {wanted} of the first three"
        )
    packed, largest = dtype == torch.uint8, tensors.get(PACKED)
    if largest != ((torch.float32, shape[:-1]) if packed else None):
        raise RecordError(f"{path} has weights in {dtype} of shape {shape} that do not fit a {PACKED!r} of {largest}")
    for name in tensors.keys() & set(_TENSORS):
        found = tensors[name][1]
        if found[:1] != shape[1:2]:
            raise RecordError(f"{path} has {name} of shape {found}, wanted {shape[1]} of the first, one an example")


def _split(about: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors among the fields of maps, and the rest as JSON has it."""
    tensors = {name: about[name] for name in _TENSORS if about[name] is not None}
    return tensors, {name: about[name] for name in _FIELDS} | {"geometry": about["geometry"].to_json()}


def _whole(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of maps, from what their file holds."""
    try:
        weights = tensors["weights"]
        return {
            "weights": PackedWeights(weights, tensors[PACKED]) if PACKED in tensors else weights,
            "queries": tensors["queries"],
            "mask": tensors["mask"],
            "needs": tensors.get("needs"),
            "layers": tuple(fields["layers"]),
            "heads": tuple(fields["heads"]),
            "labels": tuple(tuple(row) for row in fields["labels"]),
            "causal": fields["causal"],
            "geometry": Geometry.from_json(fields["geometry"]),
            "source": fields["source"],
        }
    except KeyError as error:
        raise RecordError(f"{path} lacks {error}: it is no whole {KIND} file") from error
    except (TypeError, ValueError, IndexError) as error:
        raise RecordError(f"{path} is no whole {KIND} file: {error}") from error
