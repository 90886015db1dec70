"""Writes a synthetic IJB-C of full size: its text files and random features, no images.

python scripts/make_synthetic_ijbc.py FOLDER [--scale=1] [--dimension=512]

FOLDER/meta gets the six files of IJB-C with its counts (469,375 images, 23,124 templates, 3,531
subjects, 19,557 same and 15,638,932 different pairs, galleries of 1,772 and 1,759 templates and
19,593 probes), FOLDER/features.npy a feature an image: a direction of the subject and noise.
--scale=0.01 makes a hundredth of all. Evaluate it:

python -m uniface_jax.evaluate --protocol=ijb --data=FOLDER --embeddings=FOLDER/features.npy
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

IMAGES, GALLERIES, PROBES, SAME, DIFFERENT = 469_375, (1_772, 1_759), 19_593, 19_557, 15_638_932
_BLOCK = 1 << 16  # lines or features made at a time
_NOISE = 4.0  # of an image, times the length of its subject's direction


def make(folder: Path, scale: float = 1.0, dimension: int = 512, seed: int = 0) -> None:
    """Templates 1 … are the galleries' and then the probes'; probe subjects are drawn."""
    rng = np.random.default_rng(seed)
    galleries = [max(2, round(scale * size)) for size in GALLERIES]
    subjects, probes = sum(galleries), max(8, round(scale * PROBES))
    subject_of = np.append(np.arange(subjects), rng.integers(0, subjects, probes))
    templates = len(subject_of)
    images = max(3 * templates, round(scale * IMAGES))
    (folder / "meta").mkdir(parents=True, exist_ok=True)

    # Every template has an image; the others are drawn, so that some have many.
    weights = rng.pareto(1.5, templates) + 0.3
    drawn = rng.choice(templates, images - templates, p=weights / weights.sum())
    template = np.sort(np.append(np.arange(templates), drawn))
    medium = rng.integers(0, 4 * images // templates, images) + 1000 * template
    write_lines(
        folder / "meta/ijbc_face_tid_mid.txt",
        images,
        lambda i: f"{i + 1}.jpg {template[i] + 1} {medium[i]}",
    )
    landmarks = rng.uniform(0, 200, (images, 10))
    scores = rng.uniform(0.5, 1, images)
    write_lines(
        folder / "meta/ijbc_name_5pts_score.txt",
        images,
        lambda i: f"{i + 1}.jpg {' '.join(f'{x:.3f}' for x in landmarks[i])} {scores[i]:.6f}",
    )
    write_search(folder / "meta", galleries, subject_of)
    write_pairs(folder / "meta/ijbc_template_pair_label.txt", subjects, subject_of, scale, rng)
    directions = rng.standard_normal((subjects, dimension)).astype(np.float32)
    features = open_memmap(folder / "features.npy", "w+", np.float32, (images, dimension))
    for start in range(0, images, _BLOCK):
        rows = subject_of[template[start : start + _BLOCK]]
        noise = rng.standard_normal((len(rows), dimension), np.float32)
        features[start : start + _BLOCK] = directions[rows] + _NOISE * noise
    features.flush()


def write_search(meta: Path, galleries: list[int], subject_of: np.ndarray) -> None:
    """Write the two galleries and the probes, an image a template, as far as they are read."""
    first = 0
    parts = {}
    for name, size in zip(("gallery_G1", "gallery_G2"), galleries, strict=True):
        parts[name] = range(first, first + size)
        first += size
    parts["probe_mixed"] = range(first, len(subject_of))
    for name, chosen in parts.items():
        lines = [f"{t + 1},{subject_of[t] + 1},img/{t + 1}.jpg" for t in chosen]
        text = "\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *lines])
        (meta / f"ijbc_1N_{name}.csv").write_text(text + "\n")


def write_pairs(
    path: Path, subjects: int, subject_of: np.ndarray, scale: float, rng: np.random.Generator
) -> None:
    """A probe with its subject's gallery template, and galleries with probes of others."""
    probes = len(subject_of) - subjects
    same = np.arange(min(probes, max(4, round(scale * SAME))))
    count = max(40, round(scale * DIFFERENT))
    probe = np.append(subjects + same, subjects + rng.integers(0, probes, count))
    gallery = np.append(subject_of[subjects + same], rng.integers(0, subjects, count))
    equal = subject_of[probe] == gallery
    equal[: len(same)] = False  # those are meant
    gallery[equal] = (gallery[equal] + 1) % subjects
    label = (subject_of[probe] == gallery).astype(int)
    order = np.argsort(gallery, kind="stable")  # as in the real file: gallery by gallery
    rows = (np.stack([gallery + 1, probe + 1, label], axis=1)[order]).tolist()
    write_lines(path, len(rows), lambda i: "{} {} {}".format(*rows[i]))


def write_lines(path: Path, count: int, line) -> None:
    with path.open("w") as file:
        for start in range(0, count, _BLOCK):
            lines = [line(i) for i in range(start, min(start + _BLOCK, count))]
            file.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.scale, arguments.dimension, arguments.seed)
    print(f"{arguments.folder}: meta/ and features.npy")


if __name__ == "__main__":
    main()
