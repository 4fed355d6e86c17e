"""The classes that rl_games builds and calls: agents, players, and their registration."""
