"""TensorFlow Datasets builders of the training sets of the field, for manual download.

    tfds build casia_webface --imports=uniface_jax.data.tfds_builders --manual_dir=DOWNLOADED

or, in Python, `import uniface_jax.data.tfds_builders` and then tfds.load as for any other set. They
call the same conversion as python -m uniface_jax.convert (parallel, resumed after a kill), so that
the records are the same to the last bit; what is added is that a set that bears a known name has
the known number of images and identities. Counts are those of known_sets.
"""

import shutil
from pathlib import Path
from typing import Any

from typing_extensions import override

from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.tfds_metadata import VERSION
from uniface_jax.data.formats.tfrecord_info import FEATURES_FILE, INFO_FILE, SPLIT
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.known_sets import KNOWN_SETS, KnownSet
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError, extra

with extra("tensorflow"):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builder import FileReaderBuilder


class FaceBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg,misc]
    """A training set of aligned faces that its owner lets people fetch by hand only.

    known: its size, and where it is fetched. Building raises UserError when the source has other
    counts or images of another size than 112x112.
    """

    VERSION = tfds.core.Version(VERSION)
    known: KnownSet

    @override
    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                f"{self.known.title}: {self.known.images:,} images of {self.known.identities:,} "
                f"identities, aligned to {IMAGE_SIZE}x{IMAGE_SIZE}."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 3)),
                    "label": tfds.features.ClassLabel(num_classes=self.known.identities),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            citation=self.known.citation,
            disable_shuffling=False,
        )

    @override
    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        source = self._source(Path(dl_manager.manual_dir))
        # Not in the folder that TFDS removes on an error, so that a second try resumes there.
        root = Path(self._data_dir_root)
        work = root / f"{self.name}.converting"
        info = convert(source, work, ConversionSettings(self.name))
        assert info is not None
        if info.image_shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise UserError(
                f"{source.name}: images of {info.image_shape or 'several sizes'}, expected "
                f"{IMAGE_SIZE}x{IMAGE_SIZE}"
            )
        self._take(work)
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.data_dir, dataset_name=self.name, split=SPLIT, filetype_suffix="tfrecord"
        )
        lengths = [count for _, count in info.shards]
        num_bytes = sum(file.stat().st_size for file in Path(self.data_dir).glob("*.tfrecord-*"))
        split = tfds.core.SplitInfo(
            name=SPLIT, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )
        self.info.set_splits(tfds.core.splits.SplitDict([split]))
        if info.class_names and not self.info.features["label"].names:
            self.info.features["label"].names = info.class_names

    def _source(self, folder: Path) -> Source:
        """Open the download: TFDS' manual folder, or the one in it that bears a known name."""
        names = (self.name, *self.known.folders)
        present = [folder / name for name in names if (folder / name).exists()]
        source = open_source(present[0] if present else folder)
        found = len(source), source.num_classes
        if found != (self.known.images, self.known.identities):
            raise UserError(
                f"{source.name}: {found[0]:,} images of {found[1]:,} identities, {self.name} has "
                f"{self.known.images:,} of {self.known.identities:,}; python -m "
                "uniface_jax.convert takes any set, under a name of its own"
            )
        return source

    def _take(self, work: Path) -> None:
        """Move the converted files to where TFDS wants them; it writes its own metadata."""
        for file in sorted(work.iterdir()):
            if file.name not in (INFO_FILE, FEATURES_FILE):
                shutil.move(file, Path(self.data_dir) / file.name)
        shutil.rmtree(work)


def _instructions(known: KnownSet) -> str:
    """Return the text that says where to fetch a set."""
    return (
        f"Fetch it from {known.place} and unpack it; manual_dir is the folder that holds "
        f"{known.files}. Mind the terms of use: these sets are for research that is not commercial."
    )


class CasiaWebface(FaceBuilder):
    """CASIA-WebFace as insightface aligned it."""

    known = KNOWN_SETS["casia_webface"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Ms1mv2(FaceBuilder):
    """MS1MV2, which is MS1M-ArcFace, or faces_emore."""

    known = KNOWN_SETS["ms1mv2"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Ms1mv3(FaceBuilder):
    """MS1MV3, which is MS1M-RetinaFace."""

    known = KNOWN_SETS["ms1mv3"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Glint360k(FaceBuilder):
    """Glint360K."""

    known = KNOWN_SETS["glint360k"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Webface4m(FaceBuilder):
    """WebFace4M, a tenth of WebFace42M's identities."""

    known = KNOWN_SETS["webface4m"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Webface12m(FaceBuilder):
    """WebFace12M, three tenths of WebFace42M's identities."""

    known = KNOWN_SETS["webface12m"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)


class Webface42m(FaceBuilder):
    """WebFace42M, the cleaned part of WebFace260M."""

    known = KNOWN_SETS["webface42m"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(known)
