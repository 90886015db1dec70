"""The kernels compiled for other processors and by other compilers, against float64.

A driver runs them without jaxlib (tests/helpers/kernel_driver.py), under qemu-user where that knows
the processor, so that an instruction which it does not have would end the driver. The packages of
Debian: g++-aarch64-linux-gnu, clang, qemu-user.
"""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import float64_oracles
import numpy as np
import pytest

from tests.helpers import batch_norm_problems, head_problems
from tests.helpers.convolution_problems import (
    TOLERANCE,
    TOLERANCE_BY_FOUR,
    assert_close,
    problem,
)
from tests.helpers.kernel_driver import Driver, compiled, in_place_of_the_library
from tests.helpers.nearest_problems import as_pairs, codes_of, unit
from uniface_jax.native import (
    attention,
    build,
    convolution,
    cross_entropy_head,
    depthwise,
    fused_convolution,
    nearest,
)

pytestmark = pytest.mark.slow

# Of the largest value; Winograd's F(4x4, 3x3) has larger intermediate values than that.
ATTENTION_TOLERANCE, FUSED_TOLERANCE = 3e-6, 1e-5


@dataclass(frozen=True)
class Target:
    """Options of a compiler, and where what it makes runs.

    architecture: as platform.machine() has it. flags: of /proc/cpuinfo, without which this machine
    cannot run it. qemu: the emulator that can, with options; none for AVX-512.
    """

    architecture: str
    width: int
    options: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    qemu: tuple[str, ...] = ()


OPTIMIZED = ("-O3", "-static")
SANITIZED = ("-O0", "-g", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
NATIVE = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
TARGETS = {
    "x86-64-v2": Target(
        "x86_64", 4, ("-march=x86-64-v2", *OPTIMIZED), frozenset({"sse4_2"}),
        ("qemu-x86_64", "-cpu", "Nehalem"),
    ),
    "avx2": Target(
        "x86_64", 8, ("-march=x86-64-v3", *OPTIMIZED), frozenset({"avx2", "fma"}),
        ("qemu-x86_64", "-cpu", "max"),
    ),
    "avx512": Target(
        "x86_64", 16, ("-march=x86-64-v4", "-mavx512vnni", *OPTIMIZED),
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}),
    ),
    "aarch64": Target("aarch64", 4, OPTIMIZED, qemu=("qemu-aarch64",)),
    "address-sanitizer": Target(
        platform.machine(), 0, (NATIVE, *SANITIZED, "-fsanitize=address,undefined")
    ),
    "thread-sanitizer": Target(platform.machine(), 0, (NATIVE, *SANITIZED, "-fsanitize=thread")),
}  # fmt: skip
GCC = {"x86_64": "x86_64-linux-gnu-g++", "aarch64": "aarch64-linux-gnu-g++"}


def compiler_of(kind, architecture):
    """Return the command of a compiler for an architecture; skip the test where there is none."""
    here = platform.machine() == architecture
    if kind == "clang":
        command = ["clang++", *([] if here else [f"--target={architecture}-linux-gnu"])]
        needed = [command[0], *([] if here else [GCC[architecture]])]  # whose headers it takes
    else:
        command = [GCC[architecture] if shutil.which(GCC[architecture]) or not here else "g++"]
        needed = command
    if missing := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(f"no {' and no '.join(missing)} here")
    return command


def runner_of(target):
    """Return what starts a program of the target; skip the test where nothing can."""
    if target.qemu and shutil.which(target.qemu[0]):
        return target.qemu
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    if platform.machine() == target.architecture and target.flags <= {*flags}:
        return ()
    lacking = " ".join(sorted(target.flags - {*flags}))
    pytest.skip(f"no {' or '.join([*target.qemu[:1], f'{target.architecture} {lacking}'])} here")


CASES = [
    pytest.param((kind, name), id=f"{kind}-{name}")
    for name in TARGETS
    for kind in ("gcc", "clang")
    if kind == "gcc" or name not in ("address-sanitizer", "thread-sanitizer")
]


