"""Accelerators that need not be there: their figures, and devices that XLA's compilers take.

Both of XLA's compilers, for GPUs and for TPUs, run without their devices, by
jax.experimental.topologies. Figures are of the makers' data sheets, dense products in bfloat16;
what a GPU's compiler asks for is what openxla/xla says of it
(xla/backends/gpu/target_config/specs).
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from uniface_jax.errors import UserError


class Card(NamedTuple):
    """Accelerator by its data sheet.

    memory: bytes. tflops: of bfloat16 products with float32 sums. bandwidth: bytes/s of its memory.
    link: bytes/s that it sends to others.
    """

    memory: float
    tflops: float
    bandwidth: float
    link: float


class Gpu(NamedTuple):
    """What XLA's compiler asks of an NVIDIA GPU beyond what all of them share."""

    name: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    shared: int  # bytes a core
    cache: int  # bytes of L2
    clock: float  # GHz


CARDS = {
    "a100": Card(85_100_068_864, 312, 2039.04e9, 300e9),
    "h100": Card(84_942_979_072, 989, 3352.32e9, 450e9),
    "h200": Card(151_397_597_184, 989, 4800e9, 450e9),
    "b200": Card(191_514_411_008, 2250, 7672.32e9, 900e9),
    "v4": Card(32 * 2**30, 275, 1228e9, 300e9),
    "v5e": Card(16 * 2**30, 197, 819e9, 200e9),
    "v5p": Card(95 * 2**30, 459, 2765e9, 600e9),
    "v6e": Card(32 * 2**30, 918, 1640e9, 448e9),
}
_GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167_936, 41_943_040, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233_472, 52_428_800, 1.98),
    "h200": Gpu("NVIDIA H200 141GB HBM3e", (9, 0), 132, 128, 233_472, 52_428_800, 1.98),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 128, 233_472, 132_644_864, 1.965),
}
# Without a device nothing can be timed; and of Triton's products, which timing chooses among,
# the default one does not exist for every size.
_GPU_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
_ALLOWED = (
    f"allowed are {', '.join(_GPUS)} (with --devices), and TPUs with their topology, as v5e:4x4, "
    "v6e:2x4, v4:2x2x2 or v5p:2x2x4"
)


class Target(NamedTuple):
    """So many devices of a kind; topology: None, or the TPUs' as in 4x4."""

    kind: str
    topology: str | None
    devices: int

    @property
    def card(self) -> Card:
        """Return the device by its data sheet."""
        return CARDS[self.kind]

    @property
    def name(self) -> str:
        """Return the target as it is given."""
        return self.kind if self.topology is None else f"{self.kind}:{self.topology}"

    @property
    def options(self) -> Mapping[str, Any]:
        """Return the options with which programs are compiled for it."""
        return _GPU_OPTIONS if self.kind in _GPUS else {}


def parse(text: str, devices: int) -> Target:
    """Return the target that a command line names; `devices` are those of a GPU.

    Raises UserError.

    Example:
        >>> parse("v5e:4x4", 8).devices
        16
    """
    kind, _, topology = text.lower().partition(":")
    if kind in _GPUS and not topology:
        return Target(kind, None, devices)
    axes = 3 if kind in ("v4", "v5p") else 2
    if kind in CARDS.keys() - _GPUS.keys() and re.fullmatch(
        "x".join([r"[1-9]\d{0,2}"] * axes), topology
    ):
        return Target(kind, topology, math.prod(map(int, topology.split("x"))))
    raise UserError(f"--target={text}: {_ALLOWED}")


def devices_of(target: Target) -> list[jax.Device]:
    """Return the target's devices, for which programs can be compiled and not run.

    Raises UserError where the compiler is not installed, or does not know such a topology.
    """
    try:
        return list(_topology(target).devices)
    except Exception as e:  # JaxRuntimeError, NotImplementedError, ValueError, by version
        extra, package = ("cuda", "CUDA") if target.kind in _GPUS else ("tpu", "TPUs")
        said = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise UserError(
            f"--target={target.name}: XLA's compiler for {package} cannot be used ({said}); "
            f"pip install 'uniface_jax[{extra}]', or plan without --target"
        ) from e


def _topology(target: Target) -> Any:
    if target.kind in _GPUS:
        shape = f"1 x 1 x {target.devices}"  # slices, hosts, and GPUs of a host
        return topologies.get_topology_desc(
            "any", "cuda", target_config=_description(target.kind), topology=shape
        )
    # Else libtpu asks a server of Google's cloud which TPU this is, and waits for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    return topologies.get_topology_desc(target.name, "tpu")


def _description(kind: str) -> str:
    """Return a GPU as XLA's compiler takes it: the text of a GpuTargetConfigProto."""
    gpu, card = _GPUS[kind], CARDS[kind]
    major, minor = gpu.capability
    fields: dict[str, int | float | str] = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": gpu.shared,
        "threads_per_core_limit": 2048,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.fpus,
        "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(card.bandwidth),
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock,
        "device_memory_size": int(card.memory),
        "shared_memory_per_block_optin": gpu.shared - 1024,
        "cuda_compute_capability": f"{{ major: {major} minor: {minor} }}",
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    parts = (f"{k} {v}" if str(v).startswith("{") else f"{k}: {v}" for k, v in fields.items())
    return (
        f'gpu_device_info {{ {" ".join(parts)} }} platform_name: "CUDA" '
        f'dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{gpu.name}"'
    )
