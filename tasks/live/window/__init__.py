"""The game's window on X11 and Windows; ``finder`` finds it."""
