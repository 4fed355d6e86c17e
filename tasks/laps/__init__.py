"""Laps as they were driven: what they are, their file, and pictures of two against each other."""
