"""Compiler flags, for every platform, in this one place, each with its reason.

XLA reads them once, when JAX starts its backends: command lines call `set_flags` before they
import JAX. A flag that the user has set in XLA_FLAGS or LIBTPU_INIT_ARGS stays as it is. XLA ends
the process on a flag that it does not know, so they are set only for the versions they were
checked with. Functions compiled by a program that imports this package get the CPU's flags from
`compiler_options` instead.
"""

import os
from collections.abc import Mapping
from importlib import metadata

# jaxlib's versions whose compiler knows all of XLA_FLAGS below: from the first, below the second.
KNOWN = ((0, 10), (0, 13))

# The YNNPACK kernels, on by default since jaxlib 0.9 or so, run on one thread where Eigen's run on
# all: on two cores plain products take twice, kernel gradients of convolutions four to six times
# as long with them (scripts/bench_conv.py). The flag's empty value turns them off.
CPU: Mapping[str, str] = {"xla_cpu_experimental_ynn_fusion_type": ""}

# Collectives run beside computation instead of between: the gathered features and the reduced
# gradients of the network are needed late, so there is something to hide them behind. A scheduler
# for a single device has nothing to move. On TPU the scheduler is on already.
GPU: Mapping[str, str] = {"xla_gpu_enable_latency_hiding_scheduler": "true"}

# Lets the all-gather of the features and the reductions of gradients run beside the convolutions.
TPU: Mapping[str, str] = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
}

# For programs that are asked for their memory and never run: LLVM, which only makes them fast,
# leaves them as they are. XLA's own passes stay, and with them the memory.
NEVER_RUN: Mapping[str, str | int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}

# For programs that run once: LLVM's third level unrolls what draws random numbers, in 10 s of
# processor time where the first takes 3, for the same bits. The level 0 rounds otherwise.
RUN_ONCE: Mapping[str, str | int | bool] = {"xla_backend_optimization_level": 1}


def _known() -> bool:
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    return KNOWN[0] <= version < KNOWN[1]


def _added(variable: str, flags: Mapping[str, str]) -> str:
    """Return an environment variable's value with those flags in it that it does not name."""
    given = os.environ.get(variable, "").split()
    names = {part.lstrip("-").partition("=")[0] for part in given}
    return " ".join([*given, *(f"--{k}={v}" for k, v in flags.items() if k not in names)])


def set_flags() -> None:
    """Put the flags of all platforms into the environment; before JAX starts its backends."""
    if _known():
        os.environ["XLA_FLAGS"] = _added("XLA_FLAGS", {**CPU, **GPU})
    os.environ["LIBTPU_INIT_ARGS"] = _added("LIBTPU_INIT_ARGS", TPU)


def compiler_options() -> dict[str, str] | None:
    """Return jax.jit's `compiler_options` on this process's backend, where no flags were set."""
    import jax

    if jax.default_backend() != "cpu" or not _known():
        return None
    set_already = os.environ.get("XLA_FLAGS", "")
    return {key: value for key, value in CPU.items() if key not in set_already} or None


def never_run_options() -> dict[str, str | int | bool] | None:
    """Return the `compiler_options` of a program on this process's backend that is never run."""
    import jax

    if jax.default_backend() != "cpu" or not _known():
        return None
    return {**(compiler_options() or {}), **NEVER_RUN}


def run_once_options() -> dict[str, str | int | bool] | None:
    """Return the `compiler_options` of a program on this process's backend that runs once.

    Its results are bitwise those of compiler_options. A level that the user has set stays.
    """
    import jax

    if jax.default_backend() != "cpu" or not _known():
        return None
    set_already = os.environ.get("XLA_FLAGS", "")
    return {key: v for key, v in {**CPU, **RUN_ONCE}.items() if key not in set_already} or None
