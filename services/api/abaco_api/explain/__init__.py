"""Questions about one execution: why it is where it is, what it was given, how two differ."""
