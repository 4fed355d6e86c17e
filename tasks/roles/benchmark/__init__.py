"""``--benchmark``: what the parts of a step cost."""
