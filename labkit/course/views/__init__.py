"""What a notebook shows live: of a process, of control groups, of a network, of an experiment, of the machine."""
