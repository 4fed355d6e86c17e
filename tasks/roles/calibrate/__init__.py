"""--calibrate: fits the simulator's car to a user's drives."""
