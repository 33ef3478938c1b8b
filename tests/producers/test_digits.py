from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets
import torch

from fpt_viz.errors import ConfigError
from fpt_viz.tasks import digits, load_task

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_the_splits_hold_the_images_of_scikit_learn_with_their_digits(patch_size):
    data = datasets.load_digits()
    expected = Counter((image.tobytes(), digit) for image, digit in zip(data.images, data.target, strict=True))
    task = load_task("digits", patch_size=patch_size)
    found: Counter[tuple[bytes, int]] = Counter()
    for split in SPLITS:
        whole = task.distinct(5000, split)
        images = (task.to_image(whole.inputs) * 16).double().numpy()
        found.update(
            (image.tobytes(), digit) for image, digit in zip(images, whole.targets[:, 0].tolist(), strict=True)
        )

    assert found == expected


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_a_token_holds_the_pixels_in_its_box(patch_size, rng):
    task = load_task("digits", patch_size=patch_size)
    inputs = task.sample(3, rng).inputs
    images = task.to_image(inputs)

    for token, (top, left, height, width) in enumerate(task.geometry().boxes):
        box = images[:, top : top + height, left : left + width]
        assert torch.equal(box.flatten(1), inputs[:, token])
        assert task.token_names()[token] == f"r{top // patch_size}c{left // patch_size}"
    assert torch.equal(task.to_patches(images), inputs)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_cutting_and_joining_are_exact_inverses(patch_size, rng):
    task = load_task("digits", patch_size=patch_size)
    images = torch.rand(4, 8, 8, generator=rng)

    assert torch.equal(task.to_image(task.to_patches(images)), images)


def test_pixels_lie_between_0_and_1_and_reach_both(rng):
    inputs = load_task("digits").sample(100, rng).inputs

    assert inputs.min() == 0
    assert inputs.max() == 1


def test_about_70_15_and_15_percent_are_in_the_splits_for_any_seed():
    for seed in range(3):
        task = load_task("digits", split_seed=seed)
        sizes = np.array([task.n_examples(split) for split in SPLITS])

        assert sizes.sum() == 1797
        np.testing.assert_allclose(sizes / 1797, [0.7, 0.15, 0.15], atol=0.05)


def test_the_trivial_solver_that_always_answers_one_digit_does_as_well_as_stated():
    task = load_task("digits")
    truth = task.distinct(5000, "test").targets[:, 0].numpy()

    assert task.trivial == {"most frequent digit": max(np.mean(truth == digit) for digit in range(10))}


def test_equal_images_are_kept_once(monkeypatch):
    data = datasets.load_digits()
    twice = SimpleNamespace(images=np.tile(data.images, (2, 1, 1)), target=np.tile(data.target, 2))
    monkeypatch.setattr(datasets, "load_digits", lambda: twice)
    digits._images.cache_clear()
    try:
        assert sum(load_task("digits").n_examples(split) for split in SPLITS) == len(data.images)
    finally:
        digits._images.cache_clear()


def test_a_patch_size_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ConfigError, match="patch_size of digits must be one of 1, 2, 4, got 3"):
        load_task("digits", patch_size=3)


def test_images_have_no_known_needs(rng):
    task = load_task("digits")

    assert task.needs(task.sample(2, rng).inputs) is None
