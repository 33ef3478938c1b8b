"""Attention kept in fewer bytes is within the error that it states; files of it are read and checked in part."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import copy
from dataclasses import asdict, fields, replace
import io
import json
from pathlib import Path
import pickle
import subprocess
import sys

from hypothesis import given, settings, strategies as st
import pytest
from safetensors import safe_open
import safetensors.torch
import torch
from torch import Tensor

from fpt_viz import capture, figures
from fpt_viz.analysis.attention_distance import attention_distance
from fpt_viz.analysis.attention_entropy import attention_entropy
from fpt_viz.analysis.attention_rollout import attention_rollout
from fpt_viz.analysis.head_matching import head_matching
from fpt_viz.analysis.head_similarity import head_similarity
from fpt_viz.analysis.pattern_distance import pattern_distance
from fpt_viz.analysis.routing_score import routing_score
from fpt_viz.analysis.sink_mass import sink_mass
from fpt_viz.capture import capture_attention
from fpt_viz.cli import main
from fpt_viz.config import BackboneConfig, RunConfig, TaskConfig, TrainConfig
from fpt_viz.errors import CaptureError, ConfigError, RecordError
from fpt_viz.memory import peak_bytes
from fpt_viz.records import AttentionMaps, _pieces, load_run, store
from fpt_viz.records._chunks import Place
from fpt_viz.records.packed import PackedWeights, converted, pack, unpack
from fpt_viz.tasks import load_task
from fpt_viz.train import run

DTYPES = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
ERRORS = {"float16": 1 / 2048, "bfloat16": 1 / 256, "uint8": 1 / 255}
FLOAT = 1e-6
"""What float32 itself may add to a bound."""


@st.composite
def patterns(draw) -> Tensor:
    """Rows of attention, flat to sharp, with masked keys and blank rows."""
    seed = draw(st.integers(0, 2**31))
    n_keys = draw(st.sampled_from([1, 2, 3, 10, 64, 257]))
    sharpness = draw(st.sampled_from([0.0, 0.01, 1.0, 5.0, 40.0]))
    rng = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(8, n_keys, generator=rng, dtype=torch.float64)
    hidden = torch.rand(8, n_keys, generator=rng) < draw(st.sampled_from([0.0, 0.5]))
    hidden[:, 0] = False
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    weights[draw(st.integers(0, 7))] = 0.0
    return weights.float()


@given(patterns())
@settings(max_examples=100, deadline=None)
def test_no_packed_weight_is_further_off_than_a_255th_of_its_rows_largest_and_no_sum_than_half_of_that(weights):
    found = unpack(*pack(weights)).double()
    wanted = weights.double()
    largest = wanted.amax(-1)
    assert ((found - wanted).abs().amax(-1) <= largest * (1 / 255 + FLOAT)).all()
    assert ((found.sum(-1) - wanted.sum(-1)).abs() <= largest / 510 + FLOAT).all()
    assert not found[wanted == 0].any()
    torch.testing.assert_close(found.amax(-1), largest, rtol=FLOAT, atol=0)


@DTYPES
@given(weights=patterns())
@settings(max_examples=50, deadline=None)
def test_maps_kept_in_fewer_bytes_are_within_the_error_that_they_state(dtype, weights):
    exact = of_rows(weights)
    found = exact.to_dtype(dtype)

    assert found.weight_error == pytest.approx(ERRORS[dtype], abs=0)
    off = (found.weights.double() - exact.weights.double()).abs()
    assert (off <= exact.weights.double().amax(-1, keepdim=True) * (found.weight_error + FLOAT)).all()
    assert ((found.weights.double().sum(-1) - exact.weights.double().sum(-1)).abs() <= found.weight_error + FLOAT).all()
    assert not found.weights[exact.weights == 0].any()


def of_rows(weights: Tensor) -> AttentionMaps:
    """Maps of one head and example that have these rows."""
    n_queries, n_keys = weights.shape
    return AttentionMaps(
        weights=weights[None, None, None],
        layers=(0,),
        heads=(0,),
        queries=torch.arange(n_queries)[None],
        labels=(tuple(map(str, range(n_keys))),),
        mask=torch.ones(1, n_keys, dtype=torch.bool),
        causal=False,
    )


def test_weights_that_are_no_attention_are_not_packed():
    for wrong in ([[1.5, -0.5]], [[torch.nan, 1.0]], [[torch.inf, 0.0]]):
        with pytest.raises(RecordError, match="attention is 0 or more, and finite"):
            pack(torch.tensor(wrong))
    with pytest.raises(RecordError, match="attention is 0 or more, and finite"):
        pack(torch.tensor([[1e300, 0.0]], dtype=torch.float64))


def test_rows_too_small_to_be_divided_by_are_packed_as_zeros():
    rows = torch.tensor([[1e-37, 0.0], [1e-45, 1e-45], [2e-36, 0.0]])
    assert unpack(*pack(rows)).tolist() == [[0, 0], [0, 0], [pytest.approx(2e-36), 0]]


# Captures


@pytest.fixture
def captured(tiny, padded, symbols):
    """Captures the padded batch with a tiny GPT-2, all queries unless told."""
    model = tiny("gpt2", symbols)
    return lambda **options: capture_attention(model, padded, **({"queries": None} | options))


@DTYPES
def test_a_capture_in_fewer_bytes_is_the_one_in_float32_within_its_error_and_says_so(captured, dtype):
    exact, found = captured(), captured(dtype=dtype)
    assert found.source == exact.source | {"stored_as": dtype, "weight_error": ERRORS[dtype]}
    assert (exact.weight_error, exact.precision) == (0.0, "float32")
    largest = exact.weights.amax(-1, keepdim=True)
    assert ((found.weights.float() - exact.weights).abs() <= largest * (ERRORS[dtype] + FLOAT)).all()
    assert torch.equal(found.weights == 0, exact.weights == 0)
    n_weights = exact.weights.numel()
    assert found.weights.nbytes == {"uint8": n_weights + n_weights // 8 * 4}.get(dtype, 2 * n_weights)


@pytest.mark.parametrize("layers", [None, [1]])
def test_a_packed_capture_of_the_model_is_what_packing_its_float_capture_gives(captured, layers):
    found, wanted = captured(dtype=torch.uint8, layers=layers), captured(layers=layers).to_dtype("uint8")
    assert isinstance(found.weights, PackedWeights)
    assert torch.equal(found.weights, wanted.weights)
    assert found.source == wanted.source


def test_a_packed_capture_takes_a_quarter_of_the_budget_and_four_bytes_a_row(captured):
    n_rows = 3 * 4 * 4 * 8
    captured(dtype="uint8", budget_bytes=n_rows * (8 + 4))
    with pytest.raises(CaptureError, match="over the budget"):
        captured(dtype="uint8", budget_bytes=n_rows * (8 + 4) - 1)


@pytest.mark.parametrize(
    ("options", "helps", "does_not"),
    [
        ({}, ("layers", "heads", "readout", "examples", "uint8", "out=", "head_statistics"), ()),
        ({"dtype": "uint8"}, ("layers", "heads", "readout", "examples", "out="), ("uint8",)),
        ({"out": "maps.safetensors"}, ("heads", "readout", "budget_bytes"), ("layers", "examples", "uint8", "out=")),
        ({"layers": [0], "heads": [1], "queries": "readout"}, ("examples", "uint8"), ("layers", "heads", "readout")),
    ],
    ids=["in memory", "packed", "to a file", "chosen"],
)
def test_what_a_capture_over_the_budget_is_advised_to_do_would_help(captured, options, helps, does_not):
    with pytest.raises(CaptureError) as told:
        captured(**options, budget_bytes=1)
    advice = str(told.value).partition("What helps: ")[2].replace("head_statistics", "statistics")
    assert all(word.replace("head_", "") in advice for word in helps)
    assert not any(word in advice for word in does_not)


def test_a_capture_of_nothing_into_a_file_is_an_error_and_writes_none(tiny, symbols, padded, tmp_path):
    with pytest.raises(ConfigError, match="nothing to write"):
        capture_attention(tiny("gpt2", symbols), padded[:0], queries=None, out=tmp_path / "maps.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_weights_cannot_be_kept_as_is_an_error(captured):
    with pytest.raises(ConfigError, match=r"cannot be stored as int4; it can as .*float16.*uint8"):
        captured(dtype="int4")
    with pytest.raises(ConfigError, match=r"cannot be stored as torch.int64"):
        captured(dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"cannot be stored as nothing"):
        captured(dtype="")


# Everything reads them unchanged


def test_packed_weights_are_to_torch_and_numpy_the_floats_that_they_stand_for():
    weights = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)
    packed = PackedWeights(*pack(weights))
    plain = packed.unpacked()
    assert isinstance(packed, Tensor)
    assert (packed.shape, packed.dtype, len(packed)) == (plain.shape, torch.float32, 2)
    for index in (1, (0, 2), (slice(None), 1), (0, slice(1, 3), 2, 4), (..., 2), (0, 1, 2, 3, 4), [1, 0]):
        assert torch.equal(packed[index], plain[index])
    assert torch.equal(packed.sum(-1), plain.sum(-1))
    assert torch.equal(torch.stack([packed, packed]), torch.stack([plain, plain]))
    assert torch.equal(1 - packed, 1 - plain)
    assert (packed.numpy() == plain.numpy()).all()
    assert packed.tolist() == plain.tolist()
    assert packed.nbytes * 2 < plain.nbytes


@pytest.mark.parametrize(
    "change", [lambda w: w.mul_(2), lambda w: w.__setitem__(0, 0.0), lambda w: torch.neg(w, out=w)]
)
def test_packed_weights_cannot_be_written_to(change):
    packed = PackedWeights(*pack(torch.ones(1, 1, 1, 2, 2) / 2))
    with pytest.raises(RecordError, match="read-only"):
        change(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: torch.relu_(input=w),
        lambda w: torch.max(w, -1, out=(w, torch.empty(0, dtype=torch.long))),
    ],
    ids=["by keyword", "one of two results"],
)
def test_packed_weights_cannot_be_written_to_by_a_keyword(change):
    with pytest.raises(RecordError, match="read-only"):
        change(packed_eights())


def packed_eights() -> PackedWeights:
    """Eight queries that look at eight keys alike."""
    return PackedWeights(*pack(torch.full((1, 1, 1, 8, 8), 1 / 8)))


def test_packed_weights_tell_no_address_of_floats_that_are_gone():
    packed = packed_eights()
    for ask in (Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage):
        with pytest.raises(RecordError, match=r"take weights\.clone\(\) first"):
            ask(packed)
    for tensors in ({"a": packed}, {"a": packed, "b": packed_eights()}):
        with pytest.raises(RecordError, match=r"take weights\.clone\(\) first"):
            safetensors.torch.save(tensors)
    found = safetensors.torch.load(safetensors.torch.save({"a": packed.clone()}))["a"]
    assert torch.equal(found, packed)


def torch_saved(maps: AttentionMaps) -> AttentionMaps:
    file = io.BytesIO()
    torch.save(maps, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "copy": lambda maps: replace(maps, weights=copy.copy(maps.weights)),
    "deepcopy": copy.deepcopy,
    "asdict": lambda maps: AttentionMaps(**asdict(maps) | {"geometry": maps.geometry}),
    "pickle": lambda maps: pickle.loads(pickle.dumps(maps)),
    "torch.save": torch_saved,
}


@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_packed_maps_are_packed(captured, copied):
    maps = captured(dtype="uint8")
    found = COPIES[copied](maps)
    assert found.stored_as == torch.uint8
    assert found.weights.nbytes == maps.weights.nbytes
    assert same(found, maps)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_weights_that_were_stored_here_are_attention_to_whoever_takes_arrays(dtype):
    scores = 4 * torch.randn(2, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    stored = AttentionMaps.from_arrays(scores.softmax(-1)).to_dtype(dtype)
    assert (stored.weights.float().sum(-1) - 1).abs().max() > (0 if dtype == "float16" else 1e-3)
    assert same(replace(AttentionMaps.from_arrays(stored.weights), source=stored.source), stored)
    figures.head_view(stored.weights)
    with pytest.raises(RecordError, match="sum to 1 only within"):
        AttentionMaps.from_arrays(converted(stored.weights * 0.99, stored.stored_as))


ANALYSES = {
    "entropy": lambda maps: attention_entropy(maps.weights),
    "distance": lambda maps: attention_distance(maps.weights, maps.queries),
    "routing": lambda maps: routing_score(maps.weights, maps.needs, maps.queries).score,
    "sink": lambda maps: sink_mass(maps.weights),
    "rollout": lambda maps: attention_rollout(maps.weights, maps.queries[:, 1:2], mask=maps.mask),
    "similarity": head_similarity,
    "matching": lambda maps: head_matching(maps, maps),
    "pattern distance": lambda maps: pattern_distance(maps, maps),
}


@DTYPES
@pytest.mark.parametrize("analysis", ANALYSES)
def test_analyses_take_maps_in_fewer_bytes_as_they_take_floats(captured, dtype, analysis):
    maps = captured(dtype=dtype)
    exact = replace(maps, weights=maps.weights.float().clone())
    found, wanted = ANALYSES[analysis](maps), ANALYSES[analysis](exact)
    tolerance = 0.0 if dtype == "uint8" else 0.02
    for one, other in zip(*((each,) if isinstance(each, Tensor) else each for each in (found, wanted)), strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one.double(), other.double(), atol=tolerance, rtol=tolerance, equal_nan=True)
        else:
            assert one == other


@DTYPES
@pytest.mark.parametrize("name", ["attention_heatmap", "head_view", "head_grid", "routing_graph"])
def test_figures_of_maps_in_fewer_bytes_are_those_of_the_floats_that_they_stand_for(tiny, dtype, name, tmp_path):
    model = tiny("bert")
    maps = capture_attention(model, model.task.distinct(3, "test"), queries=None, dtype=dtype)
    exact = replace(maps, weights=maps.weights.float().clone())
    drawn = [getattr(figures, name)(each).save(tmp_path / f"{i}.csv") for i, each in enumerate((maps, exact))]
    found, wanted = (Path(path).read_text() for path in drawn)
    if dtype == "uint8":
        assert found == wanted
    assert len(found.splitlines()) == len(wanted.splitlines()) > 1


# Files


def same(one: AttentionMaps, other: AttentionMaps) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_maps_come_back_from_their_file_as_they_were_kept(captured, dtype, tmp_path):
    maps = captured(dtype=dtype)
    maps.save(tmp_path / "maps.safetensors")
    found = AttentionMaps.load(tmp_path / "maps.safetensors")
    assert same(found, maps)
    assert (found.stored_as, found.weight_error) == (maps.stored_as, maps.weight_error)
    assert store.file_of(found) == tmp_path / "maps.safetensors"
    part = AttentionMaps.load(tmp_path / "maps.safetensors", layers=[2, 0], heads=[1], examples=[3, 0])
    assert same(part, maps.select(layers=[2, 0], heads=[1], examples=[3, 0]))
    assert store.file_of(part) is None  # the file holds more


def test_a_selection_is_what_plain_indices_take(captured):
    maps = captured(layers=[2, 1])
    part = maps.select(layers=[1], heads=[3, 0], examples=[2])
    assert torch.equal(part.weights, maps.weights[[1]][:, [2]][:, :, [3, 0]])
    assert (part.layers, part.heads, part.labels) == ((1,), (3, 0), (maps.labels[2],))
    for name in ("queries", "mask", "needs"):
        assert torch.equal(getattr(part, name), getattr(maps, name)[[2]])
    assert same(maps.select(), maps)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layers": [0]}, "layer 0 was not captured: there are 2, 1"),
        ({"heads": [-1]}, "head -1 was not captured: there are 0, 1, 2, 3"),
        ({"examples": [4]}, "example 4 was not captured: there are 0 to 3"),
    ],
)
def test_what_is_not_in_maps_cannot_be_selected_nor_loaded(captured, wanted, message, tmp_path):
    maps = captured(layers=[2, 1])
    maps.save(tmp_path / "maps.safetensors")
    with pytest.raises(ConfigError, match=message):
        maps.select(**wanted)
    with pytest.raises(ConfigError, match=message):
        AttentionMaps.load(tmp_path / "maps.safetensors", **wanted)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("budget", [1 << 30, 4 * 4 * 8 * 8 * 3])
def test_a_capture_straight_into_a_file_is_the_one_in_memory(captured, dtype, budget, tmp_path):
    """Also where the budget lets no more than three of the four examples through at a time."""
    found = captured(dtype=dtype, out=tmp_path / "maps.safetensors", budget_bytes=budget)
    wanted = captured(dtype=dtype)
    torch.testing.assert_close(found.weights.clone(), wanted.weights.clone(), atol=1e-6, rtol=0)
    assert same(replace(found, weights=wanted.weights), wanted)
    assert same(AttentionMaps.load(tmp_path / "maps.safetensors"), found)
    assert store.file_of(found) == tmp_path / "maps.safetensors"


def test_a_capture_into_a_file_that_fails_leaves_what_was_there(captured, tmp_path):
    path = tmp_path / "maps.safetensors"
    before = captured(out=path)
    with pytest.raises(CaptureError, match="over the budget"):
        captured(out=path, budget_bytes=4 * 8 * 8 * 4 - 1)
    with pytest.raises(ConfigError, match="no layer 9"):
        captured(out=path, layers=[9])
    assert same(AttentionMaps.load(path), before)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("error", [KeyError("late"), PermissionError("not of the file")])
def test_a_pass_that_fails_while_its_file_is_written_leaves_what_was_there_and_says_why(tiny, padded, tmp_path, error):
    model, path = tiny("bert"), tmp_path / "maps.safetensors"
    batch = model.task.distinct(3, "test")
    before = capture_attention(model, batch, queries=None, out=path)
    written = []

    def fail(*_: object) -> None:
        written.extend(file.name for file in tmp_path.iterdir() if file.name != path.name)
        raise error

    with model.backbone.attentions[-1].register_forward_hook(fail), pytest.raises(type(error)) as told:
        capture_attention(model, batch, queries=None, out=path)
    assert told.value is error
    assert len(written) == 1  # so the file was begun
    assert same(AttentionMaps.load(path), before)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_is_told_before_the_pass(captured, monkeypatch, tmp_path):
    path = tmp_path / "maps.safetensors"
    before = captured(out=path)
    monkeypatch.setattr(capture, "each_attention", lambda *_args, **_options: pytest.fail("the pass began"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="folder is a folder, wanted the name of a file"):
        captured(out=tmp_path / "folder")
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
    monkeypatch.setattr(_pieces, "MAX_HEADER_BYTES", n_header - 1)
    with pytest.raises(RecordError, match=rf"header of {n_header:,} bytes.*: keep fewer examples"):
        captured(out=path)
    assert same(AttentionMaps.load(path), before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_disk_that_is_full_while_weights_are_written_is_told_by_the_file(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(_path: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    path = tmp_path / "maps.safetensors"
    large = {"weights": (torch.float32, (1 << 20,))}
    monkeypatch.setattr(store, "replacing", full)
    with (
        pytest.raises(RecordError, match=r"maps\.safetensors could not be written \(No space left on device\)"),
        _pieces.writing(path, {}, "attention_maps", {}, large=large),
    ):
        pass


def test_a_capture_into_a_file_needs_no_more_memory_for_more_examples(tiny, tmp_path, monkeypatch):
    model = tiny("gpt2", load_task("bit_xor", n_bits=16))
    bytes_each = 4 * 32 * 32 * 4

    path = tmp_path / "maps.safetensors"

    def written(found: Path, **_options: object) -> None:
        raise EOFError(found)  # before the file is mapped, which is counted as memory though it need not be any

    monkeypatch.setattr(AttentionMaps, "load", written)

    def peak(n_examples: int) -> int:
        batch = model.task.distinct(n_examples, "test")

        def captured() -> None:
            with pytest.raises(EOFError):
                capture_attention(model, batch, queries=None, out=path, budget_bytes=8 * bytes_each)

        return peak_bytes(captured)

    few, many = peak(16), peak(128)
    assert path.stat().st_size > 3 * 128 * bytes_each > 10 * many
    assert many - few < 3 * (128 - 16) * bytes_each / 20  # masks and needs grow, weights do not


# Files of several MiB, read in part


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> dict[str, Path]:
    """Files of 12 layers, 2 examples and 3 heads of 256 tokens, in floats (18 MiB) and packed."""
    weights = torch.randn(12, 2, 3, 256, 256, generator=torch.Generator().manual_seed(0)).softmax(-1)
    maps = AttentionMaps.from_arrays(weights)
    found = {}
    for dtype in ("float32", "uint8"):
        found[dtype] = tmp_path_factory.mktemp("large") / f"{dtype}.safetensors"
        maps.to_dtype(dtype).save(found[dtype])
    return found


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(
    "wanted",
    [
        {"layers": [7]},
        {"layers": [11, 0], "heads": [2]},
        {"heads": [1]},
        {"examples": [1]},
        {"layers": [3], "heads": [0]},
    ],
)
def test_a_part_of_a_large_file_is_that_part_of_the_whole(large, dtype, wanted):
    whole = AttentionMaps.load(large[dtype])
    assert same(AttentionMaps.load(large[dtype], **wanted), whole.select(**wanted))


def test_a_large_file_is_one_that_safetensors_reads(large):
    with safe_open(large["float32"], "pt") as file:
        found = file.get_tensor("weights")
    assert torch.equal(found, AttentionMaps.load(large["float32"]).weights)


def test_only_the_pieces_that_a_part_lies_in_are_read(large, monkeypatch):
    read = []

    class Counting(store.ChunkedTensor):
        def _chunk(self, index: int) -> bytes:
            before = self.n_read
            piece = super()._chunk(index)
            read.append(self.n_read - before)
            return piece

    monkeypatch.setattr(store, "ChunkedTensor", Counting)
    n_pattern = 256 * 256 * 4

    def n_read(**wanted: list[int]) -> int:
        read.clear()
        AttentionMaps.load(large["float32"], **wanted)
        return sum(read)

    assert n_read(layers=[5]) <= 6 * n_pattern + 2 * 2**20
    assert n_read(layers=[5], heads=[1], examples=[1]) <= n_pattern + 2 * 2**20
    assert n_read() == 12 * 6 * n_pattern


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_damage_is_found_in_the_whole_file_and_in_a_part_that_reads_it_alone(large, dtype, tmp_path):
    content = bytearray(large[dtype].read_bytes())
    with safe_open(large[dtype], "pt") as file:
        codes = file.get_tensor("weights")[9]
    at = content.index(codes.contiguous().view(torch.uint8).numpy().tobytes()) + codes.nbytes // 2
    content[at] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)

    AttentionMaps.load(path, layers=[0, 1])
    for wanted in ({"layers": [9]}, {}, {"heads": [0, 1, 2]}):
        with pytest.raises(RecordError, match=r"damaged\.safetensors was altered"):
            AttentionMaps.load(path, **wanted)


def test_damage_anywhere_in_a_large_file_is_found(large, tmp_path):
    content = large["uint8"].read_bytes()
    header = int.from_bytes(content[:8], "little")
    places = [*range(8, 8 + header, 97), *range(8 + header, len(content), len(content) // 40), len(content) - 1]
    path = tmp_path / "damaged.safetensors"
    for at in places:
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(RecordError, match="damaged"):
            AttentionMaps.load(path)
    path.write_bytes(content[: len(content) // 2])
    for wanted in ({}, {"layers": [0]}):
        with pytest.raises(RecordError, match="damaged"):
            AttentionMaps.load(path, **wanted)


def test_a_program_from_before_pieces_is_told_that_the_file_is_newer(large, captured, tmp_path):
    captured(dtype="uint8").save(tmp_path / "small.safetensors")
    captured().save(tmp_path / "plain.safetensors")
    paths = (*large.values(), tmp_path / "small.safetensors", tmp_path / "plain.safetensors")
    schemas = []
    for path in paths:
        with safe_open(path, "pt") as file:
            schemas.append(file.metadata()["schema"])
    assert schemas == ["2", "2", "2", "1"]


def wide_and_flat(n_examples: int, n_tokens: int, n_keys: int) -> AttentionMaps:
    """Of one layer and head, with needs that differ."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.rand(1, n_examples, 1, n_tokens, n_keys, generator=rng)
    return AttentionMaps(
        weights=weights / weights.sum(-1, keepdim=True),
        layers=(0,),
        heads=(0,),
        queries=torch.randint(n_keys, (n_examples, n_tokens), generator=rng),
        labels=(("t",) * n_keys,) * n_examples,
        mask=torch.ones(n_examples, n_keys, dtype=torch.bool),
        needs=torch.rand(n_examples, n_tokens, n_keys, generator=rng) < 0.5,
        causal=False,
    )


