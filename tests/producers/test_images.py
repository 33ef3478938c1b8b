"""What holds for every task on images: places and layouts of files, splits, patches, augmentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
import hashlib
import logging
from pathlib import Path
import sys
from types import ModuleType

from made_images import SHAPES, Made, write_cifar_binary, write_idx, write_parquet
import numpy as np
from PIL import Image
import pytest
from scipy import ndimage
import torch

from fpt_viz import registry
from fpt_viz.data_sets import decoded, images, places
from fpt_viz.errors import ConfigError, SourceError
from fpt_viz.tasks import _augment, load_task
from fpt_viz.tasks._images import ImageTask

SPLITS = ("train", "validation", "test")
NAMES = ("mnist", "fashion_mnist", "cifar10")
Writer = Callable[[Made, Path], Path]
WRITERS: dict[str, Writer] = {
    "parquet": write_parquet,
    "parquet in three files": lambda made, root: write_parquet(made, root, n_shards=3, compression="zstd"),
    "idx": write_idx,
    "idx.gz": lambda made, root: write_idx(made, root, zipped=True),
    "cifar": write_cifar_binary,
    "cifar in the archive's folder": lambda made, root: write_cifar_binary(made, root, folder="cifar-10-batches-bin"),
}
LAYOUTS = [
    (name, layout)
    for name in NAMES
    for layout in WRITERS
    if layout.startswith("parquet") or layout.startswith("cifar") == (name == "cifar10")
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``FPT_VIZ_DATA`` names, with no other place to find data."""
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "SYSTEM", tmp_path / "system")
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def task_of(name: str, **options: object) -> ImageTask:
    task = load_task(name, **{"n_validation": 8, "augment": False, **options})
    assert isinstance(task, ImageTask)
    return task


def whole(task: ImageTask, split: str) -> tuple[np.ndarray, list[int]]:
    """The images of a split as the data has them, in the order of the split, and their labels."""
    examples = task._examples(split)
    batch = task._batch(examples, examples.rows)
    return task.to_pixels(batch.inputs).numpy(), batch.targets[:, 0].tolist()


def test_all_image_tasks_are_checked_here():
    assert [n for n in registry.names("tasks") if issubclass(registry.load("tasks", n), ImageTask)] == sorted(NAMES)


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_every_layout_gives_the_published_images_with_their_labels(root, name, layout):
    made = Made(name)
    WRITERS[layout](made, root)
    task = task_of(name)

    train, validation, test = (whole(task, split) for split in SPLITS)

    assert task.source()["layout"] == {"i": "idx", "p": "parquet", "c": "cifar_binary"}[layout[0]]
    assert (len(train[1]), len(validation[1]), len(test[1])) == (22, 8, 20)
    for split, found in (("train", [train, validation]), ("test", [test])):
        expected = Counter(zip(map(bytes, made.images[split]), made.labels[split].tolist(), strict=True))
        pairs = [pair for images, labels in found for pair in zip(map(bytes, images), labels, strict=True)]
        assert Counter(pairs) == expected


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_their_order_are_the_same_in_every_layout_and_order_of_rows(tmp_path, root, name, monkeypatch):
    made, found = Made(name), []
    for i, layout in enumerate(layout for other, layout in LAYOUTS if other == name):
        WRITERS[layout](made, tmp_path / str(i))
        order = np.random.default_rng(i).permutation(made.n_train)
        made.images["train"], made.labels["train"] = made.images["train"][order], made.labels["train"][order]
        monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / str(i)))
        batches = [task_of(name).sample(5, torch.Generator().manual_seed(0), split) for split in SPLITS]
        found.append([(batch.inputs, batch.targets) for batch in batches])

    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=0, rtol=0)


PINNED = {
    "mnist": "f544169e29f1cca4",
    "fashion_mnist": "326d053ce5ae8e21",
    "cifar10": "a16c1631bfa548d0",
}
"""SHA-256 over the images and labels of all splits, in their order."""


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_their_order_are_the_same_on_every_machine(root, name):
    WRITERS["cifar" if name == "cifar10" else "idx"](Made(name), root)
    digest = hashlib.sha256()
    for split in SPLITS:
        pixels, labels = whole(task_of(name), split)
        digest.update(pixels.tobytes() + bytes(labels))

    assert digest.hexdigest()[:16] == PINNED[name]


