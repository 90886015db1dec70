"""XLA's flags for tests, which compile hundreds of small programs and run each for milliseconds.

LLVM leaves the programs as they are, XLA emits fused loops by itself and not by way of MLIR, and a
program is one module of LLVM and not thirty-two: half to two thirds of a compilation less. XLA's
own passes stay, and with them sharding and all that is not fused; a program's memory is within
some percent. Command lines, in processes of their own, compile as a user's do, but where a test
passes these flags on, since what it tests is not what LLVM made. Golden numbers are held against
the code that users run as well, by tests/head/test_compiled_as_users.py.
"""

from importlib import metadata

# The last versions of jaxlib that can do without MLIR; a flag that XLA does not know ends it.
EMITTERS = (
    "--xla_cpu_use_fusion_emitters=false " if metadata.version("jaxlib").startswith("0.10.") else ""
)
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    f"{EMITTERS}--xla_cpu_parallel_codegen_split_count=1"
)
