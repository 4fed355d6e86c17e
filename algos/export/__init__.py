"""Trained policies as files that run without this program: ``--export onnx``."""