def test_the_test_images_stay_whatever_the_split_seed_and_validation_images_change(root):
    write_idx(Made("mnist"), root)
    one, other = task_of("mnist"), task_of("mnist", split_seed=1)

    np.testing.assert_array_equal(whole(one, "test")[0], whole(other, "test")[0])
    assert set(map(bytes, whole(one, "validation")[0])) != set(map(bytes, whole(other, "validation")[0]))


def test_the_runs_seed_chooses_no_split(root):
    write_idx(Made("mnist"), root)
    validation = set(map(bytes, whole(task_of("mnist"), "validation")[0]))
    torch.manual_seed(99)
    drawn = task_of("mnist").sample(300, torch.Generator().manual_seed(99))

    assert not validation & set(map(bytes, task_of("mnist").to_pixels(drawn.inputs).numpy()))


def test_equal_images_are_kept_once_and_never_in_train_and_test(root):
    made = Made("cifar10")
    train, test = made.images["train"], made.images["test"]
    train[4], train[5] = train[3], train[3]  # one image three times
    train[11] = test[7]  # one that is in test as well
    test[9] = test[8]
    made.labels["train"][3:6] = (6, 2, 9)
    write_cifar_binary(made, root)
    task = task_of("cifar10")

    found = {split: whole(task, split) for split in SPLITS}

    assert task.n_left_out() == {"train": 3, "test": 1}
    assert [task.n_examples(split) for split in SPLITS] == [19, 8, 19]
    rows = [bytes(image) for split in SPLITS for image in found[split][0]]
    assert len(set(rows)) == len(rows) == 46
    labels = [
        label for split in SPLITS for image, label in zip(*found[split], strict=True) if bytes(image) == bytes(train[3])
    ]
    assert labels == [2]  # the lowest, in whatever order they come
    assert bytes(test[7]) in {bytes(image) for image in found["test"][0]}


def test_gray_images_are_pillows_luma_and_have_the_same_labels(root):
    made = Made("cifar10")
    write_cifar_binary(made, root)
    expected = Counter(
        (np.asarray(Image.fromarray(image).convert("L")).tobytes(), label)
        for image, label in zip(made.images["test"], made.labels["test"].tolist(), strict=True)
    )
    task = task_of("cifar10", gray=True, patch_size=1)
    pixels, labels = whole(task, "test")

    assert Counter(zip(map(bytes, pixels), labels, strict=True)) == expected
    assert (task.n_tokens, task.n_values) == (1024, 1)


def test_the_trivial_solver_that_always_answers_one_class_does_as_well_as_stated(root):
    made = Made("mnist", n_test=20)
    made.labels["test"][:9] = 4
    write_idx(made, root)

    assert task_of("mnist").trivial == {"most frequent digit": np.mean(made.labels["test"] == 4)}


@pytest.mark.parametrize("n_validation", [30, 31])
def test_a_validation_split_that_leaves_nothing_to_train_on_is_refused(root, n_validation):
    write_idx(Made("mnist"), root)
    with pytest.raises(
        ConfigError, match=f"n_validation of mnist must leave images to train on: got {n_validation} of 30"
    ):
        task_of("mnist", n_validation=n_validation).sample(1, torch.Generator())


# Places and layouts


def test_places_are_looked_through_in_their_order(root, tmp_path, monkeypatch):
    where = {}
    for i, place in enumerate((root, tmp_path / "cache" / "fpt_viz" / "data", tmp_path / "system")):
        where[write_idx(Made("mnist", seed=i), place)] = i

    for folder in list(where):
        found = images.locate(registry.load("tasks", "mnist").image_set)
        assert found.files["train"][0].parent == folder
        for path in folder.iterdir():
            path.unlink()
    monkeypatch.setitem(sys.modules, "fpt_viz.hub", hub_of(None))
    with pytest.raises(SourceError, match="out of reach"):
        images.locate(registry.load("tasks", "mnist").image_set)


