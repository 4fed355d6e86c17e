"""The difference between the simulator's car and recorded ones, and the fit of the car's constants."""
