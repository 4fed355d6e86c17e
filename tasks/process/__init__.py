"""Tools for any process of the program: stop signals, files written whole, full disks, hanging environments."""
