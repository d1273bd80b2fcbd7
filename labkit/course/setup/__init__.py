"""Setting up a checkout. Only the standard library: this runs before anything is installed."""
