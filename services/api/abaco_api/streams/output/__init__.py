"""Live output: an execution's output as it appears."""
