"""The learning loop: the source of its samples, and its updates per environment step."""
