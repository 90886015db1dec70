"""Devices that need not be there, for which XLA's compilers make programs that cannot run here.

Both compilers, for GPUs and for TPUs, work without their devices, by jax.experimental.topologies.
What the one for GPUs asks for is what openxla/xla says of each, in
xla/backends/gpu/target_config/specs.
"""

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from uniface_jax.errors import UserError
from uniface_jax.plan.targets import CARDS, GPUS, Target


class Gpu(NamedTuple):
    """NVIDIA GPU as XLA's compiler asks for it, beyond what all of them share."""

    name: str
    cores: int
    fpus: int
    shared: int  # bytes a core
    cache: int  # bytes of L2
    clock: float  # GHz


_GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 108, 64, 167_936, 41_943_040, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 132, 128, 233_472, 52_428_800, 1.98),
    "h200": Gpu("NVIDIA H200 141GB HBM3e", 132, 128, 233_472, 52_428_800, 1.98),
    "b200": Gpu("NVIDIA B200", 148, 128, 233_472, 132_644_864, 1.965),
}
# Without a device nothing can be timed; and of Triton's products, which timing chooses among,
# the default one does not exist for every size.
GPU_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}

# Modules of the compilers, by the extra that installs one of them.
_COMPILERS = {"cuda": ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "tpu": ("libtpu",)}
_PACKAGES = ("jax", "libtpu", "nvidia")  # the names of theirs, and of what they need, begin so


def options(target: Target) -> Mapping[str, Any]:
    """Return the options with which programs are compiled for the target."""
    return GPU_OPTIONS if target.kind in GPUS else {}


def devices_of(target: Target) -> list[jax.Device]:
    """Return the target's devices, for which programs can be compiled and not run.

    A TPU's are its chips, also where one has two cores. Raises UserError where the compiler is not
    installed, or does not know such a topology.
    """
    try:
        return list(_topology(target).devices)
    except Exception as e:  # JaxRuntimeError, NotImplementedError, ValueError, by version
        extra, package = ("cuda", "CUDA") if target.is_gpu else ("tpu", "TPUs")
        said = (str(e).splitlines() or [type(e).__name__])[0][:200]
        way = f"pip install 'uniface_jax[{extra}]', or plan without --target"
        if installed(extra):
            way = "it is installed, so no pip helps; plan without --target"
        raise UserError(
            f"--target={target.name}: XLA's compiler for {package} cannot be used ({said}); {way}"
        ) from e


def installed(extra: str) -> bool:
    """Return whether the compiler that an extra of this package brings, cuda or tpu, is here."""
    for module in _COMPILERS[extra]:
        with contextlib.suppress(ModuleNotFoundError):  # of the package around it
            if importlib.util.find_spec(module):
                return True
    return False


def compiler(target: Target) -> tuple[str, ...]:
    """Return all that decides what the target's compiler makes of a program, beside the program.

    That is the devices, the versions of whatever may take part, the options, and the flags.
    """
    about = _description(target.kind) if target.kind in GPUS else target.kind
    versions = {
        f"{found.metadata['Name']} {found.version}"
        for found in metadata.distributions()
        if str(found.metadata["Name"]).startswith(_PACKAGES)
    }
    flags = [
        flag
        for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        for flag in os.environ.get(name, "").split()
        if not flag.startswith("--xla_force_host_platform_device_count")  # of this machine's CPU
    ]
    shape = f"{target.name} {target.devices}"
    return about, shape, ", ".join(sorted(versions)), str(dict(options(target))), *flags


def _topology(target: Target) -> Any:
    if target.kind in GPUS:
        shape = f"1 x 1 x {target.devices}"  # slices, hosts, and GPUs of a host
        return topologies.get_topology_desc(
            "any", "cuda", target_config=_description(target.kind), topology=shape
        )
    # Else libtpu asks a server of Google's cloud which TPU this is, and waits for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Else a second process is refused, as if both were to run on the same chips.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Else it warns that it cannot tell this machine's TPU; the target's is in its name.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    more: dict[str, Any] = {"chip_config_name": "megacore"} if target.kind == "v4" else {}
    if target.devices == 1:  # else a host has four
        more["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(target.name, "tpu", **more)


def _description(kind: str) -> str:
    """Return a GPU as XLA's compiler takes it: the text of a GpuTargetConfigProto."""
    gpu, card = _GPUS[kind], CARDS[kind]
    major, minor = card.generation
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
        "dnn_version_info { major: 9 minor: 10 } "
        "runtime_version { major: 13 minor: 0 patch: 0 } "  # without one no FP8 product is made
        f'device_description_str: "{gpu.name}"'
    )
