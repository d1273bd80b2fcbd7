"""Checks and stand-ins that several labs need."""
