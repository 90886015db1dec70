"""Devices, processes, the compiler's settings, profiling and checks."""
