"""The sizes of blocks that fit a budget."""

from uniface_jax.head.block_size import block_of_budget


def test_block_of_a_budget():
    assert block_of_budget(None, 256, 512) == 768  # 5.25 MiB: 3 tiles of 0.75, 2 slices of 1.5
    assert block_of_budget(8.0, 256, 512) == 1152
    assert block_of_budget(0.1, 4096, 512) == 8
    assert block_of_budget(0.5, 256, 512) == 73