@pytest.fixture(scope="module", params=CASES)
def driver(request, tmp_path_factory):
    """A driver for a processor by a compiler, in the place of the library of kernels."""
    kind, name = request.param
    target = TARGETS[name]
    command, runner = compiler_of(kind, target.architecture), runner_of(target)
    made = compiled([*command, *target.options], tmp_path_factory.mktemp("driver"))
    with Driver([*runner, made]) as running, in_place_of_the_library(running):
        assert running.width() == target.width or not target.width
        yield running


def channels(rng, most):
    return int(rng.integers(1, most + 1)) * build.vector_width()


def check_convolution(kernels, arrays, stride, padding, tolerance=TOLERANCE):
    """All three passes against the oracle, where the channels are such that there is a kernel."""
    x, kernel, y_bar = arrays
    y, by_x, by_kernel = float64_oracles.convolution(*arrays, stride, padding)
    inputs, outputs = kernel.shape[2:]
    if convolution.divides(outputs):
        assert_close(kernels.forward(x, kernel, stride, padding), y, tolerance)
        ours = kernels.kernel_gradient(x, y_bar, kernel.shape, stride, padding)
        assert_close(np.asarray(ours), by_kernel, tolerance)
    if kernels is depthwise or convolution.divides(inputs):
        ours = kernels.input_gradient(y_bar, kernel, x.shape, stride, padding)
        assert_close(np.asarray(ours), by_x, tolerance)


def drawn(rng, most_taps):
    """Return batch, height, width, side, stride and padding of a convolution."""
    side, stride = int(rng.integers(1, most_taps + 1)), int(rng.integers(1, 4))
    padding = int(rng.integers(0, min(side, 3)))
    least = max(1, side - 2 * padding)
    height, width = (int(rng.integers(least, least + 12)) for _ in range(2))
    return int(rng.integers(1, 4)), height, width, side, stride, padding


def test_convolutions(driver):
    rng = np.random.default_rng(0)
    for seed in range(16):
        batch, height, width, side, stride, padding = drawn(rng, 4)
        inputs = int(rng.choice([1, 3, channels(rng, 5)]))
        shape = (side, side, inputs, channels(rng, 7))
        arrays = problem(seed, (batch, height, width, inputs), shape, stride, padding)
        check_convolution(convolution, arrays, stride, padding)


@pytest.mark.parametrize(
    ("height", "width", "padding"), [(9, 7, 1), (2, 1, 1), (5, 4, 0), (8, 8, 2), (30, 20, 1)]
)
@pytest.mark.parametrize(("tile", "tolerance"), [(2, TOLERANCE), (4, TOLERANCE_BY_FOUR)])
def test_winograd(driver, height, width, padding, tile, tolerance, monkeypatch):
    monkeypatch.setattr(convolution, "winograd_tile", lambda *_: tile)
    size = 2 * build.vector_width()
    shape = (3, 3, size, 3 * size)
    assert convolution.is_winograd(shape, 1, padding)
    arrays = problem(0, (2, height, width, size), shape, 1, padding)
    check_convolution(convolution, arrays, 1, padding, tolerance)


def test_large_kernels_are_split_by_taps(driver):
    shape = (2, 2, 192, 192)
    assert np.prod(shape) > convolution.LARGEST_PART_FLOATS
    check_convolution(convolution, problem(2, (1, 6, 4, 192), shape, 2, 0), 2, 0)


@pytest.mark.parametrize("group", depthwise.GROUPS)
def test_convolutions_in_groups(driver, group):
    rng = np.random.default_rng(group)
    for seed in range(6):
        batch, height, width, side, stride, padding = drawn(rng, depthwise.MOST_TAPS)
        size = channels(rng, 3)
        shape, kernel_shape = (batch, height, width, size), (side, side, group, size)
        arrays = problem(seed, shape, kernel_shape, stride, padding)
        check_convolution(depthwise, arrays, stride, padding)
        bias, slope = rng.standard_normal((2, size), np.float32)
        y = float64_oracles.convolution(*arrays, stride, padding)[0] + bias
        ours = depthwise.forward(*arrays[:2], stride, padding, (bias, slope))
        assert_close(np.asarray(ours), np.where(y < 0, y * slope, y))


