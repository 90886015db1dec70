"""Text files in blocks: whole lines, whatever a block's size; the first wrong one is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.errors import UserError
from uniface_jax.files import text_lines
from uniface_jax.files.text_lines import blocks, integers, parsed

WRONG = [b"1\n", b"1 x\n", b"-1 2\n", b"\n", b"1 2 3\n"]
LINE = st.text("ab 1é", max_size=12).map(lambda text: text.encode() + b"\n")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "lines.txt"


@given(lines=st.lists(LINE, max_size=20), size=st.integers(1, 40), ended=st.booleans())
def test_blocks_are_the_file(file, lines, size, ended):
    content = b"".join(lines)
    content = content if ended else content[:-1]
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "BLOCK_BYTES", size)
        found = list(blocks(file))
    whole = content if content.endswith(b"\n") or not content else content + b"\n"
    assert b"".join(block for _, block in found) == whole
    numbers = np.cumsum([1] + [block.count(b"\n") for _, block in found])
    assert [number for number, _ in found] == numbers[:-1].tolist()
    assert all(block.endswith(b"\n") for _, block in found)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30), st.data())
def test_the_first_wrong_line_is_named(values, data):
    lines = [b"%d %d\n" % (value, value // 2) for value in values]
    assert integers(b"".join(lines), 2).tolist() == [[v, v // 2] for v in values]
    wrong = data.draw(st.integers(0, len(lines) - 1))
    for later in range(wrong, len(lines)):
        if later == wrong or data.draw(st.booleans()):
            lines[later] = data.draw(
                st.sampled_from([b"1\n", b"1 x\n", b"-1 2\n", b"\n", b"1 2 3\n"])
            )
    message = rf"list: line {100 + wrong}: .*; expected two numbers"
    with pytest.raises(UserError, match=message):
        parsed("list", 100, b"".join(lines), lambda block: integers(block, 2), "two numbers")


def test_long_lines_and_missing_files_are_named(file, tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "BLOCK_BYTES", 8)
    file.write_bytes(b"1\n2\n" + b"x" * 2 * text_lines.MAX_LINE_BYTES + b"\n")
    with pytest.raises(UserError, match=r"lines\.txt: a line of 4096 bytes or more after line 1"):
        list(blocks(file))
    with pytest.raises(UserError, match=r"none\.txt: cannot be read \(No such file or directory"):
        list(blocks(tmp_path / "none.txt"))