@pytest.mark.parametrize("size", [(3, 1024, 1024), (20_000, 8, 8)], ids=["needs", "needs and queries"])
def test_what_is_beside_weights_comes_back_in_part_however_large_it_is(size, tmp_path):
    maps = wide_and_flat(*size)
    maps.save(tmp_path / "maps.safetensors")
    with safe_open(tmp_path / "maps.safetensors", "pt") as file:
        assert "needs.sha256" in file.keys()  # noqa: SIM118  # it is no mapping
    for wanted in ({"layers": [0]}, {"examples": [2, 0]}, {"examples": []}):
        assert same(AttentionMaps.load(tmp_path / "maps.safetensors", **wanted), maps.select(**wanted))


def forged(source: Path, path: Path, tensors: dict[str, Tensor], **fields: object) -> Path:
    """The file of maps with other tensors or fields, and a checksum that fits them."""
    with safe_open(source, "pt") as file:
        header, held = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    held |= tensors
    header["fields"] = json.dumps(fields.get("all", json.loads(header["fields"]) | fields))
    large = {name for name in held if name + ".sha256" in held}
    said = {name: Place(one.dtype, tuple(one.shape), 0) if name in large else one for name, one in held.items()}
    header["sha256"] = store._digest(said, header)
    safetensors.torch.save_file(held, path, metadata=header)
    return path


