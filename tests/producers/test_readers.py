"""The readers of data files: what they read, what they refuse, and that nothing else happens on damaged ones."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import gzip
import io
from pathlib import Path
import struct
import tracemalloc

from hypothesis import HealthCheck, given, settings, strategies as st
from made_images import Made, encoded, table_of, write_cifar_binary, write_parquet
import numpy as np
from PIL import Image, ImageFile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fpt_viz.data_sets.cifar_binary import read_cifar_binary
from fpt_viz.data_sets.idx import read_idx
from fpt_viz.data_sets.image_parquet import _pixels, read_image_parquet
from fpt_viz.data_sets.parquet_pages import MalformedPageError, page_header, pages, row_groups
from fpt_viz.errors import SourceError

CIFAR = (3, 32, 32)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_idx_files_hold_what_struct_wrote(tmp_path, name):
    content = idx(IMAGES)
    path = written(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)

    np.testing.assert_array_equal(read_idx(path, (4, 5)), IMAGES)


def test_idx_labels_have_one_axis(tmp_path):
    path = written(tmp_path / "labels", idx(np.array([3, 1, 4], np.uint8)))
    assert read_idx(path, ()).tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "found an empty file"),
        (
            b"\x1f\x8b\x08\x00" * 8,
            r"wanted the header of an IDX file with 3 axes of bytes \(00000803\), found 1f8b0800",
        ),
        (b"\0\0\x0d\3" + idx(IMAGES)[4:], "found 00000d03"),  # floats
        (idx(IMAGES[0]), "found 00000802"),
        (idx(IMAGES)[:10], "found 00000803"),
        (idx(IMAGES)[:-1], "wanted 60 bytes after the header, found 75 bytes, which hold 59"),
        (idx(IMAGES) + b"x", "wanted 60 bytes after the header, found 77 bytes, which hold 61"),
        (idx(IMAGES[:0]), r"wanted one or more items of shape \(4, 5\), found 0 of shape"),
        (idx(IMAGES.reshape(3, 5, 4)), r"wanted one or more items of shape \(4, 5\), found 3 of shape \(5, 4\)"),
    ],
)
def test_what_is_no_whole_idx_file_is_refused(tmp_path, content, told):
    path = written(tmp_path / "train-images-idx3-ubyte", content)
    with pytest.raises(SourceError, match=told) as error:
        read_idx(path, (4, 5))
    assert str(path) in str(error.value)
    assert str(error.value).endswith("fetch the file anew")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (idx(IMAGES), "Not a gzipped file"),
        (gzip.compress(idx(IMAGES))[:-9], "ended before|wanted 60 bytes"),
        (gzip.compress(idx(IMAGES))[:-8] + bytes(8), "CRC check failed"),
        (gzip.compress(idx(IMAGES)[:-1]), "wanted 60 bytes after the header, found 59"),
        (gzip.compress(idx(IMAGES) + b"x"), "wanted 60 bytes after the header, found more"),
    ],
    ids=["not zipped", "cut", "checksum", "short", "long"],
)
def test_what_is_no_whole_zipped_idx_file_is_refused(tmp_path, content, told):
    path = written(tmp_path / "train-images-idx3-ubyte.gz", content)
    with pytest.raises(SourceError, match=told):
        read_idx(path, (4, 5))


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_header_that_promises_more_than_the_file_can_hold_allocates_nothing(tmp_path, end):
    content = struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 28, 28) + bytes(1000)
    path = written(tmp_path / f"images{end}", gzip.compress(content) if end else content)

    def refused() -> None:
        with pytest.raises(SourceError, match="after the header"):
            read_idx(path, (28, 28))

    assert peak_bytes(refused) < 1_000_000


def test_a_zipped_file_is_unpacked_no_further_than_its_header_promises(tmp_path):
    path = written(tmp_path / "images.gz", gzip.compress(idx(IMAGES) + bytes(200_000_000), compresslevel=1))

    def refused() -> None:
        with pytest.raises(SourceError, match="found more"):
            read_idx(path, (4, 5))

    assert peak_bytes(refused) < 2_000_000


def test_a_file_that_is_missing_or_a_folder_is_one_error(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SourceError, match="cannot be read"):
            read_idx(path, ())
    with pytest.raises(SourceError, match="cannot be read"):
        read_cifar_binary(tmp_path / "none")


def test_cifar_batches_hold_labels_and_planes_of_colour(tmp_path):
    made = Made("cifar10", n_train=10)
    path = write_cifar_binary(made, tmp_path) / "data_batch_1.bin"

    images, labels = read_cifar_binary(path)

    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), made.images["train"][:2])
    np.testing.assert_array_equal(labels, made.labels["train"][:2])


@pytest.mark.parametrize("n_bytes", [0, 3072, 3074])
def test_a_cifar_batch_of_no_whole_records_is_refused(tmp_path, n_bytes):
    path = written(tmp_path / "data_batch_1.bin", bytes(n_bytes))
    with pytest.raises(SourceError, match=f"wanted one or more records of 3,073 bytes, found {n_bytes:,} bytes"):
        read_cifar_binary(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_parquet_files_hold_what_pillow_decodes(tmp_path, compression, kind):
    made = Made("cifar10", n_train=70)
    path = write_parquet(made, tmp_path, kind=kind, compression=compression) / "train-00000-of-00001.parquet"
    expected = [np.asarray(Image.open(io.BytesIO(encoded(image, kind)))) for image in made.images["train"]]

    images, labels = read_image_parquet(path, "img", CIFAR)

    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), np.stack(expected))
    np.testing.assert_array_equal(labels, made.labels["train"])


def jpeg(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0}, {"quality": 5, "subsampling": 2}, {"progressive": True}, {"optimize": True},
        {"comment": b"a comment"}, {"exif": Image.Exif()}, {"restart_marker_blocks": 1}, {"keep_rgb": True},
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_kind_of_jpeg_holds_what_pillow_decodes(tmp_path, options):
    images = [jpeg(image, **options) for image in Made("cifar10").images["train"]]
    expected = [np.asarray(Image.open(io.BytesIO(image))) for image in images]

    found, labels = read_image_parquet(of_rows(tmp_path / "train.parquet", images), "img", CIFAR)

    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1), np.stack(expected))
    assert labels.tolist() == list(range(len(images)))


def test_a_gray_jpeg_holds_what_pillow_decodes(tmp_path):
    images = [jpeg(image) for image in Made("mnist").images["train"]]
    found, _ = read_image_parquet(of_rows(tmp_path / "train.parquet", images), "img", (1, 28, 28))
    np.testing.assert_array_equal(found[:, 0], [np.asarray(Image.open(io.BytesIO(image))) for image in images])


def test_a_jpeg_without_anything_odd_is_not_opened_twice(tmp_path, monkeypatch):
    images = [jpeg(image) for image in Made("cifar10").images["train"]]
    monkeypatch.setattr(Image, "open", None)  # the slower way
    assert len(read_image_parquet(of_rows(tmp_path / "train.parquet", images), "img", CIFAR)[0]) == len(images)


def of_rows(path: Path, images: list[bytes | None], **options: object) -> Path:
    """A parquet file of encoded images."""
    rows = [None if image is None else {"bytes": image, "path": ""} for image in images]
    column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"img": column, "label": pa.array(range(len(images)), pa.int64())}), path, **options)
    return path


NOISE = Made("cifar10").images["train"]
PNG = encoded(NOISE[0])


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([], "wanted 1 to|wanted a parquet file of whole pages"),
        ([PNG, None], "wanted an image and a label in each row, found an empty one"),
        ([PNG, encoded(NOISE[0][:31])], r"wanted RGB images of 32 x 32, found RGB of \(32, 31\)"),
        ([PNG, encoded(NOISE[0][:, :, 0])], r"wanted RGB images of 32 x 32, found L of \(32, 32\)"),
        ([PNG, jpeg(NOISE[0][:31])], r"wanted RGB images of 32 x 32, found RGB of \(32, 31\)"),
        ([PNG, jpeg(NOISE[0][:, :, 0])], r"wanted RGB images of 32 x 32, found L of \(32, 32\)"),
        ([PNG, jpeg(NOISE[0])[:700]], "wanted whole PNG or JPEG images, found"),
        ([PNG, PNG[:500]], "wanted whole PNG or JPEG images, found"),
        ([PNG, b"x" * 500], "wanted whole PNG or JPEG images, found cannot identify"),
        ([PNG, encoded(NOISE[0], "BMP")], "wanted whole PNG or JPEG images, found cannot identify"),
    ],
)
def test_a_parquet_file_with_a_row_that_is_no_such_image_is_refused(tmp_path, images, told):
    path = of_rows(tmp_path / "train.parquet", images)
    with pytest.raises(SourceError, match=told) as error:
        read_image_parquet(path, "img", CIFAR)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (pa.table({"image": [1], "label": [1]}), "wanted columns img {bytes, path} and label, found image, label"),
        (pa.table({"img": [b"x"], "label": [1]}), "wanted columns img {bytes, path} and label"),
        (pa.table({"img": [{"bytes": "x"}], "label": [1]}), "wanted images as bytes, found string"),
        (pa.table({"img": [{"bytes": PNG}]}), "wanted columns img {bytes, path} and label, found img"),
        (pa.table({"img": [{"bytes": PNG}], "label": [1.5]}), "wanted columns img {bytes, path} and label"),
    ],
)
def test_a_parquet_file_of_other_columns_is_refused(tmp_path, table, told):
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(SourceError, match=told):
        read_image_parquet(tmp_path / "train.parquet", "img", CIFAR)


def test_a_file_that_is_no_parquet_or_cut_off_is_refused(tmp_path):
    content = of_rows(tmp_path / "whole.parquet", [PNG]).read_bytes()
    for wrong in (b"", b"PAR1", b"x" * 100, content[:-1], content[:200], content[200:]):
        with pytest.raises(SourceError, match="cannot be read|wanted a parquet file of whole pages"):
            read_image_parquet(written(tmp_path / "train.parquet", wrong), "img", CIFAR)


@pytest.mark.parametrize(
    ("images", "options", "told"),
    [
        ([bytes(20_000_000)], {"compression": "zstd", "use_dictionary": False}, "at most 14,336 bytes a row"),
        ([PNG] * 2000, {"compression": "zstd"}, "wanted 1 to .* rows, as many as .* bytes can hold, found 2,000"),
        ([PNG] * 3, {"use_dictionary": False, "column_encoding": {"img.bytes": "DELTA_BYTE_ARRAY"}}, "encoding 7"),
        (
            [bytes([i]) * 5_000_000 for i in range(2)] + [PNG] * 1200,
            {"dictionary_pagesize_limit": 1 << 25, "compression": "none"},
            "dictionaries of at most 4,194,304 bytes",
        ),
    ],
    ids=["a page that unpacks to 20 MB", "rows without bytes", "shared prefixes", "a large dictionary"],
)
def test_a_parquet_file_that_would_grow_beyond_its_images_is_refused_before_it_is_unpacked(
    tmp_path, images, options, told
):
    path = of_rows(tmp_path / "train.parquet", images, **options)
    before = pa.default_memory_pool().max_memory()

    def refused() -> None:
        with pytest.raises(SourceError, match=told):
            read_image_parquet(path, "img", CIFAR)

    assert peak_bytes(refused) < 2_000_000
    assert pa.default_memory_pool().max_memory() == before


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_page_headers_add_up_to_what_the_footer_says(tmp_path, version):
    table = table_of(Made("cifar10", n_train=300), "train", np.arange(300), "img")
    path = tmp_path / "train.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=200,
        data_page_size=4096,
        data_page_version=version,
        use_dictionary=["label"],
        write_batch_size=8,
    )
    n_pages = 0
    with path.open("rb") as file:
        about = pq.ParquetFile(path).metadata
        groups = row_groups(file)
        assert [group.n_rows for group in groups] == [200, 100]
        for number, group in enumerate(groups):
            assert len(group.chunks) == about.num_columns
            for column, chunk in enumerate(group.chunks):
                oracle = about.row_group(number).column(column)
                found = list(pages(file, chunk.start, chunk.n_packed))
                n_pages += len(found)
                assert chunk.name == oracle.path_in_schema
                assert sum(page.n_unpacked + page.n_header for page in found) == oracle.total_uncompressed_size
                assert sum(page.n_packed + page.n_header for page in found) == oracle.total_compressed_size
                assert sum(page.is_dictionary for page in found) == oracle.has_dictionary_page

    assert n_pages > 30


@pytest.mark.parametrize(
    "content", [b"", b"\x15", b"\x15\x00\x15", b"\x1c" * 50, b"\x19\xfc\xff\xff\x7f", b"\x15" + b"\xff" * 20]
)
def test_bytes_that_are_no_page_header_are_refused(content):
    with pytest.raises(MalformedPageError):
        page_header(content)


def test_a_footer_on_which_pyarrow_can_end_the_process_is_read_or_is_one_error(tmp_path):
    """Columns of another nesting than their statistics: pyarrow's view of such a column raises what nothing catches."""
    content = of_rows(tmp_path / "whole.parquet", [PNG] * 3).read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for i in range(footer, footer + 80):
        path = written(tmp_path / "train.parquet", content[:i] + bytes([content[i] ^ 0x11]) + content[i + 1 :])
        with contextlib.suppress(SourceError):
            read_image_parquet(path, "img", CIFAR)


