"""Versions of ONNX's operators that files can be written in."""

OPSETS = range(11, 29)
DEFAULT_OPSET = 11  # with IR version 6: loads in onnxruntime 1.8, which the MFR server runs
INT8_OPSET = 13  # the first with a scale a channel
