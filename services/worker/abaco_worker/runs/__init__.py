"""How an execution is run: in a sandbox or in its own container, its output and its limits."""
