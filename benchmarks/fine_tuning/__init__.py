"""What a policy of the simulator is worth in the game: ``python -m benchmarks.fine_tuning``."""
