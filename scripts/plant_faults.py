"""Faults planted into LFW by a seed, to be found by `python -m uniface_jax.clean`.

What is planted: labels permuted, near duplicates by crop and brightness, people merged under one
label, people split into two labels, and images that show no face.
"""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.sources.base import Source

MANY = 10  # images of a person from which people are merged and split
PERMUTED_SHARE, COPIED_SHARE, ACROSS_SHARE = 0.02, 0.01, 0.25
MERGED, SPLIT, NO_FACES = 50, 25, 100


@dataclass(frozen=True, eq=False)
class Planted:
    """N images with faults.

    Attributes:
        labels: int64 [N].
        permuted: int64, the images whose labels were permuted.
        copies: int64 [K, 2], near duplicates and the images that they were made of.
        merged: int64, the labels that are two people now.
        split: int64 [K, 2], the labels that are one person.
        no_faces: int64, the images without a face.
    """

    labels: np.ndarray
    permuted: np.ndarray
    copies: np.ndarray
    merged: np.ndarray
    split: np.ndarray
    no_faces: np.ndarray


def plant_labels(labels: np.ndarray, seed: int) -> Planted:
    """Return the plan of faults for images with these labels, int [N]; new images stand last."""
    rng = np.random.default_rng(seed)
    count, classes = len(labels), int(labels.max()) + 1
    new = labels.astype(np.int64)
    many = rng.permutation(np.flatnonzero(np.bincount(labels) >= MANY))
    hosts, guests, parted = np.split(many[: 2 * MERGED + SPLIT], [MERGED, 2 * MERGED])
    for host, guest in zip(hosts, guests, strict=True):
        new[labels == guest] = host
    split = []
    for number, label in enumerate(parted):
        rows = rng.permutation(np.flatnonzero(labels == label))
        new[rows[: len(rows) // 2]] = classes + number
        split.append((label, classes + number))
    permuted = np.sort(rng.choice(count, round(PERMUTED_SHARE * count), replace=False))
    # Sorted by label and moved on by the most frequent one's count: nobody keeps the own one.
    order = permuted[np.argsort(new[permuted], kind="stable")]
    shift = int(np.bincount(new[permuted]).max())
    new[order] = new[np.roll(order, shift)]
    sources = rng.choice(count, round(COPIED_SHARE * count), replace=False)
    copied = new[sources]
    across = rng.random(len(sources)) < ACROSS_SHARE
    copied[across] = rng.choice(new, int(across.sum()))
    empty = rng.choice(new, NO_FACES)
    begin = count + len(sources)
    return Planted(
        np.concatenate([new, copied, empty]),
        permuted,
        np.stack([np.arange(count, begin), sources], axis=1),
        hosts,
        np.array(split),
        np.arange(begin, begin + NO_FACES),
    )


def near_copy(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a crop of a face, uint8 RGB [S, S, 3], at the former size and of other brightness."""
    size = len(face)
    top, left, bottom, right = rng.integers(0, 1 + size // 14, 4)
    crop = cv2.resize(face[top : size - bottom, left : size - right], (size, size))
    changed = crop * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20)
    return np.clip(changed, 0, 255).astype(np.uint8)


def no_face(faces: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return an image without a face: a background, tiles of a face, noise, a ramp or shapes."""
    face = faces[rng.integers(len(faces))]
    kind = rng.integers(5)
    if kind == 0:  # a corner, mostly of the background
        corner = face[:24, :24] if rng.random() < 0.5 else face[:24, -24:]
        return cv2.resize(corner, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC)
    if kind == 1:
        tiles = face.reshape(7, 16, 7, 16, 3).swapaxes(1, 2).reshape(49, 16, 16, 3)
        mixed = rng.permutation(tiles).reshape(7, 7, 16, 16, 3)
        return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(IMAGE_SIZE, IMAGE_SIZE, 3))
    if kind == 2:
        return rng.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    ramp = np.linspace(0, 1, IMAGE_SIZE)[:, None, None] * rng.integers(60, 256, 3)
    image = np.broadcast_to(ramp, (IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8).copy()
    if kind == 4:
        for _ in range(12):
            center = tuple(map(int, rng.integers(0, IMAGE_SIZE, 2)))
            color = tuple(map(int, rng.integers(0, 256, 3)))
            cv2.circle(image, center, int(rng.integers(4, 30)), color, -1)
    return image


def write_planted(source: Source, planted: Planted, seed: int, file: Path) -> None:
    """Write a tar of PERSON/IMAGE.jpg: the source's bytes, and the new images behind them.

    People bear numbers, and images the record's: 17/000123.jpg.
    """
    rng = np.random.default_rng(seed)
    backgrounds = [_face(source, int(i)) for i in rng.choice(len(source), 200)]
    with tarfile.open(file, "w") as archive:

        def add(number: int, content: bytes) -> None:
            member = tarfile.TarInfo(f"{planted.labels[number]}/{number:06d}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for number in range(len(source)):
            add(number, source[number].image)
        for number, origin in planted.copies.tolist():
            copy = near_copy(_face(source, origin), rng)
            add(number, images.encode_jpeg(copy, int(rng.integers(70, 96))))
        for number in planted.no_faces.tolist():
            add(number, images.encode_jpeg(no_face(backgrounds, rng), 92))


def _face(source: Source, record: int) -> np.ndarray:
    return images.decode(source[record].image, f"{source.name}: record {record}")
