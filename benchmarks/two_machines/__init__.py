"""Trains on several machines and compares the results; ``python -m benchmarks.two_machines``."""
