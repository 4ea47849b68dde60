"""The supervised processes: their start, state and stop."""
