"""The algorithms: one file for each paper. ``sac`` has the target and the losses; the others change parts of it."""
