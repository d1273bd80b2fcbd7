"""Lab 06: exercises and their checks."""
