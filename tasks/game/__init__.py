"""What a task uses of a game, live or simulated: protocols, errors, clocks."""
