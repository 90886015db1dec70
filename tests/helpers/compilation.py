"""XLA's flags for tests, which compile hundreds of small programs and run each for milliseconds.

LLVM leaves the programs as they are. XLA's own passes stay, and with them sharding, fusion, memory
and the text of a program. Command lines, in processes of their own, compile as a user's do, but
where a test passes these flags on, since what it tests is not what LLVM made.
"""

FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
