"""A tiny training run for tests: random 112x112 faces of a few classes, a network of 4 channels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.sources.folders import FolderSource

CLASSES, EACH = 5, 8


def make_data(folder: Path) -> tuple[Path, Path]:
    """(TFRecord directory, .bin of 20 pairs): each class is one smooth pattern with noise."""
    rng = np.random.default_rng(0)
    encoded: list[bytes] = []
    for label in range(CLASSES):
        person = folder / "people" / f"p{label}"
        person.mkdir(parents=True)
        pattern = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pattern = np.asarray(pattern.resize((112, 112)), np.int16)
        for number in range(EACH):
            noisy = np.clip(pattern + rng.integers(-40, 40, pattern.shape), 0, 255)
            buffer = io.BytesIO()
            Image.fromarray(noisy.astype(np.uint8)).save(buffer, "PNG")
            (person / f"{number}.png").write_bytes(buffer.getvalue())
            encoded.append(buffer.getvalue())
    train = folder / "train"
    write_dataset(FolderSource(folder / "people"), train, name="tiny")
    first = np.arange(20) * 2 % len(encoded)
    second = np.where(np.arange(20) % 2, first + 1, (first + EACH) % len(encoded))
    same = first // EACH == second // EACH
    write_pairs(folder / "pairs.bin", encoded, first, second, same)
    return train, folder / "pairs.bin"


def flags(train: Path, **overrides: object) -> list[str]:
    """Command-line overrides that make the demo config tiny."""
    values: dict[str, object] = {
        "data.train": train,
        "data.threads": 1,
        "model.width": 4,
        "model.embedding_size": 8,
        "batch_size": 16,
        "micro_batches": 2,
        "steps": 12,
        "eval.data": "",
        "checkpoint.every_steps": 4,
        "log.every_steps": 2,
        **overrides,
    }
    return [f"--config.{key}={value}" for key, value in values.items()]