# Damaged files: at least 2,000 of them in all, the same ones each time.

N_DAMAGED = 600
"""Of each format."""
SMALL = Made("cifar10", n_train=10, n_test=10)


def parquet_content() -> bytes:
    file = io.BytesIO()
    table = table_of(SMALL, "train", np.arange(6), "img")
    pq.write_table(table.cast(table.schema), file, row_group_size=4, compression="snappy")
    return file.getvalue()


IDX_CONTENT = idx(np.arange(7 * 9 * 9, dtype=np.uint32).astype(np.uint8).reshape(7, 9, 9))
WHOLE = {
    "a": IDX_CONTENT,
    "a.gz": gzip.compress(IDX_CONTENT),
    "a.bin": bytes([3]) + bytes(3072) + bytes([4]) + bytes(3072),
    "a.parquet": parquet_content(),
}
READ: dict[str, Callable[[Path], object]] = {
    "a": lambda path: read_idx(path, (9, 9)),
    "a.gz": lambda path: read_idx(path, (9, 9)),
    "a.bin": read_cifar_binary,
    "a.parquet": lambda path: read_image_parquet(path, "img", CIFAR),
}


@st.composite
def edits(draw: st.DrawFn, n_bytes: int) -> list[tuple[str, int, int, bytes]]:
    """Bytes to change, most near the ends of a file; then to cut it off, leave a piece out, double it or put one in."""
    near_an_end = st.one_of(st.integers(0, 40), st.integers(max(0, n_bytes - 900), n_bytes - 1))
    place = st.one_of(near_an_end, st.integers(0, n_bytes - 1))
    value = st.one_of(st.integers(0, 255), st.sampled_from([0, 127, 128, 255])).map(lambda number: bytes([number]))
    found = [("change", draw(place), 0, draw(value)) for _ in range(draw(st.integers(0, 4)))]
    kind = draw(st.sampled_from(["keep", "keep", "cut", "leave out", "double", "put in"]))
    return [*found, (kind, *sorted((draw(place), draw(place))), draw(st.binary(max_size=16)))]


