"""How many classes a block has, and the memory that it takes."""

import jax


def bytes_a_class(batch: int, dimension: int) -> int:
    """What a pass holds for each class of a block, float32: three tiles' columns, two slices' rows.

    By the compiler's account (scripts/table_head_memory.py compares).
    """
    return 4 * (3 * batch + 2 * dimension)


def block_of_budget(mebibytes: float | None, batch: int, dimension: int) -> int:
    """How many classes a block may have so that its float32 arrays stay within a memory budget.

    None is a sane budget: of a second-level cache on CPUs, of a small share of the memory on
    accelerators. Multiples of 128 where there are so many, at least 8.
    """
    if mebibytes is None:
        mebibytes = 6.0 if jax.default_backend() == "cpu" else 512.0
    fitting = int(mebibytes * 2**20) // bytes_a_class(batch, dimension)
    return max(fitting // 128 * 128 or fitting, 8)


def working_bytes(batch: int, dimension: int, total: int, block: int) -> int:
    """What a pass over `total` classes works in, float32, beside its arguments and results.

    A block's arrays, the batch's directions and their gradient; where one block has all classes
    there is nothing to slice.
    """
    of_block = bytes_a_class(batch, dimension if block < total else 0) * block
    return of_block + 8 * batch * dimension + total


def even_block(total: int, block_size: int) -> int:
    """The size of so many blocks that none is above block_size: even, in multiples of 128."""
    even = -(-total // -(-total // block_size))
    return min(-(-even // 128) * 128, block_size, total)
