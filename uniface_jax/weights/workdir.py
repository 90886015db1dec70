"""A workdir of a foreign network, from which evaluation, export and fine-tuning start."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.checkpoints.reading import FOLDER
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.reading import open_regular
from uniface_jax.state import TrainState, Weights
from uniface_jax.weights.heads import joined, shards
from uniface_jax.weights.recognise import Imported, from_state
from uniface_jax.weights.state_files import read_state

REPORT_FILE = "import.json"


def import_weights(
    source: Path,
    workdir: Path,
    prefix: str | None = None,
    *,
    heads: int | None = None,
    with_head: bool = False,
) -> Imported:
    """Read `source` (see state_files.read_state) and write `workdir`: a checkpoint at step 0.

    Weights become float32. The config is base() with config.model of the network that was
    recognized. The workdir also holds import.json, with every tensor and what became of it.

    Args:
        source: the file of weights.
        workdir: a new folder.
        prefix: of the network's names; None finds it.
        heads: of a ViT's attention; None takes those of the published network of these sizes.
        with_head: take a head that lies beside the network too; of arcface_torch's checkpoint of
            the first GPU that of all, whose files lie beside it.

    Raises:
        UserError: before anything is written, for a file that is no such network, and for a
            workdir that is in use.
    """
    if (workdir / FOLDER).exists() or (workdir / "config.json").exists():
        raise UserError(f"{workdir}: holds a run already; give a new folder")
    files = shards(source) if with_head else [source]
    state = joined([(path, read_state(path)) for path in files])
    imported = from_state(state, str(source), prefix, heads=heads, with_head=with_head)
    config = configs.base()
    config.model.update(imported.model)
    if imported.bias is not None and imported.bias.ndim:
        config.loss.name = "bce"  # the only loss with a bias a class
    if with_head and imported.bias is None:  # of the shape that the loss has, to be fine-tuned
        start = configs.create_loss(config).initial_bias(_classes(imported), 1.0)
        imported = replace(imported, bias=np.asarray(start, np.float32))
    with _whole_or_nothing(workdir):
        _write(imported, source, config, workdir)
    return imported


@contextlib.contextmanager
def _whole_or_nothing(workdir: Path) -> Iterator[None]:
    """Remove what an import has left where it fails: the same command can be given again."""
    try:
        yield
    except BaseException:
        for left in (workdir / "config.json", workdir / REPORT_FILE):
            left.unlink(missing_ok=True)
        shutil.rmtree(workdir / FOLDER, ignore_errors=True)
        raise


def _write(imported: Imported, source: Path, config: ConfigDict, workdir: Path) -> None:
    """Write config, checkpoint and report."""
    configs.claim_workdir(workdir, config)
    data = {"samples": 0, "num_examples": 0, "num_classes": _classes(imported)}
    checkpoints = Checkpoints(workdir)
    try:
        checkpoints.save(_state(imported), {"config": configs.to_json(config), "data": data})
        if not checkpoints.wait():
            raise UserError(f"{workdir / FOLDER}: cannot be written ({checkpoints.reason})")
    finally:
        checkpoints.close()
    report = {
        "source": str(source),
        "sha256": _sha256(source),
        "family": imported.family,
        "model": imported.model,
        "classes": _classes(imported),
        "tensors": imported.tensors,
    }
    write_bytes(workdir / REPORT_FILE, (json.dumps(report, indent=1) + "\n").encode())


def _classes(imported: Imported) -> int:
    return 0 if imported.prototypes is None else len(imported.prototypes)


def _state(imported: Imported) -> TrainState:
    """Return the logical state before the first step, in float32.

    A bias that the file does not have gets the shape [1], and prototypes become one class: shapes
    that no training has, so that fine-tuning leaves them.
    """
    prototypes = imported.prototypes
    if prototypes is None:
        prototypes = np.zeros((1, imported.model["embedding_size"]))
    bias = np.zeros(1) if imported.bias is None else imported.bias
    arrays: Any = (imported.params, prototypes, bias, imported.batch_stats)
    *trained, batch_stats = jax.tree.map(lambda a: np.array(a, np.float32, order="C"), arrays)
    weights = Weights(*trained)
    momentum = jax.tree.map(np.zeros_like, weights)
    step: Any = np.zeros((), np.int32)
    return TrainState(step, weights, momentum, batch_stats)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
