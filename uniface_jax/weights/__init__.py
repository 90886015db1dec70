"""Weights of the PyTorch implementations of these networks, in and out."""
