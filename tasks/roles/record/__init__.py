"""``--record``: one drive becomes a reference path."""
