"""A tiny training run for tests: random 112x112 faces of a few classes, a network of 4 channels."""

import contextlib
import io
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from uniface_jax.config import base
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.train.loop import train_and_evaluate

CLASSES, EACH = 5, 8
# Overrides for a network of one block, of which tests in this process know nothing.
ONE_BLOCK = {"imports": "tests.helpers.one_block", "model.name": "one_block", "model.width": None}


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
    """Command-line overrides that make the demo config tiny; None leaves one out."""
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
    return [f"--config.{key}={value}" for key, value in values.items() if value is not None]


def tiny_config(train: Path, **overrides: object) -> ConfigDict:
    """Return the config of a run in this process, of these flags and a network of four blocks."""
    config = base()
    values = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags(train))
    del values["eval.data"]
    typed = {key: int(text) if text.isdigit() else text for key, text in values.items()}
    typed |= {
        "model.name": "lresnet18", "model.stage_sizes": (1, 1, 1, 1), "model.stem_stride": 2,
        "micro_batches": 1, "checkpoint.keep": 9, **overrides,
    }  # fmt: skip
    with config.ignore_type():
        config.update_from_flattened_dict(typed)
    return config


def trained(config: ConfigDict, workdir: Path) -> tuple[dict[str, float], str]:
    """Train in this process; return the last metrics, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        values = train_and_evaluate(config, workdir)
    return values, printed.getvalue()
