"""``--benchmark``: the durations of the parts of a step."""
