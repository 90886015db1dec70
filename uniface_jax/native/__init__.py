"""Kernels in C++ for the CPU, called from compiled programs by XLA's foreign function interface.

They are compiled on the machine that they run on, once, where it has a compiler (build.py);
everywhere else programs are XLA's alone, with the same results to rounding. Float32 only.
"""
