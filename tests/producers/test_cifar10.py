from __future__ import annotations

from collections import Counter
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
import pytest
import torch

from fpt_viz.tasks import load_task
from fpt_viz.tasks.cifar10 import COLOUR

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of the real images: below ``FPT_VIZ_DATA``, or in ``shared/data`` beside the checkout."""
    given = os.environ.get("FPT_VIZ_DATA")
    folder = Path(given) if given else repository.parent / "shared" / "data"
    if not (folder / "cifar10" / "plain_text").is_dir():
        pytest.skip(f"no {folder}/cifar10/plain_text: name a folder that holds CIFAR-10 in FPT_VIZ_DATA")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_VIZ_DATA", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield folder / "cifar10" / "plain_text"


def test_the_papers_code_shows_64_tokens_of_48_values_normalised_and_augmented():
    task = load_task("cifar10")
    assert (task.n_tokens, task.n_values, task.output_shape, task.augment) == (64, 48, (10,), True)


def test_cifar_10_lra_has_1024_tokens_of_one_gray_pixel_from_minus_1_to_1(made_data, rng):
    task = load_task("cifar10", gray=True, patch_size=1, augment=False)
    inputs = task.sample(16, rng).inputs

    assert (task.n_tokens, task.n_values) == (1024, 1)
    torch.testing.assert_close(task.to_image(inputs), task.to_pixels(inputs) / 127.5 - 1, atol=1e-6, rtol=0)
    assert task.geometry().boxes[33] == (1, 1, 1, 1)


@pytest.mark.slow
def test_the_real_images_are_60000_and_every_class_has_its_share(real):
    task = load_task("cifar10")

    assert [task.n_examples(split) for split in SPLITS] == [45_000, 5_000, 10_000]
    assert task.n_left_out() == load_task("cifar10", gray=True).n_left_out() == {"train": 0, "test": 0}
    assert task.trivial == {"most frequent class": 0.1}
    labels = torch.cat([task._examples(s).labels[task._examples(s).rows] for s in ("train", "validation")])
    assert labels.bincount().tolist() == [5000] * 10


@pytest.mark.slow
def test_the_real_images_are_those_that_pandas_and_pillow_read(real):
    task = load_task("cifar10")
    table = pd.read_parquet(real / "test-00000-of-00001.parquet")
    whole = task.distinct(10_000, "test")
    found = Counter(zip(map(bytes, task.to_pixels(whole.inputs).numpy()), whole.targets[:, 0].tolist(), strict=True))

    some = table.iloc[::25]
    for cell, label in zip(some["img"], some["label"], strict=True):
        assert found[np.asarray(Image.open(io.BytesIO(cell["bytes"]))).tobytes(), label] == 1


@pytest.mark.slow
def test_colours_are_normalised_by_what_the_training_images_measure(real):
    pixels = load_task("cifar10")._published()["train"].pixels.float() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)

    torch.testing.assert_close(mean, torch.tensor(COLOUR[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(std, torch.tensor(COLOUR[1]), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_real_images_that_validate_are_always_the_same(real):
    examples = load_task("cifar10")._examples("validation")
    labels = examples.labels[examples.rows]

    assert hashlib.sha256(bytes(labels.tolist())).hexdigest()[:16] == "eab7b3d979e6acd0"
    assert labels.bincount().min() > 400
