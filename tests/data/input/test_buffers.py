import jax
import numpy as np

from uniface_jax.data.input.buffers import ALIGNMENT, Buffers


def test_memory_is_used_again_once_dropped():
    buffers = Buffers((5, 3))
    first = buffers.take()
    assert (first.shape, first.dtype) == ((5, 3), np.uint8)
    place = first.ctypes.data
    assert place % ALIGNMENT == 0
    row = first[2]
    del first
    assert buffers.take().ctypes.data != place  # a view is still there
    del row
    assert buffers.take().ctypes.data == place


def test_a_jax_array_keeps_its_pixels():
    buffers = Buffers((64, 112, 112, 3))
    batch = buffers.take()
    batch[:] = 7
    placed = jax.device_put(batch, jax.devices()[0])
    del batch
    for value in range(8, 12):
        other = buffers.take()
        other[:] = value
        del other
    assert (np.asarray(placed) == 7).all()
