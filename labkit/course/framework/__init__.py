"""Exercises, predictions, verdicts, progress: what every lab is made of."""
