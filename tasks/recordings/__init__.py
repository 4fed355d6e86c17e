"""Drives in the real game, read from files: the states of the car and the driver's inputs."""
