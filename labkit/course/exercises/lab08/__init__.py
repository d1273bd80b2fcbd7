"""Lab 08: exercises and their checks."""
