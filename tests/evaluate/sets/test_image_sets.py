"""The digests by which features are known again."""

import json

import pytest

from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.image_sets import FileDigests, ImageFiles


@pytest.fixture
def images(tmp_path):
    """Eleven files in one folder; a digest does not ask whether they are images."""
    folder = tmp_path / "people"
    names = [f"p{i // 4}/{i}.png" for i in range(11)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * 100)
    return ImageFiles("people", folder, names)


def test_digests_follow_content_and_names_and_are_remembered(tmp_path, images):
    digest = images.digest(FileDigests(tmp_path / "memory"))
    assert images.digest(FileDigests()) == digest
    moved = ImageFiles("people", images.root.rename(tmp_path / "moved"), images.names)
    assert moved.digest(FileDigests()) == digest
    other = ImageFiles("people", moved.root, images.names[::-1])
    assert other.digest(FileDigests()) != digest
    memory = json.loads((tmp_path / "memory" / "digests.json").read_text())
    assert list(memory.values()) == [digest]
    (tmp_path / "memory" / "digests.json").write_text(json.dumps(dict.fromkeys(memory, "known")))
    assert moved.digest(FileDigests(tmp_path / "memory")) == "known"
    (tmp_path / "memory" / "digests.json").write_text("[1")
    assert moved.digest(FileDigests(tmp_path / "memory")) == digest
    with pytest.raises(UserError, match=r"none\.png: cannot be read"):
        ImageFiles("x", tmp_path, ["none.png"]).digest(FileDigests())
