"""Learning studies: trainings that are compared, from the command line to the table and the picture."""
