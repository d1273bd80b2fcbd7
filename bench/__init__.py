"""Side-by-side measurements: labkit beside the tools people use, in one interleaved run."""
