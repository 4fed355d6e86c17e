"""Everything that learns: networks, replay memory, algorithms and their rl_games faces."""
