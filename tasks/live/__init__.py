"""The live game: TrackMania on this machine, seen through its window and Openplanet plugin."""
