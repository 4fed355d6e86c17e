"""Reference laps, the fastest possible and the fastest driven: ``python -m benchmarks.reference_lap``."""
