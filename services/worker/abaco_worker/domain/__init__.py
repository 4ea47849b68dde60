"""Pure values and decisions of the worker: no I/O and no clock."""
