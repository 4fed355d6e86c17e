"""The TrackMania tasks: interfaces over a game, their reward, their LIDAR."""
