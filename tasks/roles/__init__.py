"""The roles for people at the game: record a path, drive by hand, check the observation, measure the steps."""
