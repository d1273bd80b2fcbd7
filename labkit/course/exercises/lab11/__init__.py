"""Lab 11: exercises and their checks."""
