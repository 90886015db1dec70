"""Memory of batches: used again when nobody looks at it, and never while somebody does."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.helpers.examples import examples
from uniface_jax.data.input.buffers import ALIGNMENT, Buffers, SharedBuffers

SHAPE = (6, 8, 4)


class Cycle:
    """Holds something in a cycle, and saves itself when the garbage collector comes for it."""

    saved: list = []  # noqa: RUF012 (the place where they all go)

    def __init__(self, value):
        self.value, self.itself = value, self
        self.content = seen(self).copy()

    def __del__(self):
        Cycle.saved.append(self)


def put(array):
    return jax.device_put(array, jax.devices()[0])


# Whatever shows an array's memory: name -> a function of the array.
VIEWS = {
    "the array": lambda a: a,
    "a slice": lambda a: a[1:],
    "a slice of a slice": lambda a: a[1:][::2][:1],
    "a row": lambda a: next(iter(a)),
    "another shape": lambda a: a.reshape(-1)[3:],
    "transposed": lambda a: a.T[:2],
    "another type": lambda a: a.view(np.int32),
    "a subclass": lambda a: a.view(np.recarray)[2:].view(np.ndarray),
    "strides": lambda a: np.lib.stride_tricks.as_strided(a, (2, 2), (8, 1)),
    "frombuffer": lambda a: np.frombuffer(a, np.uint8)[5:],
    "the owner": lambda a: a.base,
    "memoryview": memoryview,
    "memoryview of a view": lambda a: memoryview(memoryview(a[2:])[1:])[:1],
    "data": lambda a: a[3].data,
    "ctypes": lambda a: np.ctypeslib.as_array(np.ctypeslib.as_ctypes(a))[1:],
    "DLPack": lambda a: np.from_dlpack(a)[1:],
    "device_put": put,
    "device_put of a slice": lambda a: put(a[2:]),
    "JAX from DLPack": jnp.from_dlpack,
    "a JAX array's view": lambda a: np.asarray(put(a))[1:],
    "in a cycle": Cycle,
}


def seen(view):
    """The bytes that a view shows."""
    array = np.asarray(view.value if isinstance(view, Cycle) else view)
    return np.ascontiguousarray(array).view(np.uint8)


def place(array):
    return array.ctypes.data


@pytest.fixture(params=[Buffers, SharedBuffers])
def buffers(request):
    made = request.param(SHAPE)
    yield made
    if isinstance(made, SharedBuffers):
        made.close()


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_keeps_its_memory(buffers, name):
    batch = buffers.take()
    batch[:] = 7
    taken = place(batch)
    view = VIEWS[name](batch)
    del batch
    gc.collect()
    for value in range(8, 12):
        other = buffers.take()
        assert place(other) != taken
        other[:] = value
        del other
    assert (seen(view) == 7).all()
    del view
    gc.collect()
    if Cycle.saved:  # the collector came for it, and it lives
        assert (seen(Cycle.saved[0]) == 7).all()
        assert taken not in [place(array) for array in (buffers.take(), buffers.take())]
        Cycle.saved.clear()
        gc.collect()
    assert taken in [place(array) for array in (buffers.take(), buffers.take())]


def test_what_is_given(buffers):
    batch = buffers.take()
    assert (batch.shape, batch.dtype, batch.flags.writeable) == (SHAPE, np.uint8, True)
    assert batch.flags.c_contiguous
    assert place(batch) % ALIGNMENT == 0
    assert put(batch).unsafe_buffer_pointer() == place(batch)  # JAX uses it in place


def test_a_computation_keeps_its_argument(buffers):
    """A computation that runs on holds the array that it was given, and the caller need not."""
    total = jax.jit(lambda x: jax.lax.fori_loop(0, 2000, lambda _, s: s + x.sum(), 0))
    batch = buffers.take()
    batch[:] = 1
    result = total(batch)
    del batch
    for _ in range(4):
        buffers.take()[:] = 0
    assert result == 2000 * np.prod(SHAPE)


class Interleavings(RuleBasedStateMachine):
    """Takes, views and drops in any order: what is held shows what was written to it."""

    kind = Buffers

    def __init__(self):
        super().__init__()
        self.buffers = self.kind(SHAPE)
        self.held = []  # (what was written, a view of it)
        self.written = 0

    @rule(names=st.lists(st.sampled_from(list(VIEWS)), max_size=3))
    def take(self, names):
        batch = self.buffers.take()
        self.written = self.written % 255 + 1
        batch[:] = self.written
        self.held += [(self.written, VIEWS[name](batch)) for name in names]

    @rule(number=st.integers(0, 9))
    def look_on(self, number):
        """A view of what is held."""
        for written, view in self.held[number : number + 1]:
            self.held.append((written, np.asarray(getattr(view, "value", view))[..., :1]))

    @rule(number=st.integers(0, 9))
    def drop(self, number):
        del self.held[number : number + 1]

    @rule(number=st.integers(0, 9))
    def drop_elsewhere(self, number):
        views = self.held[number : number + 1]
        del self.held[number : number + 1]
        thread = threading.Thread(target=views.clear)
        thread.start()
        thread.join()

    @rule()
    def collect(self):
        gc.collect()

    @invariant()
    def what_is_held_is_as_it_was(self):
        for written, view in self.held:
            assert (seen(view) == written).all()
        for saved in Cycle.saved:
            assert (seen(saved) == saved.content).all()

    def teardown(self):
        self.held.clear()
        gc.collect()
        Cycle.saved.clear()
        if isinstance(self.buffers, SharedBuffers):
            self.buffers.close()


class SharedInterleavings(Interleavings):
    kind = SharedBuffers


@pytest.mark.hypothesis  # as Hypothesis marks what it decorates: make test-slow tries it deeper
@pytest.mark.parametrize("machine", [Interleavings, SharedInterleavings])
def test_interleavings(machine):
    run_state_machine_as_test(machine, settings=settings(examples(60), stateful_step_count=25))


def test_threads_never_get_the_same_memory(buffers):
    def work(number):
        held = []
        for turn in range(300):
            batch = buffers.take()
            batch[:] = number
            held = [*held[-(turn % 3) :], batch[1:]]
            if not all((view == number).all() for view in held):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_shared_memory_is_in_the_file():
    buffers = SharedBuffers(SHAPE)
    first, second = buffers.take(), buffers.take()
    page = os.sysconf("SC_PAGESIZE")
    assert (buffers.offset(first), buffers.offset(second)) == (0, page)
    second[:] = np.arange(192).reshape(SHAPE)
    assert os.pread(buffers.file, 192, page) == bytes(range(192))
    del first
    assert buffers.offset(buffers.take()) == 0
    third = buffers.take()
    buffers.close()
    assert (third == 0).all()
    assert second[1, 0, 0] == 32
    del third
    reused = buffers.take()  # what is there can be used again, more cannot be had
    with pytest.raises(OSError, match="Bad file descriptor"):
        [reused, buffers.take(), buffers.take(), buffers.take()]