def test_a_folder_given_comes_before_the_environments(root, tmp_path):
    write_idx(Made("mnist"), root)
    given = write_idx(Made("mnist"), tmp_path / "other")
    found = images.locate(registry.load("tasks", "mnist").image_set, data_dir=tmp_path / "other")
    assert found.files["test"][0].parent == given


def test_debians_folder_has_hyphens_for_underscores(root, tmp_path):
    place = write_idx(Made("fashion_mnist"), tmp_path / "system", zipped=True, folder="fashion-mnist")
    found = images.locate(registry.load("tasks", "fashion_mnist").image_set)
    assert found.files["train"] == (
        place / "train-images-idx3-ubyte.gz",
        place / "train-labels-idx1-ubyte.gz",
    )


def hub_of(folder: Path | None) -> ModuleType:
    """A stand-in for the module that speaks to the Hub."""

    def data_files(repo_id: str, patterns: tuple[str, ...], *, revision: str | None = None):
        if folder is None:
            raise SourceError("the Hub is out of reach")
        named = {str(path.relative_to(folder)): path for pattern in patterns for path in folder.glob(pattern)}
        return named, f"commit of {revision} in {repo_id}"

    module = ModuleType("fpt_viz.hub")
    module.data_files = data_files
    return module


def test_the_hub_is_asked_last_and_a_revision_asks_it_first(root, tmp_path, monkeypatch):
    write_parquet(Made("cifar10", seed=1), tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "fpt_viz.hub", hub_of(tmp_path / "hub" / "cifar10"))
    assert task_of("cifar10").source()["revision"] == "commit of None in uoft-cs/cifar10"

    write_cifar_binary(Made("cifar10"), tmp_path / "local")
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / "local"))
    images_of = {revision: whole(task_of("cifar10", revision=revision), "test")[0] for revision in ("", "main")}

    assert set(map(bytes, images_of["main"])) == set(map(bytes, Made("cifar10", seed=1).images["test"]))
    assert not set(map(bytes, images_of["main"])) & set(map(bytes, images_of[""]))
    assert task_of("cifar10", revision="main").source()["revision"] == "commit of main in uoft-cs/cifar10"


def test_where_there_is_nothing_the_error_says_where_it_was_looked_for(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "fpt_viz.hub", hub_of(None))
    with pytest.raises(SourceError) as error:
        task_of("mnist").sample(1, torch.Generator())
    assert str(error.value).startswith(f"mnist is in no folder that FPT_VIZ_DATA names ({root}), nor in ")
    assert str(error.value).endswith("; the Hub is out of reach")


def test_a_data_folder_that_is_none_is_an_error(root, monkeypatch):
    monkeypatch.setenv("FPT_VIZ_DATA", str(root / "none"))
    with pytest.raises(SourceError, match="none is no folder: FPT_VIZ_DATA names one that holds"):
        task_of("mnist").n_examples("train")