@pytest.mark.parametrize(
    "digests",
    [
        torch.zeros(0, 32, dtype=torch.uint8),
        torch.zeros(18, dtype=torch.uint8),
        torch.zeros(18, 32),
        torch.zeros(17, 32, dtype=torch.uint8),
    ],
    ids=["none", "flat", "floats", "too few"],
)
def test_a_large_file_whose_digests_do_not_cover_it_was_altered(large, digests, tmp_path):
    path = forged(large["float32"], tmp_path / "forged.safetensors", {"weights.sha256": digests})
    for wanted in ({}, {"layers": [0]}):
        with pytest.raises(RecordError, match=r"forged\.safetensors was altered"):
            AttentionMaps.load(path, **wanted)


FORGED = {
    "a list of fields": ({}, {"all": [1]}, "is no whole attention_maps file"),
    "no layers": ({}, {"layers": 5}, "has the layers 5, wanted a list"),
    "more layers": ({}, {"layers": list(range(13))}, "has weights of shape"),
    "fewer examples": ({}, {"labels": [["t"] * 8]}, "has weights of shape"),
    "labels that are numbers": ({}, {"labels": [1, 2]}, "is no whole attention_maps file"),
    "flat weights": ({"weights": torch.zeros(12, 2, dtype=torch.uint8)}, {}, "has weights of shape"),
    "other rows": ({"largest": torch.zeros(12, 2, 3, 7)}, {}, "has weights in torch.uint8 .* that do not fit"),
    "codes that are floats": ({"weights": torch.zeros(12, 2, 3, 8, 8).half()}, {}, "has weights in torch.float16"),
    "fewer masks": ({"mask": torch.ones(1, 8, dtype=torch.bool)}, {}, "has mask of shape"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_file_whose_checksum_fits_but_whose_fields_do_not_is_told(tmp_path, how):
    tensors, fields, message = FORGED[how]
    maps = AttentionMaps.from_arrays(torch.full((12, 2, 3, 8, 8), 1 / 8)).to_dtype("uint8")
    maps.save(tmp_path / "maps.safetensors")
    path = forged(tmp_path / "maps.safetensors", tmp_path / "forged.safetensors", tensors, **fields)
    for wanted in ({}, {"layers": [0]}):
        with pytest.raises(RecordError, match=rf"forged\.safetensors {message}"):
            AttentionMaps.load(path, **wanted)


PROBE = """
import resource, sys, torch
from fpt_viz.records import AttentionMaps
def resident():
    return sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Rss")) << 10
AttentionMaps.load(sys.argv[1]); torch.ones(9).sum()
before, top = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
whole = AttentionMaps.load(sys.argv[2])
part = AttentionMaps.load(sys.argv[2], layers=[2], heads=[1])
held = resident() - before
print(held, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - top) << 10, float(whole.weights[1, 0, 0, 0].sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opening_a_large_file_makes_little_of_it_resident(captured, tmp_path):
    """48 MiB of which the whole is opened and checked, one head of one layer read, and a row looked at."""
    captured().save(tmp_path / "small.safetensors")
    small = captured().select(examples=[0])
    weights = torch.full((3, 1, 4, 1024, 1024), 1 / 1024)
    wide = {"mask": torch.ones(1, 1024, dtype=torch.bool), "labels": (("t",) * 1024,), "needs": None}
    replace(small, weights=weights, queries=torch.arange(1024)[None], **wide).save(tmp_path / "large.safetensors")
    command = [sys.executable, "-c", PROBE, str(tmp_path / "small.safetensors"), str(tmp_path / "large.safetensors")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    held, top, total = float(told[0]), float(told[1]), float(told[2])
    assert weights.nbytes == 48 * 2**20
    assert held < 12 * 2**20
    assert top < 16 * 2**20
    assert total == pytest.approx(1, abs=1e-4)


# On the command line


@pytest.mark.slow  # a run, a capture and a figure
def test_what_a_capture_was_made_and_stored_in_is_told_and_its_figures_can_be_made_again(tmp_path, capsys):
    config = RunConfig(
        task=TaskConfig(name="bit_xor", options={"n_bits": 2}),
        backbone=BackboneConfig(name="gpt2-tiny-random", init="random", n_layers=2),
        train=TrainConfig(n_steps=1, batch_size=4, validate_every=1),
    )
    run(config, tmp_path / "run")
    asked = ["--precision", "bfloat16", "--stored-as", "uint8", "--examples", "2", "--json"]
    assert main(["capture", str(tmp_path / "run"), *asked]) == 0
    told = capsys.readouterr().out
    assert '"precision": "bfloat16"' in told
    assert '"stored_as": "uint8"' in told
    maps = load_run(tmp_path / "run").maps()
    assert (maps.precision, maps.stored_as) == ("bfloat16", torch.uint8)
    drawn = tmp_path / "a.svg"
    assert main(["figure", "attention_heatmap", str(tmp_path / "run"), "-o", str(drawn)]) == 0
    assert main(["figure", "--check", str(drawn)]) == 0
