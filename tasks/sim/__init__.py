"""The embedded game: a car on a walled road, its cameras, and a scripted driver as reference."""
