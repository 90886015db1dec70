"""ONNX graphs from JAX functions."""
