"""Statistics of a converted data set, by counting."""

import shutil

from tests.helpers.conversion import FACES
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.statistics import read_statistics
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source


def test_statistics_and_duplicates(faces, tmp_path):
    copy = shutil.copytree(faces, tmp_path / "faces")
    for target in ("s1/50.jpg", "s1/51.jpg", "s2/50.jpg"):  # one image under two people
        shutil.copy(copy / "s1" / "1.jpg", copy / target)
    shutil.copy(copy / "s2" / "2.png", copy / "s2" / "52.png")
    source = FolderSource(copy)
    convert(source, tmp_path / "set", FACES)
    found = read_statistics(tmp_path / "set")
    assert (found["images"], found["classes"], found["classes_without_images"]) == (27, 3, 0)
    assert found["images_per_class"]["quantiles"] == {
        "0": 7, "5": 7.2, "25": 8, "50": 9, "75": 10, "95": 10.8, "100": 11
    }  # fmt: skip
    assert sum(found["images_per_class"]["histogram"]["counts"]) == 3
    assert sum(found["image_bytes"]["histogram"]["counts"]) == 27
    assert found["sizes"] == [{"height": 112, "width": 112, "images": 27}]
    duplicates = found["duplicates"]
    counts = [duplicates[f"groups_of_{kind}"] for kind in ("one_class", "several_classes")]
    assert (counts, duplicates["surplus_images"]) == ([1, 1], 4)
    written = open_source(tmp_path / "set")
    for group in duplicates["listed"]:
        assert len({written[i].image for i in group["records"]}) == 1
        assert [written[i].label for i in group["records"]] == group["labels"]
