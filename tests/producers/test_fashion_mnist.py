from __future__ import annotations

from collections import Counter
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from fpt_viz.tasks import load_task

FOLDER = Path("/usr/share/datasets/fashion-mnist")
REAL = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}: install Debian's package dataset-fashion-mnist")


@pytest.fixture
def real(monkeypatch, tmp_path):
    """The real images, from where Debian's package puts them."""
    monkeypatch.delenv("FPT_VIZ_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_it_is_shown_as_mnist_is(made_data):
    task = load_task("fashion_mnist")
    assert (task.n_tokens, task.n_values, task.output_shape, task.augment) == (49, 16, (10,), False)


@REAL
def test_debians_files_give_70000_different_images_and_1000_of_each_class_to_test(real):
    task = load_task("fashion_mnist")

    assert [task.n_examples(split) for split in ("train", "validation", "test")] == [55_000, 5_000, 10_000]
    assert task.n_left_out() == {"train": 0, "test": 0}
    assert task.trivial == {"most frequent class": 0.1}
    assert task.source()["layout"] == "idx"
    assert len(task.source()["sha256"]) == 4


@REAL
def test_debians_images_are_those_that_numpy_reads(real):
    task = load_task("fashion_mnist")
    content = gzip.decompress((FOLDER / "t10k-images-idx3-ubyte.gz").read_bytes())
    expected = np.frombuffer(content, np.uint8, offset=16).reshape(10_000, 28, 28)
    labels = np.frombuffer(gzip.decompress((FOLDER / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    whole = task.distinct(10_000, "test")
    found = Counter(zip(map(bytes, task.to_pixels(whole.inputs).numpy()), whole.targets[:, 0].tolist(), strict=True))

    assert found == Counter(zip(map(bytes, expected), labels.tolist(), strict=True))


@REAL
def test_the_images_that_validate_are_always_the_same(real):
    task = load_task("fashion_mnist")
    examples = task._examples("validation")
    pixels = examples.pixels[examples.rows].numpy()

    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "ba43f6ea3d05add5"
    assert examples.labels[examples.rows].bincount().min() > 400
