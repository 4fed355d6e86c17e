"""The process itself: signals that stop it, files that it writes whole, disks that are full, steps that hang."""
