"""A training run for people: its folder, checkpoints, logs, console, and how it is stopped."""
