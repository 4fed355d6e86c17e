"""``--server``: a relay between a learner and workers that cannot reach each other."""
