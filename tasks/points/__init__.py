"""Lines of points from files: tables and arrays; no file can run code."""
