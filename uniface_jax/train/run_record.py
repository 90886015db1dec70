"""Record of what a run was made with: versions, commit, devices, sizes."""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import uniface_jax
from uniface_jax.data.sources.base import Source
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.writing import PRIVATE
from uniface_jax.native import build
from uniface_jax.state import TrainState
from uniface_jax.train import checkout

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-cpu")


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and what computes; "not installed"."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    found = {name: version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], "uniface_jax": uniface_jax.__version__, **found}


def git_commit() -> str | None:
    """Return this checkout's commit, "+" behind it when tracked files differ; None outside."""
    return checkout.commit(Path(uniface_jax.__file__).resolve().parents[1])


def describe(
    state: TrainState,
    source: Source,
    devices: Sequence[jax.Device],
    sets: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the record of a run that is about to start (or to resume) on these devices.

    sets: those of the training set, as training_set.records_of has them.
    """

    def count(tree: Any) -> int:
        return int(sum(np.size(x) for x in jax.tree.leaves(tree)))

    return {
        "command": sys.argv,
        "git_commit": git_commit(),
        "versions": versions(),
        "devices": {
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "native_kernels": build.available(),
        "data": {"images": len(source), "classes": source.num_classes, "sets": [*sets]},
        "parameters": {
            "network": count(state.weights.network),
            "prototypes": count(state.weights.prototypes),
            "bias": count(state.weights.bias),
            "batch_statistics": count(state.batch_stats),
            **({} if state.memory is None else {"feature_memory": count(state.memory)}),
        },
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write the record as indented JSON, readable by its owner: the command line is in it."""
    write_bytes(path, (json.dumps(record, indent=2) + "\n").encode(), PRIVATE)
