"""Lines of points from files: tables, arrays, and nothing that could run."""
