"""The learner's end: workers near and far behind one vectorised environment."""
