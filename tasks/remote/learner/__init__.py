"""The learner's end: local and remote workers behind one vectorised environment."""
