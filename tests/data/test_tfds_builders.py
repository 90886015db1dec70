"""The builders as TFDS runs them; the small one below has the counts of the insightface fixture."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers import mxnet_fixtures
from tests.helpers.paths import ROOT
from uniface_jax.data.conversion.job import ConversionSettings
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

TINY = """
from uniface_jax.data.sources.known_sets import KnownSet
from uniface_jax.data.tfds_builders import FaceBuilder

class TinyFaces(FaceBuilder):
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The fixture of insightface's layout."
    known = KnownSet(
        name="tiny", title="Tiny", images=IMAGES, identities=IDENTITIES,
        url="none", citation="none",
        folders=("insightface",),
    )
"""


def tiny(folder):
    """Return the module of a builder with the counts of the layout in a folder."""
    counts = len(mxnet_fixtures.expected(folder)), mxnet_fixtures.num_classes(folder)
    return TINY.replace("IMAGES", str(counts[0])).replace("IDENTITIES", str(counts[1]))


EXPECTED = {
    "casia_webface": (490_623, 10_572),
    "ms1mv2": (5_822_653, 85_742),
    "ms1mv3": (5_179_510, 93_431),
    "glint360k": (17_091_657, 360_232),
    "webface4m": (4_235_242, 205_990),
    "webface12m": (12_720_066, 617_970),
    "webface42m": (42_474_557, 2_059_906),
}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """TFDS leaves an empty folder behind for every builder (DatasetInfo.initialize_from_bucket)."""
    folder = str(tmp_path_factory.mktemp("left"))
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("TMPDIR", folder)


@pytest.fixture(scope="module")
def manual(fixtures_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    shutil.copytree(fixtures_folder / "insightface", folder / "insightface")
    return folder


def test_all_are_registered_with_their_counts(manual, tmp_path):
    import tensorflow_datasets as tfds

    from uniface_jax.data import tfds_builders  # noqa: F401  (registers them)

    for name, (images, identities) in EXPECTED.items():
        builder = tfds.builder(name, data_dir=str(tmp_path))
        assert builder.info.features["label"].num_classes == identities
        assert f"{images:,} images of {identities:,} identities" in builder.info.description
        assert "http" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        with pytest.raises(Exception, match="does not exist or is empty"):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "absent")
            )
        folder = manual / "insightface"
        there = f"{len(mxnet_fixtures.expected(folder))} images"
        there += f" of {mxnet_fixtures.num_classes(folder)} identities"
        counts = f"{there}, {name} has {images:,} of {identities:,}"
        with pytest.raises(UserError, match=counts):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual / "insightface")
            )


def test_tfds_build_gives_what_convert_gives(manual, tmp_path):
    import tensorflow_datasets as tfds

    (tmp_path / "tiny_builder.py").write_text(tiny(manual / "insightface"))
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    # The subcommand build of tfds as it is; tfds imports Beam and Croissant for its others.
    code = (
        "from absl import app\n"
        "from tensorflow_datasets.scripts.cli import build, cli_utils\n"
        "parser = cli_utils.make_flags_parser(build.Args, description='')\n"
        "app.run(lambda args: args.execute(), flags_parser=parser)"
    )
    command = [sys.executable, "-c", code, "tiny_faces", "--imports=tiny_builder"]
    command += [f"--manual_dir={manual}", f"--data_dir={tmp_path / 'out'}"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "tiny_faces" / "1.0.0"
    source = open_source(manual / "insightface")
    convert(source, tmp_path / "converted", ConversionSettings("tiny_faces"))
    for file in (tmp_path / "converted").iterdir():
        if file.name not in ("dataset_info.json", "features.json", "manifest.json"):
            assert (folder / file.name).read_bytes() == file.read_bytes()
    assert [child.name for child in (tmp_path / "out").iterdir()] in (
        ["tiny_faces"], ["downloads", "tiny_faces"], ["tiny_faces", "downloads"]
    )  # fmt: skip

    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.splits["train"].num_examples == len(source)
    assert builder.info.features["image"].shape == (112, 112, 3)
    assert len(list(builder.as_dataset(split="train"))) == len(source)
    ours = open_source(folder)
    assert sorted(ours[i] for i in range(len(ours))) == sorted(source)


def test_load_by_name(manual, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    module = tmp_path / "tiny_builder_two.py"
    module.write_text(tiny(manual / "insightface").replace("TinyFaces", "TinyFacesTwo"))
    monkeypatch.syspath_prepend(tmp_path)
    __import__("tiny_builder_two")
    config = tfds.download.DownloadConfig(manual_dir=manual)
    data, info = tfds.load(
        "tiny_faces_two",
        split="train",
        as_supervised=True,
        with_info=True,
        data_dir=str(tmp_path / "data"),
        download_and_prepare_kwargs={"download_config": config},
    )
    labels = [int(label) for _, label in data]
    assert sorted(labels) == sorted(mxnet_fixtures.labels(manual / "insightface"))
    assert info.supervised_keys == ("image", "label")
    assert not list(Path(tmp_path / "data").glob("*.converting"))
