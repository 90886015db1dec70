import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tests.helpers.batches import FULL, assert_equal, stream, take
from tests.helpers.conversion import without_digests
from tests.helpers.paths import ROOT
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.input.augment import Augment, augment, augmentations
from uniface_jax.data.input.batches import train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.input.shuffle import uniforms
from uniface_jax.data.sources.base import Item
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError
from uniface_jax.files.arrays import save_array


@pytest.fixture(scope="module")
def undisturbed(dataset):
    return take(dataset, 7)


def test_shapes_and_types(undisturbed):
    for batch in undisturbed:
        assert batch["image"].shape == (8, 112, 112, 3)
        assert batch["image"].dtype == np.uint8
        assert (batch["label"].shape, batch["label"].dtype) == ((8,), np.int32)
        assert (batch["index"].shape, batch["index"].dtype) == ((8,), np.int64)


def test_pixels_and_labels_are_the_record(dataset):
    source = TFRecordSource(dataset)
    for batch in take(dataset, 3, augment={"flip": False}):
        for image, label, index in zip(
            *(batch[k] for k in ("image", "label", "index")), strict=True
        ):
            item = source[int(index)]
            assert item.label == label
            np.testing.assert_array_equal(image, images.decode(item.image, item.name))


def test_every_epoch_holds_every_record_once(dataset):
    indices = np.concatenate([batch["index"] for batch in take(dataset, 23, augment={})])
    epochs = indices.reshape(8, 23)  # 23 batches of 8 are 8 epochs of 23
    assert (np.sort(epochs, axis=1) == np.arange(23)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 8


@pytest.mark.parametrize("step", [1, 4, 6])
def test_resume_gives_the_undisturbed_batches(dataset, undisturbed, step):
    assert_equal(take(dataset, 7 - step, start_step=step), undisturbed[step:])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_give_the_global_batch(dataset, undisturbed, count):
    parts = [take(dataset, 3, process_index=p, process_count=count) for p in range(count)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, undisturbed[:3])


def test_threads_do_not_matter_and_seeds_do(dataset, undisturbed):
    assert_equal(take(dataset, 7, workers=1), undisturbed)
    assert (take(dataset, 1, seed=6)[0]["index"] != undisturbed[0]["index"]).any()


def test_augmentation_differs_by_epoch(dataset):
    """The same record, met in two epochs, is not augmented the same way."""
    seen = Counter()
    for batch in take(dataset, 12):
        seen.update(
            (int(i), image.tobytes())
            for i, image in zip(batch["index"], batch["image"], strict=True)
        )
    assert len(seen) == 96


def test_bad_arguments(dataset, tmp_path):
    with pytest.raises(UserError, match=r"augment\.spin: no such key; there are flip"):
        train_batches(dataset, Sampler(8, 0), augment={"spin": 1})
    with pytest.raises(UserError, match=r"images of \(112, 112, 3\), expected \(96, 96, 3\)"):
        train_batches(dataset, Sampler(8, 0), image_size=96)
    broken = shutil.copytree(dataset, tmp_path / "broken")
    (broken / "faces-train.tfrecord-00001-of-00003").unlink()
    with pytest.raises(UserError, match="00001-of-00003: missing"):
        train_batches(broken, Sampler(8, 0))


class Listed:
    """Items as they are, for records that no real source would give."""

    name, num_classes, class_names, notes = "listed", 6, None, ()

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def part(self, indices):
        return Listed([self.items[i] for i in indices])

    def sizes(self, indices):
        return np.array([len(self.items[i].image) for i in indices])

    def fingerprint(self):
        return "listed"


def test_bad_records_end_in_one_line(tmp_path):
    square = images.encode_png(np.zeros((112, 112, 3), np.uint8))
    wide = images.encode_png(np.zeros((112, 120, 3), np.uint8))
    write_dataset(Listed([Item(square, 0, "a"), Item(square, 5, "b")]), tmp_path / "l", name="l")
    features = tmp_path / "l" / "features.json"
    features.write_text(features.read_text().replace('"numClasses": "6"', '"numClasses": "2"'))
    with pytest.raises(UserError, match=r"l: record [01] has the label 5, expected 0\.\.1"):
        take(tmp_path / "l", 1, batch_size=2)
    write_dataset(Listed([Item(square, 0, "a"), Item(wide, 1, "b")]), tmp_path / "s", name="s")
    with pytest.raises(UserError, match=r"s: record [01] \(b\): 120x112 pixels, expected 112"):
        take(tmp_path / "s", 1, batch_size=2)
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.png").write_bytes(square)
    write_dataset(FolderSource(tmp_path / "f"), tmp_path / "d", name="d")
    shard = tmp_path / "d" / "d-train.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x89QNG"))
    with pytest.raises(UserError, match=r"00000-of-00001: record 0: its checksum is not"):
        take(tmp_path / "d", 1, batch_size=2)
    (tmp_path / "f" / "a" / "1.png").write_bytes(square.replace(b"\x89PNG", b"\x89QNG"))
    with pytest.raises(UserError, match=r"f: record 0 \(a/1.png\): not an image"):
        take(tmp_path / "f", 1, batch_size=2)


