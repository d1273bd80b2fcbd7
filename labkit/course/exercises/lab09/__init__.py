"""Lab 09: exercises and their checks."""
