"""Drives of the real game: what was driven and what was pressed, read from files."""
