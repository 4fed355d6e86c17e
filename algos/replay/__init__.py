"""The replay memory, its copy on disk, and the batches drawn from it."""
