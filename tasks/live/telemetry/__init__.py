"""The game's telemetry: the client of its Openplanet plugin, and the records that it sends."""
