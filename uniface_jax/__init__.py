"""UniFace (Unified Cross-Entropy loss for face recognition, ICCV 2023) in JAX and Flax."""

__version__ = "0.1.0"
