"""``--check``: shows the network's inputs, and reports what looks wrong."""
