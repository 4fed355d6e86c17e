"""The faces that rl_games sees: agents, players, and their registration."""
