"""How far the simulator's car is from the game's: ``python -m benchmarks.fidelity``."""
