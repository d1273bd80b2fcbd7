"""The exercises of each lab: `labNN/exercises.py` holds those of lab NN, one class each, in their order."""
