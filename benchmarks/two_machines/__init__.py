"""The machines, their network and what came of a training on them; ``python -m benchmarks.two_machines``."""
