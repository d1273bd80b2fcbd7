"""The exercises of each lab: `labNN.py` holds those of lab NN, one class each, in the order they are posed."""
