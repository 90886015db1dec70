"""Size of a block of classes, and the memory that a pass over blocks takes."""

import jax


def bytes_a_class(batch: int, dimension: int) -> int:
    """Return the bytes that a pass holds for each class of a block, float32.

    They are three tiles' columns and two slices' rows, by the compiler's account
    (scripts/table_head_memory.py compares).
    """
    return 4 * (3 * batch + 2 * dimension)


def block_of_budget(
    mebibytes: float | None, batch: int, dimension: int, subcentres: int = 1
) -> int:
    """Return the number of classes whose block of float32 arrays stays within a memory budget.

    subcentres: prototypes a class, each of which takes what a class of one takes.
    mebibytes: the budget; None is the size of a second-level cache on CPUs, of a small share of the
    memory on accelerators. The result is a multiple of 128 where there are so many, at least 8.
    """
    if mebibytes is None:
        mebibytes = 6.0 if jax.default_backend() == "cpu" else 512.0
    fitting = int(mebibytes * 2**20) // (bytes_a_class(batch, dimension) * subcentres)
    return max(fitting // 128 * 128 or fitting, 8)


def working_bytes(batch: int, dimension: int, total: int, block: int) -> int:
    """Return the bytes, float32, that a pass over `total` classes needs beside inputs and results.

    They are a block's arrays, the batch's directions and their gradient; where one block has all
    classes there is nothing to slice.
    """
    of_block = bytes_a_class(batch, dimension if block < total else 0) * block
    return of_block + 8 * batch * dimension + total


def even_block(total: int, block_size: int) -> int:
    """Return the size of as few blocks as none above block_size takes: even, multiples of 128."""
    even = -(-total // -(-total // block_size))
    return min(-(-even // 128) * 128, block_size, total)