def test_augment_object_and_mapping_are_the_same(dataset, undisturbed):
    assert_equal(take(dataset, 1, augment=Augment(**FULL)), undisturbed[:1])


PART = """
import itertools, json, sys
from uniface_jax.data.input.batches import train_batches
from uniface_jax.data.input.sampler import Sampler
path, index, count, first, steps = sys.argv[1], *map(int, sys.argv[2:])
batches = train_batches(path, Sampler(8, 5, index, count), start_step=first)
for batch in itertools.islice(batches, steps):
    print(json.dumps([batch["index"].tolist(), int(batch["image"].astype(int).sum())]))
"""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_resumed_in_an_epoch_on_processes(dataset, count):
    """Stopped at step 10 of 23 (epoch 3 of 8), resumed in `count` real processes."""
    whole = [batch["index"] for batch in take(dataset, 23, augment=None)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PART, *map(str, (dataset, index, count, 10, 13))],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for index in range(count)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    parts = [[json.loads(line) for line in output] for output in outputs]
    resumed = [np.concatenate([part[i][0] for part in parts]) for i in range(13)]
    np.testing.assert_array_equal(np.stack(resumed), np.stack(whole[10:]))
    epochs = np.concatenate([*whole[:10], *resumed]).reshape(8, 23)
    assert (np.sort(epochs, axis=1) == np.arange(23)).all()
    pixels = [sum(part[i][1] for part in parts) for i in range(13)]
    batches = take(dataset, 13, augment=None, start_step=10)
    assert pixels == [int(batch["image"].astype(int).sum()) for batch in batches]


def test_any_source_trains(faces):
    folders = FolderSource(faces)
    for batch in take(faces, 3, augment={"flip": False}):
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            item = folders[int(index)]
            assert item.label == label
            np.testing.assert_array_equal(image, images.decode(item.image, item.name))
    (batch,) = take("synthetic:100:200", 1)
    assert len(set(batch["label"].tolist())) > 1


def fill_folders(folder):
    """Two people's JPEGs, and a PNG among them."""
    for number in range(9):
        file = folder / f"p{number % 2}" / f"{number}.{'png' if number == 4 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(number).randint(0, 256, (112, 112, 3), np.uint8)
        file.write_bytes((images.encode_png if number == 4 else images.encode_jpeg)(pixels))
    return FolderSource(folder)


def test_mirrored_in_decoding_is_the_flip_of_the_augmentations(tmp_path):
    source = fill_folders(tmp_path / "faces")
    write_dataset(source, tmp_path / "set", name="set", shard_size=4)
    config = Augment(flip=True, brightness=0.3)
    functions = augmentations(config)
    for dataset in (source, TFRecordSource(tmp_path / "set")):
        for step, batch in enumerate(take(dataset, 3, batch_size=9, augment=config)):
            mirrored = 0
            samples, _ = Sampler(9, 5).indices(step, 9)
            numbers = uniforms(samples, 3, 5).tolist()
            for image, index, row in zip(batch["image"], batch["index"], numbers, strict=True):
                pixels = images.decode(dataset[int(index)].image, "image")
                np.testing.assert_array_equal(image, augment(pixels, functions, row))
                mirrored += row[0] < 0.5
            assert 0 < mirrored < 9


def test_without_an_index_or_with_a_wrong_one_batches_are_the_same(tmp_path):
    write_dataset(fill_folders(tmp_path / "f"), tmp_path / "set", name="set", shard_size=4)
    without_digests(tmp_path / "set")
    file = tmp_path / "set" / IMAGE_INDEX_FILE
    rows = np.load(file)
    expected = take(tmp_path / "set", 3)
    assert TFRecordSource(tmp_path / "set").images(np.arange(9)) is not None
    wrong = rows.copy()
    wrong["begin"][1], wrong["size"][2], wrong["begin"][4] = 2**63, 7, 0
    wrong["label"][[1, 2, 4]] = 1 - wrong["label"][[1, 2, 4]]
    # Not in its place: threads that are ending may still read what they have mapped.
    save_array(file, wrong)  # decoding finds it: these records are read themselves
    assert_equal(take(tmp_path / "set", 3), expected)
    wrong["label"] = 2
    save_array(file, wrong)
    with pytest.raises(UserError, match=r"record \d has the label 2, expected 0\.\.1"):
        take(tmp_path / "set", 1)
    stale = rows.copy()
    stale["begin"][3] += 10**6  # the last one of the first shard
    for useless in (stale, rows[:8], rows["begin"], None):
        file.unlink() if useless is None else save_array(file, useless)
        assert TFRecordSource(tmp_path / "set").images(np.arange(9)) is None
        assert_equal(take(tmp_path / "set", 3), expected)


def test_a_batch_stays_as_it_was(dataset):
    """Memory is used again, but not while a caller holds it."""
    held = take(dataset, 20)
    copies = [{key: value.copy() for key, value in batch.items()} for batch in held]
    for _ in itertools.islice(stream(dataset), 30):
        pass
    assert_equal(held, copies)
    assert_equal(held, take(dataset, 20))
