"""Networks in int8 and float16: written from float32 ONNX, and measured beside it."""