@pytest.mark.parametrize(
    ("side", "stride", "padding", "inputs"),
    [
        (3, 1, 1, "2w"),
        (3, 1, 0, "w"),
        (3, 2, 1, "5w"),
        (2, 2, 0, "w"),
        (3, 1, 1, 3),
        (1, 1, 0, "3w"),
    ],
)
@pytest.mark.parametrize("with_all", [False, True])
def test_fused_convolutions(driver, side, stride, padding, inputs, with_all):
    size = inputs if isinstance(inputs, int) else int(inputs[:-1] or 1) * build.vector_width()
    shape, outputs = (side, side, size, 7 * build.vector_width()), 7 * build.vector_width()
    x, kernel, y = problem(side + stride, (2, 15, 14, size), shape, stride, padding)
    rng = np.random.default_rng(0)
    of_x, of_y = (
        fused_convolution.Affine(*rng.standard_normal((2, count), np.float32))
        for count in (size, outputs)
    )
    around = fused_convolution.Around(of_y)
    mapped = x.astype(np.float64)
    if with_all:
        slope = rng.standard_normal(outputs, np.float32)
        before = of_x if side == 3 and stride == 1 and size > 3 else None
        around = fused_convolution.Around(of_y, before, slope, added=y)
        mapped = mapped if before is None else mapped * of_x.scale + of_x.shift
    expected, _, _ = float64_oracles.convolution(mapped, kernel, y, stride, padding)
    expected = expected * of_y.scale + of_y.shift
    if with_all:
        expected = np.where(expected < 0, expected * slope, expected) + y
    ours = fused_convolution.forward(x, kernel, stride, padding, around)
    most = FUSED_TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=most)


@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "vectors", "deviation"),
    [(2, 29, 2, 2, 1.0), (1, 1, 1, 1, 1.0), (1, 17, 2, 5, 1.0), (1, 33, 2, 1, 30.0)],
)
def test_attention(driver, batch, tokens, heads, vectors, deviation):
    """Hold logits up to thousands to it too, whose weights are 0 or 1."""
    rng, size = np.random.default_rng(0), vectors * build.vector_width()
    qkv = rng.normal(0, deviation, (batch, tokens, 3 * heads * size)).astype(np.float32)
    mixed_bar = rng.standard_normal((batch, tokens, heads, size)).astype(np.float32)
    mixed, by_qkv = float64_oracles.attention(qkv, mixed_bar, heads)
    for ours, expected in (
        (attention.forward(qkv, heads), mixed),
        (attention.gradient(qkv, mixed_bar, heads), by_qkv),
    ):
        most = ATTENTION_TOLERANCE * np.abs(expected).max() * deviation**2
        np.testing.assert_allclose(ours, expected, rtol=0, atol=most)


@pytest.mark.parametrize(("rows", "vectors"), [((2,), 1), ((37,), 9), ((2, 30, 31), 3)])
@pytest.mark.parametrize("sloped", [False, True])
def test_batch_norm(driver, rows, vectors, sloped):
    shape = (*rows, vectors * build.vector_width())
    batch_norm_problems.check(*batch_norm_problems.problem(0, shape, sloped))


def test_attention_of_what_is_not_finite(driver):
    qkv = np.ones((1, 9, 3 * build.vector_width()), np.float32)
    qkv[0, 5, 0] = np.nan
    mixed = attention.forward(qkv, 1)
    assert np.isnan(mixed[0, 5]).all()
    assert (mixed[0, :5] == 1).all()


