"""The sizes of blocks that fit a budget, and what a pass over them takes."""

import pytest

from uniface_jax.head.block_size import block_of_budget, even_block, working_bytes


def test_block_of_a_budget():
    assert block_of_budget(None, 256, 512) == 768  # 5.25 MiB: 3 tiles of 0.75, 2 slices of 1.5
    assert block_of_budget(8.0, 256, 512) == 1152
    assert block_of_budget(8.0, 256, 512, subcentres=3) == 384
    assert block_of_budget(0.1, 4096, 512) == 8
    assert block_of_budget(0.5, 256, 512) == 73


def test_bytes_of_a_pass():
    """A block takes three tiles and two slices; the batch directions and gradient; and a mask."""
    assert working_bytes(2, 4, 100, 10) == 4 * 10 * (3 * 2 + 2 * 4) + 2 * 4 * 2 * 4 + 100
    assert working_bytes(2, 4, 100, 100) == 4 * 100 * 3 * 2 + 2 * 4 * 2 * 4 + 100


@pytest.mark.parametrize(
    ("total", "block_size", "even"),
    [
        (1000, 300, 256),  # four blocks of 250
        (1000, 334, 334),  # three of 334, of which 384 would be more than was asked for
        (1000, 1000, 1000),
        (2000, 1024, 1024),
        (257, 256, 256),
        (129, 128, 128),
        (5, 8, 5),
        (5, 2, 2),
    ],
)
def test_even_blocks_are_as_few_as_can_be(total, block_size, even):
    assert even_block(total, block_size) == even
    assert -(-total // even) == -(-total // block_size)
