"""How far the simulator's car is from recorded ones, and the constants that bring it nearer."""