@pytest.mark.parametrize("scale", [1.0, 64.0, 87.0])
@pytest.mark.parametrize("saturated", [False, True])
def test_the_head(driver, scale, saturated):
    """Hold exponents up to 2 s = 174 to it, and panels of any length."""
    for seed, batch, classes, vectors in ((0, 5, 230, 3), (1, 33, 100, 5), (2, 1, 1, 1)):
        prototypes, samples = head_problems.draw(
            seed, batch, classes, vectors * build.vector_width(), scale,
            bias=0.3, by_class=seed == 1, saturated=saturated, invalid=0.3 * (seed == 0),
        )  # fmt: skip
        constants = cross_entropy_head.Constants(scale, 0.3, head_problems.FACTOR)
        found = cross_entropy_head.sums(
            samples.directions, samples.position, *prototypes, constants
        )
        expected = head_problems.sums_in_float64(prototypes, samples, scale, 0.3)
        allowed = head_problems.tolerances(scale, 0.3, prototypes, samples)
        for value, other, most in zip(found, expected[:6], allowed[:6], strict=True):
            error = np.abs(value - other)
            assert np.all((np.linalg.norm(error, axis=1) if error.ndim == 2 else error) <= most)


def test_the_nearest(driver, monkeypatch):
    codes, asked = codes_of(unit((700, 130))), nearest.Queries.of(unit((13, 130), 1))
    found = nearest.candidates(codes, asked, 4, threads=1)
    monkeypatch.setattr(nearest, "_FOUND", 1)  # room for few rows at a time
    assert as_pairs(nearest.candidates(codes, asked, 4, threads=1)) == as_pairs(found)
    monkeypatch.setattr(build, "library", lambda: None)
    expected = nearest.candidates(codes, asked, 4)
    assert as_pairs(found) == as_pairs(expected)
    np.testing.assert_allclose(found.best, expected.best, atol=1e-6)


def test_the_exponential(driver):
    """Hold 2 ulp from 0 to 87, at the ends and where the power of two changes as well."""
    changes = (np.arange(126) + 0.5) * np.log(2)
    values = [0, 1e-45, 1e-38, 1e-7, 87, *np.linspace(0, 87, 4000), *changes]
    values = np.float32([*values, *np.nextafter(np.float32(changes), np.float32(0))])
    found = driver.exponentials(values)
    expected = np.exp(-values.astype(np.float64))
    assert found[0] == 1
    assert np.abs(found / expected - 1).max() < 2 * 2.0**-23


def test_numbers_below_the_least_normal_one(driver):
    size = build.vector_width()
    x, kernel, y_bar = problem(0, (1, 6, 6, size), (3, 3, size, size), 1, 1)
    arrays = x * np.float32(1e-30), kernel * np.float32(1e-10), y_bar
    y, _, _ = float64_oracles.convolution(*arrays, 1, 1)
    ours = convolution.forward(*arrays[:2], 1, 1)
    assert np.abs(ours - y).max() < 64 * 9 * size * 2.0**-149


def test_the_same_bits_on_any_number_of_threads(driver, monkeypatch):
    size = 2 * build.vector_width()
    x, kernel, y_bar = problem(3, (2, 16, 17, size), (3, 3, size, size), 1, 1)
    one = []
    for threads in (1, 4):
        monkeypatch.setattr(driver, "threads", threads)
        arrays = [
            convolution.forward(x, kernel, 1, 1),
            convolution.kernel_gradient(x, y_bar, kernel.shape, 1, 1),
            depthwise.kernel_gradient(x, y_bar, (3, 3, 1, size), 1, 1),
        ]
        one = one or arrays
        for array, other in zip(arrays, one, strict=True):
            np.testing.assert_array_equal(np.asarray(array), np.asarray(other))


def test_shapes_that_were_not_agreed_on_are_refused(driver):
    size = build.vector_width()
    x, kernel = np.ones((1, 4, 4, size), np.float32), np.ones((3, 3, size, size), np.float32)
    call = driver.ffi_call("uniface_convolution", [x, np.zeros(1, np.float32)])
    with pytest.raises(RuntimeError, match="not as agreed"):
        call(x, kernel, stride=np.int32(1), padding=np.int32(1))
    with pytest.raises(RuntimeError, match="not as agreed"):
        driver.ffi_call("uniface_attention", [x])(x.reshape(1, 4, 4, 1, size))


def test_every_kernel_was_called(driver):
    """Hold the tests before this one to all kernels there are."""
    assert driver.called == {*build.TARGETS.values()}
