"""The worker's end: acting and delivering, beside the learner or far from it."""
