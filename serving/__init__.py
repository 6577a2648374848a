"""Serving: the model repository, ONNX Runtime behind the Open Inference Protocol, and feeding it."""
