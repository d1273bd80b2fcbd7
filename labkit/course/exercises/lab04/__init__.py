"""Lab 04: exercises and their checks."""
