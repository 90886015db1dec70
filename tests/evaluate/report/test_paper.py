"""The paper's numbers, which are shown where they may be."""

import pytest

from uniface_jax.evaluate.report import paper


def test_published_numbers_of_a_network():
    found = paper.published("CASIA, R50", "UCE-M")
    assert (found[paper.MR_ALL], found[paper.LFW], len(found)) == (47.45, 99.56, 6)
    with pytest.raises(KeyError, match="Focal"):
        paper.published("CASIA, R50", "Focal")


def test_numbers_stand_beside_those_of_the_published_sets_only():
    lfw = {"pairs": 6000, "same": 3000, "accuracy": {"mean": 0.99}}
    assert paper.comparable("verification", "lfw", lfw) == {paper.LFW: 99.0}
    assert paper.comparable("verification", "lfw", {**lfw, "pairs": 600}) == {}
    assert paper.comparable("verification", "mine", lfw) == {}
    tars = [
        {"far": far, "nearest": {"tar": tar}} for far, tar in [(1e-5, 0.5), (1e-4, 0.75), (0.1, 1)]
    ]
    ijbc = {"same": 19_557, "different": 15_638_932, "tar_at_far": tars}
    expected = {paper.IJBC_4: 75.0, paper.IJBC_5: 50.0}
    assert paper.comparable("ijb", "ijbc", ijbc) == expected
    assert paper.comparable("ijb", "ijbb", {**ijbc, "same": 10_270}) == {}
    assert paper.comparable("ijb", "ijbc_1N_G1", {"closed_set": {}}) == {}


@pytest.mark.parametrize(
    ("key", "count"), [(paper.LFW, 7), (paper.MR_ALL, 17), (paper.REFINED_ID, 2)]
)
def test_rows_are_those_with_the_number(key, count):
    assert len(paper.rows_for({key})) == count


def test_the_papers_numbers_need_the_papers_data():
    tars = [{"far": 1e-6, "strict": {"tar": 0.5}}]
    everyone = {"images": 1_624_305, "identities": 242_143, "tar_at_far": tars}
    assert paper.comparable("mfr", "ALL", everyone) == {paper.MR_ALL: 50}
    assert paper.comparable("mfr", "ALL", {**everyone, "images": 400}) == {}
    mega = {
        "identities": 80,
        "identification": [{"distractors": 1_000_000, "rank": {"1": 0.75}}],
        "verification": {"tar_at_far": tars},
    }
    expected = {paper.MEGAFACE_ID: 75, paper.MEGAFACE_VER: 50}
    assert paper.comparable("megaface", "raw", mega) == expected
