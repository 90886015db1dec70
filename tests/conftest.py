"""Eight virtual CPU devices for every test, and the folders of golden numbers and fixtures.

UNIFACE_TEST_PLATFORM=cuda runs on that platform's devices instead: for the tests of numbers that
need one device. UNIFACE_TEST_COMPILER=user compiles as users' programs are compiled.
"""

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.compilation import FAST_COMPILATION

os.environ["JAX_PLATFORMS"] = os.environ.get("UNIFACE_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# On a GPU the numbers are of the kernels that users get.
if os.environ["JAX_PLATFORMS"] == "cpu" and os.environ.get("UNIFACE_TEST_COMPILER") != "user":
    os.environ["XLA_FLAGS"] += f" {FAST_COMPILATION}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Command lines of one session share what they compiled, those of all workers (which inherit the
# folder), and leave the user's cache alone, but for the library of kernels (uniface_jax.native):
# that takes many seconds, and no run is misled by it, since its name is a hash of all that it was
# made from.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="uniface_jax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    # And what tests of several files need, of which one makes it.
    os.environ["UNIFACE_TESTS_FOLDER"] = tempfile.mkdtemp(prefix="uniface_jax-shared-")
    atexit.register(shutil.rmtree, os.environ["UNIFACE_TESTS_FOLDER"], ignore_errors=True)
    # And what its programs know of features and files.
    os.environ["UNIFACE_OWN_FOLDER"] = tempfile.mkdtemp(prefix="uniface_jax-known-")
    atexit.register(shutil.rmtree, os.environ["UNIFACE_OWN_FOLDER"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import numpy as np
import pytest

from tests.helpers.examples import register_profiles
from tests.helpers.faces import make_faces
from tests.helpers.float64_convolution import sum_of_products
from tests.helpers.forked_commands import WARNING, ForkedCommands
from tests.helpers.paths import FIXTURES, GOLDEN, GOLDEN2, ROOT
from tests.helpers.processor_time import (  # hooks, which pytest finds here
    pytest_runtest_makereport,  # noqa: F401
    pytest_runtest_setup,  # noqa: F401
    pytest_terminal_summary,  # noqa: F401
)
from tests.helpers.programs import forget_programs, patched_forms
from tests.helpers.scheduling import LoadFiles
from uniface_jax.cli import NEW_OBJECTS
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.export.demo_faces import unseen_faces
from uniface_jax.native import build
from uniface_jax.runtime.xla_flags import set_flags

set_flags()  # as the command lines do
gc.set_threshold(NEW_OBJECTS)  # likewise
jax.config.update("jax_enable_compilation_cache", False)  # of this process
jax.config.update("jax_numpy_rank_promotion", "raise")

# The longest by processor time, as make test and make test-slow print it: begun first and in this
# order, so that no worker is left with them.
LONGEST = (
    "test_processes.py", "test_all_networks.py", "test_notebook.py", "test_running.py",
    "test_cases.py", "test_memory.py", "test_chaos.py", "test_extremes.py",
    "test_no_arguments.py", "test_training.py", "test_step_golden.py", "test_outside.py",
    "test_teacher.py", "test_wheel.py", "test_pins.py", "test_loss.py", "test_parallel.py",
    "test_engine.py", "test_report.py", "test_convolution.py", "test_vit.py",
    "test_mobilefacenet.py", "test_loss_golden.py", "test_programs.py", "test_bit_flips.py",
    "test_submission.py", "test_rules.py", "test_recognise.py", "test_import_weights.py",
    "test_checkpoints.py", "test_pixels.py", "test_models.py", "test_main.py", "test_run.py",
)  # fmt: skip

register_profiles(derandomize="CI" in os.environ)  # CI tries the same examples every time


def pytest_collection_modifyitems(items):
    turns = {name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let files be given out by tests.helpers.scheduling, where --dist is loadfile."""
    return LoadFiles(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True, scope="module")
def little_to_search():
    """Let go of the files before, and spare what stays of them each search for garbage.

    What was imported, traced and compiled grows to millions of objects, over which one full
    search takes half a second.
    """
    forget_programs()
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Float64 for one test: parity with numbers computed in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def hang_ups():
    """Let SIGHUP end this process and those it starts, though pytest ignore it (nohup)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def convolutions_as_products():
    """Replace those of float64 networks: test_float64_convolution.py compares them with XLA's."""
    with patched_forms() as patched:
        patched.setattr(jax.lax, "conv_general_dilated", sum_of_products)
        yield


def golden_loader(folder: Path):
    """Return a function that loads a .npz of the folder by name."""

    def load(name: str):
        with np.load(folder / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    load.folder = folder
    load.seed = int((folder / "seed.txt").read_text())
    return load


@pytest.fixture(scope="session")
def golden():
    """Loads a golden .npz by name, from UNIFACE_GOLDEN where it is set."""
    return golden_loader(Path(os.environ.get("UNIFACE_GOLDEN", GOLDEN)))


@pytest.fixture(scope="session")
def golden2():
    """Loads a .npz of the second set by name, from UNIFACE_GOLDEN2 where it is set."""
    return golden_loader(Path(os.environ.get("UNIFACE_GOLDEN2", GOLDEN2)))


@pytest.fixture(scope="session")
def fixtures_folder():
    """Files written by the real MXNet tools, from UNIFACE_FIXTURES where it is set."""
    return Path(os.environ.get("UNIFACE_FIXTURES", FIXTURES))


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """Identity folders s1, s2, s10 with 23 JPEG and PNG of 112x112, every image different."""
    root = tmp_path_factory.mktemp("faces")
    make_faces(root)
    return root


@pytest.fixture(scope="session")
def orl_unseen():
    """The 100 aligned faces of ORL's last ten people, which take seconds to find; not to change."""
    found = unseen_faces()
    found.images.flags.writeable = False
    return found


@pytest.fixture(scope="session")
def dataset(faces, tmp_path_factory):
    """The same faces as a TFRecord data set of shards of 10, 10 and 3."""
    folder = tmp_path_factory.mktemp("sets") / "faces"
    write_dataset(FolderSource(faces), folder, name="faces", seed=1, shard_size=10)
    return folder


@pytest.fixture(scope="session")
def forked():
    """Commands that begin with the imports done; one server serves a session."""
    commands = ForkedCommands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def run_cli(forked):
    """Runs `python -m uniface_jax.<module> args…` as a user does; returns the completed process.

    With `env` it is a Python that begins anew; otherwise one that is forked when its imports are
    done. cwd: the folder it runs in; the package is this repository's wherever that is. The
    compiler's flags are the tests' (tests.helpers.compilation): with {"XLA_FLAGS": ""} they are a
    user's. A warning that Python printed fails the test, as one in the tests' own process does.
    """

    def run(
        module: str,
        *args,
        timeout: float = 300,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
    ):
        if env is None:
            done = forked.complete("python", [module, *args], cwd, timeout)
        else:
            path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            fast = {"PYTHONPATH": path, "XLA_FLAGS": FAST_COMPILATION}
            done = subprocess.run(
                [sys.executable, "-m", f"uniface_jax.{module}", *map(str, args)],
                cwd=cwd,
                env={**os.environ, **fast, **env},
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        assert not WARNING.search(done.stderr), done.stderr
        return done

    return run


@pytest.fixture
def small_disk(tmp_path):
    """An empty disk of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def kernels():
    """The path of the library of kernels for the CPU."""
    if not build.available():
        pytest.skip("the kernels in C++ are not compiled here: no compiler, or switched off")
    return build.library()._name
