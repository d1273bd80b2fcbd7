"""Files and folders of our own: whole or not at all, locked by whoever uses them."""
