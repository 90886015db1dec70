"""A training run, read for inspection: its images' similarities with its prototypes, and its b."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.data.faces.landmark_tables import with_landmarks
from uniface_jax.data.sources.opening import Source, open_source
from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import MAX_BYTES, parse_json
from uniface_jax.files.reading import read_lines
from uniface_jax.head.beside import TO_TEACHER, alone
from uniface_jax.inference.extract import Face, extract
from uniface_jax.inference.network import make_embed
from uniface_jax.inspection.similarity import Similarities, similarities
from uniface_jax.losses import Loss
from uniface_jax.state import TrainState
from uniface_jax.train.from_config import Recipe, make_recipe
from uniface_jax.train.run_log import METRICS_FILE
from uniface_jax.train.training_set import open_training_set

MAX_STEP = 2**53
History = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Inspection:
    """A run as it was inspected.

    found: of training images and all prototypes. thresholds: the readings of the unified
    threshold, b/s and (b - log(C-1))/s, of the mean b where there is one a class; empty for a loss
    without b. history: see read_history.
    """

    recipe: Recipe
    state: TrainState
    found: Similarities
    thresholds: dict[str, float]
    history: History

    @property
    def bias(self) -> float:
        """Return the mean of b; 0 for a loss without one."""
        return float(np.mean(self.state.weights.bias))


def inspect(
    path: str | Path,
    data: str | None = None,
    images: int = 3000,
    seed: int = 0,
    batch_size: int = 64,
) -> Inspection:
    """Read a workdir's newest checkpoint, or one workdir/checkpoints/STEP, for inspection.

    data: the data set of its training, whatever training reads; None is the one that the run was
    trained on.
    images: so many of them, drawn by `seed`, or all where there are fewer; they are neither
    augmented nor mirrored, since prototypes are trained on features of single images.

    Raises UserError where checkpoint or data cannot be used, or are not of the same classes.
    """
    if images < 1:
        raise UserError(f"images={images}: must be at least 1")
    workdir, _ = reading.locate(path)
    state, run = reading.read(path)
    config = configs.of_run(run, path, workdir)
    source = open_training_set(config, data)
    num_classes = len(state.weights.prototypes)
    if source.num_classes != num_classes:
        raise UserError(
            f"{source.name}: {source.num_classes} classes, but {path} was trained on "
            f"{num_classes}; give the data set of its training"
        )
    recipe = make_recipe(config, len(source), num_classes)
    encoded, labels = training_images(source, images, seed)
    faces: Sequence[bytes] | Sequence[Face] = encoded
    if models.takes_landmarks(recipe.network):
        points = with_landmarks(source).landmarks(_chosen(source, images, seed))
        faces = [*map(Face, encoded, points)]
    embed = make_embed(configs.create_network(config, dtype="float32"), mirror=False)
    variables = {"params": alone(state.weights.network), "batch_stats": state.batch_stats}
    features = extract(
        partial(embed, variables),
        faces, name=source.name, batch_size=min(batch_size, len(encoded)),
    )  # fmt: skip
    thresholds = _thresholds(recipe.loss, state, num_classes)
    prototypes = np.asarray(state.weights.prototypes)
    if prototypes.shape[-1] != features.shape[1]:  # class centers of a teacher
        features = features @ np.asarray(state.weights.network[TO_TEACHER])
    found = similarities(features, labels, prototypes, thresholds.get("b/s"))
    history = read_history(workdir / METRICS_FILE)
    return Inspection(recipe, state, found, thresholds, history)


def training_images(
    data: Source | str | Path, images: int, seed: int
) -> tuple[list[bytes], np.ndarray]:
    """Read encoded images and labels int [N] of `images` items drawn by `seed`, or of all.

    data: a source, or what open_source opens. The items are in its order. Raises UserError naming
    what is wrong.
    """
    source = open_source(data) if isinstance(data, str | Path) else data
    items = [source[int(index)] for index in _chosen(source, images, seed)]
    return [item.image for item in items], np.array([item.label for item in items])


def _chosen(source: Source, images: int, seed: int) -> np.ndarray:
    return np.sort(np.random.RandomState(seed).permutation(len(source))[:images])


def _thresholds(loss: Loss, state: TrainState, num_classes: int) -> dict[str, float]:
    if loss.bias == "none":
        return {}
    b = jnp.mean(jnp.asarray(state.weights.bias))
    return {
        "b/s": float(loss.threshold(b)),
        "(b - log(C-1))/s": float(loss.threshold(b - math.log(num_classes - 1))),
    }


def read_history(path: Path) -> History:
    """Read a metrics.jsonl: {"step": int [K], metric: float64 [K], …}, NaN where a line has none.

    Lines of training count only, not those of evaluations. Raises UserError naming the file, and
    the line that is not the JSON of a step.
    """
    try:
        lines = read_lines(path, MAX_BYTES)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; a run of uniface_jax.train writes it") from e
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            if "loss" in row:
                rows.append({key: np.nan if x is None else float(x) for key, x in row.items()})
                rows[-1]["step"] = operator.index(row["step"])
                if abs(row["step"]) > MAX_STEP:
                    raise ValueError("no step of a run")
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{path}: line {number} is not JSON of a step's numbers") from e
    if not rows:
        raise UserError(f"{path}: no step of training was logged")
    names = dict.fromkeys(("step", *(name for row in rows for name in row)))
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
