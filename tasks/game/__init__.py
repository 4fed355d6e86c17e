"""What a task knows of a game, whichever it is: protocols, errors, time."""
