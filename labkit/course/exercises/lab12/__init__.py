"""Lab 12: exercises and their checks."""
