"""Teacher of a distilled run: any model, run once over the training set into a file of features."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from typing_extensions import override

from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import ComputedFeatures
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.sets.source_images import SourceImages
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.own_folder import KnownDigests, own_folder_if_trusted
from uniface_jax.inference.load import load_model
from uniface_jax.inference.model import Model
from uniface_jax.inference.scale_probe import some_of
from uniface_jax.runtime import processes

KEY = "teacher"  # of a batch
FOLDER = "teacher"  # in the workdir: the features that the run was given
_NAME_FILE = "features.txt"  # in it: the name of the file that is used


class TrainingImages(SourceImages):
    """A training set's images as evaluation takes them, neither augmented nor mirrored.

    skip: as data.on_error=skip has it, the next usable image stands in for one that is not.
    """

    def __init__(self, source: Source, skip: bool) -> None:
        super().__init__(Path(source.name).name, source)
        self._skip = skip

    @override
    def pixels(self, index: int) -> np.ndarray:
        if not self._skip:
            return super().pixels(index)
        for further in range(len(self)):
            try:
                return super().pixels((index + further) % len(self))
            except UserError:
                continue
        raise UserError(f"{self.source.name}: no image can be used")


@dataclass(frozen=True)
class Teacher:
    """A model that fits a training set, and how many numbers it gives of an image."""

    model: Model
    images: TrainingImages
    width: int

    def features(self, workdir: Path, batch_size: int) -> np.ndarray:
        """Return the features of all images, float32 [N, T], memory-mapped; computed once.

        They are kept in the workdir, so that a resumed run sees the same to the bit. The main
        process computes what is missing. Raises UserError naming an image that cannot be used.
        """
        folder = workdir / FOLDER

        def compute() -> None:
            # Trusted, as the checkpoints beside it: a resumed run has the same to the bit.
            known = KnownDigests(own_folder_if_trusted("features"))
            cache = FeatureCache(folder, known, trust=True)
            source = ComputedFeatures(self.model, cache, batch_size, _no_files)
            file = Path(source.features(self.images).record["features"])
            write_bytes(folder / _NAME_FILE, file.name.encode())

        processes.on_main(compute)
        file = folder / (folder / _NAME_FILE).read_text()
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        if found.shape != (len(self.images), self.width):
            raise UserError(
                f"{file}: features of shape {list(found.shape)}; expected "
                f"{[len(self.images), self.width]}; remove the file to have them computed again"
            )
        features: np.ndarray = found
        return features


def open_teacher(config: ConfigDict, source: Source) -> Teacher | None:
    """Open the teacher that config.distill names, as evaluate opens a model; None without one.

    It is run on one image of the set. Raises UserError, naming the key, where it cannot be used.
    """
    chosen = config.distill
    if not chosen.teacher:
        if chosen.method == "centers":
            raise UserError(
                "config.distill.method=centers: the centers are a teacher's; name it, "
                "--config.distill.teacher=MODEL"
            )
        return None
    images = TrainingImages(source, config.data.on_error == "skip")
    try:
        model = load_model(
            chosen.teacher,
            input_scale=chosen.input_scale,
            channel_order=chosen.channel_order,
            output_name=chosen.output_name or None,
        )
        faces = np.stack([images.pixels(i) for i in some_of(len(images))])
        model = model.settled(faces)
        points = (images.landmarks(0)[None],) if model.takes_landmarks else ()
        width = model.embed(faces[:1], *points).shape[1]
    except UserError as e:
        said = str(e).replace("--input_scale", "--config.distill.input_scale")
        raise UserError(f"config.distill.teacher={chosen.teacher}: {said}") from e
    return Teacher(model, images, width)


def with_teacher(
    batches: Iterator[Mapping[str, Any]], features: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield the batches with the teacher's features of their images, float32 [B, T], under KEY."""
    for batch in batches:
        yield {**batch, KEY: features[batch["index"]]}


def _no_files(folder: Path, names: object) -> str:
    raise AssertionError("a training set tells itself apart")
