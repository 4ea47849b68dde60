"""The rules of access. Pure: no I/O, no clock, no chance."""
