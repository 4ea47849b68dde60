"""Live output: one execution's output as it appears, for whoever reads it over HTTP."""
