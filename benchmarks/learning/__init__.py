"""Learning studies: runs trainings from the command line and compares them in a table and a plot."""
