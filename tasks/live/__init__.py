"""The live game: TrackMania on this machine, through its window and its Openplanet plugin.

``window.finder`` finds the window, ``screen`` captures it, ``telemetry.openplanet`` reads the plugin, ``controls``
presses keys or a virtual gamepad, and ``live_game`` combines them.
"""
