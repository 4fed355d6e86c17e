"""The files and output of a training run: folder, checkpoints, logs, console; and how it is stopped."""
