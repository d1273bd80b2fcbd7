"""Lab 07: exercises and their checks."""