@pytest.mark.parametrize(
    ("name", "layout", "lost", "told"),
    [
        ("mnist", "idx", "t10k-labels-idx1-ubyte", "but not t10k-labels-idx1-ubyte: both splits are needed whole"),
        ("cifar10", "cifar", "data_batch_4.bin", "but not data_batch_4.bin: both splits are needed whole"),
        ("cifar10", "parquet", "test-00000-of-00001.parquet", r"but not plain_text/test-\*\.parquet: both"),
        ("cifar10", "parquet in three files", "train-00001-of-00003.parquet", "wanted all 3 of one set"),
        ("cifar10", "parquet in three files", "train-00002-of-00003.parquet", "wanted all 3 of one set"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(root, name, layout, lost, told):
    (WRITERS[layout](Made(name), root) / lost).unlink()
    with pytest.raises(SourceError, match=told):
        task_of(name).n_examples("train")


@pytest.mark.parametrize("left", ["data_batch_1", "cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_pickles_are_refused_with_the_way_out(root, left):
    (root / "cifar10").mkdir()
    (root / "cifar10" / left).write_bytes(b"\x80\x04.")
    with pytest.raises(
        SourceError, match=rf"{left} is the Python version .* pickles, .* refused. Take the binary version"
    ):
        task_of("cifar10").n_examples("train")


def test_a_packed_archive_is_told_to_be_unpacked(root):
    (root / "cifar10").mkdir()
    (root / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"")
    with pytest.raises(SourceError, match=r"is packed: unpack it where it lies \(tar -xzf cifar-10-binary.tar.gz\)"):
        task_of("cifar10").n_examples("train")


@pytest.mark.parametrize(("name", "layout"), [("mnist", "idx"), ("cifar10", "cifar"), ("cifar10", "parquet")])
def test_a_label_out_of_range_is_refused_by_row_and_file(root, name, layout):
    made = Made(name)
    made.labels["test"][3] = 10
    place = WRITERS[layout](made, root)
    with pytest.raises(SourceError, match="wanted labels from 0 to 9, found 10 at row 3; fetch the file anew") as error:
        task_of(name).n_examples("test")
    assert str(place) in str(error.value)


def test_images_and_labels_of_two_copies_are_refused(root):
    place = write_idx(Made("mnist", n_test=20), root)
    other = write_idx(Made("mnist", n_test=21), root / "other")
    (other / "t10k-labels-idx1-ubyte").replace(place / "t10k-labels-idx1-ubyte")
    with pytest.raises(SourceError, match="wanted 20 labels, one an image of t10k-images-idx3-ubyte, found 21"):
        task_of("mnist").n_examples("test")


# The cache of decoded images


def test_images_are_decoded_once_for_one_content_of_their_files(root, tmp_path, monkeypatch):
    image_set = registry.load("tasks", "cifar10").image_set
    write_parquet(Made("cifar10"), root)
    first = images.load(image_set, images.locate(image_set), "test")
    read = images._read
    monkeypatch.setattr(images, "_read", lambda *_: pytest.fail("it was decoded before"))
    again = images.load(image_set, images.locate(image_set), "test")
    copy = write_parquet(Made("cifar10"), tmp_path / "elsewhere")
    elsewhere = images.load(image_set, images.locate(image_set, data_dir=copy.parents[1]), "test")
    monkeypatch.setattr(images, "_read", read)
    write_parquet(Made("cifar10", seed=5), root)
    changed = images.load(image_set, images.locate(image_set), "test")

    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.pixels, elsewhere.pixels)
    np.testing.assert_array_equal(changed.pixels.transpose(0, 2, 3, 1), Made("cifar10", seed=5).images["test"])
    assert isinstance(again.pixels.base, np.memmap)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("damage", [b"", b"x" * 200, None])
def test_a_damaged_cache_is_made_again(root, tmp_path, damage):
    image_set = registry.load("tasks", "mnist").image_set
    write_idx(Made("mnist"), root)
    images.load(image_set, images.locate(image_set), "test")
    [cached] = (tmp_path / "cache").rglob("*.npy")
    cached.write_bytes(cached.read_bytes()[:-1] if damage is None else damage)

    found = images.load(image_set, images.locate(image_set), "test")

    np.testing.assert_array_equal(found.pixels[:, 0], Made("mnist").images["test"])


def test_a_cache_that_cannot_be_written_is_told_and_done_without(root, tmp_path, caplog):
    image_set = registry.load("tasks", "mnist").image_set
    write_idx(Made("mnist"), root)
    (tmp_path / "cache").write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING, "fpt_viz"):
        found = images.load(image_set, images.locate(image_set), "test")

    np.testing.assert_array_equal(found.pixels[:, 0], Made("mnist").images["test"])
    assert "decoded images stay in memory" in caplog.text


def test_what_is_written_to_the_arrays_never_reaches_the_cache(root):
    image_set = registry.load("tasks", "mnist").image_set
    write_idx(Made("mnist"), root)
    images.load(image_set, images.locate(image_set), "test").pixels[:] = 0

    assert images.load(image_set, images.locate(image_set), "test").pixels.any()


def test_equal_images_have_equal_fingerprints_and_others_differ():
    pixels = Made("mnist").images["train"][:, None]
    pixels[3] = pixels[17]
    found = decoded.fingerprints_of(pixels).tolist()

    assert found[3] == found[17]
    assert len(set(found)) == len(found) - 1
    expected = int.from_bytes(hashlib.blake2b(pixels[0].tobytes(), digest_size=8).digest(), "little")
    assert found[0] == expected


# Patches


GRIDS = [("mnist", size) for size in (1, 2, 4, 7, 14, 28)] + [("cifar10", size) for size in (1, 2, 4, 8, 16, 32)]


@pytest.mark.parametrize(("name", "patch_size"), GRIDS)
def test_a_token_holds_the_pixels_in_its_box_and_a_pixel_lies_in_its_token(name, patch_size, rng):
    task = task_of(name, patch_size=patch_size)
    shape = SHAPES[name]
    planes = torch.rand(2, *shape, generator=rng)
    inputs = task.to_patches(planes)

    for token, (top, left, height, width) in enumerate(task.geometry().boxes):
        box = planes[:, top : top + height, left : left + width]
        channels_first = box.permute(0, 3, 1, 2) if box.ndim == 4 else box
        assert torch.equal(channels_first.flatten(1), inputs[:, token])
        assert task.token_names()[token] == f"r{top // patch_size}c{left // patch_size}"
        assert task.token_at(top, left) == task.token_at(top + height - 1, left + width - 1) == token
    assert torch.equal(task.to_image(inputs), planes)


@pytest.mark.parametrize("pixel", [(-1, 0), (0, 28), (28, 0)])
def test_a_pixel_outside_the_image_lies_in_no_token(pixel):
    with pytest.raises(ConfigError, match=r"an image of mnist has 28 x 28 pixels, none at"):
        task_of("mnist").token_at(*pixel)


@pytest.mark.parametrize(("name", "patch_size"), [("mnist", 3), ("mnist", 8), ("cifar10", 7), ("cifar10", 64)])
def test_a_patch_size_that_does_not_divide_the_image_is_refused(name, patch_size):
    side = SHAPES[name][0]
    with pytest.raises(ConfigError, match=f"patch_size of {name} must divide {side}, got {patch_size}"):
        load_task(name, patch_size=patch_size)


@pytest.mark.parametrize("options", [{}, {"gray": True}])
def test_what_is_shown_is_normalised_as_torchvision_does_and_back_to_every_pixel_value(root, options):
    made = Made("cifar10")
    made.images["test"][0] = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    write_cifar_binary(made, root)
    task = task_of("cifar10", **options)
    examples = task._examples("test")
    batch = task._batch(examples, examples.rows)
    mean, std = (torch.tensor(values)[:, None, None] for values in task._normalisation)
    expected = ((examples.pixels[examples.rows].float() / 255) - mean) / std  # ToTensor, then Normalize

    found = task.to_image(batch.inputs).reshape(-1, 32, 32, task.shape[0]).permute(0, 3, 1, 2)

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    of_data = examples.pixels[examples.rows].permute(0, 2, 3, 1)
    assert torch.equal(task.to_pixels(batch.inputs).view(of_data.shape), of_data)
    assert len(of_data.unique()) == 256 or options


# Augmentation


def one(changes: _augment.Changes, **other: object) -> _augment.Changes:
    return replace(changes, **{key: torch.tensor([value]) for key, value in other.items()})


def image_after(image: np.ndarray, changes: _augment.Changes) -> np.ndarray:
    """One image ``[height width channel]`` after the changes, unrounded."""
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    return (
        _augment.changed(planes, changes, patch_size=image.shape[0])[0, :, 0]
        .view(planes.shape[1:])
        .permute(1, 2, 0)
        .numpy()
    )


NOTHING = _augment.Changes(torch.tensor([4]), torch.tensor([4]), torch.tensor([False]), torch.tensor([0.0]))
PICTURE = ndimage.gaussian_filter(Made("cifar10").images["train"][0].astype(float) * 1.6 - 80, (1, 1, 0))
PICTURE = np.clip(PICTURE, 0, 255).astype(np.uint8)


def test_no_change_leaves_every_pixel():
    np.testing.assert_allclose(image_after(PICTURE, NOTHING), PICTURE, atol=1e-3)


@pytest.mark.parametrize("top", [0, 3, 8])
@pytest.mark.parametrize("left", [0, 5, 8])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_are_those_of_numpy(top, left, flip):
    expected = np.pad(PICTURE, ((4, 4), (4, 4), (0, 0)))[top : top + 32, left : left + 32]
    expected = np.fliplr(expected) if flip else expected
    found = image_after(PICTURE, one(NOTHING, top=top, left=left, flip=flip))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("degrees", [-20.0, -7.3, 0.01, 12.5, 20.0])
@pytest.mark.parametrize("flip", [False, True])
def test_rotation_is_that_of_scipy_after_crop_and_flip(degrees, flip):
    cropped = np.pad(PICTURE, ((4, 4), (4, 4), (0, 0)))[1:33, 6:38]
    cropped = np.fliplr(cropped) if flip else cropped
    expected = ndimage.rotate(cropped.astype(float), degrees, order=1, reshape=False, mode="grid-constant", cval=0)

    found = image_after(PICTURE, one(NOTHING, top=1, left=6, flip=flip, degrees=degrees))

    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("degrees", [-15.0, 9.0])
def test_rotation_turns_as_pillow_does(degrees):
    expected = np.asarray(Image.fromarray(PICTURE).rotate(degrees, Image.Resampling.BILINEAR))
    found = image_after(PICTURE, one(NOTHING, degrees=degrees))
    inside = slice(7, -7)  # Pillow treats the image's edge in another way

    np.testing.assert_allclose(found[inside, inside], expected[inside, inside], atol=1.01)
    assert np.abs(found - PICTURE)[inside, inside].max() > 10


def test_changes_reach_all_of_their_range(rng):
    changes = _augment.drawn(4000, rng, flips=True)

    for places_of_crop in (changes.top, changes.left):
        assert places_of_crop.unique().tolist() == list(range(9))
    assert -20 <= changes.degrees.min() < -19.9
    assert 19.9 < changes.degrees.max() <= 20
    assert 0.45 < changes.flip.float().mean() < 0.55
    assert not torch.equal(changes.top, changes.left)
    assert not _augment.drawn(4000, rng, flips=False).flip.any()


@pytest.mark.parametrize(("name", "flips"), [("mnist", False), ("fashion_mnist", True), ("cifar10", True)])
def test_a_training_batch_is_its_images_changed_one_by_one(root, name, flips):
    WRITERS["cifar" if name == "cifar10" else "idx"](Made(name), root)
    task = task_of(name, augment=True)
    batch = task.sample(300, torch.Generator().manual_seed(1))  # more than are worked on together
    rng = torch.Generator().manual_seed(1)
    examples = task._examples("train")
    rows = examples.rows[torch.randint(len(examples.rows), (300,), generator=rng)]
    changes = _augment.drawn(300, rng, flips=flips)
    found = task.to_image(batch.inputs).reshape(300, *task.shape[1:], task.shape[0])

    for i in (0, 7, 255, 256, 299):
        image = examples.pixels[rows[i]].permute(1, 2, 0).numpy()
        expected = image_after(image, changes[i : i + 1]) / 255
        mean, std = (np.array(values) for values in task._normalisation)
        np.testing.assert_allclose(found[i].numpy(), (expected - mean) / std, atol=1e-4)
    assert torch.equal(batch.targets[:, 0], examples.labels[rows])


@pytest.mark.parametrize("split", SPLITS)
def test_only_training_batches_are_changed(root, split):
    write_cifar_binary(Made("cifar10"), root)
    task = task_of("cifar10", augment=True)
    plain = {row.tobytes() for row in task.distinct(100, split).inputs.numpy()}
    drawn = [row.tobytes() for row in task.sample(50, torch.Generator().manual_seed(0), split).inputs.numpy()]

    assert sum(row in plain for row in drawn) == (0 if split == "train" else 50)
