"""Games: the protocols that tasks know, and (not built yet) the live game on a gaming PC."""
