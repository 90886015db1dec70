"""The text files of IJB: read block by block, and damaged ones named by file and line."""

import numpy as np
import pytest

from uniface_jax.errors import UserError
from uniface_jax.evaluate.protocols.ijb.images import read_images, read_template_pairs
from uniface_jax.files import text_lines

LANDMARKS = "1 2 3 4 5 6 7 8 9 10.5"


@pytest.fixture
def meta(tmp_path):
    """(tid_mid, name_5pts, pair_label) of five images, with blocks of a few lines."""
    files = [tmp_path / f"ijbc_{name}.txt" for name in ("tid_mid", "name_5pts", "pair_label")]
    files[0].write_text("".join(f"{i}.jpg {i // 2} {100 + i}\n" for i in range(5)))
    files[1].write_text("".join(f"{i}.jpg {LANDMARKS} 0.{i}5\n" for i in range(5)))
    files[2].write_text("".join(f"{i} {i + 1} {i % 2}\n" for i in range(200)))
    return files


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(text_lines, "BLOCK_BYTES", 50)


def test_meta_files_are_read_across_blocks(meta):
    images = read_images(meta[0], meta[1])
    assert images.names == [f"{i}.jpg" for i in range(5)]
    assert images.templates.tolist() == [0, 0, 1, 1, 2]
    assert images.media.tolist() == [100, 101, 102, 103, 104]
    assert images.landmarks.shape == (5, 5, 2)
    assert images.landmarks[3].ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5]
    np.testing.assert_array_equal(images.scores, np.float32([0.05, 0.15, 0.25, 0.35, 0.45]))
    pairs = read_template_pairs(meta[2])
    assert pairs.first.tolist() == list(range(200))
    assert pairs.second.tolist() == list(range(1, 201))
    assert pairs.same.tolist() == [i % 2 == 1 for i in range(200)]


def test_the_last_newline_and_crlf_do_not_matter(meta):
    meta[2].write_bytes(meta[2].read_bytes().rstrip().replace(b"\n", b"\r\n"))
    assert len(read_template_pairs(meta[2]).same) == 200


def damage(file, line, text):
    lines = file.read_text().split("\n")
    lines[line - 1] = text
    file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "77",
        "77 78",
        "77 78 1 1",
        "77 78 2",
        "77 -8 1",
        "77 x 1",
        "77 99999999999 1",
        "7\0 8 1",
    ],
)
def test_a_damaged_pair_names_file_and_line(meta, text):
    damage(meta[2], 78, text)
    with pytest.raises(UserError, match=r"pair_label\.txt: line 78: .*two templates and 0 or 1"):
        read_template_pairs(meta[2])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (0, "3.jpg 1", r"tid_mid\.txt: line 4: '3.jpg 1'; expected a file name, a template"),
        (0, "3.jpg 1 x", "line 4: '3.jpg 1 x'"),
        (0, "3.jpg 1 99999999999", "line 4"),
        (0, "../3.jpg 1 103", "line 4"),
        (1, f"3.jpg {LANDMARKS}", r"name_5pts\.txt: line 4: .*five landmarks"),
        (1, f"3.jpg {LANDMARKS} nan", "line 4"),
        (1, f"3.jpg {LANDMARKS} 0.5 0.5", "line 4"),
        (1, "", "line 4"),
        (
            1,
            f"9.jpg {LANDMARKS} 0.5",
            r"line 4: image 9.jpg, but line 4 of .*tid_mid.txt is of 3.jpg",
        ),
        (1, "x" * 5000, "a line of 4096 bytes or more"),
    ],
)
def test_a_damaged_image_line_names_file_and_line(meta, file, text, message):
    damage(meta[file], 4, text)
    with pytest.raises(UserError, match=message):
        read_images(meta[0], meta[1])


def test_files_of_different_length_missing_and_empty_ones_are_named(meta):
    whole = meta[1].read_text()
    meta[1].write_text("".join(whole.splitlines(keepends=True)[:4]))
    with pytest.raises(UserError, match=r"name_5pts\.txt: 4 lines, but .*tid_mid\.txt has 5"):
        read_images(meta[0], meta[1])
    meta[1].write_text(whole + f"5.jpg {LANDMARKS} 0.5\n")
    with pytest.raises(UserError, match=r"6 lines, but .* has 5"):
        read_images(meta[0], meta[1])
    meta[2].write_text("")
    with pytest.raises(UserError, match="no pairs"):
        read_template_pairs(meta[2])
    with pytest.raises(UserError, match=r"none\.txt: cannot be read"):
        read_template_pairs(meta[2].with_name("none.txt"))
