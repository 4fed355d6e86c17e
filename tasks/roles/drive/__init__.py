"""``--drive``: a person drives the simulator."""
