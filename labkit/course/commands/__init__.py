"""The commands of `./lab`."""
