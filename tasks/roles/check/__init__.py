"""``--check``: shows what the network gets, and what looks wrong about it."""
