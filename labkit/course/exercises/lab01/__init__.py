"""Lab 01: exercises and their checks."""
