"""Taking segments in and keeping them until they are stored."""
