"""Toolchains that make artefacts of an ONNX model."""
