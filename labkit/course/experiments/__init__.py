"""Measurements and servers that the labs run."""
