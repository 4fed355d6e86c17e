"""The replay memory, its copy on disk, and what is drawn from it."""
