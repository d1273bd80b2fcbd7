"""Lab 02: exercises and their checks."""
