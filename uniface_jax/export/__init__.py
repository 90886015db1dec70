"""Trained networks written in formats that run without JAX."""
