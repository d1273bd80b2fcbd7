"""Lab 03: exercises and their checks."""
