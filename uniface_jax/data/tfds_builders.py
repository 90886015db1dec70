"""TensorFlow Datasets builders of the training sets of the field, for manual download.

    tfds build casia_webface --imports=uniface_jax.data.tfds_builders --manual_dir=DOWNLOADED

or, in Python, `import uniface_jax.data.tfds_builders` and then tfds.load as for any other set. They
call the same conversion as python -m uniface_jax.convert (parallel, resumed after a kill), so that
the records are the same to the last bit; what is added is that a set that bears a known name has
the known number of images and identities. The counts are those of insightface's training configs.
"""

import shutil
from pathlib import Path
from typing import Any

from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.tfds_metadata import VERSION
from uniface_jax.data.formats.tfrecord_info import FEATURES_FILE, INFO_FILE, SPLIT
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError, extra

with extra("tensorflow"):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

_ZOO = "https://github.com/deepinsight/insightface/tree/master/recognition/_datasets_"
_WEBFACE = "https://www.face-benchmark.org/download.html"


class FaceBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A training set of aligned faces that its owner lets people fetch by hand only.

    images, identities: how many there are. folders: what downloads of it are called. Building
    raises UserError when the source has other counts or images of another size than 112x112.
    """

    VERSION = tfds.core.Version(VERSION)
    images: int
    identities: int
    folders: tuple[str, ...] = ()
    title: str
    citation: str

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                f"{self.title}: {self.images:,} images of {self.identities:,} identities, aligned "
                f"to {IMAGE_SIZE}x{IMAGE_SIZE}."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 3)),
                    "label": tfds.features.ClassLabel(num_classes=self.identities),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            citation=self.citation,
            disable_shuffling=False,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        source = self._source(Path(dl_manager.manual_dir))
        # Not in the folder that TFDS removes on an error, so that a second try goes on there.
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
        """The download: TFDS' manual folder, or the one in it that bears a known name."""
        known = [folder / name for name in (self.name, *self.folders) if (folder / name).exists()]
        source = open_source(known[0] if known else folder)
        found = len(source), source.num_classes
        if found != (self.images, self.identities):
            raise UserError(
                f"{source.name}: {found[0]:,} images of {found[1]:,} identities, {self.name} has "
                f"{self.images:,} of {self.identities:,}; python -m uniface_jax.convert takes any "
                "set, under a name of its own"
            )
        return source

    def _take(self, work: Path) -> None:
        """Moves the converted files to where TFDS wants them; it writes its own metadata."""
        for file in sorted(work.iterdir()):
            if file.name not in (INFO_FILE, FEATURES_FILE):
                shutil.move(file, Path(self.data_dir) / file.name)
        shutil.rmtree(work)


def _instructions(place: str, files: str) -> str:
    return (
        f"Fetch it from {place} and unpack it; manual_dir is the folder that holds {files}. Mind "
        "the terms of use: these sets are for research that is not commercial."
    )


_RECORDS = "train.rec, train.idx and property"


class CasiaWebface(FaceBuilder):
    """CASIA-WebFace as insightface aligned it."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(f"{_ZOO} (CASIA-Webface)", _RECORDS)
    title, images, identities = "CASIA-WebFace", 490_623, 10_572
    folders = ("faces_webface_112x112", "casia-webface")
    citation = (
        "Yi, Lei, Liao, Li: Learning Face Representation from Scratch. arXiv:1411.7923, 2014."
    )


class Ms1mv2(FaceBuilder):
    """MS1MV2, which is MS1M-ArcFace, or faces_emore."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(f"{_ZOO} (MS1M-ArcFace)", _RECORDS)
    title, images, identities = "MS1MV2 (MS1M-ArcFace)", 5_822_653, 85_742
    folders = ("faces_emore", "ms1m-arcface")
    citation = (
        "Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face "
        "Recognition. CVPR 2019."
    )


class Ms1mv3(FaceBuilder):
    """MS1MV3, which is MS1M-RetinaFace."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(f"{_ZOO} (MS1M-RetinaFace)", _RECORDS)
    title, images, identities = "MS1MV3 (MS1M-RetinaFace)", 5_179_510, 93_431
    folders = ("ms1m-retinaface-t1",)
    citation = (
        "Deng, Guo, Zhang, Deng, Lu, Shi: Lightweight Face Recognition Challenge. "
        "ICCV Workshops 2019."
    )


class Glint360k(FaceBuilder):
    """Glint360K."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(f"{_ZOO} (Glint360K)", _RECORDS)
    title, images, identities = "Glint360K", 17_091_657, 360_232
    folders = ("glint360k",)
    citation = (
        "An et al.: Partial FC: Training 10 Million Identities on a Single Machine. ICCV Workshops "
        "2021."
    )


_WEBFACE_CITATION = (
    "Zhu et al.: WebFace260M: A Benchmark Unveiling the Power of Million-Scale Deep Face "
    "Recognition. CVPR 2021."
)
_WEBFACE_FILES = f"{_RECORDS}, or one folder an identity"


class Webface4m(FaceBuilder):
    """WebFace4M, a tenth of WebFace42M's identities."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(_WEBFACE, _WEBFACE_FILES)
    title, images, identities = "WebFace4M", 4_235_242, 205_990
    folders = ("WebFace4M",)
    citation = _WEBFACE_CITATION


class Webface12m(FaceBuilder):
    """WebFace12M, three tenths of WebFace42M's identities."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(_WEBFACE, _WEBFACE_FILES)
    title, images, identities = "WebFace12M", 12_720_066, 617_970
    folders = ("WebFace12M",)
    citation = _WEBFACE_CITATION


class Webface42m(FaceBuilder):
    """WebFace42M, the cleaned part of WebFace260M."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _instructions(_WEBFACE, _WEBFACE_FILES)
    title, images, identities = "WebFace42M", 42_474_557, 2_059_906
    folders = ("WebFace42M",)
    citation = _WEBFACE_CITATION
