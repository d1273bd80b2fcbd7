"""Lab 10: exercises and their checks."""