def damaged(whole: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    content = bytearray(whole)
    for kind, start, end, piece in changes:
        if kind == "change":
            content[start : start + 1] = piece
        elif kind == "cut":
            del content[start:]
        elif kind == "leave out":
            del content[start:end]
        elif kind == "double":
            content[end:end] = content[start:end]
        elif kind == "put in":
            content[start:start] = piece
    return bytes(content)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("a", "a.parquet") else name for name in WHOLE]
)
def test_a_damaged_file_is_read_or_is_one_error_and_nothing_else(name, tmp_path):
    path = tmp_path / name
    read = READ[name]
    read(written(path, WHOLE[name]))
    outcomes = {"files": 0, "read": 0, "refused": 0}

    @settings(
        max_examples=N_DAMAGED, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(edits(len(WHOLE[name])))
    def check(changes: list[tuple[str, int, int, bytes]]) -> None:
        outcomes["files"] += 1
        path.write_bytes(damaged(WHOLE[name], changes))
        try:
            read(path)
            outcomes["read"] += 1
        except SourceError as error:
            outcomes["refused"] += str(path) in str(error)

    check()
    assert outcomes["read"] + outcomes["refused"] == outcomes["files"] >= N_DAMAGED
    assert outcomes["refused"] > N_DAMAGED // 3


def test_a_damaged_jpeg_is_what_pillow_makes_of_it_or_is_one_error(tmp_path):
    whole = jpeg(NOISE[0], quality=90)
    outcomes = {"same": 0, "refused": 0}

    @settings(
        max_examples=N_DAMAGED, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(edits(len(whole)))
    def check(changes: list[tuple[str, int, int, bytes]]) -> None:
        content = damaged(whole, changes)
        try:
            found = np.frombuffer(_pixels(tmp_path, content, (32, 32), "RGB"), np.uint8)
        except SourceError:
            outcomes["refused"] += 1
            return
        parser = ImageFile.Parser()
        parser.feed(content)
        np.testing.assert_array_equal(found, np.asarray(parser.close()).flatten())
        outcomes["same"] += 1

    check()
    assert min(outcomes.values()) > N_DAMAGED // 10
