"""Lab 05: exercises and their checks."""
