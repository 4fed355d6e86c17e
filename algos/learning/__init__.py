"""The learning loop: where samples come from, and how often it updates."""
