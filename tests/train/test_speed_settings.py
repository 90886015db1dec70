"""One compilation a function and run, the cache of compiled programs, and traces of steps."""

import collections
import gzip
import json

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.tiny_training import first_state, tiny_network
from uniface_jax import losses
from uniface_jax.errors import UserError
from uniface_jax.runtime import compilation_cache, parallel
from uniface_jax.runtime.profiling import parse_range
from uniface_jax.state import class_sharded
from uniface_jax.train import step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return demo_run.make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_nothing_compiles_after_the_first_step(mode):
    network, loss = tiny_network(), losses.create("uce")
    state = first_state(network, "uce", 5, seed=0)
    runner = parallel.create_runner(mode, class_sharded(state), jax.devices()[:2])
    train_step = runner.compile(step.make_step(network, loss, lambda _: 0.1, step.Settings(5)))
    placed, compiled = runner.place(state), []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    rng = np.random.default_rng(0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number in range(3):
            images = rng.integers(0, 256, (8, 112, 112, 3), np.uint8)
            labels = rng.integers(0, 5, 8).astype(np.int32)
            batch = runner.put({"image": images, "label": labels})
            with jax.transfer_guard("disallow"):
                placed, metrics = train_step(placed, batch)
            jax.block_until_ready(metrics)
            if number == 0:
                assert compiled, "the listener must see the first compilation"
                compiled.clear()
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def test_the_guard_sees_an_implicit_transfer():
    double = jax.jit(lambda x: 2 * x)
    refused = pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device")
    with refused, jax.transfer_guard("disallow"):
        double(np.ones(3))


@pytest.mark.slow
def test_a_run_compiles_each_function_once_keeps_it_and_traces(data, tmp_path, run_cli):
    cache = tmp_path / "compiled"
    environment = {"JAX_COMPILATION_CACHE_DIR": "", "XLA_FLAGS": FAST_COMPILATION}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    flags = demo_run.flags(data[0], steps=6, compilation_cache=cache, profile="2:4")
    done = run_cli("train", f"--workdir={tmp_path / 'run'}", *flags, env=environment)
    assert done.returncode == 0, done.stderr
    # Every compilation leaves a file NAME-HASH-cache: two of one name would be a recompilation.
    counts = collections.Counter(path.name.split("-")[0] for path in cache.glob("*-cache"))
    counts.pop("jit_reshape", None)  # one for each shape in the state, when it is placed
    assert len(counts) >= 2, counts  # the first state, the step
    assert set(counts.values()) == {1}, counts
    assert "traced steps 2 to 3" in done.stdout
    (trace,) = (tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert len([event for event in events if event.get("name") == "train"]) == 2


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation_cache.default_folder().parent == tmp_path / "uniface_jax"
    assert compilation_cache.enable("") is None
    assert compilation_cache.enable("auto") is None  # the session's JAX_COMPILATION_CACHE_DIR wins
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert compilation_cache.enable(str(tmp_path / "here")) == tmp_path / "here"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("text", ["5", "5:5", "7:3", "a:b", "-1:3", "1:2:3", ":"])
def test_profile_range_refused(text):
    with pytest.raises(UserError, match=r"config\.profile"):
        parse_range(text)


def test_profile_range():
    assert parse_range("") is None
    assert parse_range("10:15") == (10, 15)
