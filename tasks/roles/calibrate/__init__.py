"""--calibrate: the simulator's car fitted to the drives of a user."""
