"""Where notebooks come from: one source for each lab, and what is made of it, executed and compared."""
