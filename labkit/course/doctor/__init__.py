"""What this machine can do for the labs, and how to fix the rest."""
