"""From images to features: networks, workdirs and ONNX files as models."""
