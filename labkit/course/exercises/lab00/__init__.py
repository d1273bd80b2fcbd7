"""Lab 00: exercises and their checks."""
